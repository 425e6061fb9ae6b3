//! Observations of small tensors, copied one after the other into memory that is kept.
//!
//! Nearly all observations are small: some numbers in, some out. To hand their tensors to another
//! thread would cost more than to copy them, since memory that one thread takes and another gives
//! back goes the allocator's long way, on both.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::queue::{Observation, Offered};
use crate::monitor::Recorder;
use crate::tensor::{Datatype, Shape, Tensor};

/// Bytes of one observation that are copied; of larger ones the tensors are shared.
pub(super) const SMALL: usize = 4 << 10;

/// Observations of a block, at most.
pub(super) const MOST: usize = 128;

/// Bytes of a block's tensors and ids.
const MOST_BYTES: usize = 64 << 10;

/// Some observations. Cleared, it keeps its memory.
#[derive(Debug, Default)]
pub(super) struct Block {
    /// Ids, segments and the elements of tensors.
    bytes: Vec<u8>,
    tensors: Vec<(Datatype, Shape, Range<usize>)>,
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

impl Block {
    /// Whether there is room for an observation of so many bytes.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.bytes.len() + bytes <= MOST_BYTES
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

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
            id: self.copy(id),
            segment: segment.map(|segment| self.copy(segment)),
            inputs: self.copy_all(inputs),
            outputs: self.copy_all(outputs),
        };
        self.entries.push(entry);
    }

    fn copy(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }

    fn copy_all(&mut self, tensors: &[Tensor]) -> Range<usize> {
        let start = self.tensors.len();
        for tensor in tensors {
            let data = self.copy(tensor.data());
            self.tensors.push((tensor.datatype(), tensor.shape().into(), data));
        }
        start..self.tensors.len()
    }

    /// Hands the observations to `take`, in their order, and forgets them.
    pub(super) fn drain(&mut self, mut take: impl FnMut(&Arc<Recorder>, Observation)) {
        for entry in self.entries.drain(..) {
            let Entry { recorder, at, id, segment, inputs, outputs } = entry;
            let bytes = |range: Range<usize>| Bytes::copy_from_slice(&self.bytes[range]);
            let tensors = |range: Range<usize>| {
                let parts = self.tensors[range].iter();
                // What was a tensor is one: nothing is left out here.
                let made = parts.filter_map(|(datatype, shape, data)| {
                    Tensor::new(*datatype, shape.clone(), bytes(data.clone())).ok()
                });
                made.collect()
            };
            let observation = Observation {
                id: bytes(id),
                segment: segment.map(bytes),
                at,
                inputs: tensors(inputs),
                outputs: tensors(outputs),
            };
            take(&self.recorders[recorder], observation);
        }
        self.bytes.clear();
        self.tensors.clear();
        self.recorders.clear();
    }
}
