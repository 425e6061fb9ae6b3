//! Logs: text on a terminal, JSON otherwise, never in the way of a request.
//!
//! Lines go through a bounded queue to a writer thread of their own; when the queue is full a
//! line is dropped and counted, so that a slow terminal or pipe does not slow a prediction.

use std::io::IsTerminal;

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// The running log. Dropping it flushes what is queued.
pub struct Logging {
    filter: reload::Handle<EnvFilter, Registry>,
    dropped: ErrorCounter,
    _writer: WorkerGuard,
}

impl std::fmt::Debug for Logging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Logging").finish_non_exhaustive()
    }
}

impl Logging {
    /// Installs the process' log on standard error. `level` is a level or a list of filter
    /// directives, such as `info,tidegate::server=debug`. Fails where a log is installed already
    /// or `level` cannot be read.
    pub fn install(level: &str, format: Format) -> Result<Self, String> {
        let stderr = std::io::stderr();
        let is_terminal = stderr.is_terminal();
        let json = format == Format::Json || (format == Format::Auto && !is_terminal);
        let (writer, guard) =
            NonBlockingBuilder::default().lossy(true).thread_name("log").finish(stderr);
        let dropped = writer.error_counter();
        let (filter, handle) = reload::Layer::new(parse_level(level)?);
        let registry = tracing_subscriber::registry().with(filter);
        let layer = fmt::layer().with_writer(writer).with_target(json).with_ansi(is_terminal);
        let installed = if json {
            registry.with(layer.json().flatten_event(true)).try_init()
        } else {
            registry.with(layer).try_init()
        };
        installed.map_err(|error| error.to_string())?;
        Ok(Self { filter: handle, dropped, _writer: guard })
    }

    /// Changes the level of the running log.
    pub fn set_level(&self, level: &str) -> Result<(), String> {
        self.filter.reload(parse_level(level)?).map_err(|error| error.to_string())
    }

    /// Lines dropped since the start.
    #[must_use]
    pub fn n_dropped(&self) -> u64 {
        u64::try_from(self.dropped.dropped_lines()).unwrap_or(u64::MAX)
    }
}

/// Reads filter directives.
pub fn parse_level(level: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(level).map_err(|error| {
        format!("expected a level (error, warn, info, debug, trace) or directives such as \"info,tidegate=debug\", got \"{level}\": {error}")
    })
}
