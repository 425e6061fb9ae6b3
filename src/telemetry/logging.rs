//! Logs: text on a terminal, JSON otherwise, never in the way of a request.
//!
//! Lines go through a bounded queue to a writer thread of their own; when the queue is full a
//! line is dropped and counted, so that a slow terminal or pipe does not slow a prediction. Nor do
//! many lines: a line alone is written at once, those of a burst together ([`Gathered`]).

use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::{Duration, Instant};

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
        let (writer, guard) = NonBlockingBuilder::default()
            .lossy(true)
            .thread_name("log")
            .finish(Gathered::of(stderr));
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

/// How long the lines of a burst are gathered. A service that refuses thousands of requests a second
/// has as many lines to write, and each waking of this thread would take the core from another one.
const BURST: Duration = Duration::from_millis(10);

/// More than this is not gathered.
const MOST_GATHERED: usize = 64 << 10;

/// Writes on flushing, which it is made to do whenever the queue is empty. After one that came soon
/// after another it rests, so that lines gather in the queue.
struct Gathered<W> {
    inner: W,
    lines: Vec<u8>,
    flushed: Option<Instant>,
}

impl<W: Write> Gathered<W> {
    fn of(inner: W) -> Self {
        Self { inner, lines: Vec::new(), flushed: None }
    }

    /// What cannot be written is lost: it would not be better later.
    fn write_out(&mut self) -> io::Result<()> {
        let outcome = self.inner.write_all(&self.lines).and_then(|()| self.inner.flush());
        self.lines.clear();
        outcome
    }
}

impl<W: Write> Write for Gathered<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.lines.extend_from_slice(line);
        if self.lines.len() > MOST_GATHERED {
            self.write_out()?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let outcome = self.write_out();
        let is_burst = self.flushed.is_some_and(|flushed| flushed.elapsed() < BURST);
        if is_burst {
            thread::sleep(BURST);
        }
        self.flushed = Some(Instant::now());
        outcome
    }
}

/// Reads filter directives.
pub fn parse_level(level: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(level).map_err(|error| {
        format!("expected a level (error, warn, info, debug, trace) or directives such as \"info,tidegate=debug\", got \"{level}\": {error}")
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Notes what each write holds.
    #[derive(Clone, Default)]
    struct Writes(Arc<Mutex<Vec<Vec<u8>>>>);

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().push(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn all_lines_come_in_order_and_those_of_a_burst_in_few_writes() {
        let writes = Writes::default();
        let builder = NonBlockingBuilder::default().lossy(false);
        let (mut log, guard) = builder.finish(Gathered::of(writes.clone()));
        let lines: Vec<u8> = (0..5000).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
        for n in 0..5000 {
            log.write_all(format!("line {n}\n").as_bytes()).unwrap();
        }
        drop(guard);
        let writes = writes.0.lock().unwrap();
        assert_eq!(writes.concat(), lines);
        assert!(writes.len() < 2500, "{}", writes.len());
    }

    #[test]
    fn a_line_alone_is_written_at_once_and_no_more_is_kept_than_is_said() {
        let writes = Writes::default();
        let mut gathered = Gathered::of(writes.clone());
        gathered.write_all(b"alone\n").unwrap();
        gathered.flush().unwrap();
        assert_eq!(writes.0.lock().unwrap().concat(), b"alone\n");
        gathered.write_all(&vec![b'x'; MOST_GATHERED + 1]).unwrap();
        assert_eq!(writes.0.lock().unwrap().len(), 2);
        assert!(gathered.lines.is_empty());
    }
}
