//! The command line: one file a command.
//!
//! Exit codes: 0 done, 1 failed, 64 the configuration or the command line is wrong.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "printing is what commands do")]

mod alert;
mod baseline;
mod bundle;
mod check;
mod client;
mod compare;
mod completions;
mod drift;
mod feedback;
mod history;
mod inspect;
mod plan;
mod predict;
mod predictions;
mod promote;
mod replay;
mod rollback;
mod rollout;
mod rows;
mod serve;
mod table;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{Args, Parser, Subcommand};

use crate::app::{BUILD, Source, default_config};
use crate::engine::ENGINE;

/// The configuration or the command line is wrong (`EX_USAGE` of sysexits).
const USAGE: u8 = 64;

static LONG_VERSION: LazyLock<String> = LazyLock::new(|| {
    let facts = BUILD.iter().map(|(name, value)| format!("{name:8}{value}"));
    let engine = format!("{:8}{}", "engine", *ENGINE);
    facts.chain([engine]).fold(String::new(), |text, line| format!("{text}\n{line}"))
});

/// Serves ONNX models over the Open Inference Protocol, swaps versions without dropping a
/// request, and watches what it serves.
///
/// Start with `tidegate serve`, which reads config/tidegate.toml and serves what is in its model
/// repository; `tidegate check` says what is wrong before you start.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, long_version = LONG_VERSION.as_str(), max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Check(check::Check),
    Plan(plan::Plan),
    Inspect(inspect::Inspect),
    Predict(predict::Predict),
    Baseline(baseline::BaselineCommand),
    Drift(drift::Drift),
    Compare(compare::Compare),
    Alert(alert::Alert),
    Feedback(feedback::Feedback),
    Rollout(rollout::RolloutCommand),
    Promote(promote::Promote),
    Rollback(rollback::Rollback),
    History(history::History),
    Replay(Box<replay::Replay>),
    Bundle(bundle::Bundle),
    Completions(completions::Completions),
}

/// The configuration's file.
#[derive(Debug, Args)]
struct ConfigArg {
    /// Configuration file; single keys are overridden by the environment, such as
    /// TIDEGATE_SERVER__HTTP=0.0.0.0:8000
    #[arg(long, short, value_name = "FILE", env = "TIDEGATE_CONFIG", default_value_os_t = default_config())]
    config: PathBuf,
}

impl ConfigArg {
    fn source(&self) -> Source {
        Source::new(self.config.clone())
    }
}

/// How a command ended badly.
#[derive(Debug)]
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn usage(message: impl ToString) -> Self {
        Self { code: USAGE, message: message.to_string() }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { code: 1, message: error.to_string() }
    }
}

/// Prints to standard output. A closed pipe ends the output and is no failure.
fn print_raw(text: &str) {
    use std::io::Write;
    drop(std::io::stdout().write_all(text.as_bytes()));
}

/// Runs the command line.
#[must_use]
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { USAGE } else { 0 };
            // A closed pipe is no reason to complain.
            drop(error.print());
            return ExitCode::from(code);
        }
    };
    let outcome = match cli.command {
        Command::Serve(command) => command.run(),
        Command::Check(command) => command.run(),
        Command::Plan(command) => command.run(),
        Command::Inspect(command) => command.run(),
        Command::Predict(command) => command.run(),
        Command::Baseline(command) => command.run(),
        Command::Drift(command) => command.run(),
        Command::Compare(command) => command.run(),
        Command::Alert(command) => command.run(),
        Command::Feedback(command) => command.run(),
        Command::Rollout(command) => command.run(),
        Command::Promote(command) => command.run(),
        Command::Rollback(command) => command.run(),
        Command::History(command) => command.run(),
        Command::Replay(command) => command.run(),
        Command::Bundle(command) => command.run(),
        Command::Completions(command) => command.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("tidegate: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}
