//! Copies of requests for versions that shadow the primary: offered after the answer is ready, run
//! behind everything else, compared with what the primary answered.
//!
//! [`Shadows::offer`] puts one [`struct@Copy`] into a queue that is bounded by number and by bytes, whatever
//! the number of candidates; tensors are shared, not copied. One thread ([`runner`]) takes it from
//! there: it hands copies to the compute pool, behind all clients, or sends them to other servers
//! ([`remote`]), and compares what comes back.
//!
//! Invariants:
//! - offering never blocks, wakes nobody and fails nothing; what there is no room for is dropped and
//!   counted, once for each candidate that would have got it;
//! - a candidate that panics, hangs or is away delays its own copies alone: it has a bounded part of
//!   the room, and at most `shadowing.concurrency` runs at the same time;
//! - what a candidate answers reaches no client.

mod comparisons;
mod copy;
mod lane;
mod remote;
mod render;
mod runner;

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;

pub use comparisons::Comparisons;
pub use runner::{ShadowThread, start};

use crate::registry::{Copies, Registry, Version};
use crate::stats::hash::hash;
use crate::telemetry::trace::Carried;
use crate::tensor::Tensor;
use copy::{Copy, Room};

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

/// Who is told of a disagreement. Called on the shadows' thread; must not block.
type Told = Box<dyn Fn(&Disagreed<'_>) + Send + Sync>;

/// A handle on the shadows. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shadows(Arc<Inner>);

struct Inner {
    queue: ArrayQueue<Arc<Copy>>,
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
        let copy = Copy::new(offered, hash, &self.0.room);
        if copy.is_some_and(|copy| self.0.queue.push(Arc::new(copy)).is_ok()) {
            return;
        }
        let of_shadows = shadows.iter().filter(|s| takes(s.below)).map(|s| &s.dropped);
        let of_remotes = remotes.iter().filter(|r| takes(r.below)).map(|r| &r.dropped);
        for dropped in of_shadows.chain(of_remotes) {
            dropped.fetch_add(1, Ordering::Relaxed);
            metrics.dropped.increment(1);
        }
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
