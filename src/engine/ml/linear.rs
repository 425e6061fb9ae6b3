//! `ai.onnx.ml.LinearClassifier` and `LinearRegressor` (1): a product and a sum for each class or
//! target.
//!
//! O(rows · features · classes). Sums run in a fixed order of eight lanes, so a row's answer does
//! not depend on the rows beside it.

use std::sync::Arc;

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::internal::{DatumType, TDim, Tensor, TractResult, bail, ensure};

use super::post_transform::{PostTransform, logistic, probit};
use super::rows::{Labels, arg_max, expect_columns, floats, matrix, n_rows, tensor};
use super::{
    ByRow, DOMAIN, Form, Inputs, Kernel, NUMBERS, Operand, Outputs, Rejected, expect_type, only,
};

/// Weights of several linear functions over the same features.
#[derive(Debug)]
pub(super) struct Weights {
    /// One run of `n_features` a function.
    coefficients: Vec<f32>,
    intercepts: Vec<f32>,
    n_features: usize,
}

impl Weights {
    fn new(coefficients: &[f32], intercepts: Vec<f32>) -> TractResult<Self> {
        let (n, n_functions) = (coefficients.len(), intercepts.len());
        ensure!(
            n_functions > 0 && n > 0 && n % n_functions == 0,
            "{n} coefficients do not make {n_functions} functions"
        );
        let n_features = n / n_functions;
        Ok(Self { coefficients: coefficients.to_vec(), intercepts, n_features })
    }

    fn n_functions(&self) -> usize {
        self.intercepts.len()
    }

    /// The functions' values for each row of `input`, row after row.
    fn apply(&self, input: &Tensor) -> TractResult<(usize, Vec<f32>)> {
        let (n_rows, n_columns) = matrix(input.shape())?;
        let n_features = self.n_features;
        if n_columns != n_features {
            let reason = format!("has {n_columns} features, where the model has {n_features}");
            return Err(Rejected(reason).into());
        }
        let mut scores = vec![0.0; n_rows * self.n_functions()];
        self.score(&floats(input)?, &mut scores);
        Ok((n_rows, scores))
    }

    fn score(&self, rows: &[f32], scores: &mut [f32]) {
        let rows = rows.chunks_exact(self.n_features);
        for (row, scores) in rows.zip(scores.chunks_exact_mut(self.n_functions())) {
            let functions = self.coefficients.chunks_exact(self.n_features).zip(&self.intercepts);
            for (score, (weights, intercept)) in scores.iter_mut().zip(functions) {
                *score = dot(row, weights) + intercept;
            }
        }
    }

    /// Whether these are rows of binary32 that the functions take as they are.
    fn take(&self, forms: &[Form], inputs: &[Operand<'_>]) -> bool {
        let is_single = forms.iter().all(|(datum_type, _)| *datum_type == DatumType::F32);
        is_single && matches!(inputs, [Operand::Rows(place)] if place.columns == self.n_features)
    }
}

/// The scalar product, summed in eight lanes.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 8];
    let (a_chunks, b_chunks) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest = a_chunks.remainder().iter().zip(b_chunks.remainder());
    let rest: f32 = rest.map(|(x, y)| x * y).sum();
    for (x, y) in a_chunks.zip(b_chunks) {
        for lane in 0..8 {
            lanes[lane] += x[lane] * y[lane];
        }
    }
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (c + g)) + ((b + f) + (d + h)) + rest
}

#[derive(Debug)]
pub(super) struct LinearClassifier {
    weights: Weights,
    labels: Labels,
    post_transform: PostTransform,
    /// One function scores two classes.
    adds_second_class: bool,
}

impl Kernel for LinearClassifier {
    fn domain() -> &'static str {
        DOMAIN
    }

    fn parse(_: &ParsingContext<'_>, node: &NodeProto) -> TractResult<Self> {
        let coefficients: &[f32] = node.get_attr_slice("coefficients")?;
        let labels = Labels::parse(
            node.get_attr_opt_slice("classlabels_ints")?,
            node.get_attr_opt_vec("classlabels_strings")?,
        )?;
        let intercepts = match node.get_attr_opt_slice::<f32>("intercepts")? {
            Some(intercepts) if !intercepts.is_empty() => intercepts.to_vec(),
            _ => vec![0.0; labels.len()],
        };
        let weights = Weights::new(coefficients, intercepts)?;
        let n_functions = weights.n_functions();
        let adds_second_class = n_functions == 1 && labels.len() == 2;
        let labels = if n_functions == 1 { labels.or_zero_and_one() } else { labels };
        ensure!(
            n_functions == 1 || labels.len() >= n_functions,
            "{} labels for {n_functions} classes",
            labels.len()
        );
        let post_transform = PostTransform::parse(node.get_attr_opt("post_transform")?)?;
        Ok(Self { weights, labels, post_transform, adds_second_class })
    }

    fn outputs(&self, inputs: &[Form]) -> TractResult<Vec<Form>> {
        let (datum_type, shape) = only(inputs)?;
        expect_type(*datum_type, &NUMBERS)?;
        expect_columns(shape, self.weights.n_features)?;
        let rows = n_rows(shape)?;
        Ok(vec![
            (self.labels.datum_type(), [rows.clone()].into_iter().collect()),
            (DatumType::F32, [rows, TDim::from(self.n_scores())].into_iter().collect()),
        ])
    }

    fn run(&self, inputs: &[&Tensor]) -> TractResult<Vec<Tensor>> {
        let (n_rows, mut scores) = self.weights.apply(inputs[0])?;
        let mut winners = Vec::with_capacity(n_rows);
        if self.adds_second_class {
            let mut pairs = vec![0.0; 2 * n_rows];
            pairs.chunks_exact_mut(2).zip(scores).for_each(|(pair, score)| pair[1] = score);
            scores = pairs;
        }
        self.finish(&mut scores, |winner| winners.push(winner));
        let shape = [n_rows, self.n_scores()];
        Ok(vec![self.labels.pick(&winners)?, tensor(&shape, scores)?])
    }

    fn by_row(self: Arc<Self>, forms: &[Form], inputs: &[Operand<'_>]) -> Option<Arc<dyn ByRow>> {
        let has_ints = matches!(self.labels, Labels::Ints(_));
        (has_ints && self.weights.take(forms, inputs)).then_some(self)
    }
}

