//! Small observations, copied.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::queue::{Observation, Offered};
use crate::handoff::{self, Copies};
use crate::monitor::Recorder;

/// Some observations. Cleared, it keeps its memory.
#[derive(Debug, Default)]
pub(super) struct Block {
    copies: Copies,
    recorders: Vec<Arc<Recorder>>,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    /// The position among the recorders.
    recorder: usize,
    at: u64,
    id: Range<usize>,
    segment: Option<Range<usize>>,
    /// Positions among the tensors.
    inputs: Range<usize>,
    outputs: Range<usize>,
}

impl handoff::Block for Block {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn bytes(&self) -> usize {
        self.copies.len()
    }

    fn clear(&mut self) {
        self.copies.clear();
        self.recorders.clear();
        self.entries.clear();
    }
}

impl Block {
    /// Copies an observation.
    pub(super) fn push(&mut self, offered: &Offered<'_>) {
        let Offered { recorder, id, segment, at, inputs, outputs } = offered;
        let is_last = |last: &Arc<Recorder>| Arc::ptr_eq(last, recorder);
        if !self.recorders.last().is_some_and(is_last) {
            self.recorders.push(Arc::clone(recorder));
        }
        let entry = Entry {
            recorder: self.recorders.len() - 1,
            at: *at,
            id: self.copies.copy(id),
            segment: segment.map(|segment| self.copies.copy(segment)),
            inputs: self.copies.copy_all(inputs),
            outputs: self.copies.copy_all(outputs),
        };
        self.entries.push(entry);
    }

    /// Hands the observations to `take`, in their order.
    pub(super) fn each(&self, mut take: impl FnMut(&Arc<Recorder>, Observation)) {
        for entry in &self.entries {
            let Entry { recorder, at, id, segment, inputs, outputs } = entry;
            let bytes = |range: &Range<usize>| Bytes::copy_from_slice(self.copies.bytes(range));
            let tensors = |range: &Range<usize>| {
                self.copies.tensors(range).filter_map(|copied| copied.to_tensor()).collect()
            };
            let observation = Observation {
                id: bytes(id),
                segment: segment.as_ref().map(bytes),
                at: *at,
                inputs: tensors(inputs),
                outputs: tensors(outputs),
            };
            take(&self.recorders[*recorder], observation);
        }
    }
}
