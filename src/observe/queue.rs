//! What waits to be observed: bounded by number and by bytes, never waited for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use crossbeam_queue::ArrayQueue;

use super::block::{self, Block};
use crate::monitor::Recorder;
use crate::telemetry::{n_shards, shard};
use crate::tensor::Tensor;

/// One answered prediction, as it is offered: what was asked, what was answered, by whom.
#[derive(Debug)]
pub struct Offered<'a> {
    /// Who watches the version that answered.
    pub recorder: &'a Arc<Recorder>,
    /// The request's id.
    pub id: &'a [u8],
    /// Its part of the traffic, where a header splits it.
    pub segment: Option<&'a [u8]>,
    /// When it was answered, in milliseconds since 1970.
    pub at: u64,
    /// In the signature's order.
    pub inputs: Vec<Tensor>,
    /// In the signature's order.
    pub outputs: Vec<Tensor>,
}

impl Offered<'_> {
    fn tensor_bytes(&self) -> usize {
        bytes_of(&self.inputs) + bytes_of(&self.outputs)
    }
}

/// One answered prediction, as it is taken.
#[derive(Debug)]
pub(super) struct Observation {
    pub(super) id: Bytes,
    pub(super) segment: Option<Bytes>,
    pub(super) at: u64,
    pub(super) inputs: Vec<Tensor>,
    pub(super) outputs: Vec<Tensor>,
}

fn bytes_of(tensors: &[Tensor]) -> usize {
    tensors.iter().map(|tensor| tensor.data().len()).sum()
}

/// Queues, one for a few threads each, so that threads seldom meet.
#[derive(Debug)]
pub(super) struct Queues {
    shards: Box<[Queue]>,
    /// Bytes of shared tensors that one queue may keep alive.
    most_bytes: usize,
    /// Observations of a block.
    of_block: usize,
}

#[derive(Debug)]
#[repr(align(128))]
struct Queue {
    /// Where small observations are copied to. The lock is held for a copy, or to take the block
    /// away; the threads of a shard seldom meet at it.
    open: Mutex<Block>,
    /// Blocks that are full.
    full: ArrayQueue<Block>,
    /// Blocks that were emptied.
    spare: ArrayQueue<Block>,
    /// Observations that are not copied.
    large: ArrayQueue<(Arc<Recorder>, Observation)>,
    /// Bytes of tensors in `large`.
    bytes: AtomicUsize,
}

impl Queues {
    /// Queues for `most` observations and `most_bytes` bytes of tensors that are not copied.
    pub(super) fn new(most: usize, most_bytes: usize) -> Self {
        let n_shards = n_shards();
        let of_shard = most.div_ceil(n_shards).max(1);
        let of_block = of_shard.min(block::MOST);
        let n_blocks = (of_shard / of_block).max(1);
        let queue = |_| Queue {
            open: Mutex::default(),
            full: ArrayQueue::new(n_blocks),
            spare: ArrayQueue::new(n_blocks),
            large: ArrayQueue::new(of_shard),
            bytes: AtomicUsize::new(0),
        };
        Self {
            shards: (0..n_shards).map(queue).collect(),
            most_bytes: most_bytes.div_ceil(n_shards).max(1),
            of_block,
        }
    }

    /// Whether there was room. Waits for nobody but for a copy of another thread of the shard.
    pub(super) fn offer(&self, offered: Offered<'_>) -> bool {
        let queue = &self.shards[shard(self.shards.len())];
        let bytes = offered.tensor_bytes();
        let copied = bytes + offered.id.len() + offered.segment.map_or(0, <[u8]>::len);
        if copied <= block::SMALL {
            return queue.copy(&offered, copied, self.of_block);
        }
        let before = queue.bytes.fetch_add(bytes, Ordering::Relaxed);
        // One that is larger than the limit alone is taken while nothing else waits.
        let fits = before == 0 || before.saturating_add(bytes) <= self.most_bytes;
        let Offered { recorder, id, segment, at, inputs, outputs } = offered;
        let id = Bytes::copy_from_slice(id);
        let segment = segment.map(Bytes::copy_from_slice);
        let observation = Observation { id, segment, at, inputs, outputs };
        if fits && queue.large.push((Arc::clone(recorder), observation)).is_ok() {
            return true;
        }
        queue.bytes.fetch_sub(bytes, Ordering::Relaxed);
        false
    }

    /// Hands what waits to `take`, at most as much as there was room for, so that it ends. Returns
    /// how many there were.
    pub(super) fn drain(&self, mut take: impl FnMut(&Arc<Recorder>, Observation)) -> usize {
        let mut n_taken = 0;
        for queue in &self.shards {
            for _ in 0..queue.full.capacity() {
                let Some(block) = queue.full.pop() else { break };
                n_taken += queue.empty(block, &mut take);
            }
            let spare = queue.spare.pop().unwrap_or_default();
            let open = std::mem::replace(&mut *queue.lock(), spare);
            n_taken += queue.empty(open, &mut take);
            for _ in 0..queue.large.capacity() {
                let Some((recorder, observation)) = queue.large.pop() else { break };
                let bytes = bytes_of(&observation.inputs) + bytes_of(&observation.outputs);
                queue.bytes.fetch_sub(bytes, Ordering::Relaxed);
                n_taken += 1;
                take(&recorder, observation);
            }
        }
        n_taken
    }

    /// Observations that wait, without those of a block that is not full.
    pub(super) fn len(&self) -> usize {
        let of_queue = |queue: &Queue| queue.full.len() * self.of_block + queue.large.len();
        self.shards.iter().map(of_queue).sum()
    }
}

impl Queue {
    fn copy(&self, offered: &Offered<'_>, bytes: usize, of_block: usize) -> bool {
        let mut open = self.lock();
        if open.len() >= of_block || !open.has_room(bytes) {
            let spare = self.spare.pop().unwrap_or_default();
            let full = std::mem::replace(&mut *open, spare);
            if let Err(full) = self.full.push(full) {
                *open = full;
                return false;
            }
        }
        open.push(offered);
        true
    }

    fn empty(&self, mut block: Block, take: &mut impl FnMut(&Arc<Recorder>, Observation)) -> usize {
        let n = block.len();
        block.drain(take);
        // Beyond what there is room for, blocks go.
        drop(self.spare.push(block));
        n
    }

    fn lock(&self) -> MutexGuard<'_, Block> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
