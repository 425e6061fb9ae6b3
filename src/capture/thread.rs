//! The thread that writes, and the handle of those who offer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::block::Block;
use super::columns::Process;
use super::folder;
use super::offered::{Large, Offered, Taken};
use super::store;
use super::stream::{Progress, Stream};
use super::subject::Subject;
use super::upload::{self, Uploads};
use crate::config;
use crate::handoff::{Queues, Waiting};
use crate::telemetry::{Counter, Gauge, SeriesKind, Telemetry, names, render_family};

/// How long the thread rests where there was little to do.
const REST: Duration = Duration::from_millis(25);

/// How long it rests where there was much.
const BREATH: Duration = Duration::from_millis(2);

/// Requests of a round that are much.
const MUCH: usize = 64;

/// How often files that are too old are looked for.
const RETAIN: Duration = Duration::from_secs(60);

/// How often the same trouble is logged, at most.
const COMPLAIN: Duration = Duration::from_secs(10);

/// A handle of those who offer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Capture(Arc<Inner>);

struct Inner {
    queues: Queues<Block, Large>,
    dropped: Counter,
    /// The running configuration's digest.
    config: Mutex<Arc<str>>,
    cpu_ns: AtomicU64,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").finish_non_exhaustive()
    }
}

impl Capture {
    /// Offers a request. Does not wait; where there is no room, its rows are counted as dropped.
    pub fn offer(&self, offered: &Offered<'_>) {
        let queues = &self.0.queues;
        let (tensors, texts) = (offered.tensor_bytes(), offered.text_bytes());
        let bytes = (tensors + texts, tensors);
        if !queues.offer(offered, bytes, |block, offered| block.push(offered), Large::new) {
            self.0.dropped.increment(offered.rows());
        }
    }

    /// From now on that configuration is the one that runs.
    pub fn configured(&self, digest: &str) {
        *self.0.config.lock().unwrap_or_else(PoisonError::into_inner) = digest.into();
    }
}

/// The thread, to be ended with [`Thread::end`].
#[derive(Debug)]
pub struct Thread {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<()>,
    uploads: JoinHandle<()>,
}

impl Thread {
    /// Has the thread write what waits, complete its files, and end.
    #[must_use]
    pub fn end(self) -> [JoinHandle<()>; 2] {
        self.ended.store(true, Ordering::Release);
        self.thread.thread().unpark();
        [self.thread, self.uploads]
    }
}

/// Starts the thread. `begin` runs on it first, and on that of uploads. `folder` is what a relative
/// path is relative to.
pub fn start(
    telemetry: &Arc<Telemetry>,
    config: &config::Captures,
    digest: &str,
    folder: &Path,
    begin: fn(),
) -> std::io::Result<(Capture, Thread)> {
    let dropped = |reason| telemetry.counter(names::CAPTURE_DROPPED, &[("reason", reason)]);
    let capture = Capture(Arc::new(Inner {
        queues: Queues::new(config.queue, config.queue_size),
        dropped: dropped("queue"),
        config: Mutex::new(digest.into()),
        cpu_ns: AtomicU64::new(0),
    }));
    let shown = Arc::downgrade(&capture.0);
    telemetry.add_collector(move |out| {
        if let Some(inner) = shown.upgrade() {
            let seconds = inner.cpu_ns.load(Ordering::Relaxed) as f64 / 1e9;
            let series = [(Vec::new(), seconds)];
            render_family(out, names::CAPTURE_CPU, SeriesKind::Counter, series);
        }
    });
    let ended = Arc::new(AtomicBool::new(false));
    let spool = folder.join(&config.spool);
    let uploads = Uploads::new(telemetry, spool.clone());
    let upload_thread = upload::start(Arc::clone(&uploads), begin)?;
    let mut worker = Worker {
        inner: Arc::clone(&capture.0),
        telemetry: Arc::clone(telemetry),
        process: Process { cpu_features: cpu_features(), run_id: run_id() },
        streams: Vec::new(),
        recovered: Vec::new(),
        spool,
        spool_size: config.spool_size,
        most_gathered: config.queue_size.max(1 << 20),
        uploads,
        waiting: telemetry.gauge(names::CAPTURE_WAITING, &[]),
        lag: telemetry.gauge(names::CAPTURE_LAG, &[]),
        panics: telemetry.counter(names::PANICS, &[("where", "capture")]),
        lost: dropped("disk"),
        no_room: dropped("spool"),
        errors: telemetry.counter(names::CAPTURE_ERRORS, &[]),
        retained: Instant::now(),
        complained: None,
    };
    let is_ended = Arc::clone(&ended);
    let thread = std::thread::Builder::new().name("capture".to_owned()).spawn(move || {
        begin();
        while !is_ended.load(Ordering::Acquire) {
            let n_taken = worker.guarded();
            std::thread::park_timeout(if n_taken >= MUCH { BREATH } else { REST });
        }
        worker.guarded();
        worker.end();
    })?;
    Ok((capture, Thread { ended, thread, uploads: upload_thread }))
}

