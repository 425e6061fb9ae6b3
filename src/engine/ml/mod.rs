//! The operators of the domain `ai.onnx.ml`: what scikit-learn, LightGBM and XGBoost export.
//!
//! tract ships five of them, some with other answers than the specification's, so all are ours:
//! one file an operator or family, with the specification's name in its head. A [`Kernel`] is a
//! parsed node: a pure function from tensors to tensors with rules for types and shapes. This file
//! binds kernels to tract, and is the only one here that knows how tract's operators look.
//!
//! Answers are those of ONNX Runtime where the specification leaves a choice, since that is what
//! models were tested with before they came here.
//!
//! Invariants:
//! - a node is checked whole when it is parsed: no attribute can make a run read out of bounds;
//! - a kernel never panics on what its rules accepted, and keeps no state between runs.

mod array_feature_extractor;
mod binarizer;
mod category_mapper;
mod feature_vectorizer;
mod imputer;
mod label_encoder;
mod linear;
mod normalizer;
mod one_hot_encoder;
mod post_transform;
mod rows;
mod scaler;
mod svm;
mod trees;
mod zip_map;

use std::fmt;
use std::sync::Arc;

use tract_onnx::model::{OnnxOpRegister, ParsingContext};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::internal::{
    DatumType, DatumTypeExt, EvalContext, EvalOp, Op, SpecialOps, StaticName, TDim, TValue, TVec,
    Tensor, TractError, TractResult, TypedFact, TypedModel, TypedOp, as_op, bail, ensure,
    op_as_typed_op, op_out_of_plan,
};
use tract_onnx::tract_core::model::OutletId;
use tract_onnx::tract_core::ops::cast::cast;
use tract_onnx::tract_hir::infer::rules::{InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::infer::{InferenceOp, ShapeFactoid};
use tract_onnx::tract_hir::ops::expandable::{Expansion, expand};

pub(super) use zip_map::replace_zip_maps;

/// The domain's name.
pub(super) const DOMAIN: &str = "ai.onnx.ml";

/// A tensor's type and shape while the graph is compiled.
type Form = (DatumType, TVec<TDim>);

/// A parsed node.
trait Kernel: fmt::Debug + Send + Sync + 'static {
    /// Reads the node's attributes.
    fn parse(context: &ParsingContext<'_>, node: &NodeProto) -> TractResult<Self>
    where
        Self: Sized;

    /// Types and shapes of the outputs for those of the inputs; refuses what it cannot take.
    fn outputs(&self, inputs: &[Form]) -> TractResult<Vec<Form>>;

    /// Computes the outputs. The inputs fit what [`Kernel::outputs`] accepted.
    fn run(&self, inputs: &[&Tensor]) -> TractResult<Vec<Tensor>>;
}

/// Operators that take or give maps, which no tensor of the protocol can carry.
pub(super) const WITH_MAPS: [&str; 2] = ["CastMap", "DictVectorizer"];

/// Every operator here, with what builds it.
const OPERATORS: [(&str, Builder); 17] = [
    ("ArrayFeatureExtractor", build::<array_feature_extractor::ArrayFeatureExtractor>),
    ("Binarizer", build::<binarizer::Binarizer>),
    ("CategoryMapper", build::<category_mapper::CategoryMapper>),
    ("FeatureVectorizer", build::<feature_vectorizer::FeatureVectorizer>),
    ("Imputer", build::<imputer::Imputer>),
    ("LabelEncoder", build::<label_encoder::LabelEncoder>),
    ("LinearClassifier", build::<linear::LinearClassifier>),
    ("LinearRegressor", build::<linear::LinearRegressor>),
    ("Normalizer", build::<normalizer::Normalizer>),
    ("OneHotEncoder", build::<one_hot_encoder::OneHotEncoder>),
    ("SVMClassifier", build::<svm::SvmClassifier>),
    ("SVMRegressor", build::<svm::SvmRegressor>),
    ("Scaler", build::<scaler::Scaler>),
    ("TreeEnsemble", build::<trees::TreeEnsemble>),
    ("TreeEnsembleClassifier", build::<trees::TreeEnsembleClassifier>),
    ("TreeEnsembleRegressor", build::<trees::TreeEnsembleRegressor>),
    ("ZipMap", build::<zip_map::ZipMap>),
];

type Builder =
    fn(&ParsingContext<'_>, &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

/// Puts the operators into tract's table, in place of its own of the same names.
pub(super) fn register(table: &mut OnnxOpRegister) {
    for (name, builder) in OPERATORS {
        table.insert(name, builder);
    }
}

/// Whether `name` is an operator of this domain that is here.
pub(super) fn has(name: &str) -> bool {
    OPERATORS.iter().any(|(operator, _)| *operator == name)
}

fn build<K: Kernel>(
    context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    ensure!(node.domain == DOMAIN, "{} of domain '{}' is unknown", node.op_type, node.domain);
    let kernel = K::parse(context, node)?;
    let bound = Bound {
        name: node.op_type.clone(),
        n_inputs: node.input.iter().filter(|name| !name.is_empty()).count(),
        n_outputs: node.output.iter().filter(|name| !name.is_empty()).count(),
        kernel: Arc::new(kernel),
    };
    Ok((expand(bound), Vec::new()))
}

/// The version of this domain's operators that the model imports; 1 where it does not say.
fn opset(context: &ParsingContext<'_>) -> i64 {
    let imports = &context.model.opset_import;
    imports.iter().find(|import| import.domain == DOMAIN).map_or(1, |import| import.version)
}

/// A kernel as tract sees it, before and after the inference of types.
#[derive(Debug, Clone)]
struct Bound {
    name: String,
    n_inputs: usize,
    n_outputs: usize,
    kernel: Arc<dyn Kernel>,
}

impl PartialEq for Bound {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.kernel, &other.kernel)
    }
}

