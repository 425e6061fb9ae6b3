//! What reading a request and writing an answer cost: one row of `digits`, and larger tensors, as
//! JSON and as binary. `cargo bench --bench codec`

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidegate::protocol::v2::{
    Answer, AnswerOutput, Form, decode_request, encode_answer, encode_request,
};
use tidegate::tensor::{Datatype, Signature, Tensor, TensorSpec};

fn tensor(shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    let data: Vec<u8> = (0..count).flat_map(|i| ((i % 97) as f32 / 7.0).to_le_bytes()).collect();
    Tensor::new(Datatype::Fp32, shape, data.into()).expect("the data are made for the shape")
}

/// A request as Python's lists of binary32 numbers make it: their decimals are those of binary64.
fn as_binary64(tensor: &Tensor) -> String {
    let elements = tensor.data().as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x));
    let data: Vec<String> = elements.map(|x| f64::from(x).to_string()).collect();
    let (shape, data) = (tensor.shape(), data.join(", "));
    format!(
        r#"{{"inputs": [{{"name": "x", "shape": {shape:?}, "datatype": "FP32", "data": [{data}]}}]}}"#
    )
}

fn codec(criterion: &mut Criterion) {
    for (name, shape) in
        [("one digit", vec![1, 8, 8]), ("32 rows", vec![32, 30]), ("image", vec![1, 3, 224, 224])]
    {
        let tensor = tensor(&shape);
        let spec = TensorSpec {
            name: "x".to_owned(),
            datatype: Datatype::Fp32,
            shape: shape.iter().map(|_| None).collect(),
        };
        let signature = Signature { inputs: vec![spec.clone()], outputs: vec![spec] };
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(tensor.len() as u64));
        let wide = Bytes::from(as_binary64(&tensor));
        group.bench_function("decode Json of 17 digits", |bencher| {
            bencher.iter(|| decode_request(&wide, None, &signature));
        });
        for form in [Form::Json, Form::Binary] {
            let mut body = Vec::new();
            let length = encode_request(None, &[("x", &tensor)], form, &mut body);
            let body = Bytes::from(body);
            group.bench_function(format!("decode {form:?}"), |bencher| {
                bencher.iter(|| decode_request(&body, length, &signature));
            });
            let outputs = [AnswerOutput { name: "x", tensor: &tensor, form, span: None }];
            let answer =
                Answer { model_name: "m", model_version: "1", id: None, outputs: &outputs };
            let (mut buffer, mut lent) = (Vec::new(), Vec::new());
            group.bench_function(format!("encode {form:?}"), |bencher| {
                bencher.iter(|| {
                    buffer.clear();
                    lent.clear();
                    encode_answer(&answer, &mut buffer, &mut lent)
                });
            });
        }
    }
}

criterion_group!(benches, codec);
criterion_main!(benches);
