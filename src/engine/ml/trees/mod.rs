//! `ai.onnx.ml.TreeEnsembleClassifier`, `TreeEnsembleRegressor` (1, 3, 5) and `TreeEnsemble` (5):
//! decision trees, forests and gradient boosting.
//!
//! `parse` reads a node's attributes into a checked [`Forest`]; once the type of the features is
//! known it is compiled to an [`Ensemble`] ([`walk`] is its form for speed), whose scores become
//! labels and probabilities by [`classes`].
//!
//! Features in binary64 are compared and summed in binary64, everything else in binary32.

mod bitvectors;
mod classes;
mod ensemble;
mod features;
mod forest;
mod parse;
mod scores;
mod walk;

use std::sync::{Mutex, OnceLock, PoisonError};

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::{NodeProto, TensorProto};
use tract_onnx::tract_core::internal::{
    DatumType, DimLike, TDim, Tensor, TractResult, anyhow, bail, ensure,
};

use self::classes::Classes;
use self::ensemble::Ensemble;
use self::forest::{Forest, Number};
use self::scores::{Aggregate, Scores};
use super::post_transform::{PostTransform, probit};
use super::rows::{Labels, floats, matrix, n_rows, tensor, values};
use super::{DOMAIN, Form, Kernel, NUMBERS, Rejected, expect_type, only};

/// An ensemble before and after the type of its features is known.
#[derive(Debug)]
struct Trees {
    aggregate: Aggregate,
    n_targets: usize,
    n_features: usize,
    /// Attributes in binary64 make binary64 of the features.
    is_double: bool,
    /// Until it is compiled.
    forest: Mutex<Option<Forest<f64>>>,
    compiled: OnceLock<Compiled>,
}

#[derive(Debug)]
enum Compiled {
    Single(Ensemble<f32>),
    Double(Ensemble<f64>),
}

impl Trees {
    fn new(forest: Forest<f64>, aggregate: Aggregate, is_double: bool) -> Self {
        let (n_targets, n_features) = (forest.n_targets, forest.n_features);
        let forest = Mutex::new(Some(forest));
        Self { aggregate, n_targets, n_features, is_double, forest, compiled: OnceLock::new() }
    }

    /// Checks the input's form and compiles for it; returns the rows.
    fn accept(&self, inputs: &[Form]) -> TractResult<TDim> {
        let (datum_type, shape) = only(inputs)?;
        expect_type(*datum_type, &NUMBERS)?;
        if let Some(Ok(columns)) = shape.last().map(TDim::to_usize) {
            let n = self.n_features;
            ensure!(columns >= n, "trees test {n} features, where rows have {columns}");
        }
        self.compiled.get_or_init(|| {
            let forest = self.forest.lock().unwrap_or_else(PoisonError::into_inner).take();
            let forest = forest.expect("a forest is taken once, when it is compiled");
            if self.is_double || *datum_type == DatumType::F64 {
                Compiled::Double(Ensemble::compile(forest))
            } else {
                Compiled::Single(Ensemble::compile(forest.convert()))
            }
        });
        n_rows(shape)
    }

    /// The sums for each row of `input`, handed to `finish` in the width that they have.
    fn run<R>(
        &self,
        input: &Tensor,
        single: impl FnOnce(usize, Scores<f32>) -> R,
        double: impl FnOnce(usize, Scores<f64>) -> R,
    ) -> TractResult<R> {
        let (n_rows, n_columns) = matrix(input.shape())?;
        if n_columns < self.n_features.max(1) {
            let n = self.n_features;
            let reason = format!("has {n_columns} features, where the trees test {n}");
            return Err(Rejected(reason).into());
        }
        match self.compiled.get().ok_or_else(|| anyhow!("the trees are not compiled"))? {
            Compiled::Single(ensemble) => {
                Ok(single(n_rows, ensemble.scores(&floats(input)?, n_columns, self.aggregate)?))
            }
            Compiled::Double(ensemble) => {
                let input = input.cast_to::<f64>()?;
                let rows = values::<f64>(&input)?;
                Ok(double(n_rows, ensemble.scores(rows, n_columns, self.aggregate)?))
            }
        }
    }

