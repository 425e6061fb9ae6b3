//! The monitor's thread: takes observations, joins labels, makes ticks.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::monitors::{Inner, MOST_FEEDBACK, Monitors, Told};
use super::queue::{Observation, Queues};
use crate::config;
use crate::monitor::times::now_ms;
use crate::monitor::verdict::{Event, State};
use crate::monitor::{Recorder, render};
use crate::registry::Registry;
use crate::telemetry::{Counter, Gauge, Sharded, Telemetry, names};

/// How long the thread rests where there was little to do.
const REST: Duration = Duration::from_millis(25);

/// How long it rests where there was much: it takes small bites, since one that holds a core for
/// milliseconds has requests wait.
const BREATH: Duration = Duration::from_millis(2);

/// Observations of a round that are much.
const MUCH: usize = 64;

/// The monitor's thread, to be ended with [`Thread::end`].
#[derive(Debug)]
pub struct Thread {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Thread {
    /// Has the thread take what waits, and end.
    #[must_use]
    pub fn end(self) -> JoinHandle<()> {
        self.ended.store(true, Ordering::Release);
        self.thread.thread().unpark();
        self.thread
    }
}

/// Starts the monitor's thread, which tells `outlet` what changed. `prepare` runs on it first.
pub fn start(
    registry: Registry,
    telemetry: &Arc<Telemetry>,
    limits: &config::Observe,
    prepare: impl FnOnce() + Send + 'static,
    outlet: impl Fn(Told) + Send + Sync + 'static,
) -> std::io::Result<(Monitors, Thread)> {
    let monitors = Monitors(Arc::new(Inner {
        queues: Queues::new(limits.queue, limits.queue_size),
        feedback: crossbeam_queue::ArrayQueue::new(MOST_FEEDBACK),
        counts: Sharded::default(),
        lag_ms: AtomicU64::new(0),
        cpu_ns: AtomicU64::new(0),
        registry,
        events: Mutex::default(),
        outlet: Box::new(outlet),
    }));
    let shown = Arc::downgrade(&monitors.0);
    telemetry.add_collector(move |out| {
        if let Some(inner) = shown.upgrade() {
            let monitors = Monitors(inner);
            render::render(&monitors.verdicts(), out);
            render::render_cells(&monitors.cells(), out);
            render::render_figures(&monitors.figures(), out);
        }
    });
    let ended = Arc::new(AtomicBool::new(false));
    let mut worker = Worker {
        monitors: monitors.clone(),
        telemetry: Arc::clone(telemetry),
        waiting: telemetry.gauge(names::OBSERVATIONS_WAITING, &[]),
        panics: telemetry.counter(names::PANICS, &[("where", "monitor")]),
        watched: Vec::new(),
    };
    let is_ended = Arc::clone(&ended);
    let thread = std::thread::Builder::new().name("monitor".to_owned()).spawn(move || {
        prepare();
        while !is_ended.load(Ordering::Acquire) {
            let n_taken = worker.round();
            std::thread::park_timeout(if n_taken >= MUCH { BREATH } else { REST });
        }
        worker.round();
    })?;
    Ok((monitors, Thread { ended, thread }))
}

struct Worker {
    monitors: Monitors,
    telemetry: Arc<Telemetry>,
    waiting: Gauge,
    panics: Counter,
    /// Whom the last round found watched.
    watched: Vec<(String, u64)>,
}

impl Worker {
    /// Returns how many observations there were.
    fn round(&mut self) -> usize {
        let mut oldest = u64::MAX;
        let inner = Arc::clone(&self.monitors.0);
        let n_taken = inner.queues.drain(|recorder, observation| {
            oldest = oldest.min(observation.at);
            let Observation { id, segment, at, inputs, outputs } = observation;
            self.guarded(recorder, |recorder| {
                recorder.observe(id, segment, at, &inputs, &outputs);
            });
        });
        let now = now_ms();
        while let Some(labelled) = inner.feedback.pop() {
            let super::monitors::Labelled { recorder, records, reply } = labelled;
            let counts = self.guarded(&recorder, |recorder| recorder.feedback(&records, now));
            // Whoever sent the labels may have gone; they are joined all the same.
            let _ = counts.map(|counts| reply.send(counts));
        }
        let recorders = self.monitors.recorders();
        for recorder in &recorders {
            let changes = self.guarded(recorder, |recorder| recorder.tick(now));
            for event in self.monitors.record(changes.unwrap_or_default()) {
                log(&event);
                render::count_event(&self.telemetry, &event);
                (inner.outlet)(Told::Changed(Box::new(event)));
            }
        }
        self.part_with_the_gone(&recorders);
        inner.lag_ms.store(now.saturating_sub(oldest.min(now)), Ordering::Relaxed);
        inner.cpu_ns.store(thread_cpu_ns(), Ordering::Relaxed);
        self.waiting.set(inner.queues.len() as f64);
        n_taken
    }

    /// Says of which versions nothing more will be heard.
    fn part_with_the_gone(&mut self, recorders: &[Arc<Recorder>]) {
        let is_same = |(model, version): &(String, u64), recorder: &Arc<Recorder>| {
            recorder.subject().model == *model && recorder.subject().version == *version
        };
        let is_watched = |known: &(String, u64)| recorders.iter().any(|r| is_same(known, r));
        if self.watched.len() == recorders.len() && self.watched.iter().all(is_watched) {
            return;
        }
        for (model, version) in self.watched.drain(..).filter(|known| !is_watched(known)) {
            let (segment, feature) = (None, None);
            (self.monitors.0.outlet)(Told::Over { model, version, segment, feature });
        }
        let subjects = recorders.iter().map(|recorder| recorder.subject());
        self.watched = subjects.map(|s| (s.model.clone(), s.version)).collect();
    }

    /// A panic ends the watching of that version, and nothing else.
    fn guarded<T>(&self, recorder: &Recorder, work: impl FnOnce(&Recorder) -> T) -> Option<T> {
        let outcome = catch_unwind(AssertUnwindSafe(|| work(recorder)));
        outcome
            .inspect_err(|_| {
                self.panics.increment(1);
                recorder.give_up("the monitor failed on it");
                let subject = recorder.subject();
                tracing::error!(
                    model = subject.model,
                    version = subject.version,
                    "the monitor panicked on this version, which is watched no more"
                );
            })
            .ok()
    }
}

fn log(event: &Event) {
    let Event { subject, feature, detector, from, to, evidence, text, .. } = event;
    let (from, to) = (from.name(), to.name());
    let feature = feature.as_deref();
    let segment = subject.segment.as_deref();
    match event.to {
        State::Drifted => tracing::warn!(
            model = subject.model,
            version = subject.version,
            segment,
            feature,
            detector,
            from,
            to,
            evidence,
            "{text}"
        ),
        _ => tracing::info!(
            model = subject.model,
            version = subject.version,
            segment,
            feature,
            detector,
            from,
            to,
            evidence,
            "{text}"
        ),
    }
}

/// CPU time of the calling thread.
pub(super) fn thread_cpu_ns() -> u64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let nanos = |seconds: i64, nanos: i64| seconds.checked_mul(1_000_000_000)?.checked_add(nanos);
    nanos(used.tv_sec, used.tv_nsec).and_then(|total| u64::try_from(total).ok()).unwrap_or_default()
}
