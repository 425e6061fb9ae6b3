//! When I/O threads run what is more than light.
//!
//! The way to the pool and back costs some 30 µs of processor time on a busy machine, for threads that
//! wake each other and take each other's caches. It buys a core that would be idle, and an I/O thread
//! that serves its other connections meanwhile. Where no core is idle, nobody else's predictions come
//! and the thread has not been computing for long, it buys nothing, and the run stays where it is.
//!
//! Where there is more than the machine can do, all goes through the pool's queue, which knows what would be
//! late; its turns are the I/O threads' all the same ([`super::seat`]).
//!
//! In the usual case of one version no thread writes here what another one reads often.

use std::cell::Cell;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::telemetry::Sharded;

/// The longest expected duration of such a run: an I/O thread that computes for longer makes its other
/// connections wait noticeably. Durations are those of a busy machine, where a run is interrupted.
pub(super) const MEDIUM: Duration = Duration::from_micros(1500);

/// How long an I/O thread may go on with such runs before it looks at what else there is. Beyond it
/// they go to the pool, which refuses what would be late.
const LONGEST_STREAK: Duration = Duration::from_millis(4);

/// A version is alone when no other one has run for so long.
const ALONE_AFTER: Duration = Duration::from_millis(50);

/// How often it is noted that there are several.
const NOTE_EVERY: Duration = Duration::from_millis(10);

thread_local! {
    /// Since when this thread has been running predictions without a rest.
    static STREAK: Cell<Option<Instant>> = const { Cell::new(None) };
    /// When this thread refused a request last.
    static REFUSED: Cell<Option<Instant>> = const { Cell::new(None) };
    /// Whether this thread is counted as awake.
    static IS_AWAKE: Cell<bool> = const { Cell::new(false) };
}

/// I/O threads of this process that are awake.
static AWAKE: LazyLock<Sharded<1>> = LazyLock::new(Sharded::default);

/// To be called by each I/O thread when it has nothing more to do.
pub fn io_thread_rests() {
    STREAK.set(None);
    if IS_AWAKE.replace(false) {
        AWAKE.add(0, 1_u64.wrapping_neg());
    }
}

/// To be called by each I/O thread when it has something to do again.
pub fn io_thread_wakes() {
    if !IS_AWAKE.replace(true) {
        AWAKE.add(0, 1);
    }
}

/// Whether this thread has run a prediction since it rested.
pub(super) fn is_io_thread_busy() -> bool {
    STREAK.get().is_some()
}

/// Notes that this thread has read a request which the pool refused.
pub(super) fn io_thread_refuses(now: Instant) {
    REFUSED.set(Some(now));
}

/// Whether this thread did lately.
pub(super) fn has_refused_lately(now: Instant) -> bool {
    REFUSED.get().is_some_and(|at| now.saturating_duration_since(at) < ALONE_AFTER)
}

fn has_rested(now: Instant) -> bool {
    STREAK.get().is_none_or(|since| now.saturating_duration_since(since) < LONGEST_STREAK)
}

/// How many I/O threads are awake.
fn awake() -> usize {
    let [awake] = AWAKE.sums();
    usize::try_from(awake).unwrap_or(usize::MAX)
}

/// Who runs, and on how many threads.
#[derive(Debug)]
pub(super) struct Company {
    cores: usize,
    begun: Instant,
    /// The version that was noted last, by its address.
    last: AtomicUsize,
    /// When another one was noted before it: nanoseconds since `begun`.
    changed: AtomicU64,
    /// Threads of the pool that run something.
    computing: AtomicUsize,
}

/// A thread of the pool that runs something, until dropped.
pub(super) struct Computing<'a>(&'a Company);

