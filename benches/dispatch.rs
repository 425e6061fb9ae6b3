//! What it costs to run a prediction on the pool rather than on the thread that has it: the price of
//! the hop, by how long the model takes. The budget of inline runs comes from here.
//! `cargo bench --bench dispatch`

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tidegate::engine::RunError;
use tidegate::scheduler::{Cost, Execute, Executor, Job, Limits, Metrics, Pool};
use tidegate::telemetry::{Telemetry, names};
use tidegate::tensor::{Datatype, Tensor};

/// Computes for a while.
struct Busy(Duration);

impl Execute for Busy {
    fn execute(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, RunError> {
        let start = Instant::now();
        while start.elapsed() < self.0 {
            std::hint::spin_loop();
        }
        Ok(inputs.to_vec())
    }

    fn is_batchable(&self) -> bool {
        false
    }
}

fn executor(model: Duration, pool: &Pool) -> Executor {
    let limits = Limits {
        max_in_flight: 1024,
        max_batch: 0,
        max_delay: Duration::ZERO,
        preferred: Vec::new(),
        always_batches: false,
    };
    Executor::new(
        Arc::new(Busy(model)),
        Cost::constant(model),
        limits,
        Metrics::unseen(),
        pool.clone(),
    )
}

fn dispatch(criterion: &mut Criterion) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let busy = Telemetry::default().gauge(names::COMPUTE_BUSY, &[]);
    let (pool, _threads) = Pool::start(cores, busy, || {}).expect("threads can be started");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let row = Tensor::new(Datatype::Fp32, [1, 1].as_slice(), vec![0; 4].into()).expect("one row");
    let mut group = criterion.benchmark_group("dispatch");
    for micros in [0, 10, 100, 1000] {
        let executor = executor(Duration::from_micros(micros), &pool);
        group.bench_with_input(BenchmarkId::new("inline", micros), &(), |bencher, ()| {
            bencher.iter(|| {
                let permit = executor.admit();
                let inputs = [row.clone()];
                black_box((executor.run_inline(&inputs, 1, Instant::now()), permit)).0.is_ok()
            });
        });
        group.bench_with_input(BenchmarkId::new("pooled", micros), &(), |bencher, ()| {
            bencher.iter(|| {
                let permit = executor.admit();
                let admitted = Instant::now();
                let deadline = admitted + Duration::from_secs(10);
                let job =
                    Job { inputs: vec![row.clone()], rows: 1, priority: 0, admitted, deadline };
                let outcome = executor.submit(job).expect("there is room");
                black_box((runtime.block_on(outcome), permit)).0.is_ok()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, dispatch);
criterion_main!(benches);
