//! Typed contents to the bytes of a tensor.

use bytes::Bytes;
use prost::Message;

use super::proto::InferTensorContents;
use crate::protocol::v2::ProtocolError;
use crate::tensor::{Datatype, push_element};

/// The elements of the tensor `name`, which must stand in the field of its datatype and in no other.
pub(super) fn read(
    contents: Bytes,
    datatype: Datatype,
    name: &str,
) -> Result<Bytes, ProtocolError> {
    let contents = InferTensorContents::decode(contents).map_err(|error| {
        ProtocolError::tensor(name, format!("contents are no InferTensorContents: {error}"))
    })?;
    let Some(wanted) = field(datatype) else {
        let reason = format!("{datatype} has no typed contents; send raw_input_contents");
        return Err(ProtocolError::tensor(name, reason));
    };
    let InferTensorContents {
        bool_contents,
        int_contents,
        int64_contents,
        uint_contents,
        uint64_contents,
        fp32_contents,
        fp64_contents,
        bytes_contents,
    } = contents;
    let filled = [
        ("bool_contents", bool_contents.len()),
        ("int_contents", int_contents.len()),
        ("int64_contents", int64_contents.len()),
        ("uint_contents", uint_contents.len()),
        ("uint64_contents", uint64_contents.len()),
        ("fp32_contents", fp32_contents.len()),
        ("fp64_contents", fp64_contents.len()),
        ("bytes_contents", bytes_contents.len()),
    ];
    if let Some((other, _)) = filled.iter().find(|(field, n)| *n > 0 && *field != wanted) {
        let reason = format!("elements of {datatype} belong into {wanted}, got {other}");
        return Err(ProtocolError::tensor(name, reason));
    }
    let data = match datatype {
        Datatype::Bool => bool_contents.into_iter().map(u8::from).collect(),
        Datatype::Int8 => narrow(&int_contents, i8::to_le_bytes, datatype, name)?,
        Datatype::Int16 => narrow(&int_contents, i16::to_le_bytes, datatype, name)?,
        Datatype::Int32 => flat(&int_contents, i32::to_le_bytes),
        Datatype::Int64 => flat(&int64_contents, i64::to_le_bytes),
        Datatype::Uint8 => narrow(&uint_contents, u8::to_le_bytes, datatype, name)?,
        Datatype::Uint16 => narrow(&uint_contents, u16::to_le_bytes, datatype, name)?,
        Datatype::Uint32 => flat(&uint_contents, u32::to_le_bytes),
        Datatype::Uint64 => flat(&uint64_contents, u64::to_le_bytes),
        Datatype::Fp32 => flat(&fp32_contents, f32::to_le_bytes),
        Datatype::Fp64 => flat(&fp64_contents, f64::to_le_bytes),
        Datatype::Bytes => {
            let mut data = Vec::new();
            bytes_contents.iter().for_each(|element| push_element(&mut data, element));
            data
        }
        // These have no field.
        Datatype::Fp16 | Datatype::Bf16 => Vec::new(),
    };
    Ok(data.into())
}

/// The field that a datatype's elements travel in.
fn field(datatype: Datatype) -> Option<&'static str> {
    Some(match datatype {
        Datatype::Bool => "bool_contents",
        Datatype::Int8 | Datatype::Int16 | Datatype::Int32 => "int_contents",
        Datatype::Int64 => "int64_contents",
        Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 => "uint_contents",
        Datatype::Uint64 => "uint64_contents",
        Datatype::Fp32 => "fp32_contents",
        Datatype::Fp64 => "fp64_contents",
        Datatype::Bytes => "bytes_contents",
        Datatype::Fp16 | Datatype::Bf16 => return None,
    })
}

fn flat<T: Copy, const N: usize>(elements: &[T], bytes: fn(T) -> [u8; N]) -> Vec<u8> {
    elements.iter().flat_map(|&element| bytes(element)).collect()
}

/// Elements of a datatype that is narrower than its field.
fn narrow<W, T, const N: usize>(
    elements: &[W],
    bytes: fn(T) -> [u8; N],
    datatype: Datatype,
    name: &str,
) -> Result<Vec<u8>, ProtocolError>
where
    W: Copy + std::fmt::Display,
    T: TryFrom<W>,
{
    let mut data = Vec::with_capacity(elements.len() * N);
    for (index, &element) in elements.iter().enumerate() {
        let Ok(value) = T::try_from(element) else {
            let reason = format!("element {index}: {element} is out of range for {datatype}");
            return Err(ProtocolError::tensor(name, reason));
        };
        data.extend_from_slice(&bytes(value));
    }
    Ok(data)
}
