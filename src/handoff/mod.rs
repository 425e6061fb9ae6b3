//! Handing things from many threads to one: what nobody may wait for, in memory that is used again.
//!
//! Nearly all that is handed over is small: some numbers in, some out. To hand their tensors to
//! another thread would cost more than to copy them, since memory that one thread takes and another
//! gives back goes the allocator's long way, on both. So small things are copied into blocks
//! ([`Copies`]) that come back empty, and only large ones share their tensors.
//!
//! Invariants:
//! - offering waits for nobody: the thread that takes may have the least of priorities, and be stopped
//!   at any point;
//! - memory is bounded: by number and by the bytes of tensors that are kept alive.

mod copies;
mod entries;
mod queue;

pub use copies::{Copied, Copies};
pub use entries::Entries;
pub use queue::{Block, Queues, Waiting};

use crate::tensor::Tensor;

/// Bytes of the elements of some tensors.
#[must_use]
pub fn bytes_of(tensors: &[Tensor]) -> usize {
    tensors.iter().map(|tensor| tensor.data().len()).sum()
}
