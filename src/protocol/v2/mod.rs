//! The Open Inference Protocol V2 over HTTP: JSON, and the binary tensor data extension.
//!
//! A body is a JSON object, behind which binary tensors may follow, one after the other in the
//! order in which the object lists them. [`decode_request`] and [`encode_answer`] are the
//! server's side, [`encode_request`] and [`decode_answer`] the client's; both share the code for
//! tensors.
//!
//! Decisions where the specification is silent:
//! - Numbers that JSON cannot write are the strings `"NaN"`, `"Infinity"` and `"-Infinity"`, in
//!   both directions, as in Protocol Buffers' JSON mapping.
//! - FP16 and BF16 are accepted and written as decimals.
//! - `1.0` is an integer, `1.5` is none; a number beyond its datatype's range is an error, never
//!   rounded to infinity or wrapped.
//! - Nested data must have the nesting of its shape; flat data any; nothing between the two.
//! - BYTES that are not UTF-8 cannot be JSON: such an output is sent as binary whatever was
//!   asked for.

mod answer;
mod classification;
mod client;
mod data;
pub mod documents;
mod error;
mod feedback;
mod numbers;
mod request;
mod short;
mod wire;

#[cfg(test)]
mod tests;

pub use answer::{Answer, AnswerOutput, LEND_FROM, encode_answer};
pub(super) use answer::{float, integer, string};
pub use classification::classify;
pub use client::{DecodedAnswer, decode_answer, encode_request};
pub use error::ProtocolError;
pub use feedback::{
    FeedbackCounts, FeedbackError, FeedbackRecord, Label, decode_feedback, encode_feedback,
};
pub use request::{
    Form, InferRequest, RequestedOutput, decode_request, decode_request_with, decode_tensors,
};
