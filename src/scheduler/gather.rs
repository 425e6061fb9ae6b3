//! Dynamic batching without a hop: requests for I/O threads, light ones or more, that one of them finds at
//! its sockets at the same time are run by it as a batch.
//!
//! The first of them leaves word that the batch is run when the sockets have been looked at once more;
//! what has come by then goes with it. Nobody is woken, nothing is locked and no thread is changed: a
//! batch costs less than each of its requests alone. What turns out to be too much for an
//! I/O thread goes to the pool after all.
//!
//! Only for runtimes of a single thread, where what is gathered stays with the thread.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::{Handle, RuntimeFlavor};

use super::Pool;
use super::batch;
use super::medium::MEDIUM;
use super::queue::{Entry, Queue, Waiting};
use super::runner::INLINE_BUDGET;

thread_local! {
    /// What this thread has gathered, by the queue's address. A thread has few versions that do.
    static GATHERED: RefCell<Vec<(usize, Waiting)>> = const { RefCell::new(Vec::new()) };
}

/// Takes `entry` along with what this thread has of its version. It comes back where the thread cannot
/// gather.
pub(super) fn add(queue: &Arc<Queue>, pool: &Pool, entry: Entry) -> Result<(), Entry> {
    let Some(runtime) = single_threaded() else { return Err(entry) };
    let address = Arc::as_ptr(queue) as usize;
    let is_first = GATHERED.with_borrow_mut(|all| {
        let is_own = |(own, _): &&mut (usize, Waiting)| *own == address;
        if let Some((_, waiting)) = all.iter_mut().find(is_own) {
            waiting.push(entry);
            return false;
        }
        let mut waiting = Waiting::default();
        waiting.push(entry);
        all.push((address, waiting));
        true
    });
    if is_first {
        drop(runtime.spawn(run(Gathering(Arc::clone(queue)), pool.clone())));
    }
    Ok(())
}

pub(super) fn single_threaded() -> Option<Handle> {
    let runtime = Handle::try_current().ok()?;
    (runtime.runtime_flavor() == RuntimeFlavor::CurrentThread).then_some(runtime)
}

/// What is gathered of a version. Dropped, those who wait learn that nothing comes.
struct Gathering(Arc<Queue>);

impl Drop for Gathering {
    fn drop(&mut self) {
        // The thread itself may be gone.
        let _ = GATHERED.try_with(|all| {
            let mut all = all.try_borrow_mut().ok()?;
            let place = all.iter().position(|(own, _)| *own == self.address())?;
            Some(all.swap_remove(place))
        });
    }
}

/// What is to be done now.
enum Turn {
    Here(Vec<Entry>),
    AtThePool(Vec<Entry>),
}

impl Gathering {
    fn address(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }

    /// The next batch; nothing where all is done.
    fn next(&self, pool: &Pool) -> Option<Turn> {
        let queue = &self.0;
        GATHERED.with_borrow_mut(|all| {
            let (_, waiting) = all.iter_mut().find(|(own, _)| *own == self.address())?;
            if waiting.is_empty() {
                return None;
            }
            let most = queue.most_rows();
            let all_rows = waiting.rows().min(most);
            let runner = &queue.runner;
            let stays = runner.is_for_io_thread(all_rows, pool.company(), Instant::now());
            // Where the whole is too long, as much as is not.
            let most = if stays { most } else { runner.light_rows() };
            if waiting.entries.front().is_some_and(|first| first.rows > most) {
                return Some(Turn::AtThePool(waiting.take_all()));
            }
            Some(Turn::Here(waiting.take_batch(queue, most)))
        })
    }

    fn is_done(&self) -> bool {
        let is_own =
            |(own, waiting): &(usize, Waiting)| *own == self.address() && !waiting.is_empty();
        !GATHERED.with_borrow(|all| all.iter().any(is_own))
    }
}

