//! Copies that run one after the other on a thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::copy::Copy;
use super::judge::{Judge, LastPair};
use super::lane::{Ended, Entry, Times};
use crate::error::Fault;
use crate::observe::thread::thread_cpu_ns;
use crate::registry::{Shadow, Timings};
use crate::stats::hash::scramble;

/// One in so many copies is timed on both sides.
const TIMED: u64 = 4;

/// The same of a group of [`MANY`] copies and more: where so many come, there are pairs enough.
const TIMED_OF_MANY: u64 = 16;

const MANY: usize = 16;

/// How long a copy waits before it looks again whether there is a core for it.
const NAP: Duration = Duration::from_millis(1);

/// In place of the position: it is waited for no longer.
const GIVEN_UP: usize = usize::MAX;

/// Copies for one candidate.
#[derive(Debug)]
pub(super) struct Group {
    /// Whose they are.
    pub(super) lane: usize,
    entries: Vec<Entry>,
    last_pair: Arc<LastPair>,
    made: Instant,
    /// When the copy that runs began to, in nanoseconds since then; 0 before the first.
    began: AtomicU64,
    /// Copies that have come to their end.
    ended: AtomicUsize,
}

impl Group {
    pub(super) fn new(lane: usize, entries: Vec<Entry>, last_pair: &Arc<LastPair>) -> Self {
        let (began, ended) = (AtomicU64::new(0), AtomicUsize::new(0));
        let last_pair = Arc::clone(last_pair);
        Self { lane, entries, last_pair, made: Instant::now(), began, ended }
    }

    /// Runs and compares the copies, until it is given up or `is_over`. Between two copies it waits while
    /// requests have all cores.
    pub(super) fn run(&self, judge: &Judge, is_over: impl Fn() -> bool) {
        let one_in = if self.entries.len() >= MANY { TIMED_OF_MANY } else { TIMED };
        for (at, entry) in self.entries.iter().enumerate() {
            self.wait_for_core(entry, &is_over);
            self.began.store(self.age().max(1), Ordering::Relaxed);
            let ended = match entry.shadow() {
                Some(shadow) if !is_over() => {
                    // What a run may leave half done is the version's own, which minds it.
                    let run = AssertUnwindSafe(|| run_one(shadow, &entry.copy, one_in));
                    catch_unwind(run).unwrap_or_else(|_| judge.panicked())
                }
                _ => Ended::Unrun,
            };
            let next = self.ended.compare_exchange(at, at + 1, Ordering::AcqRel, Ordering::Acquire);
            if next.is_err() {
                return;
            }
            judge.judge(&self.last_pair, entry, &ended);
        }
    }

    /// In nanoseconds.
    fn age(&self) -> u64 {
        u64::try_from(self.made.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Whether a copy has been running for `timeout` and more.
    pub(super) fn is_late(&self, timeout: Duration) -> bool {
        let began = self.began.load(Ordering::Relaxed);
        let took = Duration::from_nanos(self.age().saturating_sub(began));
        began > 0 && took >= timeout && !self.is_given_up()
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.ended.load(Ordering::Acquire) == GIVEN_UP
    }

    /// Has what is not at its end end otherwise; false where all is.
    pub(super) fn give_up(&self) -> Option<&[Entry]> {
        let give_up = |at: usize| (at < self.entries.len()).then_some(GIVEN_UP);
        let at = self.ended.fetch_update(Ordering::AcqRel, Ordering::Acquire, give_up);
        at.ok().map(|at| &self.entries[at.min(self.entries.len())..])
    }

    /// Says how those end that were given up: the first one was running.
    pub(super) fn judge_given_up(&self, given_up: &[Entry], judge: &Judge) {
        for (at, entry) in given_up.iter().enumerate() {
            let ended = if at == 0 { Ended::TimedOut } else { Ended::Unrun };
            judge.judge(&self.last_pair, entry, &ended);
        }
    }

    /// Waits while requests have all cores: there may be a quota, which a shadow would use up as well. And
    /// where this thread runs nevertheless, somebody with a core is not on it but stands behind another
    /// thread. Only a core that is idle comes to help then; one with a thread as modest as this one does
    /// not, until the system's clock ticks, 4 ms later at the worst.
    fn wait_for_core(&self, entry: &Entry, is_over: &impl Fn() -> bool) {
        let has_to_wait =
            || entry.shadow().is_some_and(|shadow| shadow.version.executor.leaves_no_core());
        while has_to_wait() && !is_over() && !self.is_given_up() {
            // Nothing runs that could be late.
            self.began.store(0, Ordering::Relaxed);
            std::thread::sleep(NAP);
        }
    }
}

/// Runs a copy; of some also the primary's run once more, so that both are timed on the same thread,
/// one right after the other: what a busy machine did to the client's own run says nothing of either
/// model.
fn run_one(shadow: &Shadow, copy: &Copy, one_in: u64) -> Ended {
    let dice = scramble(copy.hash);
    let is_timed = dice.is_multiple_of(one_in) && copy.answer.is_ok();
    let run = || shadow.version.executor.run_behind(&copy.inputs, copy.rows());
    let (outcome, times) = if is_timed {
        // Whoever runs second finds the inputs in the cache.
        let is_primary_first = dice & (1 << 32) == 0;
        let rehearse = || {
            let (has_run, took) = timed(|| copy.origin.primary.executor.rehearse(&copy.inputs));
            has_run.then_some(took)
        };
        let before = if is_primary_first { rehearse() } else { None };
        let (outcome, took) = timed(run);
        let primary = if is_primary_first { before } else { rehearse() };
        (outcome, Times { primary, candidate: Some(took) })
    } else {
        (run(), Times::default())
    };
    match outcome {
        Ok(execution) => {
            let computed = execution.computed;
            let timings = Timings { total: computed, compute: computed, ..Timings::default() };
            Ended::Answered(execution.outputs, times, timings)
        }
        Err(error) => Ended::Failed(error.code(), error.to_string()),
    }
}

/// What `run` gives and the thread's own time that it took: a shadow yields to everybody, which is
/// not its model's fault.
fn timed<T>(run: impl FnOnce() -> T) -> (T, Duration) {
    let before = thread_cpu_ns();
    let outcome = run();
    (outcome, Duration::from_nanos(thread_cpu_ns().saturating_sub(before)))
}
