//! The load generator: see `--help`, and [`load_tests`] for why it is not an existing tool.

use std::error::Error;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clap::Parser;
use load_tests::client::{Run, Tallies};
use load_tests::options::Options;
use load_tests::report::Report;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::interval;

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(report) if report.failed == 0 || options.allow_failures => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> Result<Report, Box<dyn Error>> {
    let run = Arc::new(Run::start(options.plan()?));
    let report = runtime(options, &run)?.block_on(drive(options, run))?;
    println!("{report}");
    if let Some(file) = &options.json {
        serde_json::to_writer_pretty(File::create(file)?, &report)?;
    }
    Ok(report)
}

/// One thread needs no work stealing, and leaves more of the machine to the server.
fn runtime(options: &Options, run: &Arc<Run>) -> io::Result<Runtime> {
    let mut builder = match options.threads.get() {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    // Each time that the generator wakes up it takes a core from a thread of the server.
    if let Some(tick) = paced_by_runtime(options) {
        let run = Arc::clone(run);
        builder.on_thread_park(move || {
            thread::sleep(tick);
            run.hand_out();
        });
    }
    builder.worker_threads(options.threads.get()).enable_all().build()
}

/// How long the only thread sleeps before it looks at what there is to send and to receive.
fn paced_by_runtime(options: &Options) -> Option<Duration> {
    options.tick.filter(|_| options.threads.get() == 1)
}

async fn drive(options: &Options, run: Arc<Run>) -> Result<Report, Box<dyn Error>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut tick = interval(Duration::from_millis(200));
    let show_progress = io::stderr().is_terminal();

    let mut connections = JoinSet::new();
    for _ in 0..options.connections.get() {
        let run = Arc::clone(&run);
        connections.spawn(async move { run.connection().await });
    }

    let pacer = paced_by_runtime(options).is_none().then(|| {
        let run = Arc::clone(&run);
        thread::spawn(move || run.pace())
    });
    let mut tallies = Tallies::default();
    loop {
        tokio::select! {
            ended = connections.join_next() => match ended {
                Some(counted) => tallies.merge(counted?),
                None => break,
            },
            _ = interrupt.recv() => run.stop(),
            _ = terminate.recv() => run.stop(),
            _ = tick.tick(), if show_progress => progress(&run)?,
        }
    }
    let measured = run.measured();
    if let Some(pacer) = pacer {
        pacer.join().map_err(|_| "the pacer panicked")?;
    }
    if show_progress {
        eprint!("\r\x1b[K");
    }
    let mut report =
        Report::new(options.url.to_string(), options.connections.get(), tallies, measured);
    report.rate = options.rate;
    report.unsent = run.unsent();
    report.interrupted = run.is_stopped();
    Ok(report)
}

fn progress(run: &Run) -> io::Result<()> {
    let (seconds, issued) = (run.measured().as_secs_f64(), run.issued());
    let mut stderr = io::stderr();
    match seconds {
        0.0 => write!(stderr, "\r\x1b[Kwarming up")?,
        _ => write!(
            stderr,
            "\r\x1b[K{seconds:.1} s, {issued} requests, {:.0} a second",
            issued as f64 / seconds
        )?,
    }
    stderr.flush()
}
