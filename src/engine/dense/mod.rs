//! A layer in one step: the product with a constant matrix, the bias and the activation.
//!
//! Exporters write a perceptron's layer as three nodes (`MatMul`, `Add`, `Relu`) or two (`Gemm`,
//! `Relu`), and the engine runs each for itself: for small models most of the time is spent between
//! them. [`fuse`] puts one node of our own in their place, whose product ([`product`]) is written
//! for few rows and narrow layers, and gives a row the same bits whatever rows stand beside it.
//!
//! Only what surely means the same is fused: binary32, a constant matrix of two axes, a constant
//! bias of one value a column, a matrix and results that nothing else reads; of `Gemm` what neither
//! scales nor transposes the rows.

mod product;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tract_onnx::model::{OnnxOpRegister, ParsingContext};
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};
use tract_onnx::tract_core::internal::{
    DatumType, DimLike, TDim, TVec, Tensor, TractResult, bail, ensure,
};

use self::product::Matrix;
use super::graph::{attribute, subgraphs};
use super::kernel::{
    Builder, ByRow, Form, Inputs, Kernel, Operand, Outputs, Rejected, build, expect_type, only,
    values,
};

/// The domain of nodes that only this crate makes.
pub(super) const DOMAIN: &str = "tidegate";

const NAME: &str = "Dense";

/// Puts the operator into tract's table.
pub(super) fn register(table: &mut OnnxOpRegister) {
    let builder: Builder = build::<Dense>;
    table.insert(NAME, builder);
}

/// x · matrix + bias, then the activation, over the last axis.
#[derive(Debug)]
struct Dense {
    matrix: Matrix,
    activation: Activation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Activation {
    None,
    Relu,
    Tanh,
    Sigmoid,
}

impl Activation {
    /// What a node of this name computes; nothing where it is none that can be fused.
    fn of(operator: &str) -> Option<Self> {
        Some(match operator {
            "Relu" => Self::Relu,
            "Tanh" => Self::Tanh,
            "Sigmoid" => Self::Sigmoid,
            _ => return None,
        })
    }

    fn apply(self, values: &mut [f32]) {
        match self {
            Self::None => {}
            // What is not a number stays so, as in ONNX Runtime: `max` would make it 0.
            Self::Relu => values.iter_mut().for_each(|x| *x = if *x < 0.0 { 0.0 } else { *x }),
            Self::Tanh => values.iter_mut().for_each(|x| *x = x.tanh()),
            Self::Sigmoid => values.iter_mut().for_each(|x| *x = 1.0 / (1.0 + (-*x).exp())),
        }
    }
}

impl Kernel for Dense {
    fn domain() -> &'static str {
        DOMAIN
    }

    fn parse(context: &ParsingContext<'_>, node: &NodeProto) -> TractResult<Self> {
        let matrix = context.load_tensor(node.get_attr("matrix")?)?;
        let is_transposed = node.get_attr_opt("transposed")?.unwrap_or(false);
        let matrix = if is_transposed { matrix.permute_axes(&[1, 0])? } else { matrix };
        let (rows, columns) = match *matrix.shape() {
            [rows, columns] => (rows, columns),
            _ => bail!("the matrix has {} axes", matrix.rank()),
        };
        let bias = match node.get_attr_opt::<&TensorProto>("bias")? {
            Some(bias) => values::<f32>(&context.load_tensor(bias)?)?.to_vec(),
            None => vec![0.0; columns],
        };
        ensure!(bias.len() == columns, "{} biases for {columns} columns", bias.len());
        let activation = node.get_attr_opt::<&str>("activation")?.and_then(Activation::of);
        let activation = activation.unwrap_or(Activation::None);
        Ok(Self { matrix: Matrix::new(values(&matrix)?, rows, &bias), activation })
    }

    fn outputs(&self, inputs: &[Form]) -> TractResult<Vec<Form>> {
        let (datum_type, shape) = only(inputs)?;
        expect_type(*datum_type, &[DatumType::F32])?;
        let Some((last, leading)) = shape.split_last() else { bail!("takes rows, not one number") };
        if let Ok(last) = last.to_usize() {
            let rows = self.matrix.n_rows();
            ensure!(last == rows, "the matrix has {rows} rows, where rows have {last} values");
        }
        let mut shape: TVec<TDim> = leading.iter().cloned().collect();
        shape.push(TDim::from(self.matrix.n_columns()));
        Ok(vec![(DatumType::F32, shape)])
    }

