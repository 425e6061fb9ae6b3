//! `ai.onnx.ml.SVMClassifier` and `SVMRegressor` (1): support vector machines, as LIBSVM trains
//! them, and the linear ones of LIBLINEAR, which have no support vectors.
//!
//! A classifier votes over all pairs of classes. With `prob_a` and `prob_b` its scores are
//! probabilities: Platt's sigmoid for each pair, then pairwise coupling (Wu, Lin and Weng,
//! "Probability Estimates for Multi-class Classification by Pairwise Coupling", JMLR 5, 2004,
//! Algorithm 2), in binary32 and with LIBSVM's limits, since it stops early.
//!
//! O(rows · support vectors · features), then O(rows · classes · support vectors).

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::internal::{DatumType, TDim, Tensor, TractResult, bail, ensure};

use super::linear::dot;
use super::post_transform::{PostTransform, logistic, probit};
use super::rows::{Labels, arg_max, expect_columns, floats, matrix, n_rows, tensor};
use super::{DOMAIN, Form, Kernel, NUMBERS, Rejected, expect_type, only};

/// The function of two vectors that takes the place of their product.
#[derive(Debug)]
struct KernelFunction {
    kind: Kind,
    gamma: f32,
    coef0: f32,
    degree: f32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Linear,
    Polynomial,
    Rbf,
    Sigmoid,
}

impl KernelFunction {
    fn parse(node: &NodeProto) -> TractResult<Self> {
        let kind = match node.get_attr_opt::<&str>("kernel_type")? {
            None | Some("LINEAR") => Kind::Linear,
            Some("POLY") => Kind::Polynomial,
            Some("RBF") => Kind::Rbf,
            Some("SIGMOID") => Kind::Sigmoid,
            Some(other) => bail!("kernel_type '{other}' is unknown"),
        };
        let parameters = node.get_attr_opt_slice::<f32>("kernel_params")?.unwrap_or_default();
        let parameter = |at: usize| parameters.get(at).copied().unwrap_or(0.0);
        Ok(Self { kind, gamma: parameter(0), coef0: parameter(1), degree: parameter(2) })
    }

    fn of(&self, a: &[f32], b: &[f32]) -> f32 {
        match self.kind {
            Kind::Linear => dot(a, b),
            Kind::Polynomial => (self.gamma * dot(a, b) + self.coef0).powf(self.degree),
            Kind::Sigmoid => (self.gamma * dot(a, b) + self.coef0).tanh(),
            Kind::Rbf => {
                let distance: f32 = a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum();
                (-self.gamma * distance).exp()
            }
        }
    }
}

/// Rows of `input` with as many features as the model has.
fn rows_of(input: &Tensor, n_features: usize) -> TractResult<(usize, std::borrow::Cow<'_, [f32]>)> {
    let (n_rows, n_columns) = matrix(input.shape())?;
    if n_columns != n_features {
        let reason = format!("has {n_columns} features, where the model has {n_features}");
        return Err(Rejected(reason).into());
    }
    Ok((n_rows, floats(input)?))
}

#[derive(Debug)]
pub(super) struct SvmRegressor {
    kernel: KernelFunction,
    /// One run of `n_features` a support vector; a single run of coefficients where linear.
    vectors: Vec<f32>,
    /// One a support vector.
    coefficients: Vec<f32>,
    rho: f32,
    n_features: usize,
    one_class: bool,
}

