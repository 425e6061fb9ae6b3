//! What runs: a compiled graph for symbolic shapes, or one for each concrete shape.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tract_onnx::prelude::multithread::Executor;
use tract_onnx::prelude::{
    InferenceFact, InferenceModel, InferenceModelExt, RunOptions, TDim, TVec, TractError,
    TypedModel,
};
use tract_onnx::tract_core::internal::{ToDim, TypedSimplePlan};
use tract_onnx::tract_core::plan::eval;
use tract_onnx::tract_hir::infer::{DimFact, ShapeFactoid};

use super::rowwise::Program;
use super::steps::Steps;
use super::{LoadError, OnnxModel, RunError, catching, convert, courtesy, kernel, reason, sizes};
use crate::tensor::{NamedShapes, Shape, Signature, Tensor, TensorSpec};

/// Plans kept for concrete shapes, at most, a version.
const SHAPES_KEPT: usize = 16;

/// How a model is compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rung {
    /// Once: the model fixes all its shapes.
    Fixed,
    /// Once, with symbols for the free dimensions.
    Symbolic,
    /// For each concrete shape on its first use, since the engine refused symbols.
    PerShape {
        /// Why it refused.
        because: String,
    },
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed => f.write_str("fixed: compiled once, for the shapes that the model fixes"),
            Self::Symbolic => {
                f.write_str("symbolic: compiled once, for any size of the free dimensions")
            }
            Self::PerShape { because } => write!(
                f,
                "per shape: compiled on the first use of each of up to {SHAPES_KEPT} shapes, because {because}"
            ),
        }
    }
}

/// A model that can be run. Shared and immutable but for its caches.
pub struct Plan {
    signature: Signature,
    rung: Rung,
    ties: Vec<Tie>,
    compiled: Compiled,
    shapes: Vec<Vec<Shape>>,
}

enum Compiled {
    Once(Box<Runnable>),
    PerShape(ShapeCache),
}

/// Dimensions of inputs that share a name and so must be equal.
struct Tie {
    symbol: String,
    /// Input and axis.
    places: Vec<(usize, usize)>,
}

impl Plan {
    /// Compiles `model` on the highest rung that the engine grants. The plan has not run yet: see
    /// [`Plan::warm_up`], which runs each of `shapes` first, and so compiles it on the lowest rung.
    pub fn compile(model: Arc<OnnxModel>, shapes: &[NamedShapes]) -> Result<Self, LoadError> {
        let shapes = shapes.iter().map(|shapes| concrete(model.signature(), shapes));
        let shapes = shapes.collect::<Result<Vec<_>, _>>()?;
        let missing = model.operators().iter().filter(|operator| operator.refusal.is_some());
        let missing: Vec<_> = missing.cloned().collect();
        if !missing.is_empty() {
            return Err(LoadError::Operators(missing));
        }
        let is_free = model.signature().inputs.iter().any(|spec| spec.shape.contains(&None));
        let once =
            Runnable::compile(&model, if is_free { Sizes::Symbols } else { Sizes::Declared });
        let because = match once {
            Ok(runnable) => {
                let rung = if is_free { Rung::Symbolic } else { Rung::Fixed };
                let plan =
                    Self::new(&model, rung, Compiled::Once(Box::new(runnable)), shapes.clone());
                match plan.try_symbols() {
                    Ok(()) => return Ok(plan),
                    Err(error) => error.to_string(),
                }
            }
            Err(error) if !is_free => return Err(error),
            Err(error) => error.to_string(),
        };
        let cache = ShapeCache::new(Arc::clone(&model));
        Ok(Self::new(&model, Rung::PerShape { because }, Compiled::PerShape(cache), shapes))
    }

    fn new(model: &OnnxModel, rung: Rung, compiled: Compiled, shapes: Vec<Vec<Shape>>) -> Self {
        let signature = model.signature().clone();
        Self { signature, rung, ties: ties(model.symbols()), compiled, shapes }
    }

    /// A symbolic plan that compiles may still fail to run. Where that is so for each size tried
    /// here, the rung below is worth a try; what is wrong with the model itself shows there too.
    fn try_symbols(&self) -> Result<(), LoadError> {
        if self.rung == Rung::Symbolic { self.warm_up().map(|_| ()) } else { Ok(()) }
    }

    /// Inputs and outputs.
    #[must_use]
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// The shapes that the settings name, each of all inputs in the signature's order.
    pub(super) fn shapes(&self) -> &[Vec<Shape>] {
        &self.shapes
    }

    /// How the model is compiled, and why.
    #[must_use]
    pub fn rung(&self) -> &Rung {
        &self.rung
    }

