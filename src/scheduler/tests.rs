//! The pool and its queues, with kernels that wait for the test's word.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::*;
use crate::telemetry::{Telemetry, names};
use crate::tensor::{Datatype, Tensor};

/// How long a test waits for what has to come.
const SOON: Duration = Duration::from_secs(20);

/// Tells which row runs, then waits for leave to end.
struct Gate {
    began: Mutex<Sender<u8>>,
    leave: Mutex<Receiver<()>>,
    is_batchable: bool,
}

impl Execute for Gate {
    fn execute(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, RunError> {
        self.began.lock().unwrap().send(inputs[0].data()[0]).unwrap();
        self.leave.lock().unwrap().recv_timeout(SOON).unwrap();
        Ok(inputs.to_vec())
    }

    fn is_batchable(&self) -> bool {
        self.is_batchable
    }
}

struct Gated {
    executor: Executor,
    began: Receiver<u8>,
    leave: Sender<()>,
}

impl Gated {
    fn new(pool: &Pool, cost: Duration, limits: Limits) -> Self {
        let (began, has_begun) = channel();
        let (leave, leaves) = channel();
        let gate = Gate {
            began: Mutex::new(began),
            leave: Mutex::new(leaves),
            is_batchable: limits.max_batch > 1,
        };
        let executor = Executor::new(
            Arc::new(gate),
            Cost::constant(cost),
            limits,
            Metrics::unseen(),
            pool.clone(),
        );
        Self { executor, began: has_begun, leave }
    }

    fn submit(&self, row: u8, priority: u64) -> Outcome {
        self.try_submit(row, priority, SOON).unwrap()
    }

    fn try_submit(
        &self,
        row: u8,
        priority: u64,
        allowed: Duration,
    ) -> Result<Outcome, ExecuteError> {
        let admitted = Instant::now();
        let deadline = admitted + allowed;
        let inputs = vec![row_of(row)];
        self.executor.submit(Job { inputs, rows: 1, priority, admitted, deadline })
    }

    /// Which row has begun to run.
    fn next(&self) -> u8 {
        self.began.recv_timeout(SOON).unwrap()
    }

