//! When and where a prediction runs.
//!
//! A small model runs inline, on the I/O thread that decoded the request: a thread hop would cost
//! more than the model. A heavy one runs on the compute pool ([`pool`]), so that sockets go on
//! being served. Which of the two is decided for each request from what the model is known to cost
//! ([`Cost`]); both observe the same limits and deadlines, and both run through [`runner`], which
//! minds panics. Between the two lies what stays where no core is idle ([`medium`]), and what waits and is
//! run by I/O threads then ([`seat`]).
//!
//! What waits for the same model at the pool is run together where that is configured or pays
//! ([`batch`]); so are requests that one I/O thread finds at its sockets together
//! ([`gather`]). A request of many rows is run in parts ([`mod@split`]).
//!
//! The scheduler knows what it executes as [`Execute`] and tensors; it knows no versions.
//!
//! Invariants:
//! - what was admitted is answered exactly once, or dropped unrun because its deadline passed or
//!   its caller went away, which is counted;
//! - queues are bounded: beyond the limit, or where its turn would come too late, a request is
//!   refused at once;
//! - a panic in one execution leaves the pool and all else as they were.

mod batch;
mod cost;
mod errands;
mod executor;
mod gather;
mod light;
mod medium;
mod pool;
mod queue;
mod reply;
mod runner;
mod seat;
mod split;

use std::num::NonZeroU64;
use std::time::Duration;

pub use batch::{join, split};
pub use cost::Cost;
pub use executor::{Executor, Job, Limits, Metrics, Permit, Placement};
pub use medium::{io_thread_rests, io_thread_wakes};
pub use pool::Pool;
pub use queue::Queue;
pub use split::Pending;

use crate::engine::{Plan, RunError};
use crate::error::{Code, Fault};
use crate::tensor::Tensor;

/// Something that turns input tensors into output tensors.
pub trait Execute: Send + Sync {
    /// Runs. Blocks for as long as it takes.
    fn execute(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, RunError>;

    /// Whether rows of several requests may be put together.
    fn is_batchable(&self) -> bool;

    /// Whether these inputs can be run at once, without a lock that others may wait for.
    fn is_ready_for(&self, _inputs: &[Tensor]) -> bool {
        true
    }
}

impl Execute for Plan {
    fn execute(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, RunError> {
        self.run(inputs)
    }

    fn is_batchable(&self) -> bool {
        self.signature().is_batchable()
    }

    fn is_ready_for(&self, inputs: &[Tensor]) -> bool {
        self.is_compiled_for(inputs)
    }
}

/// An execution's outcome and what it took.
#[derive(Debug)]
pub struct Execution {
    /// The outputs, in the signature's order.
    pub outputs: Vec<Tensor>,
    /// From admission to the start of the run.
    pub queued: Duration,
    /// The run itself; shared by all requests of a batch.
    pub computed: Duration,
    /// Rows of the batch that this request's rows ran in.
    pub batch_rows: usize,
    /// The number of that batch, which no other of this process has; nothing where the request ran
    /// alone.
    pub batch: Option<NonZeroU64>,
    /// The place of its first row in the batch.
    pub first_row: usize,
}

/// Why a prediction was not run to its end.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ExecuteError {
    /// The model's own limit is reached.
    #[error("has {limit} predictions in flight, which is its limit; try again later")]
    Full {
        /// The limit, `max_in_flight`.
        limit: usize,
    },
    /// Its turn would not come in time.
    #[error(
        "would be answered in about {} ms, and the deadline is {} ms; try again later",
        .expected.as_millis(), .allowed.as_millis()
    )]
    Late {
        /// How long it would take.
        expected: Duration,
        /// How long it may take.
        allowed: Duration,
    },
    /// The engine panicked time after time.
    #[error("is in quarantine, since the engine panicked on it time after time; load it anew")]
    Quarantined,
    /// Nothing came before the deadline.
    #[error("the deadline of {} ms passed", .0.as_millis())]
    Deadline(Duration),
    /// The server is going down.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// It ran and failed.
    #[error(transparent)]
    Run(#[from] RunError),
}

impl Fault for ExecuteError {
    fn code(&self) -> Code {
        match self {
            Self::Full { .. } => Code::RateLimited,
            Self::Late { .. } => Code::Overloaded,
            Self::Quarantined => Code::Unavailable,
            Self::Deadline(_) => Code::DeadlineExceeded,
            Self::ShuttingDown => Code::Unavailable,
            Self::Run(error) => error.code(),
        }
    }
}

#[cfg(test)]
mod tests;
