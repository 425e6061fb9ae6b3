//! Small observations, copied.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::queue::{Observation, Offered};
use crate::handoff::Entries;
use crate::monitor::Recorder;

/// Some observations. Cleared, it keeps its memory.
pub(super) type Block = Entries<Arc<Recorder>, Entry>;

#[derive(Debug)]
pub(super) struct Entry {
    /// The position among the recorders.
    recorder: usize,
    at: u64,
    id: Range<usize>,
    segment: Option<Range<usize>>,
    /// Positions among the tensors.
    inputs: Range<usize>,
    outputs: Range<usize>,
}

impl Block {
    /// Copies an observation.
    pub(super) fn push(&mut self, offered: &Offered<'_>) {
        let Offered { recorder, id, segment, at, inputs, outputs } = offered;
        let recorder_at = self.own(|last| Arc::ptr_eq(last, recorder), || Arc::clone(recorder));
        let entry = Entry {
            recorder: recorder_at,
            at: *at,
            id: self.copies.copy(id),
            segment: segment.map(|segment| self.copies.copy(segment)),
            inputs: self.copies.copy_all(inputs),
            outputs: self.copies.copy_all(outputs),
        };
        self.add(entry);
    }

    /// Hands the observations to `take`, in their order.
    pub(super) fn each(&self, mut take: impl FnMut(&Arc<Recorder>, Observation)) {
        for entry in self.entries() {
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
            take(&self.owners()[*recorder], observation);
        }
    }
}