    fn let_one_end(&self) {
        self.leave.send(()).unwrap();
    }
}

type Outcome = oneshot::Receiver<Result<Execution, ExecuteError>>;

fn row_of(row: u8) -> Tensor {
    Tensor::new(Datatype::Uint8, [1, 1].as_slice(), vec![row].into()).unwrap()
}

fn pool(n_threads: usize) -> Pool {
    let busy = Telemetry::default().gauge(names::COMPUTE_BUSY, &[]);
    // The threads end with the process: a failed test leaves some waiting.
    Pool::start(n_threads, busy, || {}).unwrap().0
}

fn limits() -> Limits {
    Limits {
        max_in_flight: 8,
        max_batch: 0,
        max_delay: Duration::ZERO,
        preferred: Vec::new(),
        always_batches: false,
    }
}

fn outcome(outcome: Outcome) -> Result<Execution, ExecuteError> {
    outcome.blocking_recv().unwrap()
}

#[test]
fn priorities_go_first_and_equals_in_their_order() {
    let gate = Gated::new(&pool(1), Duration::ZERO, limits());
    let mut outcomes = vec![gate.submit(0, 0)];
    assert_eq!(gate.next(), 0);
    for (row, priority) in [(1, 0), (2, 2), (3, 1), (4, 2), (5, 0), (6, 1)] {
        outcomes.push(gate.submit(row, priority));
    }
    let order: Vec<u8> = (0..6)
        .map(|_| {
            gate.let_one_end();
            gate.next()
        })
        .collect();
    assert_eq!(order, [3, 6, 2, 4, 1, 5]);
    gate.let_one_end();
    assert!(outcomes.into_iter().all(|waiting| outcome(waiting).is_ok()));
}

#[test]
fn a_model_that_fills_its_threads_leaves_one_to_the_others() {
    let pool = pool(2);
    let heavy = Gated::new(&pool, Duration::from_millis(50), limits());
    let light = Gated::new(&pool, Duration::from_millis(1), limits());
    let waiting: Vec<_> = (0..5).map(|row| heavy.submit(row, 0)).collect();
    assert_eq!(
        {
            let mut first = [heavy.next(), heavy.next()];
            first.sort_unstable();
            first
        },
        [0, 1]
    );
    // Three more wait, but the third thread is not for them.
    let answer = light.submit(9, 0);
    assert_eq!(light.next(), 9);
    light.let_one_end();
    assert!(outcome(answer).is_ok());
    assert!(heavy.began.try_recv().is_err());
    (0..5).for_each(|_| heavy.let_one_end());
    assert!(waiting.into_iter().all(|waiting| outcome(waiting).is_ok()));
}

#[test]
fn a_heavy_model_leaves_a_core_to_light_requests_while_they_come() {
    let busy = Telemetry::default().gauge(names::COMPUTE_BUSY, &[]);
    let pool = Pool::start_on(2, 2, busy, || {}).unwrap().0;
    let heavy = Gated::new(&pool, Duration::from_millis(50), limits());
    let light = Executor::new(
        Arc::new(Panicking),
        Cost::constant(Duration::ZERO),
        limits(),
        Metrics::unseen(),
        pool.clone(),
    );
    let mut waiting: Vec<_> = (0..8).map(|row| heavy.submit(row, 0)).collect();
    (0..2).for_each(|_| assert!(heavy.next() < 2));
    // Both cores are its own until light requests come.
    let come = || {
        (0..20).for_each(|_| assert!(light.run_inline(&[row_of(0)], 1, Instant::now()).is_ok()));
        std::thread::sleep(Duration::from_millis(60));
    };
    come();
    heavy.let_one_end();
    assert!(heavy.began.recv_timeout(Duration::from_millis(20)).is_err());
    come();
    heavy.let_one_end();
    assert_eq!(heavy.next(), 2);
    assert!(heavy.began.try_recv().is_err());
    // Another model finds a thread all the same.
    let other = Gated::new(&pool, Duration::from_millis(1), limits());
    let answer = other.submit(9, 0);
    assert_eq!(other.next(), 9);
    other.let_one_end();
    assert!(outcome(answer).is_ok());
    // No more of them: both cores again.
    std::thread::sleep(Duration::from_millis(60));
    heavy.let_one_end();
    (0..2).for_each(|_| assert!((3..5).contains(&heavy.next())));
    (0..5).for_each(|_| heavy.let_one_end());
    assert!(waiting.drain(..).all(|waiting| outcome(waiting).is_ok()));
}

#[test]
fn the_model_that_was_given_less_time_goes_first() {
    // One thread for any model and one more: both are held by others first.
    let pool = pool(1);
    let holders: Vec<_> = (0..2).map(|_| Gated::new(&pool, Duration::ZERO, limits())).collect();
    let held: Vec<_> = holders.iter().map(|holder| holder.submit(0, 0)).collect();
    holders.iter().for_each(|holder| assert_eq!(holder.next(), 0));
    let costly = Gated::new(&pool, Duration::ZERO, limits());
    let cheap = Gated::new(&pool, Duration::ZERO, limits());
    let costly_waits: Vec<_> = (0..2).map(|row| costly.submit(row, 0)).collect();
    let cheap_waits: Vec<_> = (0..4).map(|row| cheap.submit(row, 0)).collect();
    // One of the two threads goes on being held.
    let start = Instant::now();
    holders[0].let_one_end();
    // The costly one stood first.
    assert_eq!(costly.next(), 0);
    // All turns of the cheap one together take less.
    while start.elapsed() < Duration::from_millis(100) {
        std::thread::yield_now();
    }
    costly.let_one_end();
    for row in 0..4 {
        assert_eq!(cheap.next(), row);
        assert!(costly.began.try_recv().is_err());
        cheap.let_one_end();
    }
    assert_eq!(costly.next(), 1);
    costly.let_one_end();
    holders[1].let_one_end();
    assert!(held.into_iter().chain(costly_waits).chain(cheap_waits).all(|w| outcome(w).is_ok()));
}

#[test]
fn what_cannot_be_in_time_is_refused_at_once() {
    let gate = Gated::new(&pool(1), Duration::from_secs(1), limits());
    let running = gate.submit(0, 0);
    assert_eq!(gate.next(), 0);
    let waiting = gate.submit(1, 0);
    let refused = gate.try_submit(2, 0, Duration::from_millis(1500)).unwrap_err();
    assert!(matches!(refused, ExecuteError::Late { .. }), "{refused}");
    assert_eq!(refused.code(), Code::Overloaded);
    // A priority has nothing before it.
    let first = gate.try_submit(3, 1, Duration::from_millis(1500)).unwrap();
    gate.let_one_end();
    assert_eq!(gate.next(), 3);
    gate.let_one_end();
    gate.let_one_end();
    assert!([running, waiting, first].into_iter().all(|waiting| outcome(waiting).is_ok()));
}

#[test]
fn who_leaves_makes_room() {
    let gate = Gated::new(&pool(1), Duration::ZERO, Limits { max_in_flight: 2, ..limits() });
    let running = gate.submit(0, 0);
    assert_eq!(gate.next(), 0);
    let (leaves, stays) = (gate.submit(1, 0), gate.submit(2, 0));
    let refused = gate.try_submit(3, 0, SOON).unwrap_err();
    assert!(matches!(refused, ExecuteError::Full { limit: 2 }), "{refused}");
    drop(leaves);
    let comes = gate.submit(4, 0);
    gate.let_one_end();
    assert_eq!(gate.next(), 2);
    gate.let_one_end();
    assert_eq!(gate.next(), 4);
    gate.let_one_end();
    assert!([running, stays, comes].into_iter().all(|waiting| outcome(waiting).is_ok()));
}

#[test]
fn a_preferred_size_is_taken_and_the_rest_waits_for_the_next_batch() {
    let limits = Limits { max_batch: 8, preferred: vec![2, 4], ..limits() };
    let gate = Gated::new(&pool(1), Duration::ZERO, limits);
    let running = gate.submit(0, 0);
    assert_eq!(gate.next(), 0);
    let waiting: Vec<_> = (1..=7).map(|row| gate.submit(row, 0)).collect();
    let firsts: Vec<u8> = (0..3)
        .map(|_| {
            gate.let_one_end();
            gate.next()
        })
        .collect();
    gate.let_one_end();
    assert_eq!(firsts, [1, 5, 7]);
    let sizes: Vec<usize> =
        waiting.into_iter().map(|waiting| outcome(waiting).unwrap().batch_rows).collect();
    assert_eq!(sizes, [4, 4, 4, 4, 2, 2, 1]);
    assert!(outcome(running).is_ok());
}

#[test]
fn callers_of_several_runtimes_and_of_none_get_their_own_answers() {
    let limits = Limits { max_batch: 16, max_in_flight: 16, ..limits() };
    // More than light: it goes to the pool.
    let gate = Gated::new(&pool(1), Duration::from_millis(1), limits);
    let running = gate.submit(0, 0);
    assert_eq!(gate.next(), 0);
    let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
    let runtimes = [runtime(), runtime()];
    let mut waiting = vec![(1, gate.submit(1, 0))];
    for row in 2..9 {
        let of_one = runtimes[usize::from(row % 2)].enter();
        waiting.push((row, gate.submit(row, 0)));
        drop(of_one);
    }
    gate.let_one_end();
    assert_eq!(gate.next(), 1);
    gate.let_one_end();
    for (row, answer) in waiting {
        let execution = runtimes[usize::from(row % 2)].block_on(answer).unwrap().unwrap();
        assert_eq!(
            (execution.outputs[0].data()[..].to_vec(), execution.batch_rows),
            (vec![row], 8)
        );
    }
    assert!(outcome(running).is_ok());
}

#[test]
fn errands_run_and_one_that_panics_ends_nothing() {
    let pool = pool(1);
    assert_eq!(pool.run_errand(|| 6 * 7).blocking_recv().unwrap().unwrap(), 42);
    let lost = pool.run_errand(|| -> u8 { std::panic::resume_unwind(Box::new("broken")) });
    assert!(lost.blocking_recv().unwrap().is_err());
    for _ in 0..3 {
        assert_eq!(pool.run_errand(|| 1).blocking_recv().unwrap().unwrap(), 1);
    }
    pool.close();
    assert!(pool.run_errand(|| 1).blocking_recv().is_err());
}

/// Panics, or so the engine says, while the first byte is 1.
struct Panicking;

impl Execute for Panicking {
    fn execute(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, RunError> {
        match inputs[0].data()[0] {
            1 => Err(RunError::Panic("index out of bounds".to_owned())),
            _ => Ok(inputs.to_vec()),
        }
    }

    fn is_batchable(&self) -> bool {
        true
    }
}

#[test]
fn panics_in_a_row_lead_to_quarantine() {
    let cost = Cost::constant(Duration::ZERO);
    let executor = Executor::new(Arc::new(Panicking), cost, limits(), Metrics::unseen(), pool(1));
    let run = |row| executor.run_inline(&[row_of(row)], 1, Instant::now()).map(|_| ());
    for row in [1, 1, 0, 1, 1, 0] {
        assert_eq!(run(row).is_ok(), row == 0);
        assert!(executor.admit().is_ok());
    }
    for _ in 0..3 {
        assert_eq!(run(1).unwrap_err().code(), Code::Internal);
    }
    let refused = executor.admit().unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    // What was admitted before may still end well, which lifts nothing.
    assert!(run(0).is_ok());
    assert!(executor.admit().is_err());
}

#[test]
fn a_batch_that_succeeds_ends_a_row_of_panics() {
    let pool = pool(1);
    // Both threads are held, so that what is submitted meets.
    let holders = [(); 2].map(|()| Gated::new(&pool, Duration::ZERO, limits()));
    let held = holders.each_ref().map(|holder| holder.submit(0, 0));
    holders.iter().for_each(|holder| assert_eq!(holder.next(), 0));
    let limits = Limits { max_batch: 8, ..limits() };
    let cost = Cost::constant(Duration::ZERO);
    let executor = Executor::new(Arc::new(Panicking), cost, limits, Metrics::unseen(), pool);
    let panic = || executor.run_inline(&[row_of(1)], 1, Instant::now()).unwrap_err();
    assert!([panic(), panic()].iter().all(|error| error.code() == Code::Internal));
    let batch = [(); 2].map(|()| {
        let (admitted, deadline) = (Instant::now(), Instant::now() + SOON);
        let job = Job { inputs: vec![row_of(0)], rows: 1, priority: 0, admitted, deadline };
        executor.submit(job).unwrap()
    });
    holders.iter().for_each(Gated::let_one_end);
    for answer in batch {
        assert_eq!(outcome(answer).unwrap().batch_rows, 2);
    }
    assert_eq!(panic().code(), Code::Internal);
    assert!(executor.admit().is_ok());
    assert!(held.into_iter().all(|held| outcome(held).is_ok()));
}

/// Takes as long as its first byte says, in hundreds of microseconds.
struct Slow;

impl Execute for Slow {
    fn execute(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, RunError> {
        let start = Instant::now();
        let long = Duration::from_micros(100) * u32::from(inputs[0].data()[0]);
        while start.elapsed() < long {
            std::hint::spin_loop();
        }
        Ok(inputs.to_vec())
    }

    fn is_batchable(&self) -> bool {
        false
    }
}

#[test]
fn who_holds_up_io_threads_goes_to_the_pool_and_comes_back() {
    let cost = Cost::constant(Duration::from_micros(1));
    let executor = Executor::new(Arc::new(Slow), cost, limits(), Metrics::unseen(), pool(1));
    for _ in 0..3 {
        assert_eq!(executor.place(1, Instant::now()), Placement::Inline);
        executor.run_inline(&[row_of(5)], 1, Instant::now()).unwrap();
    }
    assert_eq!(executor.place(1, Instant::now()), Placement::Pooled);
    // A busy machine may interrupt runs, each of which starts the row anew.
    let start = Instant::now();
    while executor.place(1, Instant::now()) == Placement::Pooled {
        assert!(start.elapsed() < SOON, "it does not come back");
        let (admitted, deadline) = (Instant::now(), Instant::now() + SOON);
        let job = Job { inputs: vec![row_of(0)], rows: 1, priority: 0, admitted, deadline };
        outcome(executor.submit(job).unwrap()).unwrap();
    }
}

#[test]
fn no_core_is_left_while_requests_have_a_models_share_of_the_pool() {
    let gate = Gated::new(&pool(2), Duration::ZERO, limits());
    let waiting = [gate.submit(0, 0), gate.submit(1, 0)];
    (0..2).for_each(|_| assert!(gate.next() < 2));
    assert!(gate.executor.leaves_no_core());
    gate.let_one_end();
    let start = Instant::now();
    while gate.executor.leaves_no_core() {
        assert!(start.elapsed() < SOON, "it stays full");
    }
    gate.let_one_end();
    assert!(waiting.into_iter().all(|waiting| outcome(waiting).is_ok()));
}
