//! Simulations of the drift detector: `load-tests/drift/run` says which, and prints their tables.
//!
//! Prints one JSON document a call. Everything is seeded: the same call prints the same figures.

mod competitors;
mod experiments;
mod streams;

// The statistics are pure: including their files builds in seconds, where the whole crate with its
// engine takes minutes.
#[allow(
    dead_code,
    missing_docs,
    unused_imports,
    unreachable_pub,
    reason = "a module of another crate, used in part"
)]
#[path = "../../../../src/stats/mod.rs"]
mod stats;

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use streams::{Law, Shift, Stream};

/// Simulations of the drift detector.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    experiment: Experiment,
}

#[derive(Subcommand)]
enum Experiment {
    /// False alarms where nothing changes.
    Null(Null),
    /// Values until a change is found.
    Delay(Delay),
    /// Run lengths to thresholds where nothing changes and the reference is exact.
    Calibrate(Calibrate),
    /// Thresholds and delays of tests on tumbling windows and of KSWIN.
    Windowed(Windowed),
    /// How often PSI's 95 % interval has the true value in it.
    Coverage(Coverage),
    /// Estimates of the long-run variance factor.
    Variance(Variance),
    /// Writes the values of a stream as little-endian f64: nothing changes before `--change`.
    Stream(Values),
    /// The time of a tick.
    Cost(Cost),
}

#[derive(Args)]
pub struct Null {
    /// normal, lognormal, atoms, categories-N, ar-PHI.
    #[arg(long, value_parser = law)]
    pub law: Law,
    /// Rows of the baseline.
    #[arg(long)]
    pub rows: usize,
    #[arg(long, default_value_t = 100)]
    pub streams: usize,
    #[arg(long, default_value_t = 10_000)]
    pub ticks: usize,
    /// Ticks between false alarms, as promised.
    #[arg(long, default_value_t = 10_000.0)]
    pub promise: f64,
    /// Without the correction: tolerance 0.
    #[arg(long)]
    pub no_tolerance: bool,
    /// Without the correction: the baseline's shares taken as exact.
    #[arg(long)]
    pub no_widening: bool,
    /// Without the correction: rows taken as independent.
    #[arg(long)]
    pub no_tempering: bool,
}

#[derive(Args)]
pub struct Delay {
    /// none, mean:D, sd:F, bimodal, point:SHARE, missing:SHARE.
    #[arg(long, value_parser = shift)]
    pub shift: Shift,
    /// Rows of the baseline; 0 is an exact one, without tolerance.
    #[arg(long, default_value_t = 0)]
    pub rows: usize,
    #[arg(long, default_value_t = 400)]
    pub streams: usize,
    /// Unchanged values before the change.
    #[arg(long, default_value_t = 10_000)]
    pub before: usize,
    /// Values after it, at most.
    #[arg(long, default_value_t = 40_000)]
    pub horizon: usize,
    /// Logarithm of the sum that is an alarm.
    #[arg(long, default_value_t = 9.210_340_371_976_184)]
    pub threshold: f64,
    #[arg(long)]
    pub no_tolerance: bool,
}

#[derive(Args)]
pub struct Calibrate {
    #[arg(long, default_value_t = 200)]
    pub streams: usize,
    #[arg(long, default_value_t = 20_000)]
    pub ticks: usize,
}

#[derive(Args)]
pub struct Windowed {
    /// ks, chi-square, psi, kswin.
    #[arg(long)]
    pub test: competitors::Test,
    /// Values of a window; for KSWIN, of its recent part (30 in river).
    #[arg(long)]
    pub window: usize,
    /// Values between false alarms.
    #[arg(long, default_value_t = 500_000.0)]
    pub run_length: f64,
    #[arg(long, default_value_t = 400)]
    pub streams: usize,
    #[arg(long, default_value_t = 40_000)]
    pub horizon: usize,
}

#[derive(Args)]
pub struct Coverage {
    #[arg(long, value_parser = shift)]
    pub shift: Shift,
    /// Rows of the baseline.
    #[arg(long)]
    pub rows: usize,
    /// Rows of the window.
    #[arg(long)]
    pub live: usize,
    #[arg(long, default_value_t = 2000)]
    pub repeats: usize,
}

#[derive(Args)]
pub struct Variance {
    #[arg(long)]
    pub phi: f64,
    #[arg(long)]
    pub rows: usize,
    #[arg(long, default_value_t = 100)]
    pub repeats: usize,
}

#[derive(Args)]
pub struct Values {
    #[arg(long, value_parser = shift)]
    pub shift: Shift,
    #[arg(long)]
    pub seed: u64,
    #[arg(long)]
    pub change: usize,
    #[arg(long)]
    pub values: usize,
}

#[derive(Args)]
pub struct Cost {
    #[arg(long, default_value_t = 20_000)]
    pub ticks: usize,
    #[arg(long, default_value_t = 50)]
    pub rows_per_tick: usize,
    /// Rows of the baseline.
    #[arg(long, default_value_t = 20_000)]
    pub rows: u64,
}

fn law(name: &str) -> Result<Law, String> {
    Law::parse(name).ok_or_else(|| "not a law that is known".to_owned())
}

fn shift(name: &str) -> Result<Shift, String> {
    Shift::parse(name).ok_or_else(|| "not a shift that is known".to_owned())
}

fn main() -> ExitCode {
    let document = match Options::parse().experiment {
        Experiment::Null(options) => experiments::null(&options),
        Experiment::Delay(options) => experiments::delay(&options),
        Experiment::Calibrate(options) => experiments::calibrate(&options),
        Experiment::Windowed(options) => competitors::windowed(&options),
        Experiment::Coverage(options) => experiments::coverage(&options),
        Experiment::Variance(options) => experiments::variance(&options),
        Experiment::Cost(options) => experiments::cost(&options),
        Experiment::Stream(options) => {
            return match write_values(&options) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::from(2),
            };
        }
    };
    println!("{document}");
    ExitCode::SUCCESS
}

fn write_values(options: &Values) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut stream = Stream::new(Law::Normal(0.0), options.seed);
    for at in 0..options.values {
        let shift = if at < options.change { Shift::None } else { options.shift };
        out.write_all(&stream.next(shift).to_le_bytes())?;
    }
    out.flush()
}
