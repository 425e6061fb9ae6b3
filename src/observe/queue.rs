//! What waits to be observed: bounded by number and by bytes, never waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use crossbeam_queue::ArrayQueue;

use crate::monitor::Recorder;
use crate::telemetry::{n_shards, shard};
use crate::tensor::Tensor;

/// One answered prediction: what was asked, what was answered, by whom. Tensors are shared with
/// the request and the answer, not copied.
#[derive(Debug)]
pub struct Observation {
    /// Who watches the version that answered.
    pub recorder: Arc<Recorder>,
    /// The request's id.
    pub id: Bytes,
    /// Its part of the traffic, where a header splits it.
    pub segment: Option<Bytes>,
    /// When it was answered, in milliseconds since 1970.
    pub at: u64,
    /// In the signature's order.
    pub inputs: Vec<Tensor>,
    /// In the signature's order.
    pub outputs: Vec<Tensor>,
}

impl Observation {
    fn bytes(&self) -> usize {
        self.inputs.iter().chain(&self.outputs).map(|tensor| tensor.data().len()).sum()
    }
}

/// Queues, one for a few threads each, so that threads seldom meet.
#[derive(Debug)]
pub(super) struct Queues {
    shards: Box<[Queue]>,
    /// Bytes of tensors that one queue may keep alive.
    most_bytes: usize,
}

#[derive(Debug)]
#[repr(align(128))]
struct Queue {
    waiting: ArrayQueue<Observation>,
    /// Bytes of tensors that wait.
    bytes: AtomicUsize,
}

impl Queues {
    /// Queues for `most` observations and `most_bytes` bytes in all.
    pub(super) fn new(most: usize, most_bytes: usize) -> Self {
        let n_shards = n_shards();
        let queue = |_| Queue {
            waiting: ArrayQueue::new(most.div_ceil(n_shards).max(1)),
            bytes: AtomicUsize::new(0),
        };
        Self {
            shards: (0..n_shards).map(queue).collect(),
            most_bytes: most_bytes.div_ceil(n_shards).max(1),
        }
    }

    /// Whether there was room. Never blocks.
    pub(super) fn offer(&self, observation: Observation) -> bool {
        let queue = &self.shards[shard(self.shards.len())];
        let bytes = observation.bytes();
        let before = queue.bytes.fetch_add(bytes, Ordering::Relaxed);
        // One that is larger than the limit alone is taken while nothing else waits.
        let fits = before == 0 || before.saturating_add(bytes) <= self.most_bytes;
        if fits && queue.waiting.push(observation).is_ok() {
            return true;
        }
        queue.bytes.fetch_sub(bytes, Ordering::Relaxed);
        false
    }

    /// Hands what waits to `take`, at most as many as there were room for, so that it ends.
    pub(super) fn drain(&self, mut take: impl FnMut(Observation)) -> usize {
        let mut n_taken = 0;
        for queue in &self.shards {
            for _ in 0..queue.waiting.capacity() {
                let Some(observation) = queue.waiting.pop() else { break };
                queue.bytes.fetch_sub(observation.bytes(), Ordering::Relaxed);
                n_taken += 1;
                take(observation);
            }
        }
        n_taken
    }

    /// Observations that wait.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|queue| queue.waiting.len()).sum()
    }
}