impl Kernel for SvmRegressor {
    fn domain() -> &'static str {
        DOMAIN
    }

    fn parse(_: &ParsingContext<'_>, node: &NodeProto) -> TractResult<Self> {
        let mut kernel = KernelFunction::parse(node)?;
        let coefficients: &[f32] = node.get_attr_slice("coefficients")?;
        let vectors: &[f32] = node.get_attr_opt_slice("support_vectors")?.unwrap_or_default();
        let n_supports: usize = node.get_attr_opt("n_supports")?.unwrap_or(0);
        let rho = node.get_attr_slice::<f32>("rho")?;
        ensure!(!rho.is_empty() && !coefficients.is_empty(), "rho or coefficients are empty");
        let (vectors, coefficients, n_features) = if n_supports == 0 {
            kernel.kind = Kind::Linear;
            (coefficients, &[1.0_f32][..], coefficients.len())
        } else {
            ensure!(
                coefficients.len() == n_supports && vectors.len().is_multiple_of(n_supports),
                "{} coefficients and {} numbers of {n_supports} support vectors",
                coefficients.len(),
                vectors.len()
            );
            (vectors, coefficients, vectors.len() / n_supports)
        };
        ensure!(n_features > 0, "support vectors have no features");
        let one_class = node.get_attr_opt::<i64>("one_class")?.unwrap_or(0) != 0;
        let (vectors, coefficients) = (vectors.to_vec(), coefficients.to_vec());
        Ok(Self { kernel, vectors, coefficients, rho: rho[0], n_features, one_class })
    }

    fn outputs(&self, inputs: &[Form]) -> TractResult<Vec<Form>> {
        let (datum_type, shape) = only(inputs)?;
        expect_type(*datum_type, &NUMBERS)?;
        expect_columns(shape, self.n_features)?;
        let shape = [n_rows(shape)?, TDim::from(1)];
        Ok(vec![(DatumType::F32, shape.into_iter().collect())])
    }

    fn run(&self, inputs: &[&Tensor]) -> TractResult<Vec<Tensor>> {
        let (n_rows, input) = rows_of(inputs[0], self.n_features)?;
        let value = |row: &[f32]| {
            let vectors = self.vectors.chunks_exact(self.n_features);
            let terms = vectors.zip(&self.coefficients).map(|(v, c)| self.kernel.of(row, v) * c);
            let value = terms.sum::<f32>() + self.rho;
            match (self.one_class, value > 0.0) {
                (false, _) => value,
                (true, true) => 1.0,
                (true, false) => -1.0,
            }
        };
        let output = input.chunks_exact(self.n_features).map(value).collect();
        Ok(vec![tensor(&[n_rows, 1], output)?])
    }
}

#[derive(Debug)]
pub(super) struct SvmClassifier {
    kernel: KernelFunction,
    labels: Labels,
    vectors: Vec<f32>,
    n_features: usize,
    /// Without support vectors `n_features` a class, with them a row of all vectors for each
    /// class but one.
    coefficients: Vec<f32>,
    rho: Vec<f32>,
    /// Where each class's support vectors start, and where the last ends; empty where linear.
    starts: Vec<usize>,
    /// Platt's parameters by pair of classes.
    sigmoids: Vec<(f32, f32)>,
    post_transform: PostTransform,
}

impl Kernel for SvmClassifier {
    fn domain() -> &'static str {
        DOMAIN
    }

    fn parse(_: &ParsingContext<'_>, node: &NodeProto) -> TractResult<Self> {
        let mut kernel = KernelFunction::parse(node)?;
        let labels = Labels::parse(
            node.get_attr_opt_slice("classlabels_ints")?,
            node.get_attr_opt_vec("classlabels_strings")?,
        )?;
        let n_classes = labels.len();
        let coefficients: Vec<f32> = node.get_attr_slice("coefficients")?.to_vec();
        let rho: Vec<f32> = node.get_attr_slice("rho")?.to_vec();
        let list = |name: &str| node.get_attr_opt_slice::<f32>(name).map(Option::unwrap_or_default);
        let (vectors, a, b) = (list("support_vectors")?.to_vec(), list("prob_a")?, list("prob_b")?);
        let per_class: Vec<usize> = node.get_attr_opt_vec("vectors_per_class")?.unwrap_or_default();
        let n_vectors = per_class.iter().try_fold(0_usize, |sum, &n| sum.checked_add(n));
        let n_vectors = n_vectors.unwrap_or(usize::MAX);
        let n_pairs = n_classes * (n_classes - 1) / 2;
        ensure!(a.len() == b.len(), "prob_a and prob_b differ in length");
        let mut starts = Vec::new();
        let n_features = if n_vectors == 0 {
            kernel.kind = Kind::Linear;
            ensure!(
                !rho.is_empty() && coefficients.len().is_multiple_of(n_classes),
                "{} coefficients for {n_classes} classes",
                coefficients.len()
            );
            coefficients.len() / n_classes
        } else {
            ensure!(
                n_classes >= 2 && per_class.len() == n_classes,
                "vectors_per_class must name each of {n_classes} classes, of two or more"
            );
            ensure!(
                vectors.len().is_multiple_of(n_vectors),
                "{} numbers of {n_vectors} support vectors",
                vectors.len()
            );
            ensure!(
                coefficients.len() >= (n_classes - 1) * n_vectors
                    && rho.len() >= n_pairs
                    && (a.is_empty() || a.len() >= n_pairs),
                "too few coefficients, rho, prob_a or prob_b for {n_classes} classes"
            );
            starts.push(0);
            starts.extend(per_class.iter().scan(0, |end, n| {
                *end += n;
                Some(*end)
            }));
            vectors.len() / n_vectors
        };
        ensure!(n_features > 0, "there are no features");
        let post_transform = PostTransform::parse(node.get_attr_opt("post_transform")?)?;
        let sigmoids = a.iter().copied().zip(b.iter().copied()).collect();
        Ok(Self {
            kernel,
            labels,
            vectors,
            n_features,
            coefficients,
            rho,
            starts,
            sigmoids,
            post_transform,
        })
    }

    fn outputs(&self, inputs: &[Form]) -> TractResult<Vec<Form>> {
        let (datum_type, shape) = only(inputs)?;
        expect_type(*datum_type, &NUMBERS)?;
        expect_columns(shape, self.n_features)?;
        let rows = n_rows(shape)?;
        Ok(vec![
            (self.labels.datum_type(), [rows.clone()].into_iter().collect()),
            (DatumType::F32, [rows, TDim::from(self.n_scores())].into_iter().collect()),
        ])
    }

    fn run(&self, inputs: &[&Tensor]) -> TractResult<Vec<Tensor>> {
        let (n_rows, input) = rows_of(inputs[0], self.n_features)?;
        let mut winners = Vec::with_capacity(n_rows);
        let mut scores = Vec::with_capacity(n_rows * self.n_scores());
        for row in input.chunks_exact(self.n_features) {
            let winner = if self.starts.is_empty() {
                self.score_linear(row, &mut scores)
            } else {
                self.score_pairs(row, &mut scores)
            };
            winners.push(winner);
        }
        let labels = self.labels.pick(&winners)?;
        Ok(vec![labels, tensor(&[n_rows, self.n_scores()], scores)?])
    }
}

