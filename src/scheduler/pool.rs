//! The compute pool: named threads that run what is too heavy for the I/O threads.
//!
//! Each version has a bounded queue of its own ([`Queue`]), first come, first served, but that
//! requests with a priority go before those with a lower one or none. A thread that is free takes
//! the version that has been given the least time so far (start-time fair queueing, Goyal, Vin and
//! Cheng, SIGCOMM 1996, with equal weights), drops what nobody waits for any longer, and runs what
//! is there as one batch. A version that was idle starts level with the others: it cannot save up
//! time.
//!
//! One thread more than a version may fill is started: however many requests for a heavy model
//! come, another model finds a thread. A request whose turn cannot come before its deadline is
//! refused at once, so that the client learns it now.
//!
//! While light requests come, which run on the I/O threads, a version leaves those a core: where it
//! may fill as many threads as there are cores, it fills one less, and its runs make way between nodes.
//! The operating system would make a light request wait for a heavy one for a millisecond or two,
//! many times what it takes itself.
//!
//! What no client waits for has threads of its own, which ask whether this pool is full.
//!
//! One mutex guards all queues: it is held for moving a few pointers, never while anything runs,
//! and only requests that are worth a thread hop come here. Picking is O(versions that have
//! something waiting).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::errands::Errand;
use super::light::{Light, Shares};
use super::reply::Reply;
use super::runner::Runner;
use super::{ExecuteError, Limits, batch};
use crate::engine;
use crate::telemetry::{Gauge, Sharded};
use crate::tensor::Tensor;

/// How many times its expected time a request must have, so that what was accepted is answered in
/// time. Under overload all that is accepted waits as long as it may: without a margin half of it
/// would be late by a little, and its runs wasted.
const MARGIN: f64 = 1.5;

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
    fn allowed(&self) -> Duration {
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
    runner: Arc<Runner>,
    limits: Limits,
    /// Locked only by whoever holds the pool's line.
    waiting: Mutex<Waiting>,
}

#[derive(Debug)]
pub(super) struct Waiting {
    /// How much longer entries wait than the cost model has it: the machine has other work as well.
    slowness: f64,
    entries: VecDeque<Entry>,
    /// Rows of all entries.
    rows: usize,
    /// Threads that run something of it.
    pub(super) running: usize,
    /// Seconds of a thread that it has been given, or that others were given while it was idle.
    given: f64,
}

impl Queue {
    pub(super) fn new(runner: Arc<Runner>, limits: Limits) -> Self {
        let max_batch = if runner.target.is_batchable() { limits.max_batch.max(1) } else { 1 };
        let limits = Limits { max_batch, ..limits };
        let waiting =
            Waiting { slowness: 1.0, entries: VecDeque::new(), rows: 0, running: 0, given: 0.0 };
        Self { runner, limits, waiting: Mutex::new(waiting) }
    }

    pub(super) fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `rows` rows take on one thread, put together as they can be.
    fn expect(&self, rows: usize) -> Duration {
        let (full, rest) = (rows / self.limits.max_batch, rows % self.limits.max_batch);
        let full = self.runner.cost.expect(self.limits.max_batch).mul_f64(full as f64);
        if rest == 0 { full } else { full + self.runner.cost.expect(rest) }
    }

    /// When its next batch may begin.
    fn due(&self, waiting: &Waiting) -> Option<Instant> {
        let oldest = waiting.entries.front()?.admitted;
        let is_full = waiting.rows >= self.limits.max_batch;
        Some(if is_full { oldest } else { oldest + self.limits.max_delay })
    }
}

/// The threads and the versions that have work for them.
#[derive(Debug, Clone)]
pub struct Pool {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    line: Mutex<Line>,
    pub(super) work: Condvar,
    /// Threads that one version may fill, and how many while light requests come.
    shares: Shares,
    /// Runs on I/O threads.
    light: Sharded<1>,
    /// Threads that run something.
    busy: Gauge,
    /// The same, for whoever runs behind requests: read without the line.
    running: AtomicUsize,
}

#[derive(Default)]
pub(super) struct Line {
    /// Go before all versions: they are milliseconds, and each is a request that was accepted.
    pub(super) errands: VecDeque<Errand>,
    /// Versions that have something waiting.
    pub(super) ready: Vec<Arc<Queue>>,
    /// What the version that was picked last had been given.
    level: f64,
    /// Threads that wait for work.
    pub(super) idle: usize,
    light: Light,
    pub(super) closed: bool,
}