struct Worker {
    inner: Arc<Inner>,
    telemetry: Arc<Telemetry>,
    process: Process,
    streams: Vec<Stream>,
    /// Folders in which what was left behind is completed.
    recovered: Vec<PathBuf>,
    spool: PathBuf,
    spool_size: u64,
    /// Bytes that are gathered for all versions, at most.
    most_gathered: usize,
    uploads: Arc<Uploads>,
    waiting: Gauge,
    lag: Gauge,
    panics: Counter,
    lost: Counter,
    no_room: Counter,
    errors: Counter,
    retained: Instant,
    complained: Option<Instant>,
}

impl Worker {
    /// One round; a panic costs the rows that are gathered, and nothing else.
    fn guarded(&mut self) -> usize {
        catch_unwind(AssertUnwindSafe(|| self.round())).unwrap_or_else(|_| {
            self.panics.increment(1);
            tracing::error!("recording panicked; the rows that were gathered are lost");
            self.streams.clear();
            0
        })
    }

    /// Returns how many requests there were.
    fn round(&mut self) -> usize {
        let inner = Arc::clone(&self.inner);
        self.waiting.set(inner.queues.len() as f64);
        let config = Arc::clone(&*inner.config.lock().unwrap_or_else(PoisonError::into_inner));
        let mut newest = 0;
        let n_taken = inner.queues.drain(|waiting| match waiting {
            Waiting::Block(block) => {
                block.each(|subject, taken| {
                    newest = newest.max(taken.at);
                    self.take(subject, taken, &config);
                });
                // A round may be long where this thread gets little of the machine.
                self.tick();
            }
            Waiting::Large(large) => {
                let taken = large.taken();
                newest = newest.max(taken.at);
                self.take(&large.subject, &taken, &config);
            }
        });
        self.tick();
        // A version that is gone has its file completed.
        for at in (0..self.streams.len()).rev() {
            if Arc::strong_count(&self.streams[at].subject) == 1 {
                self.with(at, Stream::close);
                if self.streams[at].is_idle() {
                    self.streams.swap_remove(at);
                }
            }
        }
        if self.retained.elapsed() >= RETAIN {
            self.retain();
        }
        let behind = if newest == 0 { 0 } else { now_ms().saturating_sub(newest) };
        self.lag.set(behind as f64 / 1e3);
        inner.cpu_ns.store(thread_cpu_ns(), Ordering::Relaxed);
        n_taken
    }

    /// What time alone asks for.
    fn tick(&mut self) {
        for at in 0..self.streams.len() {
            self.with(at, |stream, process, progress| stream.tick(process, progress));
        }
    }

    fn take(&mut self, subject: &Arc<Subject>, taken: &Taken<'_>, config: &str) {
        let is_it = |stream: &Stream| Arc::ptr_eq(&stream.subject, subject);
        let at = match self.streams.iter().position(is_it) {
            Some(at) => at,
            None => {
                let root = self.root(subject);
                self.streams.push(Stream::new(Arc::clone(subject), root));
                self.streams.len() - 1
            }
        };
        if subject.settings.is_remote() && self.uploads.bytes() >= self.spool_size {
            self.no_room.increment(1);
            return;
        }
        self.with(at, |stream, process, progress| stream.take(taken, config, process, progress));
        // Many versions must not take more together than the settings allow.
        if self.streams.len() > 1
            && self.streams.iter().map(Stream::bytes).sum::<usize>() > self.most_gathered
        {
            let sizes = self.streams.iter().map(Stream::bytes).enumerate();
            if let Some((at, _)) = sizes.max_by_key(|(_, bytes)| *bytes) {
                self.with(at, Stream::flush);
            }
        }
    }

    /// The folder that a version's files go to. What another process left there is completed.
    fn root(&mut self, subject: &Subject) -> PathBuf {
        let settings = &subject.settings;
        let root = match settings.is_remote() {
            false => subject.about.folder.join(&settings.to),
            true => {
                let root = store::spool_of(&self.spool, &settings.to);
                self.uploads.add(&settings.to, &root);
                root
            }
        };
        if !self.recovered.contains(&root) {
            let (whole, errors) = folder::recover(&root);
            if !whole.is_empty() {
                tracing::info!(
                    folder = %root.display(),
                    files = whole.len(),
                    "files that a process left behind are completed"
                );
            }
            errors.iter().for_each(|error| self.complain(&root, error));
            self.recovered.push(root.clone());
        }
        root
    }

