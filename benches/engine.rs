//! What a run of the shipped models costs inside the engine, by rows, beside the cost of counting
//! it. `cargo bench --bench engine`

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tidegate::engine::{OnnxModel, Plan};
use tidegate::telemetry::{Telemetry, names};
use tidegate::tensor::{Datatype, Tensor};

fn run(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("digits");
    for version in [1, 2] {
        let path = format!("models/digits/{version}/model.onnx");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        let bytes = std::fs::read(path).expect("the shipped model is there");
        let model = OnnxModel::parse(&bytes).expect("the shipped model is valid");
        let plan = Plan::compile(Arc::new(model), &[]).expect("the shipped model compiles");
        for rows in [1, 16, 128] {
            let data = Bytes::from(vec![0; rows * 256]);
            let shape = [rows, 8, 8];
            let input = Tensor::new(Datatype::Fp32, shape.as_slice(), data)
                .expect("the data are made for the shape");
            let id = BenchmarkId::new(format!("version {version}"), rows);
            group.bench_with_input(id, &[input], |bencher, input| bencher.iter(|| plan.run(input)));
        }
    }
}

fn record(criterion: &mut Criterion) {
    let telemetry = Telemetry::default();
    let histogram = telemetry.histogram(names::DURATION, &[("model", "m"), ("slot", "primary")]);
    criterion.bench_function("histogram record", |bencher| {
        let mut value = 1_u64;
        bencher.iter(|| {
            value = value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            histogram.record(value >> 44);
        });
    });
}

criterion_group!(benches, run, record);
criterion_main!(benches);