impl ByRow for LinearClassifier {
    fn run_rows(&self, inputs: &Inputs<'_>, outputs: Outputs<'_>) -> TractResult<()> {
        let Labels::Ints(labels) = &self.labels else { bail!("labels are whole numbers") };
        if self.adds_second_class {
            let rows = inputs.values(0).chunks_exact(self.weights.n_features);
            for (row, pair) in rows.zip(outputs.floats.chunks_exact_mut(2)) {
                self.weights.score(row, &mut pair[1..]);
            }
        } else {
            self.weights.score(inputs.values(0), outputs.floats);
        }
        let mut given = outputs.longs.iter_mut();
        self.finish(outputs.floats, |winner| {
            if let Some(label) = given.next() {
                *label = labels[winner];
            }
        });
        Ok(())
    }
}

impl LinearClassifier {
    /// Columns of the scores.
    fn n_scores(&self) -> usize {
        if self.adds_second_class { 2 } else { self.weights.n_functions() }
    }

    /// Makes the functions' values the classes' scores, and tells each row's winner. A function
    /// that scores two classes has its value in the second column.
    #[inline]
    fn finish(&self, scores: &mut [f32], mut tell: impl FnMut(usize)) {
        let n_functions = self.weights.n_functions();
        if n_functions > 1 {
            for row in scores.chunks_exact_mut(n_functions) {
                tell(arg_max(row));
                self.post_transform.apply(row);
            }
            return;
        }
        let is_probit = self.post_transform == PostTransform::Probit;
        for row in scores.chunks_exact_mut(self.n_scores()) {
            let Some(last) = row.last_mut() else { continue };
            tell(usize::from(*last > 0.0));
            if is_probit {
                *last = probit(*last);
            }
            if let [first, second] = row {
                // As ONNX Runtime does it: the score and what is left of 1, after `LOGISTIC` only.
                if self.post_transform == PostTransform::Logistic {
                    *second = logistic(*second);
                }
                *first = 1.0 - *second;
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct LinearRegressor {
    weights: Weights,
    post_transform: PostTransform,
}

impl Kernel for LinearRegressor {
    fn domain() -> &'static str {
        DOMAIN
    }

    fn parse(_: &ParsingContext<'_>, node: &NodeProto) -> TractResult<Self> {
        let coefficients: &[f32] = node.get_attr_slice("coefficients")?;
        let targets: usize = node.get_attr_opt("targets")?.unwrap_or(1);
        let intercepts = match node.get_attr_opt_slice::<f32>("intercepts")? {
            Some(intercepts) if !intercepts.is_empty() => intercepts.to_vec(),
            _ => vec![0.0; targets.min(coefficients.len())],
        };
        ensure!(
            intercepts.len() == targets,
            "{} intercepts for {targets} targets",
            intercepts.len()
        );
        let weights = Weights::new(coefficients, intercepts)?;
        let post_transform = PostTransform::parse(node.get_attr_opt("post_transform")?)?;
        Ok(Self { weights, post_transform })
    }

    fn outputs(&self, inputs: &[Form]) -> TractResult<Vec<Form>> {
        let (datum_type, shape) = only(inputs)?;
        expect_type(*datum_type, &NUMBERS)?;
        expect_columns(shape, self.weights.n_features)?;
        let shape = [n_rows(shape)?, TDim::from(self.weights.n_functions())];
        Ok(vec![(DatumType::F32, shape.into_iter().collect())])
    }

    fn run(&self, inputs: &[&Tensor]) -> TractResult<Vec<Tensor>> {
        let (n_rows, mut scores) = self.weights.apply(inputs[0])?;
        self.finish(&mut scores);
        Ok(vec![tensor(&[n_rows, self.weights.n_functions()], scores)?])
    }

    fn by_row(self: Arc<Self>, forms: &[Form], inputs: &[Operand<'_>]) -> Option<Arc<dyn ByRow>> {
        self.weights.take(forms, inputs).then_some(self)
    }
}

impl ByRow for LinearRegressor {
    fn run_rows(&self, inputs: &Inputs<'_>, outputs: Outputs<'_>) -> TractResult<()> {
        self.weights.score(inputs.values(0), outputs.floats);
        self.finish(outputs.floats);
        Ok(())
    }
}

impl LinearRegressor {
    fn finish(&self, scores: &mut [f32]) {
        let n_targets = self.weights.n_functions();
        match (n_targets, self.post_transform) {
            (1, PostTransform::Probit) => scores.iter_mut().for_each(|y| *y = probit(*y)),
            (1, _) => {}
            (_, transform) => {
                scores.chunks_exact_mut(n_targets).for_each(|row| transform.apply(row));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_takes_every_element_once() {
        for n in 0..40_u16 {
            let a: Vec<f32> = (0..n).map(f32::from).collect();
            let b: Vec<f32> = (0..n).map(|i| f32::from(i % 3)).collect();
            let expected: f32 = a.iter().zip(&b).map(|(x, y)| x * y).sum();
            assert_eq!(dot(&a, &b), expected, "{n}");
        }
    }
}