    fn run(&self, inputs: &[&Tensor]) -> TractResult<Vec<Tensor>> {
        let input = inputs[0];
        let mut shape: TVec<usize> = input.shape().into();
        let last = shape.last_mut().filter(|last| **last == self.matrix.n_rows());
        let Some(last) = last else {
            let reason =
                format!("rows have {:?} values, the layer {}", input.shape(), self.matrix.n_rows());
            return Err(Rejected(reason).into());
        };
        *last = self.matrix.n_columns();
        let mut output = Tensor::zero::<f32>(&shape)?;
        let mut plain = output.try_as_plain_ram_mut()?;
        self.apply(values(input)?, plain.as_slice_mut::<f32>()?);
        Ok(vec![output])
    }

    fn by_row(self: Arc<Self>, _: &[Form], inputs: &[Operand<'_>]) -> Option<Arc<dyn ByRow>> {
        match inputs {
            [Operand::Rows(place)] if place.columns == self.matrix.n_rows() => Some(self),
            _ => None,
        }
    }
}

impl ByRow for Dense {
    fn run_rows(&self, inputs: &Inputs<'_>, outputs: Outputs<'_>) -> TractResult<()> {
        self.apply(inputs.values(0), outputs.floats);
        Ok(())
    }
}

impl Dense {
    fn apply(&self, input: &[f32], output: &mut [f32]) {
        self.matrix.multiply(input, output);
        self.activation.apply(output);
    }
}

/// Fuses the layers of the main graph.
pub(super) fn fuse(proto: &mut ModelProto) {
    let Some(graph) = &mut proto.graph else { return };
    let uses = Uses::of(graph);
    let layers: Vec<_> = (0..graph.node.len()).filter_map(|at| uses.layer(graph, at)).collect();
    // The layers have their matrices now: the engine need not keep them a second time.
    let matrices: HashSet<String> = layers.iter().map(|layer| layer.matrix.clone()).collect();
    graph.initializer.retain(|tensor| !matrices.contains(&tensor.name));
    for Layer { node, replaced, .. } in layers {
        // Nodes are dropped by being emptied, so that the positions of the others stay.
        let last = *replaced.last().expect("a layer replaces a node or more");
        for at in replaced {
            graph.node[at] = NodeProto::default();
        }
        graph.node[last] = node;
    }
    graph.node.retain(|node| !node.op_type.is_empty());
}

struct Layer {
    node: NodeProto,
    replaced: Vec<usize>,
    matrix: String,
}

/// Who reads what in a graph.
struct Uses<'a> {
    /// The only node that reads a value; nothing where several do, or the graph's caller.
    reader: HashMap<&'a str, Option<usize>>,
    constants: HashMap<&'a str, &'a TensorProto>,
}