impl SvmClassifier {
    fn n_pairs(&self) -> usize {
        self.labels.len() * (self.labels.len() - 1) / 2
    }

    /// Scores a row: one a class, or one a pair of classes where there are no probabilities.
    fn n_scores(&self) -> usize {
        let n_classes = self.labels.len();
        if self.starts.is_empty() || !self.sigmoids.is_empty() || n_classes == 2 {
            n_classes
        } else {
            self.n_pairs()
        }
    }

    /// Appends a score for each class; returns the winner.
    fn score_linear(&self, row: &[f32], scores: &mut Vec<f32>) -> usize {
        let from = scores.len();
        let classes = self.coefficients.chunks_exact(self.n_features);
        scores.extend(classes.map(|weights| dot(row, weights) + self.rho[0]));
        let scores = &mut scores[from..];
        let mut winner = arg_max(scores);
        if scores.len() == 2 {
            // ONNX Runtime's rule for two classes.
            let all_positive = self.coefficients.iter().all(|&weight| weight >= 0.0);
            let largest = scores[winner];
            if (all_positive && largest >= 0.5) || (!all_positive && largest > 0.0) {
                winner = 1;
            }
        }
        match scores {
            [score] if self.post_transform == PostTransform::Probit => *score = probit(*score),
            [_] => {}
            scores => self.post_transform.apply(scores),
        }
        winner
    }