    /// Has a stream do something, and counts what it did.
    fn with(&mut self, at: usize, work: impl FnOnce(&mut Stream, &Process, &mut Progress)) {
        let mut progress = Progress::default();
        work(&mut self.streams[at], &self.process, &mut progress);
        let Progress { rows, bytes, lost, closed, errors } = progress;
        if rows > 0 || bytes > 0 || !closed.is_empty() {
            let model = self.streams[at].subject.about.model.clone();
            let count = |metric, amount| {
                self.telemetry.counter(metric, &[("model", &model)]).increment(amount);
            };
            count(names::CAPTURED_ROWS, rows);
            count(names::CAPTURED_BYTES, bytes);
            count(names::CAPTURED_FILES, closed.len() as u64);
        }
        if lost > 0 {
            self.lost.increment(lost);
        }
        if !closed.is_empty() && self.streams[at].subject.settings.is_remote() {
            self.uploads.closed(closed.iter().map(|closed| closed.bytes).sum());
        } else if !closed.is_empty() {
            self.retain_one(at);
        }
        if !errors.is_empty() {
            let root = self.streams[at].root().to_owned();
            errors.iter().for_each(|error| self.complain(&root, error));
        }
    }

    fn retain(&mut self) {
        (0..self.streams.len()).for_each(|at| self.retain_one(at));
        self.retained = Instant::now();
    }

    fn retain_one(&self, at: usize) {
        let Subject { about, settings, .. } = &*self.streams[at].subject;
        let (keep_time, keep_size) = (settings.keep_time, settings.keep_size);
        if settings.is_remote() || keep_time.is_none() && keep_size.is_none() {
            return;
        }
        let root = self.streams[at].root();
        let n = folder::retain(root, &about.model, keep_time, keep_size, SystemTime::now());
        if n > 0 {
            let labels = [("model", about.model.as_str())];
            self.telemetry.counter(names::CAPTURE_REMOVED, &labels).increment(n as u64);
        }
    }

    fn complain(&mut self, root: &Path, error: &std::io::Error) {
        self.errors.increment(1);
        if self.complained.is_none_or(|last| last.elapsed() >= COMPLAIN) {
            self.complained = Some(Instant::now());
            tracing::warn!(
                folder = %root.display(),
                %error,
                "predictions cannot be recorded; it is tried again, and what finds no room is counted as dropped"
            );
        }
    }

    fn end(&mut self) {
        for at in 0..self.streams.len() {
            self.with(at, Stream::end);
        }
        self.uploads.end();
    }
}

/// 128 random bits: no other run has them.
fn run_id() -> String {
    format!("{:032x}", fastrand::u128(..))
}

/// What the engine's kernels are chosen by.
#[must_use]
pub(super) fn cpu_features() -> String {
    #[cfg(target_arch = "x86_64")]
    let known = [
        ("sse4.2", std::arch::is_x86_feature_detected!("sse4.2")),
        ("avx", std::arch::is_x86_feature_detected!("avx")),
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("fma", std::arch::is_x86_feature_detected!("fma")),
        ("f16c", std::arch::is_x86_feature_detected!("f16c")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
        ("avx512vl", std::arch::is_x86_feature_detected!("avx512vl")),
        ("avx512bw", std::arch::is_x86_feature_detected!("avx512bw")),
        ("avx512vnni", std::arch::is_x86_feature_detected!("avx512vnni")),
    ];
    #[cfg(target_arch = "aarch64")]
    let known = [
        ("neon", std::arch::is_aarch64_feature_detected!("neon")),
        ("fp16", std::arch::is_aarch64_feature_detected!("fp16")),
        ("dotprod", std::arch::is_aarch64_feature_detected!("dotprod")),
        ("sve", std::arch::is_aarch64_feature_detected!("sve")),
    ];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let known: [(&str, bool); 0] = [];
    let features = known.iter().filter(|(_, has)| *has).map(|(name, _)| *name);
    let features: Vec<&str> = std::iter::once(std::env::consts::ARCH).chain(features).collect();
    features.join(" ")
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// CPU time of the calling thread.
fn thread_cpu_ns() -> u64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let nanos = |seconds: i64, nanos: i64| seconds.checked_mul(1_000_000_000)?.checked_add(nanos);
    nanos(used.tv_sec, used.tv_nsec).and_then(|total| u64::try_from(total).ok()).unwrap_or_default()
}
