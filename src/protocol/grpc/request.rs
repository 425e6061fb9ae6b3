//! Requests: a message and a signature to tensors in the signature's order.

use std::time::Duration;

use bytes::Bytes;

use super::contents;
use super::message::{InferMessage, InputMessage};
use super::parameters;
use super::proto::model_infer_request::InferRequestedOutputTensor;
use crate::protocol::binding::Binding;
use crate::protocol::region::Memory;
use crate::protocol::v2::{Form, InferRequest, ProtocolError, RequestedOutput};
use crate::tensor::{Datatype, Shape, Signature, Specs, Tensor};

/// Parameters of the request that ask for what is not here, and why it is not.
const REFUSED: [(&str, &str); 3] = [
    ("sequence_id", NO_SEQUENCES),
    ("sequence_start", NO_SEQUENCES),
    ("sequence_end", NO_SEQUENCES),
];

const NO_SEQUENCES: &str =
    "sequences are not supported: no model here keeps a state between requests";

/// Decodes a request. Raw contents are shared with the message; tensors may be in `memory`.
pub fn decode_request(
    message: InferMessage,
    signature: &Signature,
    mut memory: Memory<'_>,
) -> Result<InferRequest, ProtocolError> {
    let InferMessage { id, parameters, inputs, outputs, raw, .. } = message;
    for (name, reason) in REFUSED {
        if parameters::asks(&parameters, name) {
            return Err(ProtocolError::Tensors(format!("parameter '{name}': {reason}")));
        }
    }
    let timeout = parameters::number(&parameters, "timeout")?;
    let priority = parameters::number(&parameters, "priority")?.unwrap_or(0);
    Ok(InferRequest {
        id: Some(id).filter(|id| !id.is_empty()).map(String::into_boxed_str),
        inputs: bind(inputs, raw, signature, &mut memory)?,
        outputs: requested(&outputs, signature, &memory)?,
        timeout: timeout.filter(|&micros| micros > 0).map(Duration::from_micros),
        priority,
    })
}

fn bind(
    inputs: Vec<InputMessage>,
    raw: Vec<Bytes>,
    signature: &Signature,
    memory: &mut Memory<'_>,
) -> Result<Vec<Tensor>, ProtocolError> {
    let (n_inputs, n_raw) = (inputs.len(), raw.len());
    let mut binding = Binding::new(&signature.inputs, "input");
    let mut raw = raw.into_iter();
    for input in inputs {
        let InputMessage { name, datatype, shape, parameters, contents } = input;
        let (datatype, shape) = (datatype_of(&name, &datatype)?, shape_of(&name, &shape)?);
        let place = binding.place(&name, datatype, &shape)?;
        if let Some(there) = parameters::place(&parameters, &name)? {
            if contents.is_some_and(|contents| !contents.is_empty()) {
                let reason = "has both contents and parameters of shared memory";
                return Err(ProtocolError::tensor(&name, reason));
            }
            // It has no part in the raw contents.
            binding.put(place, memory.tensor(&there, &name, datatype, &shape)?);
            continue;
        }
        let data = match (raw.next(), contents) {
            (Some(raw), None) => raw,
            // A message that is there and empty carries nothing.
            (Some(raw), Some(contents)) if contents.is_empty() => raw,
            (Some(_), Some(_)) => {
                let reason = "has contents, and there are raw_input_contents; send one of them";
                return Err(ProtocolError::tensor(&name, reason));
            }
            (None, Some(contents)) if n_raw == 0 => contents::read(contents, datatype, &name)?,
            (None, None) if n_raw == 0 && shape.contains(&0) => Bytes::new(),
            (None, None) if n_raw == 0 => {
                let reason = "has no contents, and there are no raw_input_contents";
                return Err(ProtocolError::tensor(&name, reason));
            }
            (None, _) => {
                let reason = format!(
                    "has no raw_input_contents: there are {n_raw} for {n_inputs} inputs, and they must be used for all inputs or for none"
                );
                return Err(ProtocolError::tensor(&name, reason));
            }
        };
        let tensor = Tensor::new(datatype, shape, data)
            .map_err(|error| ProtocolError::tensor(&name, error.to_string()))?;
        binding.put(place, tensor);
    }
    if raw.len() > 0 {
        let message = format!("{n_raw} raw_input_contents for {n_inputs} inputs");
        return Err(ProtocolError::Tensors(message));
    }
    binding.all()
}

fn datatype_of(tensor: &str, name: &str) -> Result<Datatype, ProtocolError> {
    Datatype::from_name(name).ok_or_else(|| {
        let known = Datatype::ALL.map(Datatype::name).join(", ");
        ProtocolError::tensor(tensor, format!("datatype '{name}' is not one of {known}"))
    })
}

fn shape_of(tensor: &str, dims: &[i64]) -> Result<Shape, ProtocolError> {
    let shape: Option<Shape> = dims.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    shape.ok_or_else(|| {
        let reason = format!("shape {dims:?}: expected dimensions from 0 on");
        ProtocolError::tensor(tensor, reason)
    })
}

fn requested(
    outputs: &[InferRequestedOutputTensor],
    signature: &Signature,
    memory: &Memory<'_>,
) -> Result<Vec<RequestedOutput>, ProtocolError> {
    let form = Form::Binary;
    if outputs.is_empty() {
        let all = 0..signature.outputs.len();
        return Ok(all.map(|index| RequestedOutput::of(index, form)).collect());
    }
    let mut requested: Vec<RequestedOutput> =
        Vec::with_capacity(outputs.len().min(signature.outputs.len()));
    for InferRequestedOutputTensor { name, parameters } in outputs {
        let index = signature.output(name).ok_or_else(|| {
            let expected = Specs(&signature.outputs);
            ProtocolError::Tensors(format!("unknown output '{name}'; the model has {expected}"))
        })?;
        if requested.iter().any(|output| output.index == index) {
            return Err(ProtocolError::Tensors(format!("output '{name}' is asked for twice")));
        }
        let classification = parameters::classification(parameters, name)?;
        let there = parameters::place(parameters, name)?;
        let span = there.map(|there| memory.span(&there, name)).transpose()?;
        requested.push(RequestedOutput { index, form, classification, span });
    }
    Ok(requested)
}
