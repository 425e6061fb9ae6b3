//! `tidegate replay`

mod compare;
mod local;
mod monitored;
mod remote;
mod report;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::{ConfigArg, Failure};
use crate::capture::read::{self, Recorded, Requests, Summary};

/// Run recorded predictions again and compare the answers.
///
/// Without --against the model runs here, from the repository of the configuration; with it, the
/// requests go to a running server. In the mode `exact` requests that were run together are run
/// together again, in the same order: with the same model file, engine and CPU features every bit must
/// be the same, and exit code 1 says that one was not. `numeric` runs each request by itself and says
/// how far answers are apart. `monitor` feeds the drift monitor with the recorded times and tells
/// what it finds.
#[derive(Debug, Args)]
pub(super) struct Replay {
    #[command(flatten)]
    config: ConfigArg,
    /// A folder of captured files, or one of them
    capture: PathBuf,
    /// The model
    #[arg(long, short)]
    model: String,
    /// The version to run, by its number or an alias; by default the one of most recorded rows, or
    /// of a server its primary
    #[arg(long)]
    version: Option<String>,
    /// The recorded version whose requests are run; by default the same, or all where it has none
    #[arg(long, value_name = "VERSION")]
    from: Option<u64>,
    /// A running server to ask, such as http://127.0.0.1:8000
    #[arg(long, value_name = "URL")]
    against: Option<String>,
    /// What is compared
    #[arg(long, value_enum, default_value_t = Mode::Exact)]
    mode: Mode,
    /// How fast: `max`, `recorded`, or requests a second
    #[arg(long, default_value = "max", value_parser = pace)]
    rate: Pace,
    /// Requests under way at once, with --against
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    /// Requests run at most
    #[arg(long)]
    limit: Option<u64>,
    /// Only the request of this id
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Exact,
    Numeric,
    Monitor,
}

/// How fast requests follow each other.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Pace {
    Max,
    Recorded,
    PerSecond(f64),
}

fn pace(text: &str) -> Result<Pace, String> {
    match text {
        "max" => Ok(Pace::Max),
        "recorded" => Ok(Pace::Recorded),
        number => match number.parse::<f64>() {
            Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(Pace::PerSecond(rate)),
            _ => Err("expected max, recorded, or a number of requests a second".to_owned()),
        },
    }
}

/// When requests are due.
struct Pacer {
    pace: Pace,
    started: Instant,
    first: Option<u64>,
    n: u64,
}

impl Pacer {
    fn new(pace: Pace) -> Self {
        Self { pace, started: Instant::now(), first: None, n: 0 }
    }

    /// How long the next request, recorded at `at`, has to wait.
    fn wait(&mut self, at: u64) -> Duration {
        let first = *self.first.get_or_insert(at);
        let due = match self.pace {
            Pace::Max => return Duration::ZERO,
            Pace::Recorded => Duration::from_millis(at.saturating_sub(first)),
            Pace::PerSecond(rate) => Duration::from_secs_f64(self.n as f64 / rate),
        };
        self.n += 1;
        due.saturating_sub(self.started.elapsed())
    }
}

/// Requests that are not run, and why.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
struct Skipped {
    /// They had no answer.
    errors: u64,
    /// Their features are not what they were.
    redacted: u64,
    /// Another version answered them.
    other_versions: u64,
}

/// Which requests are run.
struct Selection {
    model: String,
    /// Nothing where all but a shadow's are.
    version: Option<u64>,
    request_id: Option<String>,
    /// Redacted ones as well, which the monitor counts as they are.
    takes_redacted: bool,
    skipped: Skipped,
    left: u64,
}

impl Selection {
    /// Whether a request is run.
    fn takes(&mut self, recorded: &Recorded) -> bool {
        if *recorded.model != *self.model
            || self.request_id.as_ref().is_some_and(|id| *id != recorded.id)
        {
            return false;
        }
        let is_other = match self.version {
            Some(version) => recorded.version != version,
            None => &*recorded.slot == "shadow",
        };
        let place = if is_other {
            &mut self.skipped.other_versions
        } else if recorded.inputs.is_empty() || recorded.outputs.is_empty() {
            &mut self.skipped.errors
        } else if recorded.redacted && !self.takes_redacted {
            &mut self.skipped.redacted
        } else {
            let takes = self.left > 0;
            self.left = self.left.saturating_sub(1);
            return takes;
        };
        *place += 1;
        false
    }
}

impl Replay {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.config.source().read().map_err(Failure::usage)?;
        let files = read::files(&self.capture, Some(&self.model))?;
        let summary = read::summarize(&files, &self.model)?;
        if summary.rows == 0 {
            let message = format!("{}: nothing of model '{}'", self.capture.display(), self.model);
            return Err(Failure { code: 1, message });
        }
        if let Some(url) = &self.against {
            if self.mode == Mode::Monitor {
                return Err(Failure::usage("--mode monitor runs here: leave --against out"));
            }
            let number = self.version.as_ref().and_then(|version| version.parse().ok());
            let selection = self.selection(&summary, number);
            return remote::run(&self, url, Requests::new(files), selection, &summary);
        }
        let most = summary.versions.iter().max_by_key(|(_, rows)| **rows);
        let most = most.map(|(version, _)| version.to_string());
        let wanted = self.version.as_deref().or(most.as_deref());
        let version = super::predictions::Version::open(&config, &self.model, wanted)?;
        let selection = self.selection(&summary, Some(version.number));
        match self.mode {
            Mode::Monitor => monitored::run(&self, &version, files, selection, &summary),
            _ => local::run(&self, &version, Requests::new(files), selection, &summary),
        }
    }

    fn selection(&self, summary: &Summary, version: Option<u64>) -> Selection {
        let recorded = version.filter(|version| summary.versions.contains_key(version));
        Selection {
            model: self.model.clone(),
            version: self.from.or(recorded),
            request_id: self.request_id.clone(),
            takes_redacted: self.mode == Mode::Monitor,
            skipped: Skipped::default(),
            left: self.limit.unwrap_or(u64::MAX),
        }
    }

    /// Shown on a terminal only, on standard error.
    fn progress(&self, rows: u64) -> ProgressBar {
        let bar = if self.json { ProgressBar::hidden() } else { ProgressBar::new(rows) };
        let template = "{bar:40} {human_pos}/{human_len} rows, {per_sec}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar
    }
}
