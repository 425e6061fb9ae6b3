//! Small requests, copied.

use std::ops::Range;
use std::sync::Arc;

use super::offered::{Facts, Offered, Reason, Taken};
use super::subject::Subject;
use crate::handoff::Entries;

/// Some requests. Cleared, it keeps its memory.
pub(super) type Block = Entries<Arc<Subject>, Entry>;

#[derive(Debug)]
pub(super) struct Entry {
    /// The position among the subjects.
    subject: usize,
    reason: Reason,
    at: u64,
    facts: Facts,
    id: Range<usize>,
    segment: Option<Range<usize>>,
    error: Option<Range<usize>>,
    inputs: Range<usize>,
    outputs: Range<usize>,
}

impl Block {
    /// Copies a request.
    pub(super) fn push(&mut self, offered: &Offered<'_>) {
        let Offered { subject, reason, id, segment, at, facts, error, inputs, outputs } = offered;
        let subject_at = self.own(|last| Arc::ptr_eq(last, subject), || Arc::clone(subject));
        let entry = Entry {
            subject: subject_at,
            reason: *reason,
            at: *at,
            facts: *facts,
            id: self.copies.copy(id),
            segment: segment.map(|segment| self.copies.copy(segment)),
            error: error.map(|error| self.copies.copy(error.as_bytes())),
            inputs: self.copies.copy_all(inputs),
            outputs: self.copies.copy_all(outputs),
        };
        self.add(entry);
    }

    /// Hands the requests to `take`, in their order.
    pub(super) fn each(&self, mut take: impl FnMut(&Arc<Subject>, &Taken<'_>)) {
        for entry in self.entries() {
            let bytes =
                |range: &Option<Range<usize>>| range.as_ref().map(|range| self.copies.bytes(range));
            let taken = Taken {
                reason: entry.reason,
                at: entry.at,
                facts: entry.facts,
                id: self.copies.bytes(&entry.id),
                segment: bytes(&entry.segment),
                error: bytes(&entry.error),
                inputs: self.copies.tensors(&entry.inputs).collect(),
                outputs: self.copies.tensors(&entry.outputs).collect(),
            };
            take(&self.owners()[entry.subject], &taken);
        }
    }
}