async fn run(gathering: Gathering, pool: Pool) {
    loop {
        // Sockets are looked at before this goes on.
        tokio::task::yield_now().await;
        match gathering.next(&pool) {
            None => return,
            Some(Turn::AtThePool(entries)) => pool.submit_all(&gathering.0, entries),
            Some(Turn::Here(batch)) if batch.is_empty() => {}
            Some(Turn::Here(batch)) => {
                let runner = &gathering.0.runner;
                let rows = batch.iter().map(|entry| entry.rows).sum();
                let now = Instant::now();
                pool.company().io_thread_runs(runner.address(), now);
                if runner.is_light(rows) {
                    pool.count_light();
                    batch::run(runner, batch, Some(INLINE_BUDGET));
                } else {
                    batch::run(runner, batch, Some(MEDIUM));
                }
            }
        }
        if gathering.is_done() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use super::super::{Cost, Execute, ExecuteError, Execution, Executor, Job, Limits, Metrics};
    use super::*;
    use crate::engine::RunError;
    use crate::telemetry::{Telemetry, names};
    use crate::tensor::{Datatype, Tensor};

    const SOON: Duration = Duration::from_secs(20);

    /// Gives its inputs back, and notes the rows and the thread of each run.
    #[derive(Default)]
    struct Mirror(Mutex<Vec<(usize, Option<String>)>>);

    impl Execute for Mirror {
        fn execute(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, RunError> {
            let thread = std::thread::current().name().map(str::to_owned);
            self.0.lock().unwrap().push((inputs[0].rows(), thread));
            Ok(inputs.to_vec())
        }

        fn is_batchable(&self) -> bool {
            true
        }
    }

    fn executor(mirror: &Arc<Mirror>, cost: Cost) -> Executor {
        executor_at(&pool(2), mirror, cost)
    }

    fn pool(cores: usize) -> Pool {
        let busy = Telemetry::default().gauge(names::COMPUTE_BUSY, &[]);
        Pool::start_on(cores, cores, busy, || {}).unwrap().0
    }

    fn executor_at(pool: &Pool, mirror: &Arc<Mirror>, cost: Cost) -> Executor {
        let limits = Limits {
            max_in_flight: 100,
            max_batch: 8,
            max_delay: Duration::ZERO,
            preferred: Vec::new(),
            always_batches: true,
        };
        Executor::new(Arc::clone(mirror) as _, cost, limits, Metrics::unseen(), pool.clone())
    }

    fn job(row: u8, allowed: Duration) -> Job {
        let inputs = vec![Tensor::new(Datatype::Uint8, [1].as_slice(), vec![row].into()).unwrap()];
        let admitted = Instant::now();
        Job { inputs, rows: 1, priority: 0, admitted, deadline: admitted + allowed }
    }

    /// The row that was answered, and the rows that it ran with.
    fn told(outcome: Result<Execution, ExecuteError>) -> (u8, usize) {
        let execution = outcome.unwrap();
        (execution.outputs[0].data()[0], execution.batch_rows)
    }

    fn on_one_thread<T>(work: impl Future<Output = T> + Send) -> T
    where
        T: Send,
    {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("io".to_owned());
            let work = move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.unwrap().block_on(work)
            };
            thread.spawn_scoped(scope, work).unwrap().join().unwrap()
        })
    }

    #[test]
    fn what_is_there_together_runs_together_on_the_thread_that_has_it() {
        let mirror = Arc::new(Mirror::default());
        let executor = executor(&mirror, Cost::constant(Duration::from_micros(5)));
        on_one_thread(async {
            let all: Vec<_> = (0..20).map(|row| executor.submit(job(row, SOON)).unwrap()).collect();
            for (row, (outcome, rows)) in (0..)
                .zip(all.into_iter().zip([8, 8, 4].into_iter().flat_map(|rows| vec![rows; rows])))
            {
                assert_eq!(told(outcome.await.unwrap()), (row, rows));
            }
            // Nothing is left behind.
            assert_eq!(told(executor.submit(job(9, SOON)).unwrap().await.unwrap()), (9, 1));
            assert!(GATHERED.with_borrow(Vec::is_empty));
        });
        let runs = mirror.0.lock().unwrap();
        assert!(runs.iter().all(|(_, thread)| thread.as_deref() == Some("io")), "{runs:?}");
    }

    #[test]
    fn as_many_rows_as_are_light_run_at_once() {
        let mirror = Arc::new(Mirror::default());
        // 20 µs, and 30 µs a row: of five rows, two and two are light.
        let executor =
            executor(&mirror, Cost::fit(Duration::from_micros(50), Duration::from_micros(80), 2));
        let sizes = on_one_thread(async {
            let all: Vec<_> = (0..5).map(|row| executor.submit(job(row, SOON)).unwrap()).collect();
            let mut sizes = Vec::new();
            for outcome in all {
                sizes.push(told(outcome.await.unwrap()).1);
            }
            sizes
        });
        assert_eq!(sizes[..2], [2, 2]);
    }

    #[test]
    fn what_is_more_than_light_meets_too_where_the_pool_has_nothing_to_offer() {
        let (mirror, pool) = (Arc::new(Mirror::default()), pool(1));
        let executor = executor_at(&pool, &mirror, Cost::constant(Duration::from_micros(300)));
        let until = Instant::now() + SOON;
        while !pool.company().leaves_machine_to(executor.address(), Instant::now()) {
            assert!(Instant::now() < until, "never alone");
            pool.company().note(executor.address(), Instant::now());
            std::thread::yield_now();
        }
        on_one_thread(async {
            let all: Vec<_> = (0..3).map(|row| executor.submit(job(row, SOON)).unwrap()).collect();
            for (row, outcome) in (0..).zip(all) {
                assert_eq!(told(outcome.await.unwrap()), (row, 3));
            }
        });
        assert_eq!(*mirror.0.lock().unwrap(), [(3, Some("io".to_owned()))]);
    }

    #[test]
    fn what_is_not_light_any_more_goes_to_the_pool() {
        let mirror = Arc::new(Mirror::default());
        let executor = executor(&mirror, Cost::constant(Duration::from_micros(90)));
        on_one_thread(async {
            let first = executor.submit(job(1, SOON)).unwrap();
            // Meanwhile it has turned out to be heavy.
            for _ in 0..50 {
                executor.observe(1, Duration::from_millis(3));
            }
            assert_eq!(told(first.await.unwrap()), (1, 1));
        });
        let runs = mirror.0.lock().unwrap();
        assert!(runs[0].1.as_deref().is_some_and(|name| name.starts_with("compute")), "{runs:?}");
    }

    #[test]
    fn who_left_or_is_late_does_not_run() {
        let mirror = Arc::new(Mirror::default());
        let executor = executor(&mirror, Cost::constant(Duration::from_micros(5)));
        on_one_thread(async {
            drop(executor.submit(job(1, SOON)).unwrap());
            let late = executor.submit(job(2, Duration::ZERO)).unwrap();
            let last = executor.submit(job(3, SOON)).unwrap();
            assert_eq!(told(last.await.unwrap()), (3, 1));
            assert!(matches!(late.await.unwrap(), Err(ExecuteError::Deadline(_))));
        });
        assert_eq!(mirror.0.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_runtime_that_ends_leaves_nothing_to_the_next_one_of_its_thread() {
        let mirror = Arc::new(Mirror::default());
        let executor = executor(&mirror, Cost::constant(Duration::from_micros(5)));
        let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
        let first = runtime();
        let lost = {
            let _entered = first.enter();
            executor.submit(job(1, SOON)).unwrap()
        };
        drop(first);
        assert!(lost.blocking_recv().is_err());
        let answered =
            runtime().block_on(async { executor.submit(job(2, SOON)).unwrap().await.unwrap() });
        assert_eq!(told(answered), (2, 1));
    }
}
