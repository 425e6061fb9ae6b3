//! Kolmogorov–Smirnov's laws: of the limit, of finite samples, of two samples exactly.

use std::f64::consts::PI;

use super::special::ln_gamma;

/// From this n d² on, both sides' distances are never large at once: their product is below 1e-10
/// of the result.
const ONE_SIDED_FROM: f64 = 4.0;

/// Samples above this take the limit law with its corrections in 1/√n.
const MOST_EXACT: u64 = 1000;

/// The probability that Kolmogorov's limit law is at least x: 2 Σ (-1)^(k-1) exp(-2 k² x²), and
/// for small x its theta transform, which converges there.
#[must_use]
pub fn limit_survival(x: f64) -> f64 {
    if x.is_nan() {
        return f64::NAN;
    }
    if x <= 0.0 {
        return 1.0;
    }
    if x < 0.82 {
        let t = -PI * PI / (8.0 * x * x);
        let sum: f64 = (0..6).map(|k| (f64::from((2 * k + 1) * (2 * k + 1)) * t).exp()).sum();
        return (1.0 - (2.0 * PI).sqrt() / x * sum).clamp(0.0, 1.0);
    }
    let term = |k: i32| {
        let term = (-2.0 * f64::from(k * k) * x * x).exp();
        if k % 2 == 1 { term } else { -term }
    };
    (2.0 * (1..=6).map(term).sum::<f64>()).clamp(0.0, 1.0)
}

/// The probability that the distance of n values from their law is at least d.
///
/// Large distances by the one-sided law (Birnbaum and Tingey 1951), others by Marsaglia, Tsang and
/// Wang's matrix (2003) up to 1000 values, in O((√n)³ log n); beyond that by the limit law at
/// Vrbik's argument (2018), whose error is below 3e-5 there.
#[must_use]
pub fn finite_survival(d: f64, n: u64) -> f64 {
    if d.is_nan() {
        return f64::NAN;
    }
    if d <= 0.0 || n == 0 {
        return 1.0;
    }
    if d >= 1.0 {
        return 0.0;
    }
    let rows = n as f64;
    if rows * d * d >= ONE_SIDED_FROM {
        (2.0 * one_sided_survival(d, rows)).min(1.0)
    } else if n <= MOST_EXACT {
        (1.0 - matrix_cdf(d, n)).clamp(0.0, 1.0)
    } else {
        let root = rows.sqrt();
        let x = root * d;
        limit_survival(x + 1.0 / (6.0 * root) + (x - 1.0) / (4.0 * rows))
    }
}

/// d Σ C(n, j) (1 - d - j/n)^(n-j) (d + j/n)^(j-1).
fn one_sided_survival(d: f64, n: f64) -> f64 {
    let ln_factorial = ln_gamma(n + 1.0);
    let last = (n * (1.0 - d)).floor();
    let (mut sum, mut j) = (0.0, 0.0);
    while j <= last {
        let left = 1.0 - d - j / n;
        if left > 0.0 {
            let binomial = ln_factorial - ln_gamma(j + 1.0) - ln_gamma(n - j + 1.0);
            sum += (binomial + (n - j) * left.ln() + (j - 1.0) * (d + j / n).ln()).exp();
        }
        j += 1.0;
    }
    d * sum
}

/// The probability that the distance is below d: an element of the n-th power of a matrix, with
/// its exponent kept apart.
fn matrix_cdf(d: f64, n: u64) -> f64 {
    let nd = n as f64 * d;
    let k = nd.floor() as usize + 1;
    let m = 2 * k - 1;
    let h = k as f64 - nd;
    let mut base = vec![0.0; m * m];
    for i in 0..m {
        for j in 0..m {
            base[i * m + j] = if i + 1 >= j { 1.0 } else { 0.0 };
        }
    }
    for i in 0..m {
        let power = |exponent: usize| h.powi(i32::try_from(exponent).unwrap_or(i32::MAX));
        base[i * m] -= power(i + 1);
        base[(m - 1) * m + i] -= power(m - i);
    }
    base[(m - 1) * m] += if 2.0 * h - 1.0 > 0.0 {
        (2.0 * h - 1.0).powi(i32::try_from(m).unwrap_or(i32::MAX))
    } else {
        0.0
    };
    for i in 0..m {
        for j in 0..m {
            for g in 1..=(i + 1).saturating_sub(j) {
                base[i * m + j] /= g as f64;
            }
        }
    }
    let (power, mut exponent) = matrix_power(&base, m, n);
    let mut value = power[(k - 1) * m + k - 1];
    for i in 1..=n {
        value *= i as f64 / n as f64;
        if value < 1e-140 {
            value *= 1e140;
            exponent -= 140;
        }
    }
    value * 10_f64.powi(exponent)
}

