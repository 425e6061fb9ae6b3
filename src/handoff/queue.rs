//! What waits for one thread: bounded by number and by bytes, never waited for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam_queue::ArrayQueue;

use crate::telemetry::{n_shards, shard};

/// Bytes of one thing that are copied; of larger ones the tensors are shared.
pub const SMALL: usize = 4 << 10;

/// Things of a block, at most.
const MOST: usize = 128;

/// Bytes of a block.
const MOST_BYTES: usize = 64 << 10;

/// Small things, copied. Cleared, it keeps its memory.
pub trait Block: Default {
    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all of them.
    fn bytes(&self) -> usize;

    /// Forgets them.
    fn clear(&mut self);
}

/// What was taken.
#[derive(Debug)]
pub enum Waiting<'a, B, L> {
    /// Small things.
    Block(&'a B),
    /// A large one.
    Large(L),
}

/// Queues, one for a few threads each, so that threads seldom meet.
#[derive(Debug)]
pub struct Queues<B, L> {
    shards: Box<[Queue<B, L>]>,
    /// Bytes of shared tensors that one queue may keep alive.
    most_bytes: usize,
    /// Things of a block.
    of_block: usize,
}

#[derive(Debug)]
#[repr(align(128))]
struct Queue<B, L> {
    /// Where small things are copied to. The lock is held for a copy, or to take the block away; the
    /// threads of a shard seldom meet at it.
    open: Mutex<B>,
    /// Blocks that are full.
    full: ArrayQueue<B>,
    /// Blocks that were emptied.
    spare: ArrayQueue<B>,
    /// Things that are not copied, with their bytes.
    large: ArrayQueue<(usize, L)>,
    /// Bytes of tensors in `large`.
    bytes: AtomicUsize,
}

impl<B: Block, L> Queues<B, L> {
    /// Queues for `most` things and `most_bytes` bytes of tensors that are not copied.
    #[must_use]
    pub fn new(most: usize, most_bytes: usize) -> Self {
        let n_shards = n_shards();
        let of_shard = most.div_ceil(n_shards).max(1);
        let of_block = of_shard.min(MOST);
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

    /// Has `copy` add a small thing of `bytes` bytes to a block; whether there was room.
    pub fn offer_small(&self, bytes: usize, copy: impl FnOnce(&mut B)) -> bool {
        let queue = &self.shards[shard(self.shards.len())];
        let mut open = queue.lock();
        if open.len() >= self.of_block || open.bytes() + bytes > MOST_BYTES {
            let spare = queue.spare.pop().unwrap_or_default();
            let full = std::mem::replace(&mut *open, spare);
            if let Err(full) = queue.full.push(full) {
                *open = full;
                return false;
            }
        }
        copy(&mut open);
        true
    }

    /// Takes a large thing that keeps `bytes` bytes alive; whether there was room.
    pub fn offer_large(&self, bytes: usize, make: impl FnOnce() -> L) -> bool {
        let queue = &self.shards[shard(self.shards.len())];
        let before = queue.bytes.fetch_add(bytes, Ordering::Relaxed);
        // One that is larger than the limit alone is taken while nothing else waits.
        let fits = before == 0 || before.saturating_add(bytes) <= self.most_bytes;
        if fits && queue.large.push((bytes, make())).is_ok() {
            return true;
        }
        queue.bytes.fetch_sub(bytes, Ordering::Relaxed);
        false
    }

    /// Hands what waits to `take`, at most as much as there was room for, so that it ends. Returns
    /// how many there were.
    pub fn drain(&self, mut take: impl FnMut(Waiting<'_, B, L>)) -> usize {
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
                let Some((bytes, large)) = queue.large.pop() else { break };
                queue.bytes.fetch_sub(bytes, Ordering::Relaxed);
                n_taken += 1;
                take(Waiting::Large(large));
            }
        }
        n_taken
    }

    /// Things that wait, without those of a block that is not full.
    #[must_use]
    pub fn len(&self) -> usize {
        let of_queue = |queue: &Queue<B, L>| queue.full.len() * self.of_block + queue.large.len();
        self.shards.iter().map(of_queue).sum()
    }

    /// Whether nothing waits but in a block that is not full.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<B: Block, L> Queue<B, L> {
    fn empty(&self, mut block: B, take: &mut impl FnMut(Waiting<'_, B, L>)) -> usize {
        let n = block.len();
        if n > 0 {
            take(Waiting::Block(&block));
            block.clear();
        }
        // Beyond what there is room for, blocks go.
        drop(self.spare.push(block));
        n
    }

    fn lock(&self) -> MutexGuard<'_, B> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