    fn n_trees(&self) -> usize {
        match self.compiled.get() {
            Some(Compiled::Single(ensemble)) => ensemble.n_trees(),
            Some(Compiled::Double(ensemble)) => ensemble.n_trees(),
            None => 0,
        }
    }
}

/// Whether any of the node's tensors of numbers is binary64.
fn has_doubles(node: &NodeProto, names: &[&str]) -> TractResult<bool> {
    use tract_onnx::pb::tensor_proto::DataType;
    for name in names {
        let tensor = node.get_attr_opt::<&TensorProto>(name)?;
        if tensor.is_some_and(|tensor| tensor.data_type == DataType::Double as i32) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Scores of regression: the aggregate and the base values, transformed.
#[derive(Debug)]
struct Targets {
    trees: Trees,
    base: Vec<f64>,
    post_transform: PostTransform,
}

impl Targets {
    /// One row of scores after another.
    fn finish<T: Number>(&self, n_rows: usize, mut scores: Scores<T>) -> Vec<T> {
        let n = self.trees.n_targets;
        let n_trees = self.trees.n_trees();
        for row in 0..n_rows {
            let (scores, is_given) = scores.row(row);
            for (target, score) in scores.iter_mut().enumerate() {
                if n > 1 && !is_given[target] {
                    // ONNX Runtime adds the base value to what leaves have given only.
                    continue;
                }
                if self.trees.aggregate == Aggregate::Average {
                    *score = score.divided_by(n_trees);
                }
                if self.base.len() == n {
                    *score += T::from_f64(self.base[target]);
                }
            }
            self.transform(scores);
        }
        scores.values
    }

    fn transform<T: Number>(&self, scores: &mut [T]) {
        match (self.post_transform, scores) {
            (PostTransform::None, _) => {}
            (PostTransform::Probit, [score]) => {
                *score = T::from_f64(f64::from(probit(score.to_f32())));
            }
            // ONNX Runtime leaves a single score alone.
            (_, [_]) => {}
            (transform, scores) => {
                let mut single: Vec<f32> = scores.iter().map(|score| score.to_f32()).collect();
                transform.apply(&mut single);
                for (score, single) in scores.iter_mut().zip(single) {
                    *score = T::from_f64(f64::from(single));
                }
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct TreeEnsembleRegressor(Targets);

impl Kernel for TreeEnsembleRegressor {
    fn domain() -> &'static str {
        DOMAIN
    }

    fn parse(context: &ParsingContext<'_>, node: &NodeProto) -> TractResult<Self> {
        let n_targets: usize = node.get_attr_opt("n_targets")?.unwrap_or(1);
        let forest = parse::by_node(context, node, "target", n_targets)?;
        let is_double = has_doubles(
            node,
            &["nodes_values_as_tensor", "target_weights_as_tensor", "base_values_as_tensor"],
        )?;
        let aggregate = Aggregate::parse(node.get_attr_opt("aggregate_function")?)?;
        Ok(Self(Targets {
            trees: Trees::new(forest, aggregate, is_double),
            base: parse::numbers(context, node, "base_values")?,
            post_transform: PostTransform::parse(node.get_attr_opt("post_transform")?)?,
        }))
    }

    fn outputs(&self, inputs: &[Form]) -> TractResult<Vec<Form>> {
        let shape = [self.0.trees.accept(inputs)?, TDim::from(self.0.trees.n_targets)];
        Ok(vec![(DatumType::F32, shape.into_iter().collect())])
    }

    fn run(&self, inputs: &[&Tensor]) -> TractResult<Vec<Tensor>> {
        let shape = |n_rows| [n_rows, self.0.trees.n_targets];
        let output = self.0.trees.run(
            inputs[0],
            |n_rows, scores| tensor(&shape(n_rows), self.0.finish(n_rows, scores)),
            |n_rows, scores| {
                let finished = self.0.finish(n_rows, scores);
                tensor(&shape(n_rows), finished.iter().map(|score| score.to_f32()).collect())
            },
        )?;
        Ok(vec![output?])
    }
}

#[derive(Debug)]
pub(super) struct TreeEnsemble(Targets);

impl Kernel for TreeEnsemble {
    fn domain() -> &'static str {
        DOMAIN
    }

    fn parse(context: &ParsingContext<'_>, node: &NodeProto) -> TractResult<Self> {
        let forest = parse::by_split(context, node)?;
        let is_double = has_doubles(node, &["nodes_splits", "leaf_weights", "membership_values"])?;
        let aggregate = node.get_attr_opt::<i64>("aggregate_function")?.unwrap_or(1);
        let post_transform = node.get_attr_opt::<i64>("post_transform")?.unwrap_or(0);
        Ok(Self(Targets {
            trees: Trees::new(forest, Aggregate::from_number(aggregate)?, is_double),
            base: Vec::new(),
            post_transform: PostTransform::from_number(post_transform)?,
        }))
    }

    fn outputs(&self, inputs: &[Form]) -> TractResult<Vec<Form>> {
        let (datum_type, _) = only(inputs)?;
        expect_type(*datum_type, &[DatumType::F32, DatumType::F64])?;
        let shape = [self.0.trees.accept(inputs)?, TDim::from(self.0.trees.n_targets)];
        Ok(vec![(*datum_type, shape.into_iter().collect())])
    }

    fn run(&self, inputs: &[&Tensor]) -> TractResult<Vec<Tensor>> {
        let shape = |n_rows| [n_rows, self.0.trees.n_targets];
        let output = self.0.trees.run(
            inputs[0],
            |n_rows, scores| tensor(&shape(n_rows), self.0.finish(n_rows, scores)),
            |n_rows, scores| tensor(&shape(n_rows), self.0.finish(n_rows, scores)),
        )??;
        let output = output.cast_to_dt(inputs[0].datum_type())?.into_owned();
        Ok(vec![output])
    }
}

#[derive(Debug)]
pub(super) struct TreeEnsembleClassifier {
    trees: Trees,
    classes: Classes,
}

impl Kernel for TreeEnsembleClassifier {
    fn domain() -> &'static str {
        DOMAIN
    }

    fn parse(context: &ParsingContext<'_>, node: &NodeProto) -> TractResult<Self> {
        let labels = Labels::parse(
            node.get_attr_opt_slice("classlabels_int64s")?,
            node.get_attr_opt_vec("classlabels_strings")?,
        )?;
        let forest = parse::by_node(context, node, "class", labels.len())?;
        let is_double = has_doubles(
            node,
            &["nodes_values_as_tensor", "class_weights_as_tensor", "base_values_as_tensor"],
        )?;
        let base = parse::numbers(context, node, "base_values")?;
        if base.len() > labels.len() {
            bail!("{} base values for {} classes", base.len(), labels.len());
        }
        let post_transform = PostTransform::parse(node.get_attr_opt("post_transform")?)?;
        let classes = Classes::new(labels, base, post_transform, &forest);
        Ok(Self { trees: Trees::new(forest, Aggregate::Sum, is_double), classes })
    }

    fn outputs(&self, inputs: &[Form]) -> TractResult<Vec<Form>> {
        let rows = self.trees.accept(inputs)?;
        let n_scores = TDim::from(self.classes.n_scores());
        Ok(vec![
            (self.classes.labels.datum_type(), [rows.clone()].into_iter().collect()),
            (DatumType::F32, [rows, n_scores].into_iter().collect()),
        ])
    }

    fn run(&self, inputs: &[&Tensor]) -> TractResult<Vec<Tensor>> {
        let (winners, scores) = self.trees.run(
            inputs[0],
            |n_rows, scores| self.classes.finish(n_rows, scores),
            |n_rows, scores| self.classes.finish(n_rows, scores),
        )?;
        let shape = [winners.len(), self.classes.n_scores()];
        Ok(vec![self.classes.labels.pick(&winners)?, tensor(&shape, scores)?])
    }
}
