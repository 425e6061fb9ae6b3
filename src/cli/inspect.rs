//! `tidegate inspect`

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::Failure;
use super::table::{Table, specs};
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
        let plan = Plan::compile(Arc::new(model))?;
        println!("engine      {}", *ENGINE);
        println!("plan        {}", plan.rung());
        let warm_up = plan.warm_up()?;
        let us = |duration: std::time::Duration| duration.as_secs_f64() * 1e6;
        print!(
            "one run     {:.1} µs for one row (the first took {:.1} µs)",
            us(warm_up.cost),
            us(warm_up.first)
        );
        match warm_up.free_size {
            1 => println!(),
            size => println!(", other free dimensions at {size}"),
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
