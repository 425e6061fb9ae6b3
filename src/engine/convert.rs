//! Tensors of the protocol to tensors of the engine and back.

use bytes::Bytes;
use tract_onnx::prelude::tract_ndarray::{ArrayD, IxDyn};
use tract_onnx::prelude::{DatumType, IntoTensor, TValue, Tensor as TractTensor};

use super::{RunError, bfloat16, reason};
use crate::tensor::{Datatype, Shape, Tensor, TensorSpec, push_element};

/// Answers smaller than this are copied out of the engine, larger ones lent.
const COPY_BELOW: usize = 4096;

/// The engine's type for a datatype. BF16 is widened (see [`bfloat16`]).
pub(super) fn datum_type(datatype: Datatype) -> DatumType {
    match datatype {
        Datatype::Bool => DatumType::Bool,
        Datatype::Uint8 => DatumType::U8,
        Datatype::Uint16 => DatumType::U16,
        Datatype::Uint32 => DatumType::U32,
        Datatype::Uint64 => DatumType::U64,
        Datatype::Int8 => DatumType::I8,
        Datatype::Int16 => DatumType::I16,
        Datatype::Int32 => DatumType::I32,
        Datatype::Int64 => DatumType::I64,
        Datatype::Fp16 => DatumType::F16,
        Datatype::Bf16 | Datatype::Fp32 => DatumType::F32,
        Datatype::Fp64 => DatumType::F64,
        Datatype::Bytes => DatumType::String,
    }
}

/// Copies a tensor into the engine: one copy, into aligned memory.
pub(super) fn to_engine(tensor: &Tensor, spec: &TensorSpec) -> Result<TractTensor, RunError> {
    let failed = |reason: String| RunError::Input { tensor: spec.name.clone(), reason };
    match tensor.datatype() {
        Datatype::Bytes => strings(tensor).map_err(failed),
        Datatype::Bf16 => {
            let wide = bfloat16::to_binary32(tensor.data());
            plain(DatumType::F32, tensor.shape(), &wide).map_err(failed)
        }
        datatype => plain(datum_type(datatype), tensor.shape(), tensor.data()).map_err(failed),
    }
}

fn plain(datum_type: DatumType, shape: &[usize], bytes: &[u8]) -> Result<TractTensor, String> {
    #[expect(unsafe_code, reason = "tract offers no safe constructor from bytes")]
    // SAFETY: the datum type is one of `datum_type()`'s, which are plain data; every bit pattern
    // is a value of them, but for Bool, whose bytes `Tensor` keeps at 0 or 1. tract checks that
    // the number of bytes fits the shape. Tested for every datatype in `plan`'s tests.
    let tensor = unsafe { TractTensor::from_raw_dt(datum_type, shape, bytes) };
    tensor.map_err(|error| reason(&error))
}

fn strings(tensor: &Tensor) -> Result<TractTensor, String> {
    let strings = tensor.elements().enumerate().map(|(index, element)| {
        std::str::from_utf8(element)
            .map(str::to_owned)
            .map_err(|_| format!("element {index} is not UTF-8, which the model's strings must be"))
    });
    let strings = strings.collect::<Result<Vec<String>, _>>()?;
    let array = ArrayD::from_shape_vec(IxDyn(tensor.shape()), strings);
    Ok(array.map_err(|error| error.to_string())?.into_tensor())
}

/// Takes an answer out of the engine, as the datatype that the model declares.
pub(super) fn from_engine(value: TValue, spec: &TensorSpec) -> Result<Tensor, RunError> {
    let failed = |reason: String| RunError::Engine(format!("output '{}': {reason}", spec.name));
    let value = match value.datum_type() {
        DatumType::TDim => {
            let cast = value.cast_to::<i64>().map_err(|error| failed(reason(&error)))?;
            cast.into_owned().into()
        }
        _ => value,
    };
    let shape = Shape::from_slice(value.shape());
    let expected = datum_type(spec.datatype);
    if value.datum_type() != expected {
        return Err(failed(format!("is {:?} where {expected:?} is declared", value.datum_type())));
    }
    let data = match spec.datatype {
        Datatype::Bytes => {
            let view = value.to_plain_array_view::<String>().map_err(|e| failed(reason(&e)))?;
            let mut data = Vec::new();
            view.iter().for_each(|string| push_element(&mut data, string.as_bytes()));
            Bytes::from(data)
        }
        Datatype::Bf16 => Bytes::from(bfloat16::from_binary32(value.as_bytes())),
        _ if value.as_bytes().len() < COPY_BELOW => Bytes::copy_from_slice(value.as_bytes()),
        _ => Bytes::from_owner(Lent(value)),
    };
    Tensor::new(spec.datatype, shape, data).map_err(|error| failed(error.to_string()))
}

/// Lends the engine's memory to whoever holds the answer.
struct Lent(TValue);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}
