//! The monitor's thread: takes observations, joins labels, makes ticks.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::monitors::{DROPPED, Inner, MOST_FEEDBACK, Monitors, OBSERVED};
use super::queue::Queues;
use crate::config;
use crate::monitor::Recorder;
use crate::monitor::verdict::{Event, State};
use crate::registry::Registry;
use crate::telemetry::{Counter, Gauge, Sharded, Telemetry, names};

/// How often the thread looks. What waits in between is bounded by the queues.
const INTERVAL: Duration = Duration::from_millis(25);

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

/// Starts the monitor's thread, which hands each change of state to `sink`. `prepare` runs on it
/// first.
pub fn start(
    registry: Registry,
    telemetry: &Arc<Telemetry>,
    limits: &config::Observe,
    prepare: impl FnOnce() + Send + 'static,
    sink: impl Fn(&Event) + Send + 'static,
) -> std::io::Result<(Monitors, Thread)> {
    let monitors = Monitors(Arc::new(Inner {
        queues: Queues::new(limits.queue, limits.queue_size),
        feedback: crossbeam_queue::ArrayQueue::new(MOST_FEEDBACK),
        counts: Sharded::default(),
        registry,
        events: Mutex::default(),
    }));
    let ended = Arc::new(AtomicBool::new(false));
    let mut worker = Worker { monitors: monitors.clone(), sink, figures: Figures::new(telemetry) };
    let is_ended = Arc::clone(&ended);
    let thread = std::thread::Builder::new().name("monitor".to_owned()).spawn(move || {
        prepare();
        while !is_ended.load(Ordering::Acquire) {
            worker.round();
            std::thread::park_timeout(INTERVAL);
        }
        worker.round();
    })?;
    Ok((monitors, Thread { ended, thread }))
}

struct Worker<S> {
    monitors: Monitors,
    sink: S,
    figures: Figures,
}

impl<S: Fn(&Event)> Worker<S> {
    fn round(&mut self) {
        let mut oldest = u64::MAX;
        let inner = Arc::clone(&self.monitors.0);
        inner.queues.drain(|observation| {
            oldest = oldest.min(observation.at);
            let super::Observation { recorder, id, segment, at, inputs, outputs } = observation;
            self.guarded(&recorder, |recorder| {
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
        for recorder in self.monitors.recorders() {
            let changes = self.guarded(&recorder, |recorder| recorder.tick(now));
            for event in self.monitors.record(changes.unwrap_or_default()) {
                log(&event);
                (self.sink)(&event);
            }
        }
        self.figures.lag.set(now.saturating_sub(oldest.min(now)) as f64 / 1e3);
        self.figures.publish(&self.monitors);
    }

    /// A panic ends the watching of that version, and nothing else.
    fn guarded<T>(&self, recorder: &Recorder, work: impl FnOnce(&Recorder) -> T) -> Option<T> {
        let outcome = catch_unwind(AssertUnwindSafe(|| work(recorder)));
        outcome
            .inspect_err(|_| {
                self.figures.panics.increment(1);
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

/// The thread's own metrics.
struct Figures {
    observed: Counter,
    dropped: Counter,
    waiting: Gauge,
    lag: Gauge,
    cpu: Gauge,
    panics: Counter,
}

impl Figures {
    fn new(telemetry: &Telemetry) -> Self {
        Self {
            observed: telemetry.counter(names::OBSERVED, &[]),
            dropped: telemetry.counter(names::OBSERVATIONS_DROPPED, &[]),
            waiting: telemetry.gauge(names::OBSERVATIONS_WAITING, &[]),
            lag: telemetry.gauge(names::MONITOR_LAG, &[]),
            cpu: telemetry.gauge(names::MONITOR_CPU, &[]),
            panics: telemetry.counter(names::PANICS, &[("where", "monitor")]),
        }
    }

    fn publish(&self, monitors: &Monitors) {
        let counts = monitors.0.counts.sums();
        self.observed.absolute(counts[OBSERVED]);
        self.dropped.absolute(counts[DROPPED]);
        self.waiting.set(monitors.0.queues.len() as f64);
        let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        self.cpu.set(used.tv_sec as f64 + used.tv_nsec as f64 / 1e9);
    }
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
