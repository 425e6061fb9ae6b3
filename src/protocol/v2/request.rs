//! Requests: a body and a signature to tensors in the signature's order.

use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Bytes;

use super::ProtocolError;
use super::wire::{
    self, Parameters, Side, WireData, WireMessage, WireOutput, WireTensor, WireTensors,
};
use crate::protocol::binding::Binding;
use crate::protocol::region::Memory;
use crate::shared_memory::Span;
use crate::tensor::{Datatype, Shape, Signature, Specs, Tensor, TensorSpec};

/// A request for a prediction.
#[derive(Debug, Clone)]
pub struct InferRequest {
    /// What the client calls it; goes back with the answer.
    pub id: Option<Box<str>>,
    /// The inputs, in the signature's order.
    pub inputs: Vec<Tensor>,
    /// The outputs to answer with: as asked for, or all in the signature's order.
    pub outputs: Vec<RequestedOutput>,
    /// How long the client is willing to wait (schedule_policy); nothing where it does not say.
    pub timeout: Option<Duration>,
    /// The client's priority (schedule_policy); 0 where it does not say.
    pub priority: u64,
}

/// An output that a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedOutput {
    /// Its position in the signature's outputs.
    pub index: usize,
    /// How it is to be sent.
    pub form: Form,
    /// Send the best classes, this many, instead of the values.
    pub classification: Option<NonZeroUsize>,
    /// Where in shared memory it is to be written, instead of being sent.
    pub span: Option<Span>,
}

impl RequestedOutput {
    /// All values of an output, in the answer.
    #[must_use]
    pub fn of(index: usize, form: Form) -> Self {
        Self { index, form, classification: None, span: None }
    }
}

/// How a tensor is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// In the JSON.
    Json,
    /// Behind it.
    Binary,
}

/// Decodes the body of a request. `json_length` is what `Inference-Header-Content-Length` says:
/// the length of the JSON part; 0 for a raw request, whose body is the only input's data; nothing
/// where the whole body is JSON.
pub fn decode_request(
    body: &Bytes,
    json_length: Option<usize>,
    signature: &Signature,
) -> Result<InferRequest, ProtocolError> {
    decode_request_with(body, json_length, signature, Memory::of(None, 0))
}

/// The same, where tensors may be in shared memory.
pub fn decode_request_with(
    body: &Bytes,
    json_length: Option<usize>,
    signature: &Signature,
    mut memory: Memory<'_>,
) -> Result<InferRequest, ProtocolError> {
    if json_length == Some(0) {
        return decode_raw(body, signature);
    }
    let length = json_length.unwrap_or(body.len());
    let Some((json, _)) = body.split_at_checked(length) else {
        return Err(ProtocolError::Binary(format!(
            "the JSON part is said to have {length} bytes, but the body has {}",
            body.len()
        )));
    };
    let WireMessage { id, parameters, tensors, requested, .. } = wire::read(json, Side::Request)?;
    let tensors = tensors.ok_or_else(|| {
        let expected = Specs(&signature.inputs);
        ProtocolError::Tensors(format!("the request has no `inputs`; expected {expected}"))
    })?;
    let binary = Binary { rest: body.slice(length..), has_header: json_length.is_some() };
    let inputs = bind(tensors, &signature.inputs, "input", binary, &mut memory)?;
    let outputs = outputs(requested, &parameters, signature, &memory)?;
    Ok(InferRequest {
        id: id.map(|id| id.into_owned().into_boxed_str()),
        inputs,
        outputs,
        timeout: parameters.timeout.filter(|&timeout| timeout > 0).map(Duration::from_micros),
        priority: parameters.priority.unwrap_or(0),
    })
}

/// Decodes a JSON list of tensors that are exactly those of `specs`, in the order of `specs`.
pub fn decode_tensors(json: &[u8], specs: &[TensorSpec]) -> Result<Vec<Tensor>, ProtocolError> {
    let binary = Binary { rest: Bytes::new(), has_header: false };
    bind(wire::read_tensors(json)?, specs, "tensor", binary, &mut Memory::of(None, 0))
}

/// The part of a body behind the JSON.
pub(super) struct Binary {
    pub(super) rest: Bytes,
    pub(super) has_header: bool,
}

impl Binary {
    /// The next tensor's bytes, shared with the body.
    pub(super) fn take(&mut self, tensor: &str, size: u64) -> Result<Bytes, ProtocolError> {
        // Nothing needs no header: a message whose binary part is empty has none.
        if size > 0 && !self.has_header {
            return Err(ProtocolError::tensor(
                tensor,
                "has binary_data_size, but the header Inference-Header-Content-Length is missing",
            ));
        }
        match usize::try_from(size) {
            Ok(size) if size <= self.rest.len() => Ok(self.rest.split_to(size)),
            _ => Err(ProtocolError::tensor(
                tensor,
                format!(
                    "binary_data_size is {size}, but {} bytes of the body are left",
                    self.rest.len()
                ),
            )),
        }
    }

    pub(super) fn end(&self) -> Result<(), ProtocolError> {
        match self.rest.len() {
            0 => Ok(()),
            left => {
                Err(ProtocolError::Binary(format!("{left} bytes are left behind the last tensor")))
            }
        }
    }
}