impl Pool {
    /// A pool of which one version may fill `n_threads` threads, with one more for the others;
    /// they are named `compute-0`, `compute-1`, ... They end when [`Pool::close`] was called and
    /// nothing waits. `busy` shows how many run something; `begin` is run by each at its start.
    pub fn start(
        n_threads: usize,
        busy: Gauge,
        begin: fn(),
    ) -> std::io::Result<(Self, Vec<JoinHandle<()>>)> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self::start_on(cores, n_threads, busy, begin)
    }

    pub(super) fn start_on(
        cores: usize,
        n_threads: usize,
        busy: Gauge,
        begin: fn(),
    ) -> std::io::Result<(Self, Vec<JoinHandle<()>>)> {
        let alone = n_threads.max(1);
        let shares = Shares::of(alone, cores);
        let (line, work, light) = (Mutex::default(), Condvar::new(), Sharded::default());
        let shared = Shared { line, work, shares, light, busy, running: AtomicUsize::new(0) };
        let pool = Self { shared: Arc::new(shared) };
        let threads = (0..=alone).map(|index| {
            let shared = Arc::clone(&pool.shared);
            std::thread::Builder::new().name(format!("compute-{index}")).spawn(move || {
                begin();
                while shared.run_turn() {}
            })
        });
        let threads = threads.collect::<Result<_, _>>()?;
        Ok((pool, threads))
    }

    /// Counts a run on an I/O thread.
    pub(super) fn count_light(&self) {
        self.shared.light.add(0, 1);
    }

    /// Threads that one version may fill.
    pub(super) fn share(&self) -> usize {
        self.shared.shares.most()
    }

    /// Whether requests have as many threads as one version may fill. Waits for nobody.
    pub(super) fn is_full(&self) -> bool {
        self.shared.running.load(Ordering::Relaxed) >= self.share()
    }

    /// Takes no more work; what was taken is still run.
    pub fn close(&self) {
        self.shared.line().closed = true;
        self.shared.work.notify_all();
    }

    pub(super) fn submit(&self, queue: &Arc<Queue>, mut entry: Entry) -> Result<(), ExecuteError> {
        let mut line = self.shared.line();
        if line.closed {
            return Err(ExecuteError::ShuttingDown);
        }
        let mut waiting = queue.waiting();
        let limit = queue.limits.max_in_flight;
        if waiting.entries.len() >= limit {
            // Those that wait no longer keep their place until it is their turn.
            waiting.drop_abandoned(queue);
            if waiting.entries.len() >= limit {
                return Err(ExecuteError::Full { limit });
            }
        }
        // Versions with work have equal shares, so the others' length does not matter.
        let others = line.ready.iter().filter(|other| !Arc::ptr_eq(other, queue)).count();
        let share = self.shared.share(&line);
        let of_a_thread = (others + 1) as f64 / share as f64;
        let ahead = waiting.rows_ahead(&entry);
        entry.wait = queue.expect(ahead).mul_f64(of_a_thread);
        let run = queue.runner.cost.expect(entry.rows);
        let expected = (entry.wait + run).mul_f64(waiting.slowness);
        let allowed = entry.allowed();
        if ahead > 0 && expected.mul_f64(MARGIN) > allowed {
            return Err(ExecuteError::Late { expected, allowed });
        }
        if waiting.entries.is_empty() {
            waiting.given = waiting.given.max(line.level);
            line.ready.push(Arc::clone(queue));
        }
        waiting.push(entry);
        queue.runner.metrics.queued.increment(1.0);
        // A version that has all its threads is looked at when one of them comes back: waking
        // another one, which would find nothing, costs more than many a model.
        let wakes = line.idle > 0 && waiting.running < share;
        drop(waiting);
        drop(line);
        if wakes {
            self.shared.work.notify_one();
        }
        Ok(())
    }
}

impl Waiting {
    /// Rows that go before `entry`.
    fn rows_ahead(&self, entry: &Entry) -> usize {
        if entry.priority == 0 {
            return self.rows;
        }
        let before = self.entries.iter().take_while(|other| other.rank() <= entry.rank());
        before.map(|other| other.rows).sum()
    }

    fn push(&mut self, entry: Entry) {
        self.rows += entry.rows;
        let after = self.entries.partition_point(|other| other.rank() <= entry.rank());
        self.entries.insert(after, entry);
    }

    fn pop(&mut self, queue: &Queue) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.rows -= entry.rows;
        queue.runner.metrics.queued.decrement(1.0);
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

    fn drop_abandoned(&mut self, queue: &Queue) {
        let before = self.entries.len();
        self.entries.retain(|entry| !entry.reply.is_closed());
        self.rows = self.entries.iter().map(|entry| entry.rows).sum();
        let dropped = before - self.entries.len();
        queue.runner.metrics.queued.decrement(dropped as f64);
        queue.runner.metrics.dropped_cancelled.increment(dropped as u64);
    }

