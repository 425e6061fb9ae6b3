//! Which output is the score and which the prediction, and what is computed of scores.

use crate::config::Monitor;
use crate::tensor::{Dim, Signature, TensorSpec};

/// Classes whose scores are features of their own, at most.
pub(super) const MOST_CLASSES: usize = 32;

/// What is computed of the scores of a row, by the ends of the features' names.
pub(super) const MEASURES: [&str; 4] = ["top", "margin", "entropy", "class"];

/// The output that says how likely classes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Score {
    /// The output's position.
    pub output: usize,
    /// Its columns: one where it is the probability of the second of two classes.
    pub n_columns: usize,
}

/// The output of scores: the one that the settings name, else the first of floating point whose
/// name or shape says so.
#[must_use]
pub fn find_score(signature: &Signature, settings: &Monitor) -> Option<Score> {
    let as_score = |output: usize| {
        let spec = signature.outputs.get(output)?;
        let n_columns = columns(spec)?;
        spec.datatype.is_float().then_some(Score { output, n_columns })
    };
    if let Some(name) = &settings.score {
        return as_score(signature.output(name)?);
    }
    let scores: Vec<Score> = (0..signature.outputs.len()).filter_map(as_score).collect();
    let named = scores.iter().find(|score| {
        let name = signature.outputs[score.output].name.to_lowercase();
        ["prob", "score", "softmax"].iter().any(|word| name.contains(word))
    });
    named.or_else(|| scores.iter().find(|score| score.n_columns > 1)).copied()
}

/// The output that is the prediction: the one that the settings name, else the first with one
/// column that is a class by its name or its datatype.
#[must_use]
pub fn find_prediction(signature: &Signature, settings: &Monitor) -> Option<usize> {
    if let Some(name) = &settings.prediction {
        return signature.output(name);
    }
    let single = |spec: &&TensorSpec| columns(spec) == Some(1);
    let named = signature.outputs.iter().filter(single).find(|spec| {
        let name = spec.name.to_lowercase();
        ["label", "class", "prediction", "predicted"].iter().any(|word| name.contains(word))
    });
    let whole = |spec: &&TensorSpec| single(spec) && !spec.datatype.is_float();
    let found = named.or_else(|| signature.outputs.iter().find(whole));
    match (found, signature.outputs.as_slice()) {
        (Some(found), _) => signature.output(&found.name),
        // A regression's only output is called whatever its library calls it.
        (None, [only]) if single(&only) && find_score(signature, settings).is_none() => Some(0),
        (None, _) => None,
    }
}

/// Columns of a row; nothing where they are free.
fn columns(spec: &TensorSpec) -> Option<usize> {
    spec.shape.iter().skip(1).copied().product::<Dim>()
}

/// The likeliest class's probability, its distance to the next, the entropy in nats and the class
/// itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Measures {
    pub(crate) top: f32,
    pub(crate) margin: f32,
    pub(crate) entropy: f32,
    pub(crate) class: f32,
}

impl Measures {
    pub(crate) const MISSING: Self =
        Self { top: f32::NAN, margin: f32::NAN, entropy: f32::NAN, class: f32::NAN };

    /// Of a row of scores. Scores that are no distribution (not within 0 to 1, or not adding up
    /// to 1 within a hundredth) go through softmax. A NaN makes everything NaN. O(classes).
    pub(crate) fn of(scores: &[f32]) -> Self {
        let mut sum = 0.0_f64;
        let (mut first, mut second, mut class) = (f32::NEG_INFINITY, f32::NEG_INFINITY, 0);
        let mut is_within = true;
        for (index, &score) in scores.iter().enumerate() {
            if score.is_nan() {
                return Self::MISSING;
            }
            sum += f64::from(score);
            is_within &= (0.0..=1.0).contains(&score);
            if score > first {
                (second, first, class) = (first, score, index);
            } else if score > second {
                second = score;
            }
        }
        if scores.is_empty() || !first.is_finite() {
            return Self::MISSING;
        }
        let is_distribution = is_within && (sum - 1.0).abs() <= 0.01;
        let (mut total, mut weighted) = (0.0_f64, 0.0_f64);
        for &score in scores {
            // With weights w that add up to W, the entropy is ln W - sum(w ln w) / W.
            let (weight, log) = if is_distribution {
                (f64::from(score), f64::from(score).ln())
            } else {
                let log = f64::from(score) - f64::from(first);
                (log.exp(), log)
            };
            total += weight;
            weighted += if weight > 0.0 { weight * log } else { 0.0 };
        }
        let share = |score: f32| match is_distribution {
            true => f64::from(score) / total,
            false => (f64::from(score) - f64::from(first)).exp() / total,
        };
        let (top, next) = (share(first), if second.is_finite() { share(second) } else { 0.0 });
        Self {
            top: top as f32,
            margin: (top - next) as f32,
            entropy: (total.ln() - weighted / total).max(0.0) as f32,
            class: class as f32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_of_distributions_and_of_logits_agree() {
        let even = Measures::of(&[0.25; 4]);
        assert_eq!((even.top, even.margin, even.class), (0.25, 0.0, 0.0));
        assert!((f64::from(even.entropy) - 4.0_f64.ln()).abs() < 1e-6);
        let shares = [0.1_f32, 0.7, 0.2];
        let logits = shares.map(|share| share.ln() + 3.0);
        let (of_shares, of_logits) = (Measures::of(&shares), Measures::of(&logits));
        assert_eq!(of_shares.class, 1.0);
        assert!((of_shares.top - 0.7).abs() < 1e-6 && (of_shares.margin - 0.5).abs() < 1e-6);
        assert!((of_shares.entropy - of_logits.entropy).abs() < 1e-5);
        assert!((of_shares.margin - of_logits.margin).abs() < 1e-5);
        for strange in [&[f32::NAN, 0.5][..], &[], &[f32::NEG_INFINITY; 2], &[f32::INFINITY, 0.0]] {
            assert!(Measures::of(strange).top.is_nan(), "{strange:?}");
        }
        assert_eq!(Measures::of(&[1.0]).entropy, 0.0);
    }
}