/// The tensor that was listed, with its bytes.
pub(super) fn tensor(
    listed: WireTensor<'_>,
    binary: &mut Binary,
    memory: &mut Memory<'_>,
) -> Result<Tensor, ProtocolError> {
    let WireTensor { name, datatype, shape, data } = listed;
    let data = match data {
        WireData::Here(data) => data.into(),
        WireData::Binary(size) => binary.take(&name, size)?,
        WireData::Region(place) => return memory.tensor(&place, &name, datatype, &shape),
    };
    Tensor::new(datatype, shape, data).map_err(|error| ProtocolError::of_tensor(&name, &error))
}

/// Puts listed tensors into the order of `specs`, each checked against its declaration.
fn bind(
    listed: WireTensors<'_>,
    specs: &[TensorSpec],
    what: &str,
    mut binary: Binary,
    memory: &mut Memory<'_>,
) -> Result<Vec<Tensor>, ProtocolError> {
    let mut binding = Binding::new(specs, what);
    // In the order of the list: the binary part follows it.
    for listed in listed {
        let place = binding.place(&listed.name, listed.datatype, &listed.shape)?;
        binding.put(place, tensor(listed, &mut binary, memory)?);
    }
    binary.end()?;
    binding.all()
}

fn outputs(
    requested: Option<Vec<WireOutput<'_>>>,
    parameters: &Parameters,
    signature: &Signature,
    memory: &Memory<'_>,
) -> Result<Vec<RequestedOutput>, ProtocolError> {
    let default = parameters.binary_data_output.unwrap_or(false);
    let form = |binary: bool| if binary { Form::Binary } else { Form::Json };
    let requested = requested.unwrap_or_default();
    if requested.is_empty() {
        let all = 0..signature.outputs.len();
        return Ok(all.map(|index| RequestedOutput::of(index, form(default))).collect());
    }
    let mut outputs: Vec<RequestedOutput> =
        Vec::with_capacity(requested.len().min(signature.outputs.len()));
    for WireOutput { name, parameters } in requested {
        let index = signature.output(&name).ok_or_else(|| {
            let expected = Specs(&signature.outputs);
            ProtocolError::Tensors(format!("unknown output '{name}'; the model has {expected}"))
        })?;
        if outputs.iter().any(|output| output.index == index) {
            return Err(ProtocolError::Tensors(format!("output '{name}' is asked for twice")));
        }
        let classification = match parameters.classification {
            None => None,
            Some(k) => {
                Some(usize::try_from(k).ok().and_then(NonZeroUsize::new).ok_or_else(|| {
                    ProtocolError::tensor(
                        &name,
                        format!("parameter 'classification': expected at least 1, got {k}"),
                    )
                })?)
            }
        };
        let form = form(parameters.binary_data.unwrap_or(default));
        let span = parameters.place.map(|place| memory.span(&place, &name)).transpose()?;
        outputs.push(RequestedOutput { index, form, classification, span });
    }
    Ok(outputs)
}

/// A raw request: the body is the data of the model's only input, of one row; all outputs come
/// back as binary.
fn decode_raw(body: &Bytes, signature: &Signature) -> Result<InferRequest, ProtocolError> {
    let [spec] = signature.inputs.as_slice() else {
        return Err(ProtocolError::Binary(format!(
            "a raw request (header length 0) needs a model with one input, this one has {}",
            Specs(&signature.inputs)
        )));
    };
    let shape = raw_shape(spec, body.len())?;
    let data = match spec.datatype {
        Datatype::Bytes => {
            let element = Tensor::from_elements(shape.clone(), [&**body]);
            element.map_err(|error| ProtocolError::of_tensor(&spec.name, &error))?.data().clone()
        }
        _ => body.clone(),
    };
    let tensor = Tensor::new(spec.datatype, shape, data)
        .map_err(|error| ProtocolError::of_tensor(&spec.name, &error))?;
    let all = 0..signature.outputs.len();
    let outputs = all.map(|index| RequestedOutput::of(index, Form::Binary));
    Ok(InferRequest {
        id: None,
        inputs: vec![tensor],
        outputs: outputs.collect(),
        timeout: None,
        priority: 0,
    })
}

/// The shape of a raw request: one row, and what of the other dimensions is free by the length of
/// the data.
fn raw_shape(spec: &TensorSpec, length: usize) -> Result<Shape, ProtocolError> {
    let refused = |reason: String| {
        ProtocolError::tensor(&spec.name, format!("{reason}; the model expects {spec}"))
    };
    let mut shape = spec.shape_with(1);
    let free: Vec<usize> =
        (0..spec.shape.len()).filter(|&axis| spec.shape[axis].is_none()).collect();
    let Some(size) = spec.datatype.size() else {
        return match shape.iter().product::<usize>() {
            1 => Ok(shape),
            n_elements => {
                Err(refused(format!("a raw request carries one BYTES element, not {n_elements}")))
            }
        };
    };
    // With a free first dimension there is one row, and at most one further dimension may be free.
    let open = match free.as_slice() {
        [] => return Ok(shape),
        [axis] | [0, axis] => *axis,
        _ => {
            return Err(refused(
                "a raw request needs a model with at most one free dimension beyond the rows"
                    .to_owned(),
            ));
        }
    };
    if free.len() == 1 && open == 0 && spec.shape.len() > 1 {
        return Ok(shape);
    }
    let row = shape.iter().product::<usize>().checked_mul(size).filter(|&row| row > 0);
    match row {
        Some(row) if length.is_multiple_of(row) => {
            shape[open] = length / row;
            Ok(shape)
        }
        _ => Err(refused(format!("{length} bytes fit no size of the free dimension"))),
    }
}
