//! The shadows' thread: hands copies to their candidates, and compares what comes back.
//!
//! It looks for copies by itself, so that offering wakes nobody. Its own work is gathering and
//! comparing; models run on the pool, and other servers are waited for without a thread.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::LocalSet;

use super::comparisons::{Comparisons, NewPair, Running};
use super::copy::{Answer, Copy, Room};
use super::lane::{Done, Ended, Entry, Lane, Times, To};
use super::{Disagreed, Inner, Shadows, render};
use crate::config::Shadowing;
use crate::error::Code;
use crate::observe::{Monitors, Offered};
use crate::registry::{Copies, Protocol, Registry, Version};
use crate::telemetry::{Counter, Gauge, Telemetry, names};
use crate::traffic::comparison::{Compared, Side};

/// How long the thread rests where there was nothing to do.
const REST: Duration = Duration::from_millis(20);

/// How long it rests where there was something.
const BREATH: Duration = Duration::from_millis(1);

/// Copies that are taken from the queue at once.
const BITE: usize = 1024;

/// Models whose candidates are remembered, at most; then they are looked up anew.
const MOST_ROUTES: usize = 256;

/// The shadows' thread, to be ended with [`ShadowThread::end`].
#[derive(Debug)]
pub struct ShadowThread {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl ShadowThread {
    /// Has the thread end. What waits for a shadow is dropped.
    #[must_use]
    pub fn end(self) -> JoinHandle<()> {
        self.ended.store(true, Ordering::Release);
        self.thread
    }
}

/// Starts the shadows' thread. `prepare` runs on it first.
pub fn start(
    registry: &Registry,
    monitors: Monitors,
    telemetry: &Arc<Telemetry>,
    limits: Shadowing,
    prepare: impl FnOnce() + Send + 'static,
) -> std::io::Result<(Shadows, ShadowThread)> {
    let shadows = Shadows(Arc::new(Inner {
        queue: ArrayQueue::new(limits.queue),
        room: Arc::new(Room::new(limits.queue, limits.queue_size)),
        comparisons: Comparisons::default(),
        told: OnceLock::new(),
        registry: registry.clone(),
    }));
    let shown = Arc::downgrade(&shadows.0);
    telemetry.add_collector(move |out| {
        if let Some(inner) = shown.upgrade() {
            render::comparisons(&inner.comparisons.reports(), out);
            render::shares(&inner.registry.live(), out);
        }
    });
    let waiting = telemetry.gauge(names::COPIES_WAITING, &[]);
    let panics = telemetry.counter(names::PANICS, &[("where", "shadow")]);
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    let ended = Arc::new(AtomicBool::new(false));
    let is_ended = Arc::clone(&ended);
    let inner = Arc::clone(&shadows.0);
    let thread = std::thread::Builder::new().name("shadow".to_owned()).spawn(move || {
        prepare();
        let (done, ends) = unbounded_channel();
        let worker = Worker {
            inner,
            monitors,
            limits,
            lanes: Vec::new(),
            places: HashMap::new(),
            routes: HashMap::new(),
            pairs: Vec::new(),
            done,
            waiting,
            panics,
        };
        LocalSet::new().block_on(&runtime, worker.run(ends, &is_ended));
        // What other servers have not answered is not waited for.
        runtime.shutdown_background();
    })?;
    Ok((shadows, ShadowThread { ended, thread }))
}

/// Where a model's copies go: lanes of its shadows, then of its remotes.
struct Route {
    /// Held, so that no other one can have its address; weakly, so that versions can go.
    copies: Weak<Copies>,
    shadows: Vec<usize>,
    remotes: Vec<usize>,
}

/// A lane's last pair, which nearly always is the next one's as well.
struct LastPair {
    primary: Weak<Version>,
    copies: Weak<Copies>,
    running: Arc<Running>,
}

struct Worker {
    inner: Arc<Inner>,
    monitors: Monitors,
    limits: Shadowing,
    lanes: Vec<Lane>,
    /// The lane of a candidate, by model and name.
    places: HashMap<(Arc<str>, String), usize>,
    /// By the address of the copies.
    routes: HashMap<usize, Route>,
    /// By lane.
    pairs: Vec<Option<LastPair>>,
    done: UnboundedSender<Done>,
    waiting: Gauge,
    panics: Counter,
}

impl Worker {
    async fn run(mut self, mut ends: UnboundedReceiver<Done>, is_ended: &AtomicBool) {
        while !is_ended.load(Ordering::Acquire) {
            let n_taken = self.gather();
            let limits = (self.limits.concurrency, self.limits.timeout);
            for (index, lane) in self.lanes.iter_mut().enumerate() {
                lane.dispatch(index, limits, &self.done);
            }
            self.waiting.set(self.inner.room.taken() as f64);
            let is_idle = n_taken == 0 && self.lanes.iter().all(Lane::is_idle);
            let rest = if is_idle { REST } else { BREATH };
            tokio::select! {
                Some(done) = ends.recv() => {
                    self.finish(done);
                    while let Ok(done) = ends.try_recv() {
                        self.finish(done);
                    }
                }
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    /// Takes copies from the queue to the lanes of their candidates. Returns how many there were.
    fn gather(&mut self) -> usize {
        let mut n_taken = 0;
        while n_taken < BITE
            && let Some(copy) = self.inner.queue.pop()
        {
            n_taken += 1;
            let route = self.route(&copy);
            let takes = |below: Option<u64>| below.is_none_or(|below| copy.hash < below);
            let Copies { shadows, remotes, .. } = &*copy.copies;
            let of_shadows = route.shadows.iter().zip(shadows).enumerate();
            let of_shadows = of_shadows
                .filter_map(|(at, (&lane, s))| takes(s.below).then_some((lane, To::Shadow(at))));
            let of_remotes = route.remotes.iter().zip(remotes).enumerate();
            let of_remotes = of_remotes
                .filter_map(|(at, (&lane, r))| takes(r.below).then_some((lane, To::Remote(at))));
            let wanted: smallvec::SmallVec<[(usize, To); 4]> =
                of_shadows.chain(of_remotes).collect();
            // No candidate takes the room of all.
            let most = (self.inner.room.most() / self.lanes.len().max(1)).max(1);
            for (lane, to) in wanted {
                let entry = Entry { copy: Arc::clone(&copy), to };
                if let Err(entry) = self.lanes[lane].push(entry, most) {
                    dropped(&entry);
                }
            }
        }
        n_taken
    }

    fn route(&mut self, copy: &Copy) -> &Route {
        let address = Arc::as_ptr(&copy.copies) as usize;
        if self.routes.len() >= MOST_ROUTES && !self.routes.contains_key(&address) {
            self.routes.retain(|_, route| route.copies.strong_count() > 0);
        }
        let (places, lanes, pairs) = (&mut self.places, &mut self.lanes, &mut self.pairs);
        self.routes.entry(address).or_insert_with(|| {
            let model = &copy.primary.model;
            let mut lane = |name: String| {
                *places.entry((Arc::clone(model), name)).or_insert_with(|| {
                    lanes.push(Lane::default());
                    pairs.push(None);
                    lanes.len() - 1
                })
            };
            let Copies { shadows, remotes, .. } = &*copy.copies;
            let shadows = shadows.iter().map(|s| lane(s.version.number_text.clone())).collect();
            let remotes = remotes.iter().map(|remote| lane(remote.name(model))).collect();
            Route { copies: Arc::downgrade(&copy.copies), shadows, remotes }
        })
    }

    /// Compares what came back. A panic loses these comparisons and nothing else.
    fn finish(&mut self, done: Done) {
        let Done { lane, runs, frees } = done;
        if frees {
            self.lanes[lane].free();
        }
        for (entry, ended) in runs {
            let outcome = catch_unwind(AssertUnwindSafe(|| self.compare(lane, &entry, &ended)));
            if outcome.is_err() {
                self.panics.increment(1);
                self.pairs[lane] = None;
            }
        }
    }

    fn compare(&mut self, lane: usize, entry: &Entry, ended: &Ended) {
        let copy = &entry.copy;
        let metrics = &copy.copies.metrics;
        match ended {
            Ended::Answered(..) => metrics.compared.increment(1),
            Ended::Failed(..) => metrics.failed.increment(1),
            Ended::TimedOut => metrics.timed_out.increment(1),
            Ended::Unrun => return dropped(entry),
        }
        let times = match ended {
            Ended::Answered(_, times, _) => *times,
            _ => Times::default(),
        };
        let primary = match &copy.answer {
            Ok(Answer { outputs, .. }) => Side::Answered(outputs, times.primary),
            Err(reason) => Side::Failed(reason),
        };
        let candidate = match ended {
            Ended::Answered(outputs, ..) => Side::Answered(outputs, times.candidate),
            Ended::Failed(_, reason) => Side::Failed(reason),
            Ended::TimedOut | Ended::Unrun => Side::TimedOut,
        };
        let running = self.running(lane, entry);
        let outcome = running.take(&Compared {
            id: &copy.id,
            segment: copy.segment.as_deref(),
            at: copy.at,
            inputs: &copy.inputs,
            primary,
            candidate,
        });
        if outcome.disagrees {
            self.tell(entry, ended);
        }
        self.count(entry, ended);
    }

    /// The comparison that a copy belongs to.
    fn running(&mut self, lane: usize, entry: &Entry) -> Arc<Running> {
        let Copy { copies, primary, .. } = &*entry.copy;
        if let Some(last) = &self.pairs[lane]
            && std::ptr::eq(last.primary.as_ptr(), Arc::as_ptr(primary))
            && std::ptr::eq(last.copies.as_ptr(), Arc::as_ptr(copies))
        {
            return Arc::clone(&last.running);
        }
        let name = name(entry);
        let (candidate_digest, measure, dropped) = match entry.to {
            To::Shadow(at) => {
                let shadow = &copies.shadows[at];
                (shadow.version.loaded.digest.as_str(), "engine", &shadow.dropped)
            }
            To::Remote(at) => ("", "request", &copies.remotes[at].dropped),
        };
        let running = self.inner.comparisons.running(&NewPair {
            primary,
            candidate: &name,
            candidate_digest,
            settings: &copies.comparison,
            score: copies.score.as_deref(),
            measure,
            dropped,
        });
        self.pairs[lane] = Some(LastPair {
            primary: Arc::downgrade(primary),
            copies: Arc::downgrade(copies),
            running: Arc::clone(&running),
        });
        running
    }

    fn tell(&self, entry: &Entry, ended: &Ended) {
        let Some(told) = self.inner.told.get() else { return };
        let copy = &entry.copy;
        told(&Disagreed {
            primary: &copy.primary,
            candidate: &name(entry),
            candidate_version: entry.shadow().map(|shadow| &shadow.version),
            id: &copy.id,
            segment: copy.segment.as_deref(),
            at: copy.at,
            inputs: &copy.inputs,
            primary_outputs: copy.answer.as_ref().ok().map(|answer| answer.outputs.as_slice()),
            candidate_outputs: match ended {
                Ended::Answered(outputs, ..) => Some(outputs),
                _ => None,
            },
        });
    }

    /// Has a shadow's run counted and watched as its own.
    fn count(&self, entry: &Entry, ended: &Ended) {
        let Some(shadow) = entry.shadow() else { return };
        let (copy, version) = (&entry.copy, &shadow.version);
        let (outputs, timings) = match ended {
            Ended::Answered(outputs, _, timings) => (outputs, timings),
            Ended::Failed(code, _) => return shadow.metrics.ended(Protocol::Copy, *code),
            Ended::TimedOut => {
                return shadow.metrics.ended(Protocol::Copy, Code::DeadlineExceeded);
            }
            Ended::Unrun => return,
        };
        let rows = copy.rows();
        shadow.metrics.ended(Protocol::Copy, Code::Ok);
        shadow.metrics.answered(rows, timings);
        version.statistics.answered(rows, timings);
        if let Some(recorder) = version.recorder.as_ref().filter(|r| r.takes(&copy.id)) {
            self.monitors.offer(Offered {
                recorder,
                id: &copy.id,
                segment: copy.segment.as_deref(),
                at: copy.at,
                inputs: copy.inputs.clone(),
                outputs: outputs.clone(),
            });
        }
    }
}

/// Counts a copy that did not run.
fn dropped(entry: &Entry) {
    let copies = &entry.copy.copies;
    copies.metrics.dropped.increment(1);
    let of_pair = match entry.to {
        To::Shadow(at) => copies.shadows.get(at).map(|shadow| &shadow.dropped),
        To::Remote(at) => copies.remotes.get(at).map(|remote| &remote.dropped),
    };
    if let Some(of_pair) = of_pair {
        of_pair.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the candidate is called.
fn name(entry: &Entry) -> String {
    let copies = &entry.copy.copies;
    match entry.to {
        To::Shadow(at) => {
            copies.shadows.get(at).map(|s| s.version.number_text.clone()).unwrap_or_default()
        }
        To::Remote(at) => {
            let model = &entry.copy.primary.model;
            copies.remotes.get(at).map(|remote| remote.name(model)).unwrap_or_default()
        }
    }
}
