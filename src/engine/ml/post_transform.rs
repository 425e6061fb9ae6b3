//! `post_transform`: what classifiers and regressors of the domain do to their scores.
//!
//! `LOGISTIC` is 1 / (1 + e^-x); `SOFTMAX` e^x over their sum; `SOFTMAX_ZERO` the same, but that
//! zeros stay zero; `PROBIT` √2 · erf⁻¹(2x - 1), with Winitzki's approximation of erf⁻¹ ("A handy
//! approximation for the error function and its inverse", 2008; relative error below 2e-3) at the
//! constants that ONNX Runtime uses, so that answers agree.

use tract_onnx::tract_core::internal::{TractResult, bail};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PostTransform {
    None,
    Logistic,
    Softmax,
    SoftmaxZero,
    Probit,
}

/// Below this a score counts as zero for `SOFTMAX_ZERO`.
const ZERO: f32 = 1e-7;

impl PostTransform {
    /// Of the attribute's text; `NONE` where there is none.
    pub(super) fn parse(name: Option<&str>) -> TractResult<Self> {
        Ok(match name {
            None | Some("NONE" | "") => Self::None,
            Some("LOGISTIC") => Self::Logistic,
            Some("SOFTMAX") => Self::Softmax,
            Some("SOFTMAX_ZERO") => Self::SoftmaxZero,
            Some("PROBIT") => Self::Probit,
            Some(other) => bail!("post_transform '{other}' is unknown"),
        })
    }

    /// Of `TreeEnsemble`'s number.
    pub(super) fn from_number(number: i64) -> TractResult<Self> {
        Ok(match number {
            0 => Self::None,
            1 => Self::Softmax,
            2 => Self::Logistic,
            3 => Self::SoftmaxZero,
            4 => Self::Probit,
            other => bail!("post_transform {other} is unknown"),
        })
    }

    /// Transforms the scores of one row, which are two or more.
    pub(super) fn apply(self, scores: &mut [f32]) {
        match self {
            Self::None => {}
            Self::Logistic => scores.iter_mut().for_each(|score| *score = logistic(*score)),
            Self::Probit => scores.iter_mut().for_each(|score| *score = probit(*score)),
            Self::Softmax => softmax(scores),
            Self::SoftmaxZero => softmax_zero(scores),
        }
    }
}

pub(super) fn logistic(x: f32) -> f32 {
    let positive = 1.0 / (1.0 + (-x.abs()).exp());
    if x < 0.0 { 1.0 - positive } else { positive }
}

pub(super) fn probit(x: f32) -> f32 {
    std::f32::consts::SQRT_2 * inverse_erf(2.0 * x - 1.0)
}

fn inverse_erf(x: f32) -> f32 {
    const A: f32 = 0.147;
    let log = ((1.0 - x) * (1.0 + x)).ln();
    #[expect(clippy::approx_constant, reason = "ONNX Runtime's constant: answers shall agree")]
    let half = 2.0 / (3.14159 * A) + 0.5 * log;
    let root = (half * half - log / A).sqrt();
    (root - half).sqrt().copysign(x)
}

fn softmax(scores: &mut [f32]) {
    let largest = scores.iter().copied().fold(f32::MIN, f32::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - largest).exp();
        sum += *score;
    }
    scores.iter_mut().for_each(|score| *score /= sum);
}

fn softmax_zero(scores: &mut [f32]) {
    let largest = scores.iter().copied().fold(f32::MIN, f32::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        if score.abs() > ZERO {
            *score = (*score - largest).exp();
            sum += *score;
        } else {
            *score *= (-largest).exp();
        }
    }
    scores.iter_mut().for_each(|score| *score /= sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_sums_to_one_and_keeps_large_scores_finite() {
        let mut scores = [1000.0, 1001.0, 999.0];
        PostTransform::Softmax.apply(&mut scores);
        assert!((scores.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{scores:?}");
        assert!(scores[1] > scores[0] && scores[0] > scores[2]);
    }

    #[test]
    fn softmax_zero_leaves_zero_alone() {
        let mut scores = [0.0, 1.0, 1.0];
        PostTransform::SoftmaxZero.apply(&mut scores);
        assert_eq!(scores, [0.0, 0.5, 0.5]);
    }

    #[test]
    fn logistic_is_symmetric() {
        for x in [-30.0_f32, -1.0, 0.0, 0.5, 20.0] {
            assert!((logistic(x) + logistic(-x) - 1.0).abs() < 1e-6);
        }
    }

    /// SciPy 1.17's norm.ppf; the approximation of the inverse error function is the difference.
    #[test]
    fn probit_is_near_the_normal_quantile() {
        for (x, expected) in [(0.5, 0.0), (0.9, 1.281_551_6), (0.025, -1.959_964)] {
            assert!((probit(x) - expected).abs() < 5e-3, "{x}: {}", probit(x));
        }
    }
}
