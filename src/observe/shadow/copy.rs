//! A copy of a request, and the room that copies have.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::{OfferedAnswer, OfferedCopy};
use crate::registry::{Copies, Version};
use crate::telemetry::trace::Carried;
use crate::tensor::Tensor;

/// What all copies together may take.
#[derive(Debug)]
pub(super) struct Room {
    most: usize,
    most_bytes: usize,
    /// Copies that are alive: in the queue, waiting for their candidate, or being run.
    copies: AtomicUsize,
    /// Bytes of their tensors.
    bytes: AtomicUsize,
}

impl Room {
    pub(super) fn new(most: usize, most_bytes: usize) -> Self {
        Self { most, most_bytes, copies: AtomicUsize::new(0), bytes: AtomicUsize::new(0) }
    }

    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Copies that are alive.
    pub(super) fn taken(&self) -> usize {
        self.copies.load(Ordering::Relaxed)
    }

    fn enter(&self, bytes: usize) -> bool {
        let copies = self.copies.fetch_add(1, Ordering::Relaxed);
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // One that is larger than the limit alone is taken while nothing else waits.
        let fits = before == 0 || before.saturating_add(bytes) <= self.most_bytes;
        if copies < self.most && fits {
            return true;
        }
        self.leave(bytes);
        false
    }

    fn leave(&self, bytes: usize) {
        self.copies.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// One answered request for all candidates that get it.
#[derive(Debug)]
pub(super) struct Copy {
    pub(super) copies: Arc<Copies>,
    pub(super) primary: Arc<Version>,
    pub(super) id: Bytes,
    /// Of the id.
    pub(super) hash: u64,
    pub(super) segment: Option<Bytes>,
    pub(super) at: u64,
    pub(super) trace: Option<Carried>,
    pub(super) inputs: Vec<Tensor>,
    pub(super) answer: Result<Answer, String>,
    /// Of its tensors.
    bytes: usize,
    room: Arc<Room>,
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) outputs: Vec<Tensor>,
    pub(super) total: Duration,
}

impl Copy {
    /// Nothing where there is no room.
    pub(super) fn new(offered: &OfferedCopy<'_>, hash: u64, room: &Arc<Room>) -> Option<Self> {
        let bytes_of = |tensors: &[Tensor]| tensors.iter().map(|t| t.data().len()).sum::<usize>();
        let of_answer = offered.answer.as_ref().map_or(0, |answer| bytes_of(answer.outputs));
        let bytes = bytes_of(offered.inputs) + of_answer;
        if !room.enter(bytes) {
            return None;
        }
        let answer = match &offered.answer {
            Ok(OfferedAnswer { outputs, total }) => {
                Ok(Answer { outputs: outputs.to_vec(), total: *total })
            }
            Err(reason) => Err(reason.clone()),
        };
        Some(Self {
            copies: Arc::clone(offered.copies),
            primary: Arc::clone(offered.primary),
            id: Bytes::copy_from_slice(offered.id),
            hash,
            segment: offered.segment.map(Bytes::copy_from_slice),
            at: offered.at,
            trace: offered.trace.clone(),
            inputs: offered.inputs.to_vec(),
            answer,
            bytes,
            room: Arc::clone(room),
        })
    }

    /// Rows of the inputs.
    pub(super) fn rows(&self) -> usize {
        self.inputs.first().map_or(1, Tensor::rows)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.room.leave(self.bytes);
    }
}
