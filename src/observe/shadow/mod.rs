//! Copies of requests for versions that shadow the primary: offered after the answer is ready, run
//! behind everything else, compared with what the primary answered.
//!
//! [`Shadows::offer`] copies a request into a block ([`block`]), or shares its tensors where they are
//! large; the room for copies is bounded by number and by bytes, whatever the number of candidates. One
//! thread ([`runner`]) takes them from there and gathers them by candidate ([`lane`]). Threads of the
//! shadows' own run them ([`threads`], [`group`]), or they are sent to other servers ([`remote`]); what
//! comes back is compared where it came ([`judge`]).
//!
//! All these threads have the least of the machine: where the system has a class of threads that run
//! only while nothing else wants the core, they are in it. So they may be stopped at any point for long,
//! and the thread that answers must not notice: it waits for none of them, and takes and gives back its
//! memory by itself.
//!
//! Invariants:
//! - offering never blocks, wakes nobody and fails nothing; what there is no room for is dropped and
//!   counted, once for each candidate that would have got it;
//! - no thread of a shadow ever holds a lock that a thread of the data plane waits for;
//! - a candidate that panics, hangs or is away delays its own copies alone: it has a bounded part of
//!   the room, at most `shadowing.concurrency` runs at the same time, and a thread that hangs has
//!   another one in its place;
//! - what a candidate answers reaches no client.

mod block;
mod comparisons;
mod copy;
mod group;
mod judge;
mod lane;
mod remote;
mod render;
mod runner;
#[cfg(test)]
mod tests;
mod threads;

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub use comparisons::Comparisons;
pub use runner::{ShadowThread, start};

use crate::handoff::{Queues, bytes_of};
use crate::registry::{Copies, Registry, Version};
use crate::stats::hash::hash;
use crate::telemetry::trace::Carried;
use crate::tensor::Tensor;
use block::Block;
use copy::{Large, Room};

/// An answered request, as it is offered to shadows.
#[derive(Debug)]
pub struct OfferedCopy<'a> {
    /// Who gets copies.
    pub copies: &'a Arc<Copies>,
    /// The version that answered.
    pub primary: &'a Arc<Version>,
    /// The request's id.
    pub id: &'a [u8],
    /// Its part of the traffic, where a header splits it.
    pub segment: Option<&'a [u8]>,
    /// When it was answered, in milliseconds since 1970.
    pub at: u64,
    /// Its trace, which candidates on other servers join.
    pub trace: Option<Carried>,
    /// In the signature's order.
    pub inputs: &'a [Tensor],
    /// What the primary made of it; or why it failed.
    pub answer: Result<OfferedAnswer<'a>, String>,
}

/// What the primary made of a request.
#[derive(Debug, Clone, Copy)]
pub struct OfferedAnswer<'a> {
    /// In the signature's order.
    pub outputs: &'a [Tensor],
    /// Time from head read to answer ready.
    pub total: Duration,
}

/// A request on which a candidate did not agree with the primary, for whoever wants to record it.
#[derive(Debug)]
pub struct Disagreed<'a> {
    /// The version that answered.
    pub primary: &'a Arc<Version>,
    /// The candidate: its number, or its address where it is on another server.
    pub candidate: &'a str,
    /// The candidate's version, where it is one of ours.
    pub candidate_version: Option<&'a Arc<Version>>,
    /// The request's id.
    pub id: &'a [u8],
    /// Its part of the traffic, where a header splits it.
    pub segment: Option<&'a [u8]>,
    /// When it was answered, in milliseconds since 1970.
    pub at: u64,
    /// In the signature's order.
    pub inputs: &'a [Tensor],
    /// What the primary answered; nothing where it failed.
    pub primary_outputs: Option<&'a [Tensor]>,
    /// What the candidate answered; nothing where it failed.
    pub candidate_outputs: Option<&'a [Tensor]>,
}

/// Who is told of a disagreement. Called on the shadows' threads; must not block.
type Told = Box<dyn Fn(&Disagreed<'_>) + Send + Sync>;

/// A handle on the shadows. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shadows(Arc<Inner>);

struct Inner {
    queues: Queues<Block, Large>,
    room: Arc<Room>,
    comparisons: Comparisons,
    told: OnceLock<Told>,
    /// For the shares of the traffic, which metrics show.
    registry: Registry,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("room", &self.room).finish_non_exhaustive()
    }
}

impl Shadows {
    /// Offers a request that the primary has answered. Never blocks.
    pub fn offer(&self, offered: &OfferedCopy<'_>) {
        let hash = hash(offered.id);
        let takes = |below: Option<u64>| below.is_none_or(|below| hash < below);
        let Copies { shadows, remotes, metrics, .. } = &**offered.copies;
        let is_wanted = shadows.iter().any(|shadow| takes(shadow.below))
            || remotes.iter().any(|remote| takes(remote.below));
        if !is_wanted {
            return;
        }
        if self.has_taken(offered, hash) {
            return;
        }
        let of_shadows = shadows.iter().filter(|s| takes(s.below)).map(|s| &s.dropped);
        let of_remotes = remotes.iter().filter(|r| takes(r.below)).map(|r| &r.dropped);
        for dropped in of_shadows.chain(of_remotes) {
            dropped.fetch_add(1, Ordering::Relaxed);
            metrics.dropped.increment(1);
        }
    }

    fn has_taken(&self, offered: &OfferedCopy<'_>, hash: u64) -> bool {
        let Inner { queues, room, .. } = &*self.0;
        let outputs = offered.answer.as_ref().map_or(&[][..], |answer| answer.outputs);
        let bytes = bytes_of(offered.inputs) + bytes_of(outputs);
        if !room.enter(bytes) {
            return false;
        }
        let texts = offered.id.len() + offered.segment.map_or(0, <[u8]>::len);
        let large = |offered| {
            room.spent.drop_some();
            Large::new(offered, hash, bytes)
        };
        let copy = |block: &mut Block, offered: &&OfferedCopy<'_>| block.push(offered, hash, bytes);
        let is_taken = queues.offer(offered, (bytes + texts, bytes), copy, large);
        if !is_taken {
            room.leave(bytes);
        }
        is_taken
    }

    /// From now on `told` is told of each request on which a candidate disagrees. The first one who
    /// asks is told, and nobody else.
    pub fn tell(&self, told: impl Fn(&Disagreed<'_>) + Send + Sync + 'static) {
        // A second one has no place, as the documentation says.
        let _ = self.0.told.set(Box::new(told));
    }

    /// What is known of all pairs.
    #[must_use]
    pub fn comparisons(&self) -> &Comparisons {
        &self.0.comparisons
    }
}
