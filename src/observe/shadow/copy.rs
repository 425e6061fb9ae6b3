//! A copy of a request, and the room that copies have.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::OfferedCopy;
use crate::registry::{Copies, Version};
use crate::telemetry::trace::Carried;
use crate::tensor::Tensor;

/// Copies that an I/O thread drops for one that it offers.
const DROPPED_AT_ONCE: usize = 2;

/// What all copies together may take.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Room {
    /// Copies that are alive: in the queue, waiting for their candidate, or being run.
    copies: AtomicUsize,
    /// Bytes of their tensors.
    bytes: AtomicUsize,
    most: usize,
    most_bytes: usize,
    pub(super) spent: Spent,
}

impl Room {
    pub(super) fn new(most: usize, most_bytes: usize) -> Self {
        let (copies, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { copies, bytes, most, most_bytes, spent: Spent::default() }
    }

    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Copies that are alive.
    pub(super) fn taken(&self) -> usize {
        self.copies.load(Ordering::Relaxed)
    }

    /// Whether there is room for one more, which has it then.
    pub(super) fn enter(&self, bytes: usize) -> bool {
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

    pub(super) fn leave(&self, bytes: usize) {
        self.copies.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Who answered, and who gets copies.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) copies: Arc<Copies>,
    pub(super) primary: Arc<Version>,
}

/// One answered request for all candidates that get it.
#[derive(Debug)]
pub(super) struct Copy {
    pub(super) origin: Arc<Origin>,
    pub(super) id: Bytes,
    /// Of the id.
    pub(super) hash: u64,
    pub(super) segment: Option<Bytes>,
    pub(super) at: u64,
    pub(super) trace: Option<Carried>,
    pub(super) inputs: Vec<Tensor>,
    pub(super) answer: Result<Answer, String>,
    /// The last to go.
    #[expect(dead_code, reason = "it is held")]
    pub(super) place: Place,
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) outputs: Vec<Tensor>,
    pub(super) total: Duration,
}

impl Copy {
    /// Rows of the inputs.
    pub(super) fn rows(&self) -> usize {
        self.inputs.first().map_or(1, Tensor::rows)
    }
}

/// A copy's part of the room, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    bytes: usize,
    room: Arc<Room>,
    /// What the copy was made of, where that is an I/O thread's.
    made_of: Option<Large>,
}

impl Place {
    pub(super) fn new(bytes: usize, room: &Arc<Room>) -> Self {
        Self { bytes, room: Arc::clone(room), made_of: None }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.leave(self.bytes);
        if let Some(large) = self.made_of.take() {
            self.room.spent.put(large);
        }
    }
}

/// A copy whose tensors are shared with the I/O thread that made it.
#[derive(Debug)]
pub(super) struct Large(Box<Kept>);

#[derive(Debug)]
struct Kept {
    copies: Arc<Copies>,
    primary: Arc<Version>,
    id: Bytes,
    hash: u64,
    segment: Option<Bytes>,
    at: u64,
    trace: Option<Carried>,
    inputs: Vec<Tensor>,
    /// In place of the time, why there are no outputs.
    answer: Result<Duration, String>,
    outputs: Vec<Tensor>,
    bytes: usize,
}

impl Large {
    pub(super) fn new(offered: &OfferedCopy<'_>, hash: u64, bytes: usize) -> Self {
        let answer = offered.answer.as_ref();
        Self(Box::new(Kept {
            copies: Arc::clone(offered.copies),
            primary: Arc::clone(offered.primary),
            id: Bytes::copy_from_slice(offered.id),
            hash,
            segment: offered.segment.map(Bytes::copy_from_slice),
            at: offered.at,
            trace: offered.trace.clone(),
            inputs: offered.inputs.to_vec(),
            outputs: answer.map(|answer| answer.outputs.to_vec()).unwrap_or_default(),
            answer: answer.map(|answer| answer.total).map_err(Clone::clone),
            bytes,
        }))
    }

    /// The copy, which owns none of the memory.
    pub(super) fn open(self, room: &Arc<Room>) -> Copy {
        let kept = &*self.0;
        let answer = match &kept.answer {
            Ok(total) => Ok(Answer { outputs: kept.outputs.clone(), total: *total }),
            Err(reason) => Err(reason.clone()),
        };
        let (copies, primary) = (Arc::clone(&kept.copies), Arc::clone(&kept.primary));
        Copy {
            origin: Arc::new(Origin { copies, primary }),
            id: kept.id.clone(),
            hash: kept.hash,
            segment: kept.segment.clone(),
            at: kept.at,
            trace: kept.trace.clone(),
            inputs: kept.inputs.clone(),
            answer,
            place: Place { bytes: kept.bytes, room: Arc::clone(room), made_of: Some(self) },
        }
    }
}

/// Large copies that nobody needs any longer, on their way back to the I/O threads: memory is given
/// back by whoever took it. The system's allocator locks what a thread took when another one gives it
/// back, and the threads of shadows may be stopped for long with that lock.
#[derive(Debug, Default)]
pub(super) struct Spent(Mutex<Vec<Large>>);

impl Spent {
    pub(super) fn put(&self, large: Large) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(large);
    }

    /// Drops some, on an I/O thread that offers another one. Waits for nobody.
    pub(super) fn drop_some(&self) {
        for _ in 0..DROPPED_AT_ONCE {
            let Ok(mut spent) = self.0.try_lock() else { return };
            let one = spent.pop();
            drop(spent);
            drop(one);
        }
    }

    /// Drops all, where no I/O thread has come for them.
    pub(super) fn drop_all(&self) {
        let all = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        drop(all);
    }
}
