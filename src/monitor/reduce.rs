//! Wide tensors in a few figures a row: moments, extremes, shares and random projections.
//!
//! Projections are very sparse random ones (Li, Hastie and Church, "Very sparse random
//! projections", KDD 2006): each adds up a few elements at fixed random positions with signs of
//! +1 and -1. Positions are shares of the row's length, so that rows of any length have them.

use crate::tensor::Datatype;

/// Figures of a row.
pub(crate) const FIGURES: usize = NAMES.len();

/// Elements that the figures but the projections are made of, at most: evenly spaced ones.
const MOST_ELEMENTS: usize = 16_384;

/// Elements of one projection.
const ELEMENTS: usize = 64;

const PROJECTIONS: usize = 16;

const NAMES: [&str; 7 + PROJECTIONS] = [
    "mean",
    "deviation",
    "min",
    "max",
    "zeros",
    "norm",
    "nan",
    "projection_0",
    "projection_1",
    "projection_2",
    "projection_3",
    "projection_4",
    "projection_5",
    "projection_6",
    "projection_7",
    "projection_8",
    "projection_9",
    "projection_10",
    "projection_11",
    "projection_12",
    "projection_13",
    "projection_14",
    "projection_15",
];

/// What is computed of the elements of a row, by the ends of the features' names.
pub(crate) fn figures(datatype: Datatype) -> &'static [&'static str] {
    if datatype == Datatype::Bytes { &["length", "missing"] } else { &NAMES }
}

/// Evenly spaced positions of a row of `n` elements: every so-many-th.
pub(crate) fn stride(n: usize) -> usize {
    n.div_ceil(MOST_ELEMENTS).max(1)
}

/// The figures of a row: mean, deviation, least, largest, share of zeros, Euclidean norm and share
/// of what is not finite, of every `stride(n)`-th element; then the projections. All but that
/// share are of finite elements, and NaN where there is none. O(n / stride).
pub(crate) fn of_row(n: usize, element: impl Fn(usize) -> f32) -> [f32; FIGURES] {
    let mut figures = [f32::NAN; FIGURES];
    let (mut count, mut strange, mut zeros) = (0_u32, 0_u32, 0_u32);
    let (mut mean, mut spread, mut squares) = (0.0_f64, 0.0_f64, 0.0_f64);
    let (mut least, mut largest) = (f32::INFINITY, f32::NEG_INFINITY);
    for position in (0..n).step_by(stride(n)) {
        let value = element(position);
        if !value.is_finite() {
            strange += 1;
            continue;
        }
        count += 1;
        zeros += u32::from(value == 0.0);
        least = least.min(value);
        largest = largest.max(value);
        // Welford 1962: no cancellation whatever the mean is.
        let wide = f64::from(value);
        let distance = wide - mean;
        mean += distance / f64::from(count);
        spread += distance * (wide - mean);
        squares += wide * wide;
    }
    if count + strange > 0 {
        figures[6] = strange as f32 / (count + strange) as f32;
    }
    if count > 0 {
        let n_finite = f64::from(count);
        figures[0] = mean as f32;
        figures[1] = (spread / n_finite).max(0.0).sqrt() as f32;
        figures[2] = least;
        figures[3] = largest;
        figures[4] = zeros as f32 / count as f32;
        figures[5] = squares.sqrt() as f32;
        for (projection, figure) in figures[7..].iter_mut().enumerate() {
            *figure = project(projection as u64, n, &element);
        }
    }
    figures
}

fn project(projection: u64, n: usize, element: &impl Fn(usize) -> f32) -> f32 {
    let mut sum = 0.0_f64;
    for step in 0..ELEMENTS as u64 {
        let random = crate::stats::hash::scramble(projection << 32 | step);
        // The upper bits choose the position, the lowest the sign.
        let position = ((u128::from(random) * n as u128) >> 64) as usize;
        let value = element(position);
        let sign = if random & 1 == 0 { 1.0 } else { -1.0 };
        sum += if value.is_finite() { sign * f64::from(value) } else { 0.0 };
    }
    (sum / (ELEMENTS as f64).sqrt()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_a_row() {
        let row = [3.0, 0.0, -4.0, f32::NAN, 0.0];
        let figures = of_row(row.len(), |position| row[position]);
        let deviation = (25.0_f64 / 4.0 - 1.0 / 16.0).sqrt() as f32;
        assert_eq!(figures[..7], [-0.25, deviation, -4.0, 3.0, 0.5, 5.0, 0.2]);
        assert!(figures[7..].iter().all(|figure| figure.is_finite()));
        assert!(figures[7..].windows(2).any(|pair| pair[0] != pair[1]));
        let none = of_row(0, |_| 0.0);
        assert!(none.iter().all(|figure| figure.is_nan()));
        let strange = of_row(2, |_| f32::INFINITY);
        assert_eq!(strange[6], 1.0);
        assert!(strange[0].is_nan());
    }
}
