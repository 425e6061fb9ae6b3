//! The compute pool: named threads that run what is too heavy for the I/O threads.
//!
//! Each version has a bounded FIFO of its own ([`Queue`]); versions with work stand in one line
//! and take turns, one batch a turn, so that a busy model cannot starve another. A thread takes
//! the version at the head of the line, drops what nobody waits for any longer, runs what is left
//! as one batch, and puts the version back at the end of the line if more waits.
//!
//! One mutex guards all queues: it is held for moving a few pointers, never while anything runs,
//! and only requests that are worth a thread hop come here.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{Cost, Execute, ExecuteError, Execution, Metrics, batch};
use crate::telemetry::Gauge;
use crate::tensor::Tensor;

/// A request on its way through the pool.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) inputs: Vec<Tensor>,
    pub(super) rows: usize,
    pub(super) admitted: Instant,
    pub(super) deadline: Instant,
    pub(super) reply: oneshot::Sender<Result<Execution, ExecuteError>>,
}

/// One version's place at the pool.
pub struct Queue {
    target: Arc<dyn Execute>,
    cost: Arc<Cost>,
    metrics: Metrics,
    /// Rows of one batch at most; 1 where batching is off.
    max_batch: usize,
    /// How long a batch that is not full waits for more.
    max_delay: Duration,
    /// Guarded by the pool's mutex, which also guards the line the queue stands in.
    waiting: Mutex<VecDeque<Entry>>,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("max_batch", &self.max_batch).finish_non_exhaustive()
    }
}

impl Queue {
    pub(super) fn new(
        target: Arc<dyn Execute>,
        cost: Arc<Cost>,
        metrics: Metrics,
        max_batch: usize,
        max_delay: Duration,
    ) -> Self {
        let max_batch = if target.is_batchable() { max_batch.max(1) } else { 1 };
        Self { target, cost, metrics, max_batch, max_delay, waiting: Mutex::default() }
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The threads and the line of versions that have work for them.
#[derive(Debug, Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    line: Mutex<Line>,
    work: Condvar,
    /// Threads that run something.
    busy: Gauge,
}

#[derive(Debug, Default)]
struct Line {
    ready: VecDeque<Turn>,
    closed: bool,
}

/// A version's turn. It stands in the line once, and only while it has entries.
#[derive(Debug)]
struct Turn {
    queue: Arc<Queue>,
    /// A batch that is not full waits until then.
    not_before: Instant,
}

impl Pool {
    /// A pool of `n_threads` threads named `compute-0`, `compute-1`, ... They end when
    /// [`Pool::close`] was called and the line is empty. `busy` shows how many run something.
    pub fn start(n_threads: usize, busy: Gauge) -> std::io::Result<(Self, Vec<JoinHandle<()>>)> {
        let shared = Shared { line: Mutex::default(), work: Condvar::new(), busy };
        let pool = Self { shared: Arc::new(shared) };
        let threads = (0..n_threads.max(1)).map(|index| {
            let shared = Arc::clone(&pool.shared);
            std::thread::Builder::new()
                .name(format!("compute-{index}"))
                .spawn(move || while shared.run_turn() {})
        });
        let threads = threads.collect::<Result<_, _>>()?;
        Ok((pool, threads))
    }

    /// Takes no more work; what was taken is still run.
    pub fn close(&self) {
        self.shared.line().closed = true;
        self.shared.work.notify_all();
    }

