//! What waits for one thread: bounded by number and by bytes, never waited for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use crossbeam_queue::ArrayQueue;

use crate::telemetry::{n_shards, shard};

/// Bytes of one thing that are copied; of larger ones the tensors are shared.
const SMALL: usize = 4 << 10;

/// Things of a block, at most.
const MOST: usize = 128;

/// Bytes of a block.
const MOST_BYTES: usize = 64 << 10;

/// Blocks that a queue keeps for what comes next.
const MOST_SPARE: usize = 16;

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
    /// Full blocks that one queue may have.
    n_blocks: usize,
}

#[derive(Debug)]
#[repr(align(128))]
struct Queue<B, L> {
    /// Whoever offers only tries the lock: the thread that takes may be stopped anywhere, for as long
    /// as others want the core, and nobody who offers may wait for that.
    small: Mutex<Small<B>>,
    /// Things that are not copied, with their bytes.
    large: ArrayQueue<(usize, L)>,
    /// Things in `large`, or on their way in or out: fewer than have room, since who pushes to a queue
    /// that is full waits for the one who is just taking from it.
    n_large: AtomicUsize,
    /// Bytes of tensors in `large`.
    bytes: AtomicUsize,
}

#[derive(Debug)]
struct Small<B> {
    /// Where small things are copied to.
    open: B,
    /// Blocks that are full.
    full: Vec<B>,
    /// Blocks that were emptied.
    spare: Vec<B>,
}

impl<B: Block, L> Queues<B, L> {
    /// Queues for `most` things and `most_bytes` bytes of tensors that are not copied, of which each
    /// has its part.
    #[must_use]
    pub fn new(most: usize, most_bytes: usize) -> Self {
        let n_shards = n_shards();
        let of_shard = most.div_ceil(n_shards).max(1);
        Self::with(n_shards, of_shard, of_shard, most_bytes.div_ceil(n_shards).max(1))
    }

    /// Queues for `most` things, which any of them may have: whoever offers sees to it that all of them
    /// together are not more, and that the tensors are not too large.
    #[must_use]
    pub fn bounded_outside(most: usize) -> Self {
        let n_shards = n_shards();
        Self::with(n_shards, most.max(1), most.div_ceil(n_shards).max(1), usize::MAX)
    }

    fn with(n_shards: usize, most_small: usize, most_large: usize, most_bytes: usize) -> Self {
        let of_block = most_small.min(MOST);
        let queue = |_| Queue {
            small: Mutex::new(Small { open: B::default(), full: Vec::new(), spare: Vec::new() }),
            large: ArrayQueue::new(most_large),
            n_large: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        };
        Self {
            shards: (0..n_shards).map(queue).collect(),
            most_bytes,
            of_block,
            n_blocks: (most_small / of_block).max(1),
        }
    }

    /// Has `copy` add `thing`, which has `bytes` bytes, to a block, where that is little; otherwise,
    /// or where somebody else is at the block, takes what `make` makes of it, which keeps `kept` bytes
    /// of tensors alive. Returns whether there was room. Never waits.
    pub fn offer<T>(
        &self,
        thing: T,
        (bytes, kept): (usize, usize),
        copy: impl FnOnce(&mut B, &T),
        make: impl FnOnce(T) -> L,
    ) -> bool {
        let queue = &self.shards[shard(self.shards.len())];
        if bytes <= SMALL
            && let Some(mut small) = queue.try_lock()
        {
            let has_room = self.make_room(&mut small, bytes);
            if has_room {
                copy(&mut small.open, &thing);
            }
            return has_room;
        }
        self.offer_large(queue, kept, || make(thing))
    }

    /// Opens another block where the open one is full; false where there is no room for one.
    fn make_room(&self, small: &mut Small<B>, bytes: usize) -> bool {
        let Small { open, full, spare } = small;
        if open.len() < self.of_block && (open.is_empty() || open.bytes() + bytes <= MOST_BYTES) {
            return true;
        }
        let has_room = full.len() < self.n_blocks;
        if has_room {
            full.push(std::mem::replace(open, spare.pop().unwrap_or_default()));
        }
        has_room
    }

    fn offer_large(&self, queue: &Queue<B, L>, bytes: usize, make: impl FnOnce() -> L) -> bool {
        let n_before = queue.n_large.fetch_add(1, Ordering::Acquire);
        let before = queue.bytes.fetch_add(bytes, Ordering::Relaxed);
        // One that is larger than the limit alone is taken while nothing else waits.
        let fits = before == 0 || before.saturating_add(bytes) <= self.most_bytes;
        let has_room = fits && n_before < queue.large.capacity();
        if has_room && queue.large.push((bytes, make())).is_ok() {
            return true;
        }
        queue.bytes.fetch_sub(bytes, Ordering::Relaxed);
        queue.n_large.fetch_sub(1, Ordering::Release);
        false
    }

