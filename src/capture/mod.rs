//! What was asked and answered, recorded in Parquet files that analysts read and `tidegate replay`
//! runs again.
//!
//! A request is offered after its answer is ready ([`Capture::offer`]): whether it is in the sample
//! is one hash, small requests are copied into blocks, and large ones share their tensors. One thread
//! of low priority ([`thread`]) makes columns of them ([`columns`]) and writes files ([`mod@file`]). Files
//! for an object store are put there by another thread ([`upload`]).
//!
//! Invariants:
//! - offering does not wait, does not fail the request, and every row that is not recorded although
//!   it should be is counted, with the reason;
//! - a file that can be seen is whole: it is written under a hidden name and renamed when it is
//!   closed. A crash loses at most the rows that were not flushed; the others are made a whole file
//!   by the next start;
//! - a disk that is full, slow or gone costs rows and nothing else, and writing goes on by itself when
//!   it is well again;
//! - memory is bounded by `capture.queue`, `capture.queue_size` and one row group a version.

mod block;
mod columns;
mod connector;
mod file;
mod folder;
mod names;
mod offered;
pub mod read;
mod redact;
mod store;
mod stream;
mod subject;
mod tensors;
mod thread;
mod upload;

pub use names::{BASE, Timing};
pub use offered::{Facts, Offered, Reason};
pub use subject::{About, Score, Scores, Subject, SubjectError};
pub use thread::{Capture, Thread, start};

#[cfg(test)]
mod tests;
