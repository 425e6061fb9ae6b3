//! Requests of one version that wait: bounded, by priority, then first come, first served.
//!
//! From here they are taken as batches ([`Waiting::take_batch`]): what nobody waits for any longer and
//! what would be late is dropped on the way, and counted.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::reply::Reply;
use super::runner::Runner;
use super::{ExecuteError, Limits, batch};
use crate::tensor::Tensor;

/// Waits shorter than this say more of a thread's waking than of the queue.
const SHORTEST_LESSON: Duration = Duration::from_millis(1);

/// Weight of one wait: a thirty-second part.
const LESSON: f64 = 1.0 / 32.0;

/// A request on its way through the pool.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) inputs: Vec<Tensor>,
    pub(super) rows: usize,
    /// 1 is the first; 0 is none, which is the last.
    pub(super) priority: u64,
    pub(super) admitted: Instant,
    pub(super) deadline: Instant,
    /// How long it would wait if all went as the cost model has it.
    pub(super) wait: Duration,
    pub(super) reply: Reply,
}

impl Entry {
    pub(super) fn allowed(&self) -> Duration {
        self.deadline.saturating_duration_since(self.admitted)
    }

    /// Lower goes first.
    fn rank(&self) -> u64 {
        self.priority.wrapping_sub(1)
    }
}

/// One version's place at the pool.
#[derive(Debug)]
pub struct Queue {
    pub(super) runner: Arc<Runner>,
    pub(super) limits: Limits,
    /// Locked only by whoever holds the pool's line.
    waiting: Mutex<Waiting>,
}

/// Requests of one version that wait.
#[derive(Debug)]
pub(super) struct Waiting {
    /// How much longer entries wait than the cost model has it: the machine has other work as well.
    pub(super) slowness: f64,
    pub(super) entries: VecDeque<Entry>,
    /// Rows of all entries.
    rows: usize,
    /// Threads that have one of the places that it may fill: those of the pool that run something of it,
    /// and I/O threads with a seat.
    pub(super) taken: usize,
    /// Seconds of a thread that it has been given, or that others were given while it was idle.
    pub(super) given: f64,
}

impl Queue {
    pub(super) fn new(runner: Arc<Runner>, limits: Limits) -> Self {
        let max_batch = if runner.target.is_batchable() { limits.max_batch.max(1) } else { 1 };
        let limits = Limits { max_batch, ..limits };
        Self { runner, limits, waiting: Mutex::default() }
    }

    /// Rows of a batch, at most.
    pub(super) fn most_rows(&self) -> usize {
        self.limits.max_batch
    }

    pub(super) fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `rows` rows take on one thread, put together as they can be.
    pub(super) fn expect(&self, rows: usize) -> Duration {
        let (full, rest) = (rows / self.limits.max_batch, rows % self.limits.max_batch);
        let full = self.runner.cost.expect(self.limits.max_batch).mul_f64(full as f64);
        if rest == 0 { full } else { full + self.runner.cost.expect(rest) }
    }

    /// When its next batch may begin.
    pub(super) fn due(&self, waiting: &Waiting) -> Option<Instant> {
        let oldest = waiting.entries.front()?.admitted;
        let is_full = waiting.rows >= self.limits.max_batch;
        Some(if is_full { oldest } else { oldest + self.limits.max_delay })
    }
}

impl Default for Waiting {
    fn default() -> Self {
        Self { slowness: 1.0, entries: VecDeque::new(), rows: 0, taken: 0, given: 0.0 }
    }
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Of all entries.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn take_all(&mut self) -> Vec<Entry> {
        self.rows = 0;
        self.entries.drain(..).collect()
    }

    /// Rows that go before `entry`.
    pub(super) fn rows_ahead(&self, entry: &Entry) -> usize {
        if entry.priority == 0 {
            return self.rows;
        }
        let before = self.entries.iter().take_while(|other| other.rank() <= entry.rank());
        before.map(|other| other.rows).sum()
    }

    pub(super) fn push(&mut self, entry: Entry) {
        self.rows += entry.rows;
        let after = self.entries.partition_point(|other| other.rank() <= entry.rank());
        self.entries.insert(after, entry);
    }

    fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.rows -= entry.rows;
        Some(entry)
    }

    /// Learns from how long an entry has waited.
    fn learn(&mut self, entry: &Entry, now: Instant) {
        if entry.wait < SHORTEST_LESSON {
            return;
        }
        let waited = now.saturating_duration_since(entry.admitted);
        let seen = (waited.as_secs_f64() / entry.wait.as_secs_f64()).clamp(0.5, 8.0);
        self.slowness += (seen - self.slowness) * LESSON;
    }

    pub(super) fn drop_abandoned(&mut self, queue: &Queue) {
        let before = self.entries.len();
        self.entries.retain(|entry| !entry.reply.is_closed());
        self.rows = self.entries.iter().map(|entry| entry.rows).sum();
        let dropped = before - self.entries.len();
        queue.runner.metrics.queued.decrement(dropped as f64);
        queue.runner.metrics.dropped_cancelled.increment(dropped as u64);
    }

    /// Takes the first entry that somebody still waits for, and as many after it as fit into one
    /// batch with it, of `most` rows.
    pub(super) fn take_batch(&mut self, queue: &Queue, most: usize) -> Vec<Entry> {
        let now = Instant::now();
        // More than a size that is preferred waits for the next batch.
        let is_there = |size: &usize| *size <= self.rows.min(most);
        let fitting = queue.limits.preferred.iter().copied().filter(is_there).max();
        let most = fitting.unwrap_or(most);
        let mut batch: Vec<Entry> = Vec::new();
        let mut rows = 0;
        while let Some(entry) = self.entries.front() {
            let fits = batch.first().is_none_or(|first| {
                rows + entry.rows <= most && batch::fit_together(&first.inputs, &entry.inputs)
            });
            if !fits {
                break;
            }
            let Some(entry) = self.pop() else { break };
            self.learn(&entry, now);
            // A run that would end too late would only make others late; the last one is run in any
            // case, so that the cost model goes on learning.
            let too_late = match self.entries.is_empty() {
                true => entry.deadline,
                false => entry.deadline - queue.runner.cost.expect(entry.rows).min(entry.allowed()),
            };
            if entry.reply.is_closed() {
                queue.runner.metrics.dropped_cancelled.increment(1);
            } else if too_late <= now {
                queue.runner.metrics.dropped_deadline.increment(1);
                let allowed = entry.allowed();
                entry.reply.send(Err(ExecuteError::Deadline(allowed)));
            } else {
                rows += entry.rows;
                batch.push(entry);
            }
            if rows >= most {
                break;
            }
        }
        batch
    }
}
