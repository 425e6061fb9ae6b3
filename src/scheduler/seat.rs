//! I/O threads that run what waits at the pool, between two looks at their sockets.
//!
//! Where one version has the machine for itself and no core is idle, a thread of the pool gains nothing:
//! each time that an I/O thread wakes it takes the core from one that computes, and that one's caches
//! with it. An I/O thread with a seat is one of the threads that the version may fill, and the pool
//! leaves that place to it. It looks at its sockets, runs a turn of the queue, and looks again;
//! nothing is interrupted. It gets up when nothing waits, when another version's predictions come, or
//! when a turn is too long for an I/O thread.
//!
//! Only for runtimes of a single thread.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::gather::single_threaded;
use super::medium::{self, MEDIUM};
use super::queue::Queue;
use super::{Pool, batch};

/// How long a thread that refuses goes on before it looks at its sockets again. All that comes waits
/// long or is refused then, and each look displaces what a run has in the caches.
const LOOK_EVERY: Duration = Duration::from_millis(1);

thread_local! {
    /// Whether this thread has a seat.
    static SITS: Cell<bool> = const { Cell::new(false) };
}

/// Has this thread run what waits in `queue`, where the pool has nothing better to offer.
pub(super) fn take(queue: &Arc<Queue>, pool: &Pool, now: Instant) {
    // Who sits already is asked first: it is the usual case.
    let runner = &queue.runner;
    let is_for_it =
        || runner.is_medium(1) && pool.company().leaves_machine_to(runner.address(), now);
    if SITS.get() || !is_for_it() {
        return;
    }
    let Some(runtime) = single_threaded() else { return };
    pool.sit_down(queue);
    SITS.set(true);
    let seat = Seat { queue: Arc::clone(queue), pool: pool.clone() };
    drop(runtime.spawn(seat.run()));
}

/// A thread's place; given back when dropped.
struct Seat {
    queue: Arc<Queue>,
    pool: Pool,
}

impl Drop for Seat {
    fn drop(&mut self) {
        // The thread itself may be gone.
        let _ = SITS.try_with(|sits| sits.set(false));
        self.pool.get_up(&self.queue);
    }
}

impl Seat {
    async fn run(self) {
        loop {
            // Sockets are looked at before this goes on.
            tokio::task::yield_now().await;
            let looked = Instant::now();
            let mut now = looked;
            while now.duration_since(looked) < LOOK_EVERY {
                if !self.run_turn(now) {
                    return;
                }
                now = Instant::now();
                if !medium::has_refused_lately(now) {
                    break;
                }
            }
        }
    }

