//! One version's way to be executed: its limits, its cost, its place at the pool.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::pool::{Entry, run_one};
use super::{Cost, Execute, ExecuteError, Execution, Pool, Queue};
use crate::telemetry::{Counter, Gauge, Histogram, Sharded};
use crate::tensor::Tensor;

/// The longest expected duration of what runs on an I/O thread. A thread hop costs 5 to 20 µs;
/// an I/O thread that computes for longer than about half a millisecond makes its other
/// connections wait noticeably.
const INLINE_BUDGET: Duration = Duration::from_micros(100);

/// What a version may take at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Predictions admitted and not answered.
    pub max_in_flight: usize,
    /// Rows of a batch; 0 or 1 turns batching off.
    pub max_batch: usize,
    /// How long a batch that is not full waits for more.
    pub max_delay: Duration,
}

/// What the scheduler counts.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Entries waiting at the pool.
    pub queued: Gauge,
    /// Entries dropped unrun because their deadline passed.
    pub dropped_deadline: Counter,
    /// Entries dropped unrun because their caller left.
    pub dropped_cancelled: Counter,
    /// Rows of each execution.
    pub batch_rows: Arc<Histogram>,
    /// Executions: a batch is one.
    pub executions: Arc<Sharded<1>>,
}

/// Executes one version's predictions.
#[derive(Debug)]
pub struct Executor {
    queue: Arc<Queue>,
    target: TargetRef,
    cost: Arc<Cost>,
    metrics: Metrics,
    pool: Pool,
    limits: Limits,
    in_flight: Arc<AtomicUsize>,
}

/// `Arc<dyn Execute>` with a `Debug` that says nothing.
struct TargetRef(Arc<dyn Execute>);

impl std::fmt::Debug for TargetRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Execute")
    }
}

/// Where a request runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// Now, on the calling thread.
    Inline,
    /// On the pool.
    Pooled,
}

/// An admitted request's place; given back when dropped.
#[derive(Debug)]
pub struct Permit(Arc<AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Executor {
    /// An executor of `target` that is expected to take `cost`.
    #[must_use]
    pub fn new(
        target: Arc<dyn Execute>,
        cost: Cost,
        limits: Limits,
        metrics: Metrics,
        pool: Pool,
    ) -> Self {
        let cost = Arc::new(cost);
        let queue = Queue::new(
            Arc::clone(&target),
            Arc::clone(&cost),
            metrics.clone(),
            limits.max_batch,
            limits.max_delay,
        );
        Self {
            queue: Arc::new(queue),
            target: TargetRef(target),
            cost,
            metrics,
            pool,
            limits,
            in_flight: Arc::default(),
        }
    }

    /// Admits a request, or refuses it at once.
    pub fn admit(&self) -> Result<Permit, ExecuteError> {
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        let permit = Permit(Arc::clone(&self.in_flight));
        if before >= self.limits.max_in_flight {
            return Err(ExecuteError::Full { limit: self.limits.max_in_flight });
        }
        Ok(permit)
    }

    /// Where a request of `rows` rows should run.
    #[must_use]
    pub fn place(&self, rows: usize) -> Placement {
        // Whoever asks for batches wants requests to meet, and they meet at the pool.
        let batches = self.limits.max_batch > 1;
        if batches || self.cost.expect(rows) > INLINE_BUDGET {
            Placement::Pooled
        } else {
            Placement::Inline
        }
    }

    /// Runs on the calling thread.
    pub fn run_inline(
        &self,
        inputs: &[Tensor],
        rows: usize,
        admitted: Instant,
    ) -> Result<Execution, ExecuteError> {
        run_one(self.target.0.as_ref(), &self.cost, &self.metrics, inputs, rows, admitted)
    }

    /// Hands the request to the pool. The receiver yields the outcome; dropping it withdraws the
    /// request if it has not begun to run.
    pub fn submit(
        &self,
        inputs: Vec<Tensor>,
        rows: usize,
        admitted: Instant,
        deadline: Instant,
    ) -> Result<oneshot::Receiver<Result<Execution, ExecuteError>>, ExecuteError> {
        let (reply, outcome) = oneshot::channel();
        self.pool.submit(&self.queue, Entry { inputs, rows, admitted, deadline, reply })?;
        Ok(outcome)
    }

    /// What it may take at once.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Requests admitted and not answered.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The expected duration of one row.
    #[must_use]
    pub fn expected_cost(&self) -> Duration {
        self.cost.expect(1)
    }
}
