//! Running one version's predictions, wherever that happens: what it costs, what it counts, and
//! when it is not run any more.
//!
//! A kernel that panics fails its request, and the state of that run is thrown away. A version that
//! panics time after time is broken, though: it is put into quarantine and refuses what comes,
//! rather than unwinding for each request of a busy service. Loading it anew lifts that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::medium::{Company, MEDIUM};
use super::{Cost, Execute, ExecuteError, Execution, Metrics};
use crate::engine::RunError;
use crate::tensor::Tensor;

/// The longest expected duration of what runs on an I/O thread. A hop to the pool and back costs 20
/// to 26 µs on two idle cores (`benches/dispatch.rs`); an I/O thread that computes for longer than
/// about half a millisecond makes its other connections wait noticeably.
pub(super) const INLINE_BUDGET: Duration = Duration::from_micros(100);

/// Panics in a row after which a version is put into quarantine.
const MOST_PANICS: usize = 3;

/// Runs on an I/O thread in a row that took twice the budget, after which the pool runs it.
const MOST_OVERRUNS: usize = 3;

/// Runs on the pool in a row within half of the budget, after which I/O threads run it again.
const CALM_RUNS: usize = 16;

/// What runs, with its figures.
pub(super) struct Runner {
    pub(super) target: Arc<dyn Execute>,
    pub(super) cost: Cost,
    pub(super) metrics: Metrics,
    panics: AtomicUsize,
    /// Whether I/O threads have been held up by it.
    is_demoted: AtomicBool,
    /// Overruns in a row, or calm runs in a row where it is demoted.
    streak: AtomicUsize,
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner").field("cost", &self.cost).finish_non_exhaustive()
    }
}

impl Runner {
    pub(super) fn new(target: Arc<dyn Execute>, cost: Cost, metrics: Metrics) -> Self {
        Self {
            target,
            cost,
            metrics,
            panics: AtomicUsize::new(0),
            is_demoted: AtomicBool::new(false),
            streak: AtomicUsize::new(0),
        }
    }

    pub(super) fn is_quarantined(&self) -> bool {
        self.panics.load(Ordering::Relaxed) >= MOST_PANICS
    }

    /// Whether `rows` rows are few enough for an I/O thread.
    pub(super) fn is_light(&self, rows: usize) -> bool {
        self.is_within(rows, INLINE_BUDGET)
    }

    /// Whether `rows` rows are few enough for an I/O thread that has nothing better to do.
    pub(super) fn is_medium(&self, rows: usize) -> bool {
        self.is_within(rows, MEDIUM)
    }

    /// Whether `rows` rows are for an I/O thread as things are.
    pub(super) fn is_for_io_thread(&self, rows: usize, company: &Company, now: Instant) -> bool {
        self.is_light(rows)
            || self.is_medium(rows) && company.gains_nothing_elsewhere(self.address(), now)
    }

    fn is_within(&self, rows: usize, budget: Duration) -> bool {
        !self.is_demoted.load(Ordering::Relaxed) && self.cost.expect(rows) <= budget
    }

    /// The most rows that are light.
    pub(super) fn light_rows(&self) -> usize {
        match self.is_demoted.load(Ordering::Relaxed) {
            true => 0,
            false => self.cost.rows_within(INLINE_BUDGET),
        }
    }

    /// What tells it from others.
    pub(super) fn address(&self) -> usize {
        std::ptr::from_ref(self) as usize
    }

    /// Runs one request by itself, on the calling thread and from `started` on, which is now.
    pub(super) fn run_one(
        &self,
        inputs: &[Tensor],
        rows: usize,
        (admitted, started): (Instant, Instant),
    ) -> Result<Execution, ExecuteError> {
        let outputs = self.execute(inputs)?;
        let computed = started.elapsed();
        self.count(rows, computed);
        let queued = started.saturating_duration_since(admitted);
        Ok(Execution { outputs, queued, computed, batch_rows: rows, batch: None, first_row: 0 })
    }

    /// Runs and minds panics.
    fn execute(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, RunError> {
        let outcome = self.target.execute(inputs);
        if let Err(RunError::Panic(_)) = outcome {
            self.metrics.panics.increment(1);
            if self.panics.fetch_add(1, Ordering::Relaxed) + 1 == MOST_PANICS {
                self.metrics.quarantines.increment(1);
                tracing::error!(
                    model = %self.metrics.model,
                    panics = MOST_PANICS,
                    "the engine panicked time after time; the version is in quarantine"
                );
            }
        }
        outcome
    }

    /// Takes a run that succeeded into account, of one request or of a batch.
    pub(super) fn count(&self, rows: usize, computed: Duration) {
        // The usual case must not write what all threads read; quarantine is for good.
        if self.panics.load(Ordering::Relaxed) > 0 && !self.is_quarantined() {
            self.panics.store(0, Ordering::Relaxed);
        }
        self.cost.observe(rows, computed);
        self.metrics.batch_rows.record(rows as u64);
        self.metrics.executions.add(0, 1);
    }

    /// Notes how long an I/O thread computed that had a `budget`, or the pool for one request.
    pub(super) fn mind(&self, computed: Duration, budget: Option<Duration>) {
        let is_demoted = self.is_demoted.load(Ordering::Relaxed);
        let (counts, most) = match (is_demoted, budget) {
            (false, None) => return,
            (false, Some(budget)) => (computed > budget * 2, MOST_OVERRUNS),
            (true, _) => (computed < INLINE_BUDGET / 2, CALM_RUNS),
        };
        if !counts {
            // The usual case, which must not write what all threads read.
            if self.streak.load(Ordering::Relaxed) > 0 {
                self.streak.store(0, Ordering::Relaxed);
            }
        } else if self.streak.fetch_add(1, Ordering::Relaxed) + 1 >= most {
            self.streak.store(0, Ordering::Relaxed);
            self.is_demoted.store(!is_demoted, Ordering::Relaxed);
            if !is_demoted {
                self.metrics.demotions.increment(1);
            }
        }
    }
}
