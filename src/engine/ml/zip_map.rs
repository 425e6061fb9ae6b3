//! `ai.onnx.ml.ZipMap` (1): a map from class to score for each row, which no tensor can carry.
//!
//! Exporters put it last, and there the tensor of scores under it says the same: the graph is
//! rewritten so that the output is that tensor, with one column a class. A `ZipMap` whose maps go
//! into another node is refused.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorShapeProto, TypeProto, type_proto};
use tract_onnx::tract_core::internal::{Tensor, TractResult, bail};

use super::{DOMAIN, Form, Kernel};
use crate::engine::graph::attribute;

/// Where [`replace_zip_maps`] left one: inside a subgraph, or before another node.
#[derive(Debug)]
pub(super) struct ZipMap;

impl Kernel for ZipMap {
    fn domain() -> &'static str {
        DOMAIN
    }

    fn parse(_: &ParsingContext<'_>, node: &NodeProto) -> TractResult<Self> {
        bail!(
            "ZipMap '{}' makes maps for another node, and maps are no tensors: export the model \
             without it (skl2onnx: options={{'zipmap': False}})",
            node.name
        )
    }

    fn outputs(&self, _: &[Form]) -> TractResult<Vec<Form>> {
        bail!("ZipMap is never run")
    }

    fn run(&self, _: &[&Tensor]) -> TractResult<Vec<Tensor>> {
        bail!("ZipMap is never run")
    }
}

/// Replaces each `ZipMap` whose maps are an output of the graph by the tensor under it. Returns
/// the class labels of each such output.
pub(in crate::engine) fn replace_zip_maps(proto: &mut ModelProto) -> Vec<(String, Vec<String>)> {
    let Some(graph) = &mut proto.graph else { return Vec::new() };
    let mut labels = Vec::new();
    for at in 0..graph.node.len() {
        let node = &graph.node[at];
        let is_last = node.op_type == "ZipMap"
            && node.domain == DOMAIN
            && node.input.len() == 1
            && node.output.len() == 1
            && graph.output.iter().any(|output| output.name == node.output[0])
            && !graph.node.iter().any(|other| other.input.contains(&node.output[0]));
        if !is_last {
            continue;
        }
        let classes = classes(node);
        let name = node.output[0].clone();
        declare_scores(graph, &name, classes.len());
        let node = &mut graph.node[at];
        "Identity".clone_into(&mut node.op_type);
        node.domain.clear();
        node.attribute.clear();
        labels.push((name, classes));
    }
    labels
}

fn classes(node: &NodeProto) -> Vec<String> {
    let ints = attribute(node, "classlabels_int64s").filter(|labels| !labels.ints.is_empty());
    if let Some(labels) = ints {
        return labels.ints.iter().map(ToString::to_string).collect();
    }
    let strings = attribute(node, "classlabels_strings");
    let strings = strings.map(|labels| labels.strings.as_slice()).unwrap_or_default();
    strings.iter().map(|label| String::from_utf8_lossy(label).into_owned()).collect()
}

/// Declares the output as binary32 scores, one column a class.
fn declare_scores(graph: &mut GraphProto, name: &str, n_classes: usize) {
    let size = |value| Dimension { value: Some(value), ..Dimension::default() };
    let classes = match i64::try_from(n_classes) {
        Ok(n_classes) if n_classes > 0 => size(dimension::Value::DimValue(n_classes)),
        _ => Dimension::default(),
    };
    let shape = TensorShapeProto { dim: vec![Dimension::default(), classes] };
    let tensor = type_proto::Tensor { elem_type: DataType::Float as i32, shape: Some(shape) };
    for output in graph.output.iter_mut().filter(|output| output.name == name) {
        let value = Some(type_proto::Value::TensorType(tensor.clone()));
        output.r#type = Some(TypeProto { value, ..TypeProto::default() });
    }
}