    /// Runs a turn from `now` on; whether there was one for this thread.
    fn run_turn(&self, now: Instant) -> bool {
        let (runner, company) = (&self.queue.runner, self.pool.company());
        if !company.leaves_machine_to(runner.address(), now) {
            return false;
        }
        let Some((entries, charge)) = self.pool.take_seated_turn(&self.queue, MEDIUM) else {
            return false;
        };
        if !entries.is_empty() {
            company.io_thread_runs(runner.address(), now);
            batch::run(runner, entries, Some(MEDIUM));
        }
        self.pool.correct(&self.queue, now.elapsed().as_secs_f64() - charge);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::thread;

    use super::super::{Cost, Execute, Executor, Job, Limits, Metrics};
    use super::*;
    use crate::engine::RunError;
    use crate::telemetry::{Telemetry, names};
    use crate::tensor::{Datatype, Tensor};

    const SOON: Duration = Duration::from_secs(20);

    /// Takes a while, and notes the thread of each run.
    #[derive(Default)]
    struct Slow(Mutex<Vec<String>>);

    impl Execute for Slow {
        fn execute(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, RunError> {
            self.0.lock().unwrap().push(thread::current().name().unwrap_or("").to_owned());
            thread::sleep(Duration::from_micros(300));
            Ok(inputs.to_vec())
        }

        fn is_batchable(&self) -> bool {
            false
        }
    }

    impl Slow {
        fn runs_of(&self, name: &str) -> usize {
            self.0.lock().unwrap().iter().filter(|thread| thread.starts_with(name)).count()
        }
    }

    /// A pool of one core, on which no core is ever idle.
    fn pool() -> Pool {
        let busy = Telemetry::default().gauge(names::COMPUTE_BUSY, &[]);
        Pool::start_on(1, 1, busy, || {}).unwrap().0
    }

    fn executor(slow: &Arc<Slow>, pool: &Pool) -> Executor {
        let limits = Limits {
            max_in_flight: 1000,
            max_batch: 0,
            max_delay: Duration::ZERO,
            preferred: Vec::new(),
            always_batches: false,
        };
        let cost = Cost::constant(Duration::from_micros(400));
        Executor::new(Arc::clone(slow) as _, cost, limits, Metrics::unseen(), pool.clone())
    }

    fn job() -> Job {
        let inputs = vec![Tensor::new(Datatype::Uint8, [1].as_slice(), vec![7].into()).unwrap()];
        let admitted = Instant::now();
        Job { inputs, rows: 1, priority: 0, admitted, deadline: admitted + SOON }
    }

    /// Runs the version now and then until nobody else's predictions are remembered.
    async fn be_alone(executor: &Executor, pool: &Pool) {
        let address = executor.address();
        let until = Instant::now() + SOON;
        while !pool.company().leaves_machine_to(address, Instant::now()) {
            assert!(Instant::now() < until, "never alone");
            executor.submit(job()).unwrap().await.unwrap().unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn on_io_thread(work: impl Future<Output = ()> + Send) {
        thread::scope(|scope| {
            let work = move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.unwrap().block_on(work);
            };
            let thread = thread::Builder::new().name("io".to_owned());
            thread.spawn_scoped(scope, work).unwrap().join().unwrap();
        });
    }

    #[test]
    fn what_waits_runs_on_the_thread_that_has_it_and_the_pool_stands_back() {
        let (slow, pool) = (Arc::new(Slow::default()), pool());
        let executor = executor(&slow, &pool);
        on_io_thread(async {
            be_alone(&executor, &pool).await;
            let (io, compute) = (slow.runs_of("io"), slow.runs_of("compute"));
            let all: Vec<_> = (0..100).map(|_| executor.submit(job()).unwrap()).collect();
            for outcome in all {
                outcome.await.unwrap().unwrap();
            }
            // The pool had one under way when this thread sat down.
            assert!(slow.runs_of("compute") - compute <= 2);
            assert!(slow.runs_of("io") - io >= 98);
        });
        // Nobody sits any more: the pool runs what comes.
        assert!(!SITS.get());
        let compute = slow.runs_of("compute");
        executor.submit(job()).unwrap().blocking_recv().unwrap().unwrap();
        assert_eq!(slow.runs_of("compute"), compute + 1);
    }

    #[test]
    fn another_version_gives_the_place_back_to_the_pool() {
        let (slow, pool) = (Arc::new(Slow::default()), pool());
        let (executor, other) = (executor(&slow, &pool), executor(&slow, &pool));
        on_io_thread(async {
            be_alone(&executor, &pool).await;
            let compute = slow.runs_of("compute");
            let all: Vec<_> = (0..100).map(|_| executor.submit(job()).unwrap()).collect();
            pool.company().note(other.address(), Instant::now());
            for outcome in all {
                outcome.await.unwrap().unwrap();
            }
            assert!(slow.runs_of("compute") - compute >= 98);
        });
    }

    #[test]
    fn a_runtime_that_ends_leaves_what_waits_to_the_pool() {
        let (slow, pool) = (Arc::new(Slow::default()), pool());
        let executor = executor(&slow, &pool);
        let left = Mutex::new(Vec::new());
        on_io_thread(async {
            be_alone(&executor, &pool).await;
            left.lock().unwrap().extend((0..100).map(|_| executor.submit(job()).unwrap()));
        });
        for outcome in left.into_inner().unwrap() {
            outcome.blocking_recv().unwrap().unwrap();
        }
    }
}
