//! The ONNX file as read: what it declares, before anything is compiled.

use std::sync::LazyLock;

use sha2::{Digest, Sha256};
use tract_onnx::pb::{self, tensor_proto::DataType, tensor_shape_proto, type_proto};
use tract_onnx::prelude::{Framework, InferenceModel};

use super::{
    LoadError, Operator, arg_max, bfloat16, catching, dense, doubles, expanding, extremes, ml,
    operators, reason, recurrent,
};
use crate::tensor::{Datatype, Dim, Signature, TensorSpec};

/// tract's ONNX reader with its table of operators and ours: built once, since every load needs
/// it.
pub(super) static FRAMEWORK: LazyLock<tract_onnx::Onnx> = LazyLock::new(|| {
    let mut framework = tract_onnx::onnx();
    arg_max::register(&mut framework.op_register);
    dense::register(&mut framework.op_register);
    doubles::register(&mut framework.op_register);
    expanding::register(&mut framework.op_register);
    extremes::register(&mut framework.op_register);
    ml::register(&mut framework.op_register);
    framework
});

/// A parsed ONNX file.
#[derive(Debug)]
pub struct OnnxModel {
    proto: pb::ModelProto,
    digest: String,
    size: usize,
    signature: Signature,
    symbols: Vec<Vec<Option<String>>>,
    classes: Vec<(String, Vec<String>)>,
    operators: Vec<Operator>,
    n_nodes: usize,
}

impl OnnxModel {
    /// Parses `bytes` and checks that what the model declares can be served. O(size).
    pub fn parse(bytes: &[u8]) -> Result<Self, LoadError> {
        let digest = format!("sha256:{}", hex(&Sha256::digest(bytes)));
        let size = bytes.len();
        let mut reader = bytes;
        let mut proto = catching(|| FRAMEWORK.proto_model_for_read(&mut reader))
            .map_err(LoadError::Parse)?
            .map_err(|error| LoadError::Parse(reason(&error)))?;
        let classes = ml::replace_zip_maps(&mut proto);
        let graph = proto.graph.as_ref().filter(|graph| !graph.output.is_empty());
        let graph = graph.ok_or_else(|| {
            LoadError::Parse("the file holds no graph with outputs; is it complete?".to_owned())
        })?;
        let inputs: Vec<_> = inputs(graph).collect();
        let signature = Signature {
            inputs: inputs.iter().map(|v| spec("input", v)).collect::<Result<_, _>>()?,
            outputs: graph.output.iter().map(|v| spec("output", v)).collect::<Result<_, _>>()?,
        };
        let symbols = inputs.iter().map(|value| symbols(value)).collect();
        bfloat16::widen(&mut proto);
        let n_nodes = proto.graph.as_ref().map_or(0, |graph| graph.node.len());
        recurrent::run_forward(&mut proto);
        // The operators are those that the file names, not those that they are fused to.
        let operators = operators::operators(&proto);
        dense::fuse(&mut proto);
        Ok(Self { proto, digest, size, signature, symbols, classes, operators, n_nodes })
    }

    /// `sha256:` and 64 hexadecimal digits: the digest of the file's bytes.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The file's size in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Inputs and outputs as the file declares them.
    #[must_use]
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// The names that the file gives to free dimensions, by input and axis.
    pub(super) fn symbols(&self) -> &[Vec<Option<String>>] {
        &self.symbols
    }

    /// The class labels of outputs that the file declares as maps from class to score: each is a
    /// tensor here, with one column a class.
    #[must_use]
    pub fn classes(&self) -> &[(String, Vec<String>)] {
        &self.classes
    }

    /// The operators used, with those that the engine lacks.
    #[must_use]
    pub fn operators(&self) -> &[Operator] {
        &self.operators
    }

    /// Imported operator sets: domain and version.
    pub fn opsets(&self) -> impl Iterator<Item = (&str, i64)> {
        self.proto.opset_import.iter().map(|import| {
            let default = import.domain.is_empty();
            (if default { "ai.onnx" } else { import.domain.as_str() }, import.version)
        })
    }

    /// The program that wrote the file, with its version.
    #[must_use]
    pub fn producer(&self) -> String {
        format!("{} {}", self.proto.producer_name, self.proto.producer_version).trim().to_owned()
    }

