//! Small copies, in blocks.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::OfferedCopy;
use super::copy::{Answer, Copy, Origin, Place, Room};
use crate::handoff::Entries;
use crate::registry;
use crate::registry::Version;
use crate::telemetry::trace::Carried;

/// Some copies. Cleared, it keeps its memory.
pub(super) type Block = Entries<(Arc<registry::Copies>, Arc<Version>), Entry>;

#[derive(Debug)]
pub(super) struct Entry {
    /// The position among the origins.
    origin: usize,
    hash: u64,
    at: u64,
    trace: Option<Carried>,
    /// All its bytes.
    all: Range<usize>,
    id: Range<usize>,
    segment: Option<Range<usize>>,
    /// How long the answer took, or why there is none.
    answer: Result<Duration, Range<usize>>,
    /// Positions among the tensors.
    inputs: Range<usize>,
    outputs: Range<usize>,
    /// Of its place in the room.
    bytes: usize,
}

impl Block {
    /// Copies a request that takes `bytes` bytes of the room.
    pub(super) fn push(&mut self, offered: &OfferedCopy<'_>, hash: u64, bytes: usize) {
        let OfferedCopy { copies, primary, id, segment, at, trace, inputs, answer } = offered;
        let origin = self.own(
            |(of, by)| Arc::ptr_eq(of, copies) && Arc::ptr_eq(by, primary),
            || (Arc::clone(copies), Arc::clone(primary)),
        );
        let start = self.copies.len();
        let id = self.copies.copy(id);
        let segment = segment.map(|segment| self.copies.copy(segment));
        let inputs = self.copies.copy_all(inputs);
        let outputs = answer.as_ref().map_or(&[][..], |answer| answer.outputs);
        let outputs = self.copies.copy_all(outputs);
        let answer = match answer {
            Ok(answer) => Ok(answer.total),
            Err(reason) => Err(self.copies.copy(reason.as_bytes())),
        };
        self.add(Entry {
            origin,
            hash,
            at: *at,
            trace: trace.clone(),
            all: start..self.copies.len(),
            id,
            segment,
            answer,
            inputs,
            outputs,
            bytes,
        });
    }

    /// Hands the copies to `take`, in their order, each in memory of its own.
    pub(super) fn each(&self, room: &Arc<Room>, mut take: impl FnMut(Copy)) {
        let origin = |(copies, primary): &(Arc<_>, Arc<_>)| {
            Arc::new(Origin { copies: Arc::clone(copies), primary: Arc::clone(primary) })
        };
        let origins: Vec<Arc<Origin>> = self.owners().iter().map(origin).collect();
        for entry in self.entries() {
            let start = entry.all.start;
            let all = Bytes::copy_from_slice(self.copies.bytes(&entry.all));
            let slice = |range: &Range<usize>| all.slice(range.start - start..range.end - start);
            let tensors = |range| self.copies.tensors_in(range, slice).collect();
            let answer = match &entry.answer {
                Ok(total) => Ok(Answer { outputs: tensors(&entry.outputs), total: *total }),
                Err(reason) => Err(String::from_utf8_lossy(&slice(reason)).into_owned()),
            };
            take(Copy {
                origin: Arc::clone(&origins[entry.origin]),
                id: slice(&entry.id),
                hash: entry.hash,
                segment: entry.segment.as_ref().map(slice),
                at: entry.at,
                trace: entry.trace.clone(),
                inputs: tensors(&entry.inputs),
                answer,
                place: Place::new(entry.bytes, room),
            });
        }
    }
}