impl Eq for Bound {}

impl Bound {
    fn outputs(&self, inputs: &[Form]) -> TractResult<Vec<Form>> {
        let mut outputs = self.kernel.outputs(inputs)?;
        let (n_given, n_named) = (outputs.len(), self.n_outputs);
        ensure!(n_named <= n_given, "{} has {n_given} outputs, not {n_named}", self.name);
        outputs.truncate(n_named);
        Ok(outputs)
    }
}

impl Expansion for Bound {
    fn name(&self) -> StaticName {
        self.name.clone().into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(self.n_outputs)
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        ensure!(inputs.len() == self.n_inputs, "{} has a wrong number of inputs", self.name);
        ensure!(outputs.len() == self.n_outputs, "{} has a wrong number of outputs", self.name);
        solver.given_all(inputs.iter().map(|input| &input.datum_type), move |solver, types| {
            solver.given_all(inputs.iter().map(|input| &input.shape), move |solver, shapes| {
                let types = types.iter().map(|&datum_type| without_symbols(datum_type));
                let forms: Vec<Form> = types.zip(shapes).collect();
                for (output, (datum_type, shape)) in outputs.iter().zip(self.outputs(&forms)?) {
                    solver.equals(&output.datum_type, datum_type)?;
                    solver.equals(&output.shape, ShapeFactoid::from(shape))?;
                }
                Ok(())
            })
        })
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let mut numbers = TVec::with_capacity(inputs.len());
        for (at, &input) in inputs.iter().enumerate() {
            let is_symbolic = model.outlet_fact(input)?.datum_type == DatumType::TDim;
            numbers.push(if is_symbolic {
                model.wire_node(format!("{prefix}.numbers-{at}"), cast(DatumType::I64), &[input])?
                    [0]
            } else {
                input
            });
        }
        model.wire_node(prefix, self.clone(), &numbers)
    }
}

impl Op for Bound {
    fn name(&self) -> StaticName {
        self.name.clone().into()
    }

    op_as_typed_op!();
}

impl EvalOp for Bound {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let inputs: TVec<&Tensor> = inputs.iter().map(|value| &**value).collect();
        let outputs = self.kernel.run(&inputs)?;
        Ok(outputs.into_iter().take(self.n_outputs).map(Into::into).collect())
    }
}

impl TypedOp for Bound {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let forms: Vec<Form> = inputs
            .iter()
            .map(|fact| (without_symbols(fact.datum_type), fact.shape.to_tvec()))
            .collect();
        let outputs = self.outputs(&forms)?;
        Ok(outputs.into_iter().map(|(datum_type, shape)| datum_type.fact(shape)).collect())
    }

    as_op!();
}

/// An input that the node cannot take: the request's fault, not the engine's.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
struct Rejected(String);

/// What a kernel rejected, where that is what `error` is about.
pub(super) fn rejection(error: &TractError) -> Option<String> {
    error.chain().find_map(|cause| cause.downcast_ref::<Rejected>()).map(ToString::to_string)
}

/// tract keeps whole numbers that may be sizes of tensors as expressions over symbols, also where
/// a model casts a feature to INT64. Kernels see numbers.
fn without_symbols(datum_type: DatumType) -> DatumType {
    if datum_type == DatumType::TDim { DatumType::I64 } else { datum_type }
}

/// The only form among `inputs`.
fn only(inputs: &[Form]) -> TractResult<&Form> {
    match inputs {
        [form] => Ok(form),
        _ => bail!("takes one input, not {}", inputs.len()),
    }
}

/// Refuses a type that is not in `allowed`.
fn expect_type(datum_type: DatumType, allowed: &[DatumType]) -> TractResult<()> {
    ensure!(allowed.contains(&datum_type), "takes {allowed:?}, not {datum_type:?}");
    Ok(())
}

/// The types that most operators of the domain take.
const NUMBERS: [DatumType; 4] = [DatumType::F32, DatumType::F64, DatumType::I64, DatumType::I32];
