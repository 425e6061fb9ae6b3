//! bfloat16 for an engine that has none.
//!
//! tract knows no bfloat16. Every bfloat16 value is a binary32 value, so the graph is rewritten
//! to binary32 before tract sees it, and the plan's outputs are rounded back (to nearest, ties to
//! even) where the model declares bfloat16. Intermediate results keep binary32's precision: an
//! answer is at least as close to the exact one as with bfloat16 arithmetic, and it can differ
//! from an engine that rounds after each operator.

use half::bf16;
use tract_onnx::pb::{self, attribute_proto::AttributeType, tensor_proto::DataType, type_proto};

const BFLOAT16: i32 = DataType::Bfloat16 as i32;
const FLOAT: i32 = DataType::Float as i32;

/// Rewrites all bfloat16 declarations, constants and casts to binary32.
pub(super) fn widen(proto: &mut pb::ModelProto) {
    let mut graphs: Vec<&mut pb::GraphProto> = proto.graph.iter_mut().collect();
    while let Some(graph) = graphs.pop() {
        let values = graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info);
        values.for_each(widen_type);
        graph.initializer.iter_mut().for_each(widen_constant);
        for node in &mut graph.node {
            for attribute in &mut node.attribute {
                let is_int = attribute.r#type == AttributeType::Int as i32;
                if is_int
                    && ["to", "dtype"].contains(&attribute.name.as_str())
                    && attribute.i == i64::from(BFLOAT16)
                {
                    attribute.i = i64::from(FLOAT);
                }
                attribute.t.iter_mut().chain(&mut attribute.tensors).for_each(widen_constant);
                graphs.extend(attribute.g.iter_mut().chain(&mut attribute.graphs));
            }
        }
    }
}

fn widen_type(value: &mut pb::ValueInfoProto) {
    if let Some(type_proto::Value::TensorType(tensor)) =
        value.r#type.as_mut().and_then(|declared| declared.value.as_mut())
        && tensor.elem_type == BFLOAT16
    {
        tensor.elem_type = FLOAT;
    }
}

fn widen_constant(constant: &mut pb::TensorProto) {
    if constant.data_type != BFLOAT16 {
        return;
    }
    constant.data_type = FLOAT;
    if constant.raw_data.is_empty() {
        // ONNX keeps the 16 bits in the low half of int32_data.
        let bits = constant.int32_data.drain(..);
        constant.float_data = bits.map(|bits| bf16::from_bits(bits as u16).to_f32()).collect();
    } else {
        constant.raw_data = to_binary32(&constant.raw_data);
    }
}

/// bfloat16 bytes as binary32 bytes, exactly.
pub(super) fn to_binary32(bytes: &[u8]) -> Vec<u8> {
    bytes.chunks_exact(2).flat_map(|half| [0, 0, half[0], half[1]]).collect()
}

/// binary32 bytes as bfloat16 bytes, rounded to nearest, ties to even.
pub(super) fn from_binary32(bytes: &[u8]) -> Vec<u8> {
    bytes
        .chunks_exact(4)
        .flat_map(|b| bf16::from_f32(f32::from_le_bytes([b[0], b[1], b[2], b[3]])).to_le_bytes())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bfloat16_survives_the_way_there_and_back() {
        let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let back = from_binary32(&to_binary32(&all));
        for (before, after) in all.chunks_exact(2).zip(back.chunks_exact(2)) {
            let before = bf16::from_le_bytes([before[0], before[1]]);
            let after = bf16::from_le_bytes([after[0], after[1]]);
            assert!(before == after || (before.is_nan() && after.is_nan()), "{before} {after}");
        }
    }
}
