//! Runs one model as the gateway's engine does, at the word of `compare.py`.
//!
//! Reads lines `ROWS RUNS` and answers each with the nanoseconds of one run, the median over
//! batches of `RUNS`: the conversion of the input into the engine and of the outputs out of it
//! included.

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tidegate::engine::{OnnxModel, Plan};
use tidegate::tensor::{Datatype, Tensor};

#[expect(clippy::print_stdout, reason = "the answers are what it is for")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    // cargo adds `--bench` when it runs benches itself, where there is nothing to do.
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (Some(model), Some(rows)) = (arguments.next(), arguments.next()) else {
        return Ok(());
    };
    let plan = Plan::compile(Arc::new(OnnxModel::parse(&std::fs::read(model)?)?), &[])?;
    let data = Bytes::from(std::fs::read(rows)?);
    let n_features = plan.signature().inputs[0].shape[1].ok_or("rows of a fixed length only")?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let mut words = line.split_whitespace();
        let n_rows: usize = words.next().ok_or("no rows")?.parse()?;
        let n_runs: u32 = words.next().ok_or("no runs")?.parse()?;
        // Each run gets other rows, as each request does.
        let size = n_rows * n_features * size_of::<f32>();
        let inputs: Vec<[Tensor; 1]> = (0..data.len() / size)
            .map(|at| data.slice(at * size..(at + 1) * size))
            .map(|rows| Tensor::new(Datatype::Fp32, [n_rows, n_features].as_slice(), rows))
            .map(|tensor| tensor.map(|tensor| [tensor]))
            .collect::<Result<_, _>>()?;
        let start = Instant::now();
        for input in inputs.iter().cycle().take(usize::try_from(n_runs)?) {
            std::hint::black_box(plan.run(input)?);
        }
        println!("{}", start.elapsed().as_nanos() / u128::from(n_runs));
        std::io::stdout().flush()?;
    }
    Ok(())
}
