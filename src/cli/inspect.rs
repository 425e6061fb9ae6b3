//! `tidegate inspect`

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::Failure;
use super::table::{Table, specs};
use crate::config::HumanDuration;
use crate::engine::{ENGINE, OnnxModel, Plan};

/// Show what an ONNX file declares and whether it can serve.
///
/// Signature, operator sets, operators and which of them the engine lacks, digest, size, which
/// plan it gets and why, and the time of one run. Exit code 0 if it can serve, 1 if not.
#[derive(Debug, Args)]
pub(super) struct Inspect {
    /// The ONNX file
    model: PathBuf,
    /// List every operator, not only those that the engine lacks
    #[arg(long)]
    operators: bool,
    /// A shape to compile for and run: NAME=SIZES as in image=1,3,224,224, once for each input
    #[arg(long = "shape", value_name = "NAME=SIZES", value_parser = shape)]
    shapes: Vec<(String, Vec<usize>)>,
    /// Run it again and again for so long, and print the runs a second of one core
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    run_for: Option<std::time::Duration>,
}

fn duration(text: &str) -> Result<std::time::Duration, String> {
    let parsed = HumanDuration::parse(text).ok_or("expected a duration such as 500ms or 5s")?;
    Ok(parsed.0)
}

/// `NAME=SIZES`
fn shape(text: &str) -> Result<(String, Vec<usize>), String> {
    let (name, sizes) = text.rsplit_once('=').ok_or("expected NAME=SIZES, as in x=1,4")?;
    let sizes = sizes.split(',').filter(|size| !size.is_empty()).map(str::parse::<usize>);
    let sizes = sizes.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    Ok((name.to_owned(), sizes))
}

impl Inspect {
    pub(super) fn run(self) -> Result<(), Failure> {
        let path = self.model.display();
        let bytes = std::fs::read(&self.model).map_err(|error| Failure {
            code: 1,
            message: format!("cannot read {path}: {error}"),
        })?;
        let model = OnnxModel::parse(&bytes)
            .map_err(|error| Failure { code: 1, message: format!("{path}: {error}") })?;
        drop(bytes);
        println!("file        {path}, {} bytes", model.size());
        println!("digest      {}", model.digest());
        let producer = model.producer();
        if !producer.is_empty() {
            println!("producer    {producer}");
        }
        let opsets: Vec<_> = model.opsets().map(|(domain, v)| format!("{domain} {v}")).collect();
        println!("opsets      {} (IR version {})", opsets.join(", "), model.ir_version());
        for (key, value) in model.metadata() {
            println!("metadata    {key}: {}", value.lines().next().unwrap_or_default());
        }
        println!("inputs      {}", specs(&model.signature().inputs));
        println!("outputs     {}", specs(&model.signature().outputs));
        self.print_operators(&model);
        let shapes: Vec<_> = match self.shapes.is_empty() {
            true => Vec::new(),
            false => vec![self.shapes.into_iter().collect()],
        };
        let plan = Plan::compile(Arc::new(model), &shapes)?;
        println!("engine      {}", *ENGINE);
        println!("plan        {}", plan.rung());
        let warm_up = plan.warm_up()?;
        let us = |duration: std::time::Duration| duration.as_secs_f64() * 1e6;
        print!(
            "one run     {:.1} µs{} (the first took {:.1} µs)",
            us(warm_up.cost),
            if shapes.is_empty() { " for one row" } else { "" },
            us(warm_up.first)
        );
        match warm_up.free_size {
            1 => println!(),
            size => println!(", other free dimensions at {size}"),
        }
        if let Some(time) = self.run_for {
            let (runs, took) = plan.run_for(time, warm_up.free_size)?;
            println!("loop        {:.1} runs/s of one core", runs as f64 / took.as_secs_f64());
        }
        Ok(())
    }

    fn print_operators(&self, model: &OnnxModel) {
        let operators = model.operators();
        let n_missing = operators.iter().filter(|operator| operator.refusal.is_some()).count();
        println!(
            "operators   {} kinds in {} nodes, {n_missing} of them unsupported",
            operators.len(),
            model.n_nodes()
        );
        if n_missing == 0 && !self.operators {
            return;
        }
        let mut table =
            Table::new(["domain", "operator", "opset", "nodes", "first node", "supported"]);
        for operator in operators.iter().filter(|o| self.operators || o.refusal.is_some()) {
            let domain = if operator.domain.is_empty() { "ai.onnx" } else { &operator.domain };
            table.push([
                domain.to_owned(),
                operator.name.clone(),
                operator.opset.to_string(),
                operator.nodes.to_string(),
                operator.first_node.clone(),
                operator.refusal.map_or("yes".to_owned(), |refusal| format!("no: {refusal}")),
            ]);
        }
        println!("{table}");
    }
}
