//! ONNX files to executable plans, on tract.
//!
//! [`OnnxModel`] is the file as read: digest, signature, operators. [`Plan`] is what runs: immutable
//! and shared; the state of a run lives on the thread that runs it, no longer than the run.
//!
//! **Plan ladder.** A model whose shapes are all fixed gets exactly those. One with free
//! dimensions is compiled once with symbols in their place; where the engine refuses that, a plan
//! is compiled for each concrete shape on its first use and kept in a small bounded cache.
//! [`Plan::rung`] says which, and why.
//!
//! Invariants:
//! - a model file is untrusted: whatever is in it, loading returns an error and does not panic;
//! - a panic inside the engine is an error of that run, whose state ends with it;
//! - plans run on the calling thread only: the single-thread executor is set explicitly, since
//!   tract otherwise takes a process-wide lock at every matrix product to find out;
//! - operators that the engine lacks are all named at once, before anything is compiled.

mod arg_max;
mod bfloat16;
mod convert;
mod courtesy;
mod dense;
mod doubles;
mod expanding;
mod extremes;
mod graph;
mod guards;
mod kernel;
mod ml;
mod onnx;
mod operators;
mod plan;
mod recurrent;
mod rowwise;
mod sizes;
mod steps;
mod warmup;

#[cfg(target_endian = "big")]
compile_error!("tensors are little-endian bytes, which the engine reads in place");

use std::fmt;
use std::sync::LazyLock;

pub use courtesy::make_way;
pub use onnx::OnnxModel;
pub use operators::Operator;
pub use plan::{Plan, Rung};
pub use warmup::WarmUp;

use crate::error::{Code, Fault};

/// The platform string of ONNX models in the Open Inference Protocol.
pub const PLATFORM: &str = "onnx_onnxv1";

/// Name and version of the engine, as captured beside predictions: `tract 0.23.9`.
pub static ENGINE: LazyLock<String> = LazyLock::new(|| {
    let locked = include_str!("../../Cargo.lock")
        .split_once("name = \"tract-onnx\"\nversion = \"")
        .and_then(|(_, rest)| rest.split('"').next());
    format!("tract {}", locked.unwrap_or("(unknown version)"))
});

/// Why a model file cannot serve.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LoadError {
    /// The file is not an ONNX model.
    #[error("not an ONNX model: {0}")]
    Parse(String),
    /// An input or output is something that no tensor of the protocol can carry.
    #[error("{place} '{name}': {reason}")]
    Signature {
        /// `input` or `output`.
        place: &'static str,
        /// The tensor's name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The model uses operators that the engine does not have.
    #[error(
        "operators that the engine cannot run: {}; export the model without them, or for \
         another operator set", list(.0)
    )]
    Operators(Vec<Operator>),
    /// The shapes that the settings name are not those of the model's inputs.
    #[error("shapes: {0}")]
    Shapes(String),
    /// The engine refused to compile the model.
    #[error("the engine cannot compile the model: {0}")]
    Compile(String),
    /// The first run failed.
    #[error("the first run failed: {0}")]
    WarmUp(String),
}

impl Fault for LoadError {
    fn code(&self) -> Code {
        Code::InvalidArgument
    }
}

fn list<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

/// Why a run did not give an answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RunError {
    /// An input does not hold what the model can take.
    #[error("tensor '{tensor}': {reason}")]
    Input {
        /// The input's name.
        tensor: String,
        /// What was expected and what came.
        reason: String,
    },
    /// The model cannot take the values of its inputs.
    #[error("the model cannot take these inputs: {0}")]
    Rejected(String),
    /// No plan can be compiled for shapes that the signature allows.
    #[error("the model cannot be run with input shapes {shapes}: {reason}")]
    Shapes {
        /// The shapes as sent.
        shapes: String,
        /// The engine's words.
        reason: String,
    },
    /// The engine failed.
    #[error("the engine failed: {0}")]
    Engine(String),
    /// The engine panicked.
    #[error("the engine panicked: {0}")]
    Panic(String),
}

impl Fault for RunError {
    fn code(&self) -> Code {
        match self {
            Self::Input { .. } | Self::Rejected(_) | Self::Shapes { .. } => Code::InvalidArgument,
            Self::Engine(_) | Self::Panic(_) => Code::Internal,
        }
    }
}

/// Runs `work`, turning a panic into its message.
fn catching<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    // The closures passed here own or drop whatever a panic may have left half done.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).map_err(|payload| {
        payload
            .downcast_ref::<&str>()
            .map(ToString::to_string)
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "unknown reason".to_owned())
    })
}

/// The engine's error with its causes, on one line.
fn reason(error: &tract_onnx::prelude::TractError) -> String {
    error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ").replace('\n', " ")
}