    /// The intermediate representation's version.
    #[must_use]
    pub fn ir_version(&self) -> i64 {
        self.proto.ir_version
    }

    /// Nodes of the main graph.
    #[must_use]
    pub fn n_nodes(&self) -> usize {
        self.n_nodes
    }

    /// The key-value pairs that the exporter left in the file.
    pub fn metadata(&self) -> impl Iterator<Item = (&str, &str)> {
        self.proto.metadata_props.iter().map(|entry| (entry.key.as_str(), entry.value.as_str()))
    }

    /// Hands the graph to tract. The facts of its inputs are still as declared.
    pub(super) fn translate(&self) -> Result<InferenceModel, LoadError> {
        catching(|| FRAMEWORK.model_for_proto_model(&self.proto))
            .map_err(LoadError::Compile)?
            .map_err(|error| LoadError::Compile(reason(&error)))
    }
}

/// The graph inputs that a request must bring: those without an initializer.
fn inputs(graph: &pb::GraphProto) -> impl Iterator<Item = &pb::ValueInfoProto> {
    graph
        .input
        .iter()
        .filter(|input| !graph.initializer.iter().any(|constant| constant.name == input.name))
}

fn spec(place: &'static str, value: &pb::ValueInfoProto) -> Result<TensorSpec, LoadError> {
    let refused = |reason: &str| LoadError::Signature {
        place,
        name: value.name.clone(),
        reason: reason.into(),
    };
    let Some(type_proto::Value::TensorType(tensor)) =
        value.r#type.as_ref().and_then(|declared| declared.value.as_ref())
    else {
        return Err(refused("is not a tensor; only tensors can be served"));
    };
    let datatype = datatype(tensor.elem_type).ok_or_else(|| {
        refused(&format!("has ONNX element type {}, which cannot be served", tensor.elem_type))
    })?;
    let Some(shape) = &tensor.shape else {
        return Err(refused("declares no shape; export the model with the rank of this tensor"));
    };
    let shape = shape.dim.iter().map(dim).collect::<Option<Vec<Dim>>>();
    let shape = shape.ok_or_else(|| refused("declares a dimension below zero"))?;
    Ok(TensorSpec { name: value.name.clone(), datatype, shape })
}

/// A declared dimension; nothing where it makes no sense. -1 is what some exporters write for a
/// free dimension.
fn dim(dim: &tensor_shape_proto::Dimension) -> Option<Dim> {
    match dim.value {
        Some(tensor_shape_proto::dimension::Value::DimValue(-1)) => Some(None),
        Some(tensor_shape_proto::dimension::Value::DimValue(size)) => {
            usize::try_from(size).ok().map(Some)
        }
        _ => Some(None),
    }
}

fn symbols(value: &pb::ValueInfoProto) -> Vec<Option<String>> {
    let Some(type_proto::Value::TensorType(tensor)) =
        value.r#type.as_ref().and_then(|declared| declared.value.as_ref())
    else {
        return Vec::new();
    };
    let dims = tensor.shape.iter().flat_map(|shape| &shape.dim);
    dims.map(|dim| match &dim.value {
        Some(tensor_shape_proto::dimension::Value::DimParam(name))
            if !name.is_empty() && name != "?" =>
        {
            Some(name.clone())
        }
        _ => None,
    })
    .collect()
}

fn datatype(element: i32) -> Option<Datatype> {
    Some(match DataType::try_from(element).ok()? {
        DataType::Bool => Datatype::Bool,
        DataType::Uint8 => Datatype::Uint8,
        DataType::Uint16 => Datatype::Uint16,
        DataType::Uint32 => Datatype::Uint32,
        DataType::Uint64 => Datatype::Uint64,
        DataType::Int8 => Datatype::Int8,
        DataType::Int16 => Datatype::Int16,
        DataType::Int32 => Datatype::Int32,
        DataType::Int64 => Datatype::Int64,
        DataType::Float16 => Datatype::Fp16,
        DataType::Bfloat16 => Datatype::Bf16,
        DataType::Float => Datatype::Fp32,
        DataType::Double => Datatype::Fp64,
        DataType::String => Datatype::Bytes,
        _ => return None,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
