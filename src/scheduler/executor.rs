//! One version's way to be executed: its limits, its cost, its place at the pool.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::medium::{self, MEDIUM};
use super::queue::Entry;
use super::reply::Reply;
use super::runner::{INLINE_BUDGET, Runner};
use super::{Cost, Execute, ExecuteError, Execution, Pool, Queue, gather, seat};
use crate::telemetry::{Counter, Gauge, Histogram, Sharded, Telemetry, names};
use crate::tensor::Tensor;

/// What a version may take at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Predictions admitted and not answered.
    pub max_in_flight: usize,
    /// Rows of a batch; 0 or 1 turns batching off.
    pub max_batch: usize,
    /// How long a batch that is not full waits for more.
    pub max_delay: Duration,
    /// Rows of a batch that are preferred to larger ones.
    pub preferred: Vec<usize>,
    /// Whether light requests are put together as well, wherever there are several.
    pub always_batches: bool,
}

/// What a request saves at least where it is put together with others by itself: it waits for them, and
/// telling it its outcome costs about a microsecond.
const WORTH_GATHERING: Duration = Duration::from_micros(4);

/// What the scheduler counts.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// The model's name, for the log.
    pub model: Arc<str>,
    /// Entries waiting at the pool.
    pub queued: Gauge,
    /// Entries dropped unrun because their deadline passed.
    pub dropped_deadline: Counter,
    /// Entries dropped unrun because their caller left.
    pub dropped_cancelled: Counter,
    /// Panics of the engine.
    pub panics: Counter,
    /// Versions put into quarantine.
    pub quarantines: Counter,
    /// Versions that held up I/O threads and were sent to the pool.
    pub demotions: Counter,
    /// Rows of each execution.
    pub batch_rows: Arc<Histogram>,
    /// Executions: a batch is one.
    pub executions: Arc<Sharded<1>>,
}

impl Metrics {
    /// Handles that no scrape shows, for benches and tests.
    #[must_use]
    pub fn unseen() -> Self {
        let telemetry = Telemetry::default();
        let counter = |metric| telemetry.counter(metric, &[]);
        Self {
            model: "unseen".into(),
            queued: telemetry.gauge(names::QUEUED, &[]),
            dropped_deadline: counter(names::QUEUE_DROPPED),
            dropped_cancelled: counter(names::QUEUE_DROPPED),
            panics: counter(names::PANICS),
            quarantines: counter(names::QUARANTINES),
            demotions: counter(names::DEMOTIONS),
            batch_rows: telemetry.histogram(names::BATCH_ROWS, &[]),
            executions: Arc::default(),
        }
    }
}

/// Executes one version's predictions.
#[derive(Debug)]
pub struct Executor {
    queue: Arc<Queue>,
    runner: Arc<Runner>,
    pool: Pool,
    limits: Limits,
    in_flight: Arc<AtomicUsize>,
}