    /// Takes the first entry that somebody still waits for, and as many after it as fit into one
    /// batch with it.
    fn take_batch(&mut self, queue: &Queue) -> Vec<Entry> {
        let now = Instant::now();
        let Limits { max_batch, preferred, .. } = &queue.limits;
        // More than a size that is preferred waits for the next batch.
        let fitting = preferred.iter().copied().filter(|&size| size <= self.rows).max();
        let most = fitting.unwrap_or(*max_batch);
        let mut batch: Vec<Entry> = Vec::new();
        let mut rows = 0;
        while let Some(entry) = self.entries.front() {
            let fits = batch.first().is_none_or(|first| {
                rows + entry.rows <= most && batch::fit_together(&first.inputs, &entry.inputs)
            });
            if !fits {
                break;
            }
            let Some(entry) = self.pop(queue) else { break };
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

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").field("ready", &self.ready.len()).finish_non_exhaustive()
    }
}

impl Line {
    /// The version whose turn it is; or when the next may have one, if nothing comes before.
    fn pick(&self, share: usize) -> Result<Arc<Queue>, Option<Instant>> {
        let now = Instant::now();
        let mut best: Option<(f64, &Arc<Queue>)> = None;
        let mut next: Option<Instant> = None;
        for queue in &self.ready {
            let waiting = queue.waiting();
            let Some(due) = queue.due(&waiting) else { continue };
            if waiting.running >= share {
                // It comes back when one of its threads does.
                continue;
            }
            if due > now {
                next = Some(next.map_or(due, |next| next.min(due)));
            } else if best.is_none_or(|(given, _)| waiting.given < given) {
                best = Some((waiting.given, queue));
            }
        }
        best.map(|(_, queue)| Arc::clone(queue)).ok_or(next)
    }
}

impl Shared {
    pub(super) fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Threads that one version may fill now.
    fn share(&self, line: &Line) -> usize {
        self.shares.now(&line.light)
    }

    /// Waits for a turn and runs it; false when the pool is closed and nothing waits.
    fn run_turn(&self) -> bool {
        let mut line = self.line();
        let queue = loop {
            if let Some(errand) = line.errands.pop_front() {
                self.let_go(line);
                errand();
                return true;
            }
            line.light.look(&self.light, Instant::now());
            let share = self.share(&line);
            let next = match line.pick(share) {
                Ok(queue) => break queue,
                Err(None) if line.closed && line.ready.is_empty() => return false,
                Err(next) => next,
            };
            line.idle += 1;
            line = match next {
                Some(next) => {
                    let wait = next.saturating_duration_since(Instant::now());
                    self.work.wait_timeout(line, wait).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.work.wait(line).unwrap_or_else(PoisonError::into_inner),
            };
            line.idle -= 1;
        };
        let (entries, charge) = self.take_turn(&mut line, &queue);
        engine::make_way(line.light.comes());
        self.let_go(line);
        let started = Instant::now();
        if !entries.is_empty() {
            self.busy.increment(1.0);
            batch::run(&queue.runner, entries);
            self.busy.decrement(1.0);
        }
        self.end_turn(&queue, started.elapsed().as_secs_f64() - charge);
        true
    }

    /// Lets others at the line, and wakes a thread where there is something more to do, or to wait for.
    fn let_go(&self, line: MutexGuard<'_, Line>) {
        let share = self.share(&line);
        let is_more = || !line.errands.is_empty() || !matches!(line.pick(share), Err(None));
        let wakes = line.idle > 0 && is_more();
        drop(line);
        if wakes {
            self.work.notify_one();
        }
    }

    /// Takes a batch, and charges the version what it is expected to take.
    fn take_turn(&self, line: &mut Line, queue: &Arc<Queue>) -> (Vec<Entry>, f64) {
        let mut waiting = queue.waiting();
        line.level = waiting.given;
        self.running.fetch_add(1, Ordering::Relaxed);
        let entries = waiting.take_batch(queue);
        let rows = entries.iter().map(|entry| entry.rows).sum();
        let charge = queue.runner.cost.expect(rows).as_secs_f64();
        waiting.given += charge;
        waiting.running += 1;
        if waiting.entries.is_empty() {
            line.ready.retain(|other| !Arc::ptr_eq(other, queue));
        }
        (entries, charge)
    }

    /// The thread looks for its next turn after this, so nobody else has to be woken but to end.
    fn end_turn(&self, queue: &Queue, correction: f64) {
        self.running.fetch_sub(1, Ordering::Relaxed);
        let line = self.line();
        let mut waiting = queue.waiting();
        waiting.running -= 1;
        waiting.given += correction;
        drop(waiting);
        if line.closed {
            self.work.notify_all();
        }
    }
}
