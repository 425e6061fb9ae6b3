//! Answers: tensors to a framed `ModelInferResponse`, written once, by hand.
//!
//! The lengths of a message's parts stand before them, so all sizes are computed first; then the
//! buffer is taken once. Large outputs are lent to the socket rather than copied.

use bytes::Bytes;

use super::frame::{PREFIX, Prefix};
use crate::protocol::v2::{Answer, AnswerOutput, LEND_FROM};

/// A framed message in the pieces that it is sent in.
#[derive(Debug, Clone, Default)]
pub struct Frame {
    /// The first piece.
    pub first: Bytes,
    /// What follows it.
    pub rest: Vec<Bytes>,
}

impl Frame {
    /// Bytes of all pieces.
    #[must_use]
    pub fn len(&self) -> usize {
        self.first.len() + self.rest.iter().map(Bytes::len).sum::<usize>()
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Bytes> for Frame {
    fn from(first: Bytes) -> Self {
        Self { first, rest: Vec::new() }
    }
}

/// A parameter of an answer.
#[derive(Debug, Clone, Copy)]
pub enum Parameter<'a> {
    /// `bool_param`
    Bool(bool),
    /// `string_param`
    Text(&'a str),
}

/// Fields of the messages; all of them are length-delimited but for those in [`Parameter`].
mod field {
    pub(super) const MODEL_NAME: u8 = 1;
    pub(super) const MODEL_VERSION: u8 = 2;
    pub(super) const ID: u8 = 3;
    pub(super) const PARAMETERS: u8 = 4;
    pub(super) const OUTPUTS: u8 = 5;
    pub(super) const RAW: u8 = 6;

    pub(super) const OUTPUT_NAME: u8 = 1;
    pub(super) const OUTPUT_DATATYPE: u8 = 2;
    pub(super) const OUTPUT_SHAPE: u8 = 3;

    pub(super) const MAP_KEY: u8 = 1;
    pub(super) const MAP_VALUE: u8 = 2;
    pub(super) const BOOL_PARAM: u8 = 1;
    pub(super) const STRING_PARAM: u8 = 3;

    pub(super) const ERROR_MESSAGE: u8 = 1;
    pub(super) const INFER_RESPONSE: u8 = 2;
}

/// The answer to `ModelInfer`.
#[must_use]
pub fn answer_frame(answer: &Answer<'_>) -> Frame {
    let size = answer_size(answer, &[]);
    let mut writer = Writer::new(size, answer);
    writer.answer(answer, &[]);
    writer.end()
}

/// The same as an answer of `ModelStreamInfer`, with parameters.
#[must_use]
pub fn stream_frame(answer: &Answer<'_>, parameters: &[(&str, Parameter<'_>)]) -> Frame {
    let size = answer_size(answer, parameters);
    let mut writer = Writer::new(delimited(size), answer);
    writer.head(field::INFER_RESPONSE, size);
    writer.answer(answer, parameters);
    writer.end()
}

/// What `ModelStreamInfer` says of a request that has no answer; `id` is the request's.
#[must_use]
pub fn error_frame(message: &str, id: &str) -> Frame {
    let response = text_size(id);
    let size = text_size(message) + if response > 0 { delimited(response) } else { 0 };
    let nothing = Answer { model_name: "", model_version: "", id: None, outputs: &[] };
    let mut writer = Writer::new(size, &nothing);
    writer.text(field::ERROR_MESSAGE, message);
    if response > 0 {
        writer.head(field::INFER_RESPONSE, response);
        writer.text(field::ID, id);
    }
    writer.end()
}

/// The size of a field whose tag takes one byte, as all of ours do.
fn delimited(length: usize) -> usize {
    1 + prost::length_delimiter_len(length) + length
}

/// Of a text, which is left out where it is empty.
fn text_size(text: &str) -> usize {
    if text.is_empty() { 0 } else { delimited(text.len()) }
}

fn answer_size(answer: &Answer<'_>, parameters: &[(&str, Parameter<'_>)]) -> usize {
    let parameters = parameters.iter().map(|(name, value)| delimited(entry_size(name, *value)));
    let outputs = answer.outputs.iter();
    let outputs =
        outputs.map(|output| delimited(output_size(output)) + delimited(output.sent().len()));
    text_size(answer.model_name)
        + text_size(answer.model_version)
        + text_size(answer.id.unwrap_or_default())
        + parameters.sum::<usize>()
        + outputs.sum::<usize>()
}

