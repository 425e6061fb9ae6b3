//! Small ONNX models, made as the tests need them.

use prost::Message;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, type_proto,
};

fn value(name: &str, element: DataType, shape: &[&str]) -> ValueInfoProto {
    let dims = shape.iter().map(|dim| Dimension {
        value: Some(match dim.parse::<i64>() {
            Ok(size) => dimension::Value::DimValue(size),
            Err(_) => dimension::Value::DimParam((*dim).to_owned()),
        }),
        ..Dimension::default()
    });
    let shape = Some(TensorShapeProto { dim: dims.collect() });
    let tensor = type_proto::Tensor { elem_type: element as i32, shape };
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}

fn model(graph: GraphProto) -> Vec<u8> {
    let opset = OperatorSetIdProto { domain: String::new(), version: 17 };
    ModelProto {
        ir_version: 8,
        opset_import: vec![opset],
        graph: Some(graph),
        ..ModelProto::default()
    }
    .encode_to_vec()
}

fn node(operator: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: operator.to_owned(),
        name: format!("{operator}_{output}"),
        input: inputs.iter().map(ToString::to_string).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    }
}

/// `y = x`
pub(crate) fn identity(element: DataType, shape: &[&str]) -> Vec<u8> {
    unary("Identity", element, shape)
}

/// `y = operator(x)`
pub(crate) fn unary(operator: &str, element: DataType, shape: &[&str]) -> Vec<u8> {
    model(GraphProto {
        name: "unary".to_owned(),
        node: vec![node(operator, &["x"], "y")],
        input: vec![value("x", element, shape)],
        output: vec![value("y", element, shape)],
        ..GraphProto::default()
    })
}

/// `x FP32 [N,size]` through `n_layers` products with a dense matrix: as slow as one likes.
pub(crate) fn heavy(size: usize, n_layers: usize) -> Vec<u8> {
    let weight = TensorProto {
        name: "w".to_owned(),
        data_type: DataType::Float as i32,
        dims: vec![size as i64, size as i64],
        float_data: (0..size * size)
            .map(|index| ((index % 7) as f32 - 3.0) / size as f32)
            .collect(),
        ..TensorProto::default()
    };
    let names: Vec<String> = (0..=n_layers)
        .map(|layer| match layer {
            0 => "x".to_owned(),
            last if last == n_layers => "y".to_owned(),
            layer => format!("h{layer}"),
        })
        .collect();
    let nodes = names.windows(2).map(|pair| node("MatMul", &[&pair[0], "w"], &pair[1]));
    let dims = ["N".to_owned(), size.to_string()];
    let shape: Vec<&str> = dims.iter().map(String::as_str).collect();
    model(GraphProto {
        name: "heavy".to_owned(),
        node: nodes.collect(),
        initializer: vec![weight],
        input: vec![value("x", DataType::Float, &shape)],
        output: vec![value("y", DataType::Float, &shape)],
        ..GraphProto::default()
    })
}

/// `y = x / (x - number)`: of whole numbers, it fails on `number` itself.
pub(crate) fn divides_by(number: i32, element: DataType, shape: &[&str]) -> Vec<u8> {
    let constant = TensorProto {
        name: "c".to_owned(),
        data_type: element as i32,
        dims: vec![1],
        int32_data: vec![number],
        ..TensorProto::default()
    };
    model(GraphProto {
        name: "divides".to_owned(),
        node: vec![node("Sub", &["x", "c"], "d"), node("Div", &["x", "d"], "y")],
        initializer: vec![constant],
        input: vec![value("x", element, shape)],
        output: vec![value("y", element, shape)],
        ..GraphProto::default()
    })
}
