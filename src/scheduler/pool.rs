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
//! What no client waits for has threads of its own, which ask whether requests leave them a core.
//!
//! One mutex guards all queues: it is held for moving a few pointers, never while anything runs,
//! and only requests that are worth a thread hop come here. Picking is O(versions that have
//! something waiting).

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::errands::Errand;
use super::light::{Light, Shares};
use super::medium::Company;
use super::queue::{Entry, Queue};
use super::{ExecuteError, batch, reply};
use crate::engine;
use crate::telemetry::{Gauge, Sharded};

/// How many times its expected time a request must have, so that what was accepted is answered in
/// time. Under overload all that is accepted waits as long as it may: without a margin half of it
/// would be late by a little, and its runs wasted.
const MARGIN: f64 = 1.5;

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
    company: Company,
    /// Threads that run something.
    busy: Gauge,
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
        let company = Company::new(cores);
        let shared = Shared { line, work, shares, light, company, busy };
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

    /// Who runs, and on how many threads.
    pub(super) fn company(&self) -> &Company {
        &self.shared.company
    }

    /// Threads that one version may fill.
    pub(super) fn share(&self) -> usize {
        self.shared.shares.most()
    }

    /// Whether requests have as many threads as one version may fill, or all cores, those of I/O threads
    /// included. Waits for nobody.
    pub(super) fn leaves_no_core(&self) -> bool {
        let company = self.company();
        company.computing() >= self.share() || company.leaves_no_core()
    }

    /// Takes no more work; what was taken is still run.
    pub fn close(&self) {
        self.shared.line().closed = true;
        self.shared.work.notify_all();
    }

    /// Takes a request, or refuses it at once.
    pub(super) fn submit(&self, queue: &Arc<Queue>, mut entry: Entry) -> Result<(), ExecuteError> {
        let mut line = self.shared.line();
        self.shared.weigh(&line, queue, &mut entry)?;
        let wakes = self.shared.take(&mut line, queue, entry);
        drop(line);
        if wakes {
            self.shared.work.notify_one();
        }
        Ok(())
    }

    /// Takes requests; those that it refuses are told.
    pub(super) fn submit_all(&self, queue: &Arc<Queue>, entries: Vec<Entry>) {
        let mut line = self.shared.line();
        let mut wakes = false;
        let mut refused = Vec::new();
        for mut entry in entries {
            match self.shared.weigh(&line, queue, &mut entry) {
                Ok(()) => wakes |= self.shared.take(&mut line, queue, entry),
                Err(error) => refused.push((entry.reply, Err(error))),
            }
        }
        drop(line);
        if wakes {
            self.shared.work.notify_one();
        }
        reply::send_all(refused);
    }

    /// Leaves one of the places of `queue` to an I/O thread.
    pub(super) fn sit_down(&self, queue: &Queue) {
        let _line = self.shared.line();
        queue.waiting().taken += 1;
    }

    /// Takes it back.
    pub(super) fn get_up(&self, queue: &Queue) {
        let line = self.shared.line();
        let mut waiting = queue.waiting();
        waiting.taken -= 1;
        let is_more = !waiting.is_empty();
        drop(waiting);
        match line.closed {
            true => self.shared.work.notify_all(),
            false if is_more && line.idle > 0 => self.shared.work.notify_one(),
            false => {}
        }
    }

    /// What an I/O thread with a place runs next, no longer than `budget` if all goes as expected, and
    /// what the version is charged for it. Nothing where nothing waits or it is longer.
    pub(super) fn take_seated_turn(
        &self,
        queue: &Arc<Queue>,
        budget: Duration,
    ) -> Option<(Vec<Entry>, f64)> {
        let mut line = self.shared.line();
        let most = queue.runner.cost.rows_within(budget).min(queue.most_rows());
        let is_within = queue.waiting().entries.front().is_some_and(|first| first.rows <= most);
        is_within.then(|| self.shared.take_turn(&mut line, queue, most))
    }

    /// Charges a version what a turn took more than was expected.
    pub(super) fn correct(&self, queue: &Queue, correction: f64) {
        let _line = self.shared.line();
        queue.waiting().given += correction;
    }
}

impl Shared {
    /// Whether there is room for the request and it would be in time. Notes how long it is expected to
    /// wait.
    fn weigh(
        &self,
        line: &Line,
        queue: &Arc<Queue>,
        entry: &mut Entry,
    ) -> Result<(), ExecuteError> {
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
        let share = self.share(line);
        let of_a_thread = (others + 1) as f64 / share as f64;
        let ahead = waiting.rows_ahead(entry);
        entry.wait = queue.expect(ahead).mul_f64(of_a_thread);
        let run = queue.runner.cost.expect(entry.rows);
        let expected = (entry.wait + run).mul_f64(waiting.slowness);
        let allowed = entry.allowed();
        if ahead > 0 && expected.mul_f64(MARGIN) > allowed {
            return Err(ExecuteError::Late { expected, allowed });
        }
        Ok(())
    }

    /// Takes a request; whether a thread is to be woken for it.
    fn take(&self, line: &mut Line, queue: &Arc<Queue>, entry: Entry) -> bool {
        let mut waiting = queue.waiting();
        if waiting.entries.is_empty() {
            waiting.given = waiting.given.max(line.level);
            line.ready.push(Arc::clone(queue));
        }
        waiting.push(entry);
        queue.runner.metrics.queued.increment(1.0);
        // A version that has all its threads is looked at when one of them comes back: waking
        // another one, which would find nothing, costs more than many a model.
        line.idle > 0 && waiting.taken < self.share(line)
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
            if waiting.taken >= share {
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
        let (entries, charge) = self.take_turn(&mut line, &queue, queue.most_rows());
        queue.waiting().taken += 1;
        engine::make_way(line.light.comes());
        self.let_go(line);
        let started = Instant::now();
        if !entries.is_empty() {
            self.busy.increment(1.0);
            self.company.note(queue.runner.address(), started);
            let _computing = self.company.begin();
            batch::run(&queue.runner, entries, None);
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

    /// Takes a batch of `most` rows, and charges the version what it is expected to take.
    fn take_turn(&self, line: &mut Line, queue: &Arc<Queue>, most: usize) -> (Vec<Entry>, f64) {
        let mut waiting = queue.waiting();
        line.level = waiting.given;
        let before = waiting.entries.len();
        let entries = waiting.take_batch(queue, most);
        queue.runner.metrics.queued.decrement((before - waiting.entries.len()) as f64);
        let rows = entries.iter().map(|entry| entry.rows).sum();
        let charge = queue.runner.cost.expect(rows).as_secs_f64();
        waiting.given += charge;
        if waiting.entries.is_empty() {
            line.ready.retain(|other| !Arc::ptr_eq(other, queue));
        }
        (entries, charge)
    }

    /// The thread looks for its next turn after this, so nobody else has to be woken but to end.
    fn end_turn(&self, queue: &Queue, correction: f64) {
        let line = self.line();
        let mut waiting = queue.waiting();
        waiting.taken -= 1;
        waiting.given += correction;
        drop(waiting);
        if line.closed {
            self.work.notify_all();
        }
    }
}
