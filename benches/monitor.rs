//! What it costs to count: nanoseconds a value, by rows of a micro-batch. `cargo bench --bench monitor`
//!
//! Thirty features of binary32 in 20 cells each: tensors to columns (`take`), columns to cells and
//! outlier scores (`cells`), cells to counts (`count`), and a column of categories of text. Divide
//! the time by rows times 30, or read criterion's elements a second.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidegate::config::Monitor;
use tidegate::monitor::baseline::{About, Baseline, BaselineBuilder, Marks, Origin};
use tidegate::monitor::feature::FeaturePlan;
use tidegate::monitor::reader::{CellReader, RowCells, count};
use tidegate::monitor::rows::Rows;
use tidegate::tensor::{Datatype, Signature, Tensor, TensorSpec};

const FEATURES: usize = 30;
const REFERENCE_ROWS: usize = 20_000;
const COLOURS: [&str; 8] = ["red", "green", "blue", "cyan", "magenta", "yellow", "black", "white"];

fn numbers(n_rows: usize, seed: u64) -> Tensor {
    let mut random = fastrand::Rng::with_seed(seed);
    let normal = |random: &mut fastrand::Rng| (0..12).map(|_| random.f32()).sum::<f32>() - 6.0;
    let data: Vec<u8> =
        (0..n_rows * FEATURES).flat_map(|_| normal(&mut random).to_le_bytes()).collect();
    Tensor::new(Datatype::Fp32, [n_rows, FEATURES].as_slice(), data.into()).expect("it fits")
}

fn texts(n_rows: usize, seed: u64) -> Tensor {
    let mut random = fastrand::Rng::with_seed(seed);
    let texts = (0..n_rows).map(|_| COLOURS[random.usize(..COLOURS.len())]);
    Tensor::from_elements([n_rows].as_slice(), texts).expect("it fits")
}

/// A plan for one input, and the baseline of some of its rows.
fn watched(datatype: Datatype, shape: &[i64], reference: Tensor) -> (FeaturePlan, Baseline) {
    let shape = shape.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    let inputs = vec![TensorSpec { name: "x".to_owned(), datatype, shape }];
    let signature = Signature { inputs, outputs: Vec::new() };
    let settings = Monitor::default();
    let plan = FeaturePlan::new(&signature, &settings, &[], &[]).expect("there are features");
    let mut rows = Rows::with_names(&plan);
    rows.push(&plan, &[reference], &[]);
    let (model, digest) = ("m".to_owned(), String::new());
    let about = About { model, version: 1, digest, created_at: 0, origin: Origin::File };
    let mut baseline =
        BaselineBuilder::of_rows(&plan, &settings, &rows, Marks::default(), about).expect("rows");
    // What is computed of them is not a value of the tensor.
    baseline.features.truncate(plan.features().len());
    (plan, baseline)
}

fn monitor(criterion: &mut Criterion) {
    let (plan, baseline) =
        watched(Datatype::Fp32, &[-1, FEATURES as i64], numbers(REFERENCE_ROWS, 1));
    let reader = CellReader::new(&plan, &baseline).expect("the baseline is of the plan");
    for n_rows in [1, 64, 256, 1024] {
        let mut group = criterion.benchmark_group("monitor");
        group.throughput(Throughput::Elements((n_rows * FEATURES) as u64));
        let tensor = [numbers(n_rows, 2)];
        let (mut rows, mut cells) = (Rows::new(&plan), RowCells::default());
        group.bench_function(BenchmarkId::new("take", n_rows), |bencher| {
            bencher.iter(|| {
                rows.clear();
                rows.push(&plan, black_box(&tensor), &[]);
            });
        });
        group.bench_function(BenchmarkId::new("cells", n_rows), |bencher| {
            bencher.iter(|| reader.read(black_box(&rows), &mut cells));
        });
        let mut counts = vec![vec![0; 20]; FEATURES];
        group.bench_function(BenchmarkId::new("count", n_rows), |bencher| {
            bencher.iter(|| {
                for (feature, counts) in counts.iter_mut().enumerate() {
                    count(black_box(&cells).column(feature), counts);
                }
            });
        });
        group.finish();
    }
    let (plan, baseline) = watched(Datatype::Bytes, &[-1], texts(REFERENCE_ROWS, 3));
    let reader = CellReader::new(&plan, &baseline).expect("the baseline is of the plan");
    let n_rows = 1024;
    let mut group = criterion.benchmark_group("monitor of texts");
    group.throughput(Throughput::Elements(n_rows as u64));
    let tensor = [texts(n_rows, 4)];
    let (mut rows, mut cells) = (Rows::new(&plan), RowCells::default());
    group.bench_function(BenchmarkId::new("take", n_rows), |bencher| {
        bencher.iter(|| {
            rows.clear();
            rows.push(&plan, black_box(&tensor), &[]);
        });
    });
    group.bench_function(BenchmarkId::new("cells", n_rows), |bencher| {
        bencher.iter(|| reader.read(black_box(&rows), &mut cells));
    });
    group.finish();
}

criterion_group!(benches, monitor);
criterion_main!(benches);