/// A request for the pool.
#[derive(Debug)]
pub struct Job {
    /// In the signature's order.
    pub inputs: Vec<Tensor>,
    /// Rows of the inputs.
    pub rows: usize,
    /// 1 is the first; 0 is none, which is the last.
    pub priority: u64,
    /// When the request was admitted.
    pub admitted: Instant,
    /// When nobody waits for it any longer.
    pub deadline: Instant,
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
        let runner = Arc::new(Runner::new(target, cost, metrics));
        let queue = Arc::new(Queue::new(Arc::clone(&runner), limits.clone()));
        Self { queue, runner, pool, limits, in_flight: Arc::default() }
    }

    /// Admits a request, or refuses it at once.
    pub fn admit(&self) -> Result<Permit, ExecuteError> {
        if self.runner.is_quarantined() {
            return Err(ExecuteError::Quarantined);
        }
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        let permit = Permit(Arc::clone(&self.in_flight));
        if before >= self.limits.max_in_flight {
            return Err(ExecuteError::Full { limit: self.limits.max_in_flight });
        }
        Ok(permit)
    }

    /// Where a request of `rows` rows should run that is there `now`.
    #[must_use]
    pub fn place(&self, rows: usize, now: Instant) -> Placement {
        // Whoever asks for batches wants requests to meet; else the first one after a rest is probably
        // alone.
        let is_gathered = self.limits.always_batches
            || (medium::is_io_thread_busy() && self.is_worth_gathering());
        let stays = !is_gathered && self.runner.is_for_io_thread(rows, self.pool.company(), now);
        if stays { Placement::Inline } else { Placement::Pooled }
    }

    fn is_worth_gathering(&self) -> bool {
        self.limits.max_batch > 1 && self.runner.cost.base() >= WORTH_GATHERING
    }

    /// Runs on the calling thread. `admitted` is now: a clock is not read where one has been.
    pub fn run_inline(
        &self,
        inputs: &[Tensor],
        rows: usize,
        admitted: Instant,
    ) -> Result<Execution, ExecuteError> {
        self.pool.company().io_thread_runs(self.runner.address(), admitted);
        let is_light = self.runner.is_light(rows);
        let execution = self.runner.run_one(inputs, rows, (admitted, admitted))?;
        self.runner.mind(execution.computed, Some(if is_light { INLINE_BUDGET } else { MEDIUM }));
        if is_light {
            self.pool.count_light();
        }
        Ok(execution)
    }

    /// Hands the request to the pool, or has it run with others that this thread finds at its sockets
    /// where it is for an I/O thread and batches need not wait. The receiver yields the outcome; dropping
    /// it withdraws the request if it has not begun to run.
    pub fn submit(
        &self,
        job: Job,
    ) -> Result<oneshot::Receiver<Result<Execution, ExecuteError>>, ExecuteError> {
        let is_gathered = self.limits.max_batch > 1 && self.limits.max_delay.is_zero();
        let company = self.pool.company();
        let is_gathered =
            is_gathered && self.runner.is_for_io_thread(job.rows, company, job.admitted);
        let (entry, outcome) = entry(job);
        let left =
            if is_gathered { gather::add(&self.queue, &self.pool, entry) } else { Err(entry) };
        if let Err(entry) = left {
            let admitted = entry.admitted;
            let taken = self.pool.submit(&self.queue, entry);
            seat::take(&self.queue, &self.pool, admitted);
            taken.inspect_err(|_| medium::io_thread_refuses(admitted))?;
        }
        Ok(outcome)
    }

    /// Runs `work`, which is too long for an I/O thread, on the pool. A panic goes on here.
    pub async fn run_aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ExecuteError> {
        match self.pool.run_errand(work).await {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(_) => Err(ExecuteError::ShuttingDown),
        }
    }

    /// Runs a request that no client waits for on the calling thread, which is none of the pool's.
    pub fn run_behind(&self, inputs: &[Tensor], rows: usize) -> Result<Execution, ExecuteError> {
        if self.runner.is_quarantined() {
            return Err(ExecuteError::Quarantined);
        }
        let now = Instant::now();
        self.runner.run_one(inputs, rows, (now, now))
    }

    /// Runs a request on the calling thread for nothing but the time that it takes: neither counted
    /// nor learned from. Returns whether it ran, which it does only where no request can come to wait
    /// for this thread.
    #[must_use]
    pub fn rehearse(&self, inputs: &[Tensor]) -> bool {
        let target = &self.runner.target;
        target.is_ready_for(inputs) && target.execute(inputs).is_ok()
    }

    /// Whether requests have all cores, at the pool and on I/O threads, or all threads of the pool.
    #[must_use]
    pub fn leaves_no_core(&self) -> bool {
        self.pool.leaves_no_core()
    }

    /// Whether it panicked so often that it is not run any more.
    #[must_use]
    pub fn is_quarantined(&self) -> bool {
        self.runner.is_quarantined()
    }

    /// What it may take at once.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Requests admitted and not answered.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The expected duration of one row.
    #[must_use]
    pub fn expected_cost(&self) -> Duration {
        self.expect(1)
    }

    /// The expected duration of so many rows on one thread.
    pub(super) fn expect(&self, rows: usize) -> Duration {
        self.runner.cost.expect(rows)
    }

    #[cfg(test)]
    pub(super) fn address(&self) -> usize {
        self.runner.address()
    }

    #[cfg(test)]
    pub(super) fn observe(&self, rows: usize, took: Duration) {
        self.runner.cost.observe(rows, took);
    }

    /// Threads that it may fill.
    pub(super) fn n_threads(&self) -> usize {
        self.pool.share()
    }
}

/// What waits for its turn, and where its outcome comes.
fn entry(job: Job) -> (Entry, oneshot::Receiver<Result<Execution, ExecuteError>>) {
    let Job { inputs, rows, priority, admitted, deadline } = job;
    let (reply, outcome) = oneshot::channel();
    let home = Handle::try_current().ok().map(|runtime| (thread::current().id(), runtime));
    let reply = Reply { outcome: reply, home };
    let wait = Duration::ZERO;
    (Entry { inputs, rows, priority, admitted, deadline, wait, reply }, outcome)
}