    /// Runs the model on `inputs`, which are in the order of the signature and fit it. The answer
    /// has all outputs in the signature's order.
    ///
    /// Blocks for as long as the model takes. A concrete shape's first use on the lowest rung
    /// compiles a plan as well.
    pub fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, RunError> {
        self.check_ties(inputs)?;
        match &self.compiled {
            Compiled::Once(runnable) => runnable.run(&self.signature, inputs),
            Compiled::PerShape(cache) => {
                let shapes =
                    inputs.iter().map(|t| Shape::from_slice(t.shape())).collect::<Vec<_>>();
                cache.get(&shapes)?.run(&self.signature, inputs)
            }
        }
    }

    /// Whether nothing has to be compiled to run these inputs. Waits for nobody.
    #[must_use]
    pub fn is_compiled_for(&self, inputs: &[Tensor]) -> bool {
        match &self.compiled {
            Compiled::Once(_) => true,
            Compiled::PerShape(cache) => {
                let shapes: Vec<_> = inputs.iter().map(|t| Shape::from_slice(t.shape())).collect();
                cache.find(&shapes).is_some()
            }
        }
    }

    fn check_ties(&self, inputs: &[Tensor]) -> Result<(), RunError> {
        for Tie { symbol, places } in &self.ties {
            let sizes = places
                .iter()
                .filter_map(|&(input, axis)| Some((input, *inputs.get(input)?.shape().get(axis)?)));
            let mut first = None;
            for (input, size) in sizes {
                let &mut (first_input, first_size) = first.get_or_insert((input, size));
                if size != first_size {
                    let name = |input: usize| self.signature.inputs[input].name.clone();
                    return Err(RunError::Input {
                        tensor: name(input),
                        reason: format!(
                            "dimension {symbol} is {size} here and {first_size} in tensor '{}'; they must be equal",
                            name(first_input)
                        ),
                    });
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("signature", &self.signature)
            .field("rung", &self.rung)
            .finish()
    }
}

/// The named shapes in the order of the inputs, each of which must be there and fit.
fn concrete(signature: &Signature, shapes: &NamedShapes) -> Result<Vec<Shape>, LoadError> {
    if let Some(name) = shapes.keys().find(|name| signature.input(name).is_none()) {
        return Err(LoadError::Shapes(format!("the model has no input '{name}'")));
    }
    let shape = |spec: &TensorSpec| {
        let shape = shapes.get(&spec.name).ok_or_else(|| {
            LoadError::Shapes(format!("one is needed for each input, and for '{}' too", spec.name))
        })?;
        let fits = shape.len() == spec.shape.len()
            && shape.iter().zip(&spec.shape).all(|(size, dim)| dim.is_none_or(|dim| dim == *size));
        if fits {
            return Ok(Shape::from_slice(shape));
        }
        Err(LoadError::Shapes(format!("expected {spec}, got {shape:?}")))
    };
    signature.inputs.iter().map(shape).collect()
}

/// Groups the named dimensions of all inputs; a name that stands once ties nothing.
fn ties(symbols: &[Vec<Option<String>>]) -> Vec<Tie> {
    let mut ties: Vec<Tie> = Vec::new();
    for (input, dims) in symbols.iter().enumerate() {
        for (axis, symbol) in dims.iter().enumerate() {
            let Some(symbol) = symbol else { continue };
            match ties.iter_mut().find(|tie| tie.symbol == *symbol) {
                Some(tie) => tie.places.push((input, axis)),
                None => ties.push(Tie { symbol: symbol.clone(), places: vec![(input, axis)] }),
            }
        }
    }
    ties.retain(|tie| tie.places.len() > 1);
    ties
}

/// What stands in for the free dimensions when compiling.
#[derive(Clone, Copy)]
enum Sizes<'a> {
    Declared,
    Symbols,
    Concrete(&'a [Shape]),
}

/// One compiled graph.
///
/// Where tract's runner is needed, each run makes a state of its own and drops it on the same
/// thread. tract 0.23's matrix product keeps scratch memory in a thread-local table by state, and
/// clears an entry only on the thread that drops the state: states that are pooled wander between
/// threads and leave entries behind on each, for ever (3.5 KB a swap were measured).
struct Runnable {
    plan: Arc<TypedSimplePlan>,
    /// Nothing where the graph's rows are not known to be independent of each other.
    program: Option<Program>,
    /// Nothing where the graph needs tract's runner.
    steps: Option<Steps>,
}

impl Runnable {
    fn compile(model: &OnnxModel, sizes: Sizes<'_>) -> Result<Self, LoadError> {
        let graph = model.translate()?;
        let plan = catching(move || -> Result<_, TractError> {
            let graph = with_sizes(graph, sizes)?.into_optimized()?;
            let plan = plan(graph)?;
            sizes::check_fixed(plan.model())?;
            Ok(plan)
        });
        let plan = plan
            .map_err(LoadError::Compile)?
            .map_err(|error| LoadError::Compile(reason(&error)))?;
        let order = plan.order_without_consts();
        let program = Program::lay_out(plan.model(), order, model.signature());
        let steps = Steps::lay_out(plan.model(), order);
        Ok(Self { plan, program, steps })
    }

    fn run(&self, signature: &Signature, inputs: &[Tensor]) -> Result<Vec<Tensor>, RunError> {
        if let Some(program) = &self.program
            && let Some(outputs) = catching(|| program.run(inputs)).map_err(RunError::Panic)?
        {
            return outputs.map_err(|error| failure(&error));
        }
        self.run_nodes(signature, inputs)
    }

    /// Runs the graph's nodes, each on tensors of its own.
    fn run_nodes(&self, signature: &Signature, inputs: &[Tensor]) -> Result<Vec<Tensor>, RunError> {
        let mut values = TVec::with_capacity(inputs.len());
        for (tensor, spec) in inputs.iter().zip(&signature.inputs) {
            values.push(convert::to_engine(tensor, spec)?.into());
        }
        let outputs = catching(|| match &self.steps {
            Some(steps) => steps.run(self.plan.model(), values),
            None => {
                self.plan.spawn()?.run_plan_with_eval(values, |context, state, node, inputs| {
                    courtesy::between_nodes();
                    sizes::check_node(node, &inputs, context.symbols)?;
                    eval(context, state, node, inputs)
                })
            }
        });
        let outputs = outputs.map_err(RunError::Panic)?.map_err(|error| failure(&error))?;
        if outputs.len() != signature.outputs.len() {
            let (n, m) = (outputs.len(), signature.outputs.len());
            return Err(RunError::Engine(format!("gave {n} outputs where {m} are declared")));
        }
        let pairs = outputs.into_iter().zip(&signature.outputs);
        pairs.map(|(value, spec)| convert::from_engine(value, spec)).collect()
    }
}

/// Why a run failed: a kernel that rejects its input speaks of the request.
fn failure(error: &TractError) -> RunError {
    match kernel::rejection(error) {
        Some(rejection) => RunError::Rejected(rejection),
        None => RunError::Engine(reason(error)),
    }
}

fn plan(graph: TypedModel) -> Result<Arc<TypedSimplePlan>, TractError> {
    let options = RunOptions { executor: Some(Executor::SingleThread), ..RunOptions::default() };
    TypedSimplePlan::new_with_options(graph, &options)
}

/// Sets the shapes of the graph's inputs.
///
/// A free first dimension without a name is taken for the batch, which all inputs share; any
/// other free dimension without a name is independent of all others.
fn with_sizes(mut graph: InferenceModel, sizes: Sizes<'_>) -> Result<InferenceModel, TractError> {
    for input in 0..graph.inputs.len() {
        let fact = graph.input_fact(input)?.clone();
        let shape: TVec<TDim> = match sizes {
            Sizes::Declared => continue,
            Sizes::Concrete(shapes) => match shapes.get(input) {
                Some(shape) => shape.iter().map(ToDim::to_dim).collect(),
                None => continue,
            },
            Sizes::Symbols => {
                let dims: Vec<DimFact> = fact.shape.dims().cloned().collect();
                let symbols = &graph.symbols;
                let dims = dims.into_iter().enumerate().map(|(axis, dim)| match (dim, axis) {
                    (DimFact::Only(dim), _) => dim,
                    (DimFact::Any, 0) => symbols.sym("batch").to_dim(),
                    (DimFact::Any, _) => symbols.new_with_prefix("free").to_dim(),
                });
                dims.collect()
            }
        };
        let shape = ShapeFactoid::closed(shape.into_iter().map(DimFact::from).collect());
        let fact = InferenceFact { shape, ..fact };
        graph.set_input_fact(input, fact)?;
    }
    Ok(graph)
}

/// Plans for concrete shapes. Looking one up takes no lock; compiling one does, so that a burst
/// of the same new shape compiles it once.
struct ShapeCache {
    model: Arc<OnnxModel>,
    /// Oldest first.
    plans: ArcSwap<Vec<(Vec<Shape>, Arc<Runnable>)>>,
    compiling: Mutex<()>,
}

impl ShapeCache {
    fn new(model: Arc<OnnxModel>) -> Self {
        Self { model, plans: ArcSwap::default(), compiling: Mutex::default() }
    }

    fn get(&self, shapes: &[Shape]) -> Result<Arc<Runnable>, RunError> {
        if let Some(runnable) = self.find(shapes) {
            return Ok(runnable);
        }
        let _compiling = self.compiling.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runnable) = self.find(shapes) {
            return Ok(runnable);
        }
        let runnable =
            Runnable::compile(&self.model, Sizes::Concrete(shapes)).map_err(|error| {
                RunError::Shapes { shapes: format!("{shapes:?}"), reason: error.to_string() }
            })?;
        let runnable = Arc::new(runnable);
        let mut plans = self.plans.load().to_vec();
        if plans.len() >= SHAPES_KEPT {
            plans.remove(0);
        }
        plans.push((shapes.to_vec(), Arc::clone(&runnable)));
        self.plans.store(Arc::new(plans));
        Ok(runnable)
    }

    fn find(&self, shapes: &[Shape]) -> Option<Arc<Runnable>> {
        let plans = self.plans.load();
        plans.iter().find(|(key, _)| key == shapes).map(|(_, runnable)| Arc::clone(runnable))
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use bytes::Bytes;

    use super::*;
    use crate::tensor::{Datatype, TensorSpec};

    /// The small models of the tests and those that are shipped; of `TIDEGATE_MODELS` too.
    fn models() -> Vec<PathBuf> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let shipped = ["car-loan/1", "car-loan/2", "digits/1", "digits/2"]
            .map(|name| root.join("models").join(name));
        let mut folders = vec![root.join("tests/corpus")];
        folders.extend(shipped);
        folders.extend(std::env::var_os("TIDEGATE_MODELS").map(PathBuf::from));
        let files = folders.iter().flat_map(|folder| folder.read_dir().unwrap());
        let files = files.map(|entry| entry.unwrap().path());
        let mut files: Vec<_> =
            files.filter(|path| path.extension().is_some_and(|e| e == "onnx")).collect();
        files.sort();
        files
    }

    /// Numbers of both signs, among them what is missing and what is infinite.
    fn varied(spec: &TensorSpec, n_rows: usize, random: &mut fastrand::Rng) -> Tensor {
        let mut shape = spec.shape_with(1);
        shape[0] = n_rows;
        let count = shape.iter().product::<usize>();
        let mut number = || match random.u8(..) {
            0 => f64::NAN,
            1 => f64::INFINITY,
            2 => f64::NEG_INFINITY,
            3 => -0.0,
            _ => (random.f64() - 0.5) * 6.0,
        };
        #[expect(clippy::cast_possible_truncation, reason = "any numbers do")]
        let element = |number: f64| match spec.datatype {
            Datatype::Fp32 => (number as f32).to_le_bytes().to_vec(),
            Datatype::Fp64 => number.to_le_bytes().to_vec(),
            Datatype::Int64 => (number as i64).to_le_bytes().to_vec(),
            Datatype::Int32 => (number as i32).to_le_bytes().to_vec(),
            _ => vec![u8::from(number > 0.0); spec.datatype.size().unwrap_or(0)],
        };
        if spec.datatype == Datatype::Bytes {
            return Tensor::from_elements(shape, std::iter::repeat_n("a", count)).unwrap();
        }
        let data: Vec<u8> = (0..count).flat_map(|_| element(number())).collect();
        Tensor::new(spec.datatype, shape, Bytes::from(data)).unwrap()
    }

    /// Rows that are run without tensors have the bits that the graph's nodes give them.
    #[test]
    fn programs_answer_as_nodes_do() {
        let mut random = fastrand::Rng::with_seed(7);
        let (mut n_programs, mut n_models) = (0, 0);
        for path in models() {
            let Ok(model) = OnnxModel::parse(&std::fs::read(&path).unwrap()) else { continue };
            let Ok(plan) = Plan::compile(Arc::new(model), &[]) else { continue };
            n_models += 1;
            let Compiled::Once(runnable) = &plan.compiled else { continue };
            let Some(program) = &runnable.program else { continue };
            n_programs += 1;
            for n_rows in [1, 2, 5, 47, 300, 1000] {
                let inputs = plan.signature.inputs.iter();
                let inputs: Vec<_> = inputs.map(|spec| varied(spec, n_rows, &mut random)).collect();
                let nodes = runnable.run_nodes(&plan.signature, &inputs);
                let rows = program.run(&inputs).unwrap();
                match (rows, nodes) {
                    (Ok(rows), Ok(nodes)) => {
                        assert_eq!(rows, nodes, "{} of {n_rows} rows", path.display());
                    }
                    (Err(_), Err(_)) => {}
                    (rows, nodes) => panic!("{}: {rows:?} {nodes:?}", path.display()),
                }
            }
        }
        println!("{n_programs} of {n_models} models have programs");
        assert!(n_programs >= 5, "{n_programs} of {n_models} models have programs");
    }
}
