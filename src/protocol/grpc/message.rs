//! `ModelInferRequest` as the server reads it: typed contents stay bytes until somebody knows what
//! they should be.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;

use super::parameters;
use super::proto::InferParameter;
use super::proto::model_infer_request::InferRequestedOutputTensor;

/// A `ModelInferRequest`: the same numbers, with contents unread. Reading it costs no more for a
/// large tensor than for a small one.
#[derive(Clone, PartialEq, Message)]
pub struct InferMessage {
    /// The model's name.
    #[prost(string, tag = "1")]
    pub model_name: String,
    /// The version or alias asked for; empty where the client does not care.
    #[prost(string, tag = "2")]
    pub model_version: String,
    /// What the client calls the request.
    #[prost(string, tag = "3")]
    pub id: String,
    #[prost(btree_map = "string, message", tag = "4")]
    pub(super) parameters: BTreeMap<String, InferParameter>,
    #[prost(message, repeated, tag = "5")]
    pub(super) inputs: Vec<InputMessage>,
    #[prost(message, repeated, tag = "6")]
    pub(super) outputs: Vec<InferRequestedOutputTensor>,
    #[prost(bytes = "bytes", repeated, tag = "7")]
    pub(super) raw: Vec<Bytes>,
}

/// An `InferInputTensor`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct InputMessage {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) datatype: String,
    #[prost(int64, repeated, tag = "3")]
    pub(super) shape: Vec<i64>,
    #[prost(btree_map = "string, message", tag = "4")]
    pub(super) parameters: BTreeMap<String, InferParameter>,
    /// An `InferTensorContents`, unread.
    #[prost(bytes = "bytes", optional, tag = "5")]
    pub(super) contents: Option<Bytes>,
}

impl InferMessage {
    /// Bytes that are yet to be read element by element.
    #[must_use]
    pub fn unread(&self) -> usize {
        self.inputs.iter().filter_map(|input| input.contents.as_ref()).map(Bytes::len).sum()
    }

    /// Bytes that are yet to be copied from shared memory, as announced.
    #[must_use]
    pub fn in_memory(&self) -> u64 {
        let places = self.inputs.iter().map(|input| parameters::place(&input.parameters, ""));
        let sizes = places.filter_map(|place| place.ok()??.byte_size);
        sizes.fold(0, u64::saturating_add)
    }

    /// The version or alias asked for.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        Some(self.model_version.as_str()).filter(|version| !version.is_empty())
    }
}