/// The n-th power, times ten to an exponent.
fn matrix_power(base: &[f64], m: usize, n: u64) -> (Vec<f64>, i32) {
    if n == 1 {
        return (base.to_vec(), 0);
    }
    let (half, exponent) = matrix_power(base, m, n / 2);
    let mut power = matrix_product(&half, &half, m);
    let mut exponent = 2 * exponent;
    if n % 2 == 1 {
        power = matrix_product(base, &power, m);
    }
    if power[(m / 2) * m + m / 2] > 1e140 {
        power.iter_mut().for_each(|element| *element *= 1e-140);
        exponent += 140;
    }
    (power, exponent)
}

fn matrix_product(a: &[f64], b: &[f64], m: usize) -> Vec<f64> {
    let mut product = vec![0.0; m * m];
    for (row, out) in a.chunks_exact(m).zip(product.chunks_exact_mut(m)) {
        for (&factor, other) in row.iter().zip(b.chunks_exact(m)) {
            out.iter_mut().zip(other).for_each(|(sum, element)| *sum += factor * element);
        }
    }
    product
}

/// The probability that the distance of two samples of n and m values is at least d, exactly: the
/// share of lattice paths from (0, 0) to (n, m) that leave the band |i/n - j/m| < d (Hodges 1958).
/// O(n m) steps.
#[must_use]
pub fn two_sample_survival(d: f64, n: u64, m: u64) -> f64 {
    if d.is_nan() {
        return f64::NAN;
    }
    if n == 0 || m == 0 || d <= 0.0 {
        return 1.0;
    }
    let divisor = greatest_common_divisor(n, m);
    // Distances are multiples of one over the least common multiple.
    let (step_n, step_m) = (m / divisor, n / divisor);
    let bound = (d * (n as f64 * step_n as f64)).round();
    let bound = if bound.is_finite() && bound < 9e15 { bound as i64 } else { return 0.0 };
    // The probability to have left, at (i, j), for one i after the other.
    let mut left = vec![0.0_f64; m as usize + 1];
    for i in 0..=n {
        for j in 0..=m {
            let outside = (i * step_n).abs_diff(j * step_m) >= bound.unsigned_abs();
            let at = j as usize;
            left[at] = if outside {
                1.0
            } else if i == 0 && j == 0 {
                0.0
            } else {
                let (from_i, from_j) = (i as f64 / (i + j) as f64, j as f64 / (i + j) as f64);
                let before = if j > 0 { left[at - 1] * from_j } else { 0.0 };
                before + if i > 0 { left[at] * from_i } else { 0.0 }
            };
        }
    }
    left[m as usize].clamp(0.0, 1.0)
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(value: f64, expected: f64, relative: f64) {
        assert!((value - expected).abs() <= relative * expected.abs(), "{value} is not {expected}");
    }

    #[test]
    fn laws_are_those_of_scipy() {
        for &(x, expected) in &KOLMOGOROV {
            near(limit_survival(x), expected, 1e-12);
        }
        for &(d, n, expected) in &KSTWO {
            // Where distances are small scipy takes Pelz and Good's series, whose error is 1e-8.
            let relative = if expected < 1e-3 { 1e-9 } else { 1e-6 };
            near(finite_survival(d, n), expected, relative);
        }
        for &(d, n, expected) in &KSTWO_LONG {
            assert!((finite_survival(d, n) - expected).abs() < 3e-5, "{d} {n}");
        }
    }

    /// `scipy.special.kolmogorov(x)`, scipy 1.17.1.
    const KOLMOGOROV: [(f64, f64); 5] = [
        (0.3, 0.999_990_694_198_665_5),
        (0.6, 0.864_282_779_050_604_2),
        (0.81, 0.527_961_432_312_314_8),
        (1.2, 0.112_249_666_670_724_97),
        (3.0, 3.045_995_948_942_526e-8),
    ];
    /// `scipy.stats.kstwo.sf(d, n)`, scipy 1.17.1.
    const KSTWO: [(f64, u64, f64); 6] = [
        (0.124, 667, 2.134_006_294_499_270_2e-9),
        (0.3, 10, 0.270_535_574_799_999_46),
        (0.05, 667, 0.068_838_721_665_267_5),
        (0.04, 1000, 0.079_339_560_590_002_24),
        (0.5, 50, 4.392_853_499_119_748e-12),
        (0.02, 200_000, 6.339_001_082_043_132e-70),
    ];
    const KSTWO_LONG: [(f64, u64, f64); 3] = [
        (0.02, 2000, 0.395_313_362_689_204_5),
        (0.01, 10_000, 0.268_219_127_702_919_2),
        (0.004, 100_000, 0.081_301_489_202_224_69),
    ];

    #[test]
    fn what_has_no_law_is_defined() {
        for survival in
            [limit_survival, |d| finite_survival(d, 10), |d| two_sample_survival(d, 3, 5)]
        {
            assert!(survival(f64::NAN).is_nan());
            assert_eq!(survival(-1.0), 1.0);
            assert_eq!(survival(f64::INFINITY), 0.0);
        }
        assert_eq!(finite_survival(0.5, 0), 1.0);
        assert_eq!(two_sample_survival(0.5, 0, 5), 1.0);
    }
}