fn output_size(output: &AnswerOutput<'_>) -> usize {
    let shape = shape_size(output);
    let shape = if shape > 0 { delimited(shape) } else { 0 };
    text_size(output.name) + text_size(output.tensor.datatype().name()) + shape
}

fn shape_size(output: &AnswerOutput<'_>) -> usize {
    output.tensor.shape().iter().map(|&dim| prost::length_delimiter_len(dim)).sum()
}

fn entry_size(name: &str, value: Parameter<'_>) -> usize {
    text_size(name) + delimited(value_size(value))
}

fn value_size(value: Parameter<'_>) -> usize {
    match value {
        Parameter::Bool(_) => 2,
        // Within the oneof an empty text is sent too.
        Parameter::Text(text) => delimited(text.len()),
    }
}

struct Writer {
    buffer: Vec<u8>,
    /// Pieces before the buffer.
    pieces: Vec<Bytes>,
}

impl Writer {
    /// A writer of a message of `size` bytes, which begins with its prefix.
    fn new(size: usize, answer: &Answer<'_>) -> Self {
        let data = answer.outputs.iter().map(|output| output.sent().len());
        let lent: usize = data.filter(|&length| length >= LEND_FROM).sum();
        let mut buffer = Vec::with_capacity(PREFIX + size - lent);
        buffer.extend_from_slice(&Prefix::of(size).write());
        Self { buffer, pieces: Vec::new() }
    }

    fn end(mut self) -> Frame {
        let last = Bytes::from(self.buffer);
        if self.pieces.is_empty() {
            return last.into();
        }
        if !last.is_empty() {
            self.pieces.push(last);
        }
        let first = self.pieces.remove(0);
        Frame { first, rest: self.pieces }
    }

    fn answer(&mut self, answer: &Answer<'_>, parameters: &[(&str, Parameter<'_>)]) {
        self.text(field::MODEL_NAME, answer.model_name);
        self.text(field::MODEL_VERSION, answer.model_version);
        self.text(field::ID, answer.id.unwrap_or_default());
        for &(name, value) in parameters {
            self.head(field::PARAMETERS, entry_size(name, value));
            self.text(field::MAP_KEY, name);
            self.head(field::MAP_VALUE, value_size(value));
            match value {
                Parameter::Bool(value) => {
                    // A varint.
                    self.buffer.extend_from_slice(&[field::BOOL_PARAM << 3, u8::from(value)]);
                }
                Parameter::Text(text) => {
                    self.head(field::STRING_PARAM, text.len());
                    self.buffer.extend_from_slice(text.as_bytes());
                }
            }
        }
        for output in answer.outputs {
            self.head(field::OUTPUTS, output_size(output));
            self.text(field::OUTPUT_NAME, output.name);
            self.text(field::OUTPUT_DATATYPE, output.tensor.datatype().name());
            let shape = shape_size(output);
            if shape > 0 {
                self.head(field::OUTPUT_SHAPE, shape);
                output.tensor.shape().iter().for_each(|&dim| self.varint(dim));
            }
        }
        // One for each output, empty where its elements are elsewhere: clients count them.
        for output in answer.outputs {
            self.raw(output.sent());
        }
    }

    fn raw(&mut self, data: &Bytes) {
        self.head(field::RAW, data.len());
        if data.len() < LEND_FROM {
            self.buffer.extend_from_slice(data);
        } else {
            self.pieces.push(std::mem::take(&mut self.buffer).into());
            self.pieces.push(data.clone());
        }
    }

    fn text(&mut self, field: u8, text: &str) {
        if !text.is_empty() {
            self.head(field, text.len());
            self.buffer.extend_from_slice(text.as_bytes());
        }
    }

    /// The key and the length of a length-delimited field.
    fn head(&mut self, field: u8, length: usize) {
        const LENGTH_DELIMITED: u8 = 2;
        self.buffer.push(field << 3 | LENGTH_DELIMITED);
        self.varint(length);
    }

    fn varint(&mut self, mut value: usize) {
        while value >= 0x80 {
            self.buffer.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.buffer.push(value as u8);
    }
}