impl Drop for Computing<'_> {
    fn drop(&mut self) {
        self.0.computing.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Company {
    pub(super) fn new(cores: usize) -> Self {
        Self {
            cores,
            begun: Instant::now(),
            last: AtomicUsize::new(0),
            changed: AtomicU64::new(0),
            computing: AtomicUsize::new(0),
        }
    }

    /// Threads of the pool that run something.
    pub(super) fn computing(&self) -> usize {
        self.computing.load(Ordering::Relaxed)
    }

    /// Notes a run of a version.
    pub(super) fn note(&self, who: usize, now: Instant) {
        if self.last.load(Ordering::Relaxed) != who && self.since_change(now) >= NOTE_EVERY {
            let nanos = now.saturating_duration_since(self.begun).as_nanos();
            self.changed.store(u64::try_from(nanos).unwrap_or(u64::MAX), Ordering::Relaxed);
            self.last.store(who, Ordering::Relaxed);
        }
    }

    /// Notes a run of a version by this I/O thread.
    pub(super) fn io_thread_runs(&self, who: usize, now: Instant) {
        if STREAK.get().is_none() {
            STREAK.set(Some(now));
        }
        self.note(who, now);
    }

    fn since_change(&self, now: Instant) -> Duration {
        let changed = Duration::from_nanos(self.changed.load(Ordering::Relaxed));
        now.saturating_duration_since(self.begun).saturating_sub(changed)
    }

    /// Notes that a thread of the pool runs something.
    pub(super) fn begin(&self) -> Computing<'_> {
        self.computing.fetch_add(1, Ordering::Relaxed);
        Computing(self)
    }

    /// For an I/O thread, which is awake.
    fn has_no_idle_core(&self) -> bool {
        awake().max(1) + self.computing() >= self.cores
    }

    /// Whether requests have all cores. For threads that run none.
    pub(super) fn leaves_no_core(&self) -> bool {
        awake() + self.computing() >= self.cores
    }

    fn is_alone(&self, who: usize, now: Instant) -> bool {
        self.last.load(Ordering::Relaxed) == who && self.since_change(now) >= ALONE_AFTER
    }

    /// Whether no core is idle and nobody else's predictions come.
    pub(super) fn leaves_machine_to(&self, who: usize, now: Instant) -> bool {
        self.has_no_idle_core() && self.is_alone(who, now)
    }

    /// Whether the pool has nothing to offer to a run of the version: neither an idle core nor an I/O
    /// thread that others wait for.
    pub(super) fn gains_nothing_elsewhere(&self, who: usize, now: Instant) -> bool {
        self.leaves_machine_to(who, now) && has_rested(now) && !has_refused_lately(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn who_is_alone_for_a_while_and_finds_no_idle_core_stays() {
        let company = Company::new(2);
        let start = company.begun;
        company.note(1, start + 20 * MS);
        let _other = company.begin();
        assert!(!company.gains_nothing_elsewhere(1, start + 60 * MS));
        assert!(company.gains_nothing_elsewhere(1, start + 70 * MS));
        // Another one runs now and then.
        company.note(2, start + 80 * MS);
        company.note(1, start + 81 * MS);
        assert!(!company.gains_nothing_elsewhere(1, start + 82 * MS));
        assert!(!company.gains_nothing_elsewhere(1, start + 140 * MS));
        company.note(1, start + 141 * MS);
        assert!(company.gains_nothing_elsewhere(1, start + 191 * MS));
    }

    #[test]
    fn an_idle_core_is_a_reason_to_go() {
        let company = Company::new(2);
        let start = company.begun;
        company.note(1, start + 20 * MS);
        assert!(!company.gains_nothing_elsewhere(1, start + 100 * MS));
        let other = company.begin();
        assert!(company.gains_nothing_elsewhere(1, start + 100 * MS));
        drop(other);
        assert!(!company.gains_nothing_elsewhere(1, start + 100 * MS));
        // With one core there is nowhere to go.
        let company = Company::new(1);
        company.note(1, company.begun + 20 * MS);
        assert!(company.gains_nothing_elsewhere(1, company.begun + 100 * MS));
    }

    #[test]
    fn io_threads_that_are_awake_have_a_core() {
        let company = Company::new(2);
        io_thread_wakes();
        let other = company.begin();
        assert!(company.leaves_no_core());
        drop(other);
        io_thread_rests();
        assert!(!company.leaves_no_core());
    }

    #[test]
    fn who_refuses_leaves_it_to_the_queue() {
        let company = Company::new(1);
        company.note(1, company.begun + 20 * MS);
        let now = company.begun + 100 * MS;
        assert!(company.gains_nothing_elsewhere(1, now));
        io_thread_refuses(now);
        assert!(!company.gains_nothing_elsewhere(1, now + 49 * MS));
        assert!(company.leaves_machine_to(1, now + 49 * MS));
        assert!(company.gains_nothing_elsewhere(1, now + 50 * MS));
    }

    #[test]
    fn a_thread_that_has_run_for_long_lets_others_run() {
        let company = Company::new(1);
        company.note(1, company.begun + 20 * MS);
        let now = company.begun + 100 * MS;
        assert!(!is_io_thread_busy());
        company.io_thread_runs(1, now);
        company.io_thread_runs(1, now + 3 * MS);
        assert!(is_io_thread_busy());
        assert!(company.gains_nothing_elsewhere(1, now + 3 * MS));
        assert!(!company.gains_nothing_elsewhere(1, now + 4 * MS));
        io_thread_rests();
        assert!(company.gains_nothing_elsewhere(1, now + 4 * MS));
    }
}
