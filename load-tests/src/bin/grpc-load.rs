//! The load generator for gRPC: a closed loop of calls of one message on some connections, each with
//! some streams. See `--help`.

use std::error::Error;
use std::fs::File;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use load_tests::client::Tallies;
use load_tests::grpc::{Times, call, calls, connect, framed, message};
use load_tests::options::parse_duration;
use load_tests::report::Report;
use tokio::task::JoinSet;

/// Sends predictions over gRPC to a server on this machine as fast as it answers them, and reports
/// throughput and latency. Ends with code 1 if a call failed.
#[derive(Debug, Parser)]
struct Options {
    /// Where to send calls: http://ADDRESS:PORT; only loopback addresses are accepted
    #[arg(long)]
    url: String,
    /// The model to ask
    #[arg(long)]
    model: String,
    /// File with V2 requests as JSON, one a line; the first is sent
    #[arg(long, value_name = "FILE")]
    bodies: PathBuf,
    #[arg(long, default_value = "4")]
    connections: NonZeroUsize,
    /// Calls under way on each connection
    #[arg(long, default_value = "8")]
    streams: NonZeroUsize,
    /// Time before the measurement
    #[arg(long, value_parser = parse_duration, default_value = "2s")]
    warmup: Duration,
    /// How long to measure
    #[arg(long, value_parser = parse_duration, default_value = "10s")]
    duration: Duration,
    /// A call without an answer after this time has failed
    #[arg(long, value_parser = parse_duration, default_value = "10s")]
    timeout: Duration,
    /// Write the report to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Make one call and write the answer's message to this file
    #[arg(long, value_name = "FILE")]
    once: Option<PathBuf>,
    /// End with code 0 even if calls failed
    #[arg(long)]
    allow_failures: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(failed) if failed == 0 || options.allow_failures => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("grpc-load: {error}");
            ExitCode::from(2)
        }
    }
}

// One thread needs no work stealing, and leaves more of the machine to the server.
#[tokio::main(flavor = "current_thread")]
async fn run(options: &Options) -> Result<u64, Box<dyn Error>> {
    let authority = options.url.strip_prefix("http://").ok_or("the URL begins with http://")?;
    let address: SocketAddr = authority.split('/').next().unwrap_or_default().parse()?;
    if !address.ip().is_loopback() {
        return Err(format!("{address} is not a loopback address").into());
    }
    let bodies = std::fs::read(&options.bodies)?;
    let first = bodies.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let frame = framed(&message(&options.model, first)?);
    if let Some(file) = &options.once {
        std::fs::write(file, call(&mut connect(address).await?, &frame).await?)?;
        return Ok(0);
    }
    let begun = Instant::now();
    let measure_from = begun + options.warmup;
    let times = Times { measure_from, until: measure_from + options.duration };
    let mut streams = JoinSet::new();
    for _ in 0..options.connections.get() {
        let client = connect(address).await?;
        for _ in 0..options.streams.get() {
            streams.spawn(calls(client.clone(), frame.clone(), times, options.timeout));
        }
    }
    let mut tallies = Tallies::default();
    while let Some(counted) = streams.join_next().await {
        tallies.merge(counted?);
    }
    let (url, connections) = (options.url.clone(), options.connections.get());
    let report = Report::new(url, connections, tallies, measure_from.elapsed());
    println!("{report}");
    if let Some(file) = &options.json {
        serde_json::to_writer_pretty(File::create(file)?, &report)?;
    }
    Ok(report.failed)
}