    /// Appends the scores of the pairs, or probabilities of the classes; returns the winner.
    fn score_pairs(&self, row: &[f32], scores: &mut Vec<f32>) -> usize {
        let n_classes = self.labels.len();
        let vectors = self.vectors.chunks_exact(self.n_features);
        let kernels: Vec<f32> = vectors.map(|vector| self.kernel.of(row, vector)).collect();
        let n_vectors = kernels.len();
        let mut votes = vec![0_u32; n_classes];
        let mut pairs = Vec::with_capacity(self.n_pairs());
        for (i, j) in pairs_of(n_classes) {
            // A class has one coefficient a support vector for each other class.
            let of = |class: usize, against: usize| -> f64 {
                let own = self.starts[class]..self.starts[class + 1];
                let weights = &self.coefficients[against * n_vectors..][own.clone()];
                let terms = weights.iter().zip(&kernels[own]);
                terms.map(|(weight, kernel)| f64::from(weight * kernel)).sum()
            };
            let sum = of(i, j - 1) + of(j, i) + f64::from(self.rho[pairs.len()]);
            votes[if sum > 0.0 { i } else { j }] += 1;
            #[expect(clippy::cast_possible_truncation, reason = "scores are binary32")]
            pairs.push(sum as f32);
        }
        // The first of those with the most votes.
        let mut winner = 0;
        for class in 1..n_classes {
            if votes[class] > votes[winner] {
                winner = class;
            }
        }
        let from = scores.len();
        if !self.sigmoids.is_empty() {
            scores.extend(self.probabilities(&pairs));
            self.post_transform.apply(&mut scores[from..]);
        } else if let [score] = pairs[..] {
            // As ONNX Runtime writes two scores for one pair.
            scores.extend(match self.post_transform {
                PostTransform::None => [-score, score],
                PostTransform::Probit => [probit(score), 0.0],
                _ => [1.0 - score, score],
            });
        } else {
            scores.extend(pairs);
            self.post_transform.apply(&mut scores[from..]);
        }
        winner
    }

    /// The classes' probabilities from the pairs' scores.
    fn probabilities(&self, pairs: &[f32]) -> Vec<f32> {
        const MARGIN: f32 = 1e-7;
        let n_classes = self.labels.len();
        // `r[i][j]` is the probability of i where it is i or j.
        let mut r = vec![vec![0.0_f32; n_classes]; n_classes];
        for (((i, j), score), (a, b)) in pairs_of(n_classes).zip(pairs).zip(&self.sigmoids) {
            let probability = 1.0 - logistic(score * a + b);
            r[i][j] = probability.clamp(MARGIN, 1.0 - MARGIN);
            r[j][i] = 1.0 - r[i][j];
        }
        couple(&r)
    }
}

/// Pairs of classes in the order of the attributes.
fn pairs_of(n_classes: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..n_classes).flat_map(move |i| (i + 1..n_classes).map(move |j| (i, j)))
}

/// Pairwise coupling: the probabilities p that minimise the sum over pairs of
/// (r_ji p_i - r_ij p_j)². O(iterations · classes²), of at most 100.
#[expect(clippy::cast_precision_loss, reason = "the number of classes is small")]
fn couple(r: &[Vec<f32>]) -> Vec<f32> {
    const ITERATIONS: usize = 100;
    let n = r.len();
    let mut q = vec![vec![0.0_f32; n]; n];
    for i in 0..n {
        for j in (0..n).filter(|&j| j != i) {
            q[i][i] += r[j][i] * r[j][i];
            q[i][j] = -r[j][i] * r[i][j];
        }
    }
    let enough = 0.005 / n as f32;
    let mut p = vec![1.0 / n as f32; n];
    for _ in 0..ITERATIONS {
        let mut qp: Vec<f32> =
            q.iter().map(|row| row.iter().zip(&p).map(|(q, p)| q * p).sum()).collect();
        let mut pqp: f32 = p.iter().zip(&qp).map(|(p, qp)| p * qp).sum();
        if qp.iter().all(|qp| (qp - pqp).abs() < enough) {
            break;
        }
        for i in 0..n {
            let step = (pqp - qp[i]) / q[i][i];
            p[i] += step;
            let whole = 1.0 + step;
            pqp = (pqp + step * (step * q[i][i] + 2.0 * qp[i])) / whole / whole;
            for j in 0..n {
                qp[j] = (qp[j] + step * q[i][j]) / whole;
                p[j] /= whole;
            }
        }
    }
    p
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_classes_keep_the_probability_of_their_pair() {
        let p = couple(&[vec![0.0, 0.8], vec![0.2, 0.0]]);
        assert!((p[0] - 0.8).abs() < 5e-3 && (p[0] + p[1] - 1.0).abs() < 1e-6, "{p:?}");
    }

    #[test]
    fn coupling_finds_probabilities_that_explain_all_pairs() {
        let expected = [0.5_f32, 0.3, 0.2];
        let pair = |i: usize, j: usize| {
            if i == j { 0.0 } else { expected[i] / (expected[i] + expected[j]) }
        };
        let r: Vec<Vec<f32>> = (0..3).map(|i| (0..3).map(|j| pair(i, j)).collect()).collect();
        for (got, expected) in couple(&r).iter().zip(expected) {
            assert!((got - expected).abs() < 5e-3, "{got} {expected}");
        }
    }
}