    pub(super) fn submit(&self, queue: &Arc<Queue>, entry: Entry) -> Result<(), ExecuteError> {
        let mut line = self.shared.line();
        if line.closed {
            return Err(ExecuteError::ShuttingDown);
        }
        let mut waiting = queue.waiting();
        let not_before = entry.admitted + queue.max_delay;
        waiting.push_back(entry);
        queue.metrics.queued.increment(1.0);
        if waiting.len() == 1 {
            line.ready.push_back(Turn { queue: Arc::clone(queue), not_before });
        } else if is_full(queue, &waiting)
            && let Some(turn) = line.ready.iter_mut().find(|turn| Arc::ptr_eq(&turn.queue, queue))
        {
            turn.not_before = Instant::now();
        }
        drop(waiting);
        drop(line);
        self.shared.work.notify_one();
        Ok(())
    }
}

fn is_full(queue: &Queue, waiting: &VecDeque<Entry>) -> bool {
    waiting.iter().map(|entry| entry.rows).sum::<usize>() >= queue.max_batch
}

impl Shared {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn and runs it; false when the pool is closed and empty.
    fn run_turn(&self) -> bool {
        let mut line = self.line();
        let turn = loop {
            let now = Instant::now();
            if let Some(index) = line.ready.iter().position(|turn| turn.not_before <= now) {
                break line.ready.remove(index);
            }
            let next = line.ready.iter().map(|turn| turn.not_before).min();
            line = match next {
                Some(next) => {
                    let wait = next.saturating_duration_since(now);
                    self.work.wait_timeout(line, wait).unwrap_or_else(PoisonError::into_inner).0
                }
                None if line.closed => return false,
                None => self.work.wait(line).unwrap_or_else(PoisonError::into_inner),
            };
        };
        let Some(Turn { queue, .. }) = turn else { return true };
        let mut waiting = queue.waiting();
        let entries = take_batch(&queue, &mut waiting);
        if !waiting.is_empty() {
            let not_before = Instant::now();
            line.ready.push_back(Turn { queue: Arc::clone(&queue), not_before });
            self.work.notify_one();
        }
        drop(waiting);
        drop(line);
        self.busy.increment(1.0);
        run_batch(&queue, entries);
        self.busy.decrement(1.0);
        true
    }
}

/// Takes the oldest entry that somebody still waits for, and as many after it as fit into one
/// batch with it.
fn take_batch(queue: &Queue, waiting: &mut VecDeque<Entry>) -> Vec<Entry> {
    let now = Instant::now();
    let mut batch: Vec<Entry> = Vec::new();
    let mut rows = 0;
    while let Some(entry) = waiting.front() {
        let fits = match batch.first() {
            None => true,
            Some(first) => {
                rows + entry.rows <= queue.max_batch
                    && batch::fit_together(&first.inputs, &entry.inputs)
            }
        };
        if !fits {
            break;
        }
        let Some(entry) = waiting.pop_front() else { break };
        queue.metrics.queued.decrement(1.0);
        if entry.reply.is_closed() {
            queue.metrics.dropped_cancelled.increment(1);
        } else if entry.deadline <= now {
            queue.metrics.dropped_deadline.increment(1);
            let allowed = entry.deadline.saturating_duration_since(entry.admitted);
            // Nobody to tell if the caller left meanwhile.
            drop(entry.reply.send(Err(ExecuteError::Deadline(allowed))));
        } else {
            rows += entry.rows;
            batch.push(entry);
        }
        if rows >= queue.max_batch {
            break;
        }
    }
    batch
}

fn run_batch(queue: &Queue, entries: Vec<Entry>) {
    if let [_, _, ..] = entries.as_slice() {
        let requests: Vec<&[Tensor]> = entries.iter().map(|e| e.inputs.as_slice()).collect();
        let rows: Vec<usize> = entries.iter().map(|entry| entry.rows).collect();
        let batch_rows = rows.iter().sum();
        let started = Instant::now();
        let answers = batch::join(&requests)
            .and_then(|inputs| queue.target.execute(&inputs).ok())
            .and_then(|outputs| batch::split(&outputs, &rows));
        if let Some(answers) = answers {
            let computed = started.elapsed();
            queue.cost.observe(batch_rows, computed);
            queue.metrics.batch_rows.record(batch_rows as u64);
            queue.metrics.executions.add(0, 1);
            for (entry, outputs) in entries.into_iter().zip(answers) {
                let queued = started.saturating_duration_since(entry.admitted);
                // Nobody to tell if the caller left meanwhile.
                drop(entry.reply.send(Ok(Execution { outputs, queued, computed, batch_rows })));
            }
            return;
        }
        // A batch that fails fails for one request's sake: each is run alone, so that the others
        // get their answer and it its own error.
    }
    for entry in entries {
        let outcome = run_one(
            queue.target.as_ref(),
            &queue.cost,
            &queue.metrics,
            &entry.inputs,
            entry.rows,
            entry.admitted,
        );
        drop(entry.reply.send(outcome));
    }
}

/// Runs one request by itself, on the calling thread.
pub(super) fn run_one(
    target: &dyn Execute,
    cost: &Cost,
    metrics: &Metrics,
    inputs: &[Tensor],
    rows: usize,
    admitted: Instant,
) -> Result<Execution, ExecuteError> {
    let started = Instant::now();
    let outputs = target.execute(inputs)?;
    let computed = started.elapsed();
    cost.observe(rows, computed);
    metrics.batch_rows.record(rows as u64);
    metrics.executions.add(0, 1);
    let queued = started.saturating_duration_since(admitted);
    Ok(Execution { outputs, queued, computed, batch_rows: rows })
}