    /// Hands what waits to `take`, at most as much as there was room for, so that it ends. Returns
    /// how many there were. For one thread at a time.
    pub fn drain(&self, mut take: impl FnMut(Waiting<'_, B, L>)) -> usize {
        let mut n_taken = 0;
        for queue in &self.shards {
            for mut block in queue.take_blocks() {
                n_taken += block.len();
                take(Waiting::Block(&block));
                block.clear();
                let mut small = queue.lock();
                // Beyond a few, blocks go.
                if small.spare.len() < self.n_blocks.min(MOST_SPARE) {
                    small.spare.push(block);
                }
            }
            for _ in 0..queue.large.capacity() {
                let Some((bytes, large)) = queue.large.pop() else { break };
                queue.bytes.fetch_sub(bytes, Ordering::Relaxed);
                queue.n_large.fetch_sub(1, Ordering::Release);
                n_taken += 1;
                take(Waiting::Large(large));
            }
        }
        n_taken
    }

    /// Things that wait, without those of a block that is not full.
    #[must_use]
    pub fn len(&self) -> usize {
        let of_queue =
            |queue: &Queue<B, L>| queue.lock().full.len() * self.of_block + queue.large.len();
        self.shards.iter().map(of_queue).sum()
    }

    /// Whether nothing waits but in a block that is not full.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<B: Block, L> Queue<B, L> {
    fn lock(&self) -> MutexGuard<'_, Small<B>> {
        self.small.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_lock(&self) -> Option<MutexGuard<'_, Small<B>>> {
        match self.small.try_lock() {
            Ok(small) => Some(small),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// All blocks in which there is something, in their order.
    fn take_blocks(&self) -> Vec<B> {
        let mut small = self.lock();
        let Small { open, full, spare } = &mut *small;
        let mut taken = std::mem::take(full);
        if !open.is_empty() {
            taken.push(std::mem::replace(open, spare.pop().unwrap_or_default()));
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Numbers(Vec<u8>);

    impl Block for Numbers {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn bytes(&self) -> usize {
            self.0.len()
        }

        fn clear(&mut self) {
            self.0.clear();
        }
    }

    fn offer(queues: &Queues<Numbers, u8>, number: u8, bytes: usize) -> bool {
        queues.offer(number, (bytes, bytes), |block, n| block.0.push(*n), |n| n)
    }

    fn taken(queues: &Queues<Numbers, u8>) -> (Vec<u8>, Vec<u8>) {
        let (mut small, mut large) = (Vec::new(), Vec::new());
        let n_taken = queues.drain(|waiting| match waiting {
            Waiting::Block(Numbers(block)) => small.extend(block),
            Waiting::Large(one) => large.push(one),
        });
        assert_eq!(n_taken, small.len() + large.len());
        (small, large)
    }

    #[test]
    fn what_there_is_room_for_comes_out_once_and_in_order() {
        let queues = Queues::new(8 * n_shards(), 1 << 20);
        for _ in 0..3 {
            // A full block, and the open one.
            assert_eq!((0..20).filter(|n| offer(&queues, *n, 1)).count(), 16);
            assert!(offer(&queues, 50, SMALL + 1));
            assert_eq!(taken(&queues), ((0..16).collect(), vec![50]));
            assert_eq!(taken(&queues), (vec![], vec![]));
        }
        let shared = Queues::bounded_outside(n_shards());
        assert_eq!((0..20).filter(|n| offer(&shared, *n, 1)).count(), 2 * n_shards());
        // Large ones are bounded by number and by bytes, unless there is nothing else.
        assert_eq!((0..20).filter(|n| offer(&queues, *n, SMALL + 1)).count(), 8);
        assert_eq!(taken(&queues).1.len(), 8);
        let huge = 1 << 21;
        assert!(offer(&queues, 1, huge) && !offer(&queues, 2, SMALL + 1));
        assert_eq!(taken(&queues).1, [1]);
    }

    #[test]
    fn offering_waits_for_nobody_who_is_at_the_block() {
        let queues = Queues::new(8 * n_shards(), 1 << 20);
        let held: Vec<_> = queues.shards.iter().map(Queue::lock).collect();
        assert!(offer(&queues, 7, 1));
        drop(held);
        assert_eq!(taken(&queues), (vec![], vec![7]));
    }
}
