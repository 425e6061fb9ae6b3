//! The one observation of an answer. It is offered after the answer is ready, and never before:
//! offering does not block, does not fail the request, and every refusal is counted
//! (offered = observed + dropped). The monitor takes it; shadows take copies of requests ([`shadow`]).
//!
//! One thread ([`thread`]) takes what waits, hands it to the recorder of the version that answered,
//! and makes the ticks. It looks by itself, so that offering wakes nobody and costs no system call.
//! Small observations are copied into blocks ([`block`]), large ones share their tensors.
//!
//! Invariants:
//! - memory is bounded: by observations and by the bytes of tensors that they keep alive;
//! - a recorder that panics is watched no more, which is counted and said; predictions go on.

mod block;
pub mod disagreements;
mod monitors;
mod queue;
pub mod shadow;
mod thread;

pub use monitors::{CommandError, Monitors, Told};
pub use queue::Offered;
pub use thread::{Thread, start};
