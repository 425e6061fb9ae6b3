//! The Open Inference Protocol V2 over gRPC, with the messages that Triton added to it.
//!
//! The messages are generated from `proto/`, which is our own text of the published names and
//! numbers. What a prediction consists of is read and written by hand around them: raw contents
//! are shared with the message that they came in, typed contents are read only once the signature
//! says what they should be, and an answer is written once, into the frame that is sent.
//!
//! Decisions where the specification is silent:
//! - Raw contents are for all inputs or for none; a tensor with both is refused.
//! - Answers are always raw, which is what Triton's clients read.
//! - Elements in the wrong typed field are refused, and so are values out of the datatype's range.
//! - Requests of a sequence are refused: no model here keeps a state between requests.

mod answer;
mod contents;
pub mod documents;
mod frame;
mod message;
mod parameters;
mod reflection;
mod request;
mod timeout;

#[cfg(test)]
mod tests;

pub use answer::{Frame, Parameter, answer_frame, error_frame, stream_frame};
pub use frame::{PREFIX, Prefix, frame};
pub use message::InferMessage;
pub use reflection::Reflection;
pub use request::decode_request;
pub use timeout::parse_timeout;

/// The messages, as generated.
#[expect(
    missing_docs,
    clippy::derive_partial_eq_without_eq,
    clippy::doc_markdown,
    clippy::must_use_candidate,
    reason = "generated; proto/ documents it"
)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/inference.rs"));

    /// `grpc.health.v1`
    pub mod health {
        include!(concat!(env!("OUT_DIR"), "/grpc.health.v1.rs"));
    }

    /// `grpc.reflection.v1`, and in the same form `v1alpha`
    pub mod reflection {
        include!(concat!(env!("OUT_DIR"), "/grpc.reflection.v1.rs"));
    }
}