impl<'a> Uses<'a> {
    fn of(graph: &'a GraphProto) -> Self {
        let mut reader: HashMap<&str, Option<usize>> = HashMap::new();
        let mut read = |name: &'a str, by: Option<usize>| {
            reader.entry(name).and_modify(|reader| *reader = None).or_insert(by);
        };
        for (at, node) in graph.node.iter().enumerate() {
            node.input.iter().for_each(|input| read(input, Some(at)));
            // A subgraph may read whatever stands around it.
            let mut inner: Vec<&GraphProto> = subgraphs(node).collect();
            while let Some(graph) = inner.pop() {
                for node in &graph.node {
                    node.input.iter().for_each(|input| read(input, None));
                    inner.extend(subgraphs(node));
                }
                graph.output.iter().for_each(|output| read(&output.name, None));
            }
        }
        graph.output.iter().for_each(|output| read(&output.name, None));
        // A graph's input with an initializer can be given by the caller of old files: no constant.
        let constants = graph
            .initializer
            .iter()
            .filter(|tensor| tensor.data_type == DataType::Float as i32)
            .filter(|tensor| tensor.data_location.unwrap_or(0) != 1)
            .filter(|tensor| !graph.input.iter().any(|input| input.name == tensor.name))
            .map(|tensor| (tensor.name.as_str(), tensor))
            .collect();
        Self { reader, constants }
    }

    /// The only reader of the node's only output, if it is of the default domain.
    fn next<'g>(&self, graph: &'g GraphProto, node: &NodeProto) -> Option<(usize, &'g NodeProto)> {
        let [output] = &node.output[..] else { return None };
        let at = (*self.reader.get(output.as_str())?)?;
        Some((at, &graph.node[at])).filter(|(_, node)| node.domain.is_empty())
    }

    /// The layer that begins at a node.
    fn layer(&self, graph: &GraphProto, at: usize) -> Option<Layer> {
        let node = &graph.node[at];
        let has_product = matches!(node.op_type.as_str(), "MatMul" | "Gemm");
        if !node.domain.is_empty() || !has_product {
            return None;
        }
        let (input, matrix, own_bias) = match &node.input[..] {
            [input, matrix] => (input, matrix, None),
            [input, matrix, bias] => (input, matrix, Some(bias).filter(|bias| !bias.is_empty())),
            _ => return None,
        };
        // A matrix that several nodes share would be packed, and kept, once for each of them.
        self.reader.get(matrix.as_str()).copied().flatten()?;
        let matrix =
            *self.constants.get(matrix.as_str()).filter(|matrix| matrix.dims.len() == 2)?;
        let is_transposed = node.op_type == "Gemm" && flag(node, "transB");
        let columns = matrix.dims[usize::from(!is_transposed)];
        let bias_of = |name: &str| {
            let constant = *self.constants.get(name)?;
            matches!(constant.dims[..], [n] | [1, n] if n == columns).then_some(constant)
        };
        let (mut last, mut bias, mut activation) = (node, None, None);
        let mut replaced = vec![at];
        if node.op_type == "Gemm" {
            let is_scaled = ["alpha", "beta"]
                .iter()
                .any(|name| attribute(node, name).is_some_and(|scale| scale.f != 1.0));
            if is_scaled || flag(node, "transA") {
                return None;
            }
            if let Some(name) = own_bias {
                bias = Some(bias_of(name)?);
            }
        } else if let Some((at, add)) =
            self.next(graph, last).filter(|(_, node)| node.op_type == "Add")
            && let [first, second] = &add.input[..]
        {
            let other = if *first == last.output[0] { second } else { first };
            if let Some(constant) = bias_of(other) {
                bias = Some(constant);
                last = add;
                replaced.push(at);
            }
        }
        if let Some((at, node)) = self.next(graph, last)
            && Activation::of(&node.op_type).is_some()
        {
            activation = Some(node.op_type.as_str());
            last = node;
            replaced.push(at);
        }
        let mut fused = NodeProto {
            name: node.name.clone(),
            op_type: NAME.to_owned(),
            domain: DOMAIN.to_owned(),
            input: vec![input.clone()],
            output: last.output.clone(),
            ..NodeProto::default()
        };
        fused.attribute.push(tensor("matrix", matrix));
        fused.attribute.push(AttributeProto {
            name: "transposed".to_owned(),
            r#type: AttributeType::Int as i32,
            i: i64::from(is_transposed),
            ..AttributeProto::default()
        });
        fused.attribute.extend(bias.map(|bias| tensor("bias", bias)));
        fused.attribute.extend(activation.map(|activation| AttributeProto {
            name: "activation".to_owned(),
            r#type: AttributeType::String as i32,
            s: activation.as_bytes().to_vec(),
            ..AttributeProto::default()
        }));
        Some(Layer { node: fused, replaced, matrix: matrix.name.clone() })
    }
}

/// Whether a node sets `name`, which is off by default.
fn flag(node: &NodeProto, name: &str) -> bool {
    attribute(node, name).is_some_and(|attribute| attribute.i != 0)
}

fn tensor(name: &str, tensor: &TensorProto) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Tensor as i32,
        t: Some(tensor.clone()),
        ..AttributeProto::default()
    }
}

#[cfg(test)]
mod tests {
    use super::Activation;

    /// As ONNX Runtime 1.32 answers.
    #[test]
    fn what_is_not_a_number_stays_so() {
        let mut values = [f32::NAN, -1.0, 1.0, f32::NEG_INFINITY];
        Activation::Relu.apply(&mut values);
        assert!(values[0].is_nan());
        assert_eq!(values[1..], [0.0, 1.0, 0.0]);
    }
}
