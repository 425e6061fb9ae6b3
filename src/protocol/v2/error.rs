//! What can be wrong with a request.

use super::wire::NOT_A_REQUEST;
use crate::error::{Code, Fault};
use crate::tensor::TensorError;

/// Why bytes are not a request (or an answer) of the protocol. The message names the tensor, what
/// was expected and what came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The JSON is malformed or is not of the protocol's form.
    #[error("{0}")]
    Json(String),
    /// A tensor's data are not what it declares.
    #[error("tensor '{tensor}': {reason}")]
    Tensor {
        /// The tensor's name.
        tensor: String,
        /// What was expected and what came.
        reason: String,
    },
    /// A tensor is not one of the model's, or is missing, or stands twice.
    #[error("{0}")]
    Tensors(String),
    /// The tensors take more than a body may.
    #[error("the rows take more than the limit of {limit} bytes as tensors (limits.body)")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// The binary part does not fit the JSON part.
    #[error("{0}")]
    Binary(String),
}

impl Fault for ProtocolError {
    fn code(&self) -> Code {
        match self {
            Self::TooLarge { .. } => Code::TooLarge,
            _ => Code::InvalidArgument,
        }
    }
}

impl ProtocolError {
    pub(in crate::protocol) fn tensor(tensor: &str, reason: impl Into<String>) -> Self {
        Self::Tensor { tensor: tensor.to_owned(), reason: reason.into() }
    }

    pub(in crate::protocol) fn of_tensor(tensor: &str, error: &TensorError) -> Self {
        Self::tensor(tensor, error.to_string())
    }

    /// An error of the JSON reader. `bytes` is what it read.
    pub(super) fn json(error: &serde_json::Error, bytes: &[u8]) -> Self {
        let text = error.to_string();
        let hint = if error.is_syntax() { hint(error, bytes) } else { "" };
        Self::Json(format!("{NOT_A_REQUEST}{text}{hint}"))
    }
}

/// A word on the most common mistake: NaN and infinities written bare.
fn hint(error: &serde_json::Error, bytes: &[u8]) -> &'static str {
    let line = bytes.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1));
    let start = error.column().saturating_sub(2);
    let around = line.and_then(|line| line.get(start..)).unwrap_or_default();
    let begins = |word: &[u8]| {
        around.starts_with(word) || around.get(1..).is_some_and(|rest| rest.starts_with(word))
    };
    if begins(b"NaN") || begins(b"Inf") || begins(b"-Inf") || begins(b"nan") {
        "; JSON has no NaN and no infinity: send the strings \"NaN\", \"Infinity\" and \"-Infinity\""
    } else {
        ""
    }
}
