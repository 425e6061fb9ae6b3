//! The client's side: requests to bytes, bytes to answers.

use bytes::Bytes;

use super::ProtocolError;
use super::answer::{AnswerOutput, string, tensors};
use super::request::{Binary, Form, tensor};
use super::wire::{self, Side};
use crate::protocol::region::Memory;
use crate::tensor::Tensor;

/// An answer as it came.
#[derive(Debug, Clone)]
pub struct DecodedAnswer {
    /// The model that answered.
    pub model_name: String,
    /// Its version.
    pub model_version: String,
    /// The request's id, where it had one.
    pub id: Option<String>,
    /// Outputs by name, in the order in which they came.
    pub outputs: Vec<(String, Tensor)>,
}

/// Appends a request for all outputs, in the same form as the inputs. Returns the length of the
/// JSON part where binary tensors follow it.
pub fn encode_request(
    id: Option<&str>,
    inputs: &[(&str, &Tensor)],
    form: Form,
    buffer: &mut Vec<u8>,
) -> Option<usize> {
    let start = buffer.len();
    buffer.push(b'{');
    if let Some(id) = id {
        buffer.extend_from_slice(b"\"id\":");
        string(id, buffer);
        buffer.push(b',');
    }
    let binary = form == Form::Binary;
    buffer.extend_from_slice(
        format!("\"parameters\":{{\"binary_data_output\":{binary}}}").as_bytes(),
    );
    let inputs =
        inputs.iter().map(|&(name, tensor)| AnswerOutput { name, tensor, form, span: None });
    let mut lent = Vec::new();
    let json_length = tensors("inputs", inputs, start, buffer, &mut lent);
    lent.iter().for_each(|piece| buffer.extend_from_slice(piece));
    json_length
}

/// Decodes the body of an answer, whose JSON part has `json_length` bytes where binary tensors
/// follow it.
pub fn decode_answer(
    body: &Bytes,
    json_length: Option<usize>,
) -> Result<DecodedAnswer, ProtocolError> {
    let length = json_length.unwrap_or(body.len());
    let Some((json, _)) = body.split_at_checked(length) else {
        return Err(ProtocolError::Binary(format!(
            "the JSON part is said to have {length} bytes, but the body has {}",
            body.len()
        )));
    };
    let message = wire::read(json, Side::Answer)?;
    let mut binary = Binary { rest: body.slice(length..), has_header: true };
    let mut outputs = Vec::new();
    for listed in message.tensors.unwrap_or_default() {
        let name = listed.name.to_string();
        outputs.push((name, tensor(listed, &mut binary, &mut Memory::of(None, 0))?));
    }
    binary.end()?;
    Ok(DecodedAnswer {
        model_name: message.model_name.unwrap_or_default().into_owned(),
        model_version: message.model_version.unwrap_or_default().into_owned(),
        id: message.id.map(std::borrow::Cow::into_owned),
        outputs,
    })
}
