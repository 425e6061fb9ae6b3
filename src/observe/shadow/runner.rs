//! The shadows' thread: hands copies to their candidates.
//!
//! It looks for copies by itself, so that offering wakes nobody. Models run on other threads
//! ([`super::threads`]), and other servers are waited for without one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::LocalSet;

use super::comparisons::Comparisons;
use super::copy::{Copy, Origin, Room};
use super::judge::{self, Judge};
use super::lane::{Done, Entry, Lane, To};
use super::threads::Threads;
use super::{Inner, Shadows, render};
use crate::config::Shadowing;
use crate::handoff::{Queues, Waiting};
use crate::observe::Monitors;
use crate::registry::{Copies, Registry};
use crate::telemetry::{Gauge, Telemetry, names};

/// How long the thread rests where there was nothing to do.
const REST: Duration = Duration::from_millis(20);

/// How long it rests where there was something.
const BREATH: Duration = Duration::from_millis(1);

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

/// Starts the shadows' threads: one that gathers, and `n_threads` that run candidates. `prepare` runs
/// on each of them first.
pub fn start(
    registry: &Registry,
    monitors: Monitors,
    telemetry: &Arc<Telemetry>,
    limits: Shadowing,
    n_threads: usize,
    prepare: fn(),
) -> std::io::Result<(Shadows, ShadowThread)> {
    let shadows = Shadows(Arc::new(Inner {
        queues: Queues::bounded_outside(limits.queue),
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
    let panics = telemetry.counter(names::PANICS, &[("where", "shadow")]);
    let inner = Arc::clone(&shadows.0);
    let judge = Arc::new(Judge::new(Arc::clone(&inner), monitors, panics));
    let (done, ends) = unbounded_channel();
    let worker = Worker {
        threads: Threads::start(n_threads, prepare, &judge, &done)?,
        inner,
        judge,
        limits,
        lanes: Vec::new(),
        places: HashMap::new(),
        routes: HashMap::new(),
        done,
        waiting: telemetry.gauge(names::COPIES_WAITING, &[]),
    };
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    let ended = Arc::new(AtomicBool::new(false));
    let is_ended = Arc::clone(&ended);
    let thread = std::thread::Builder::new().name("shadow".to_owned()).spawn(move || {
        prepare();
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

struct Worker {
    inner: Arc<Inner>,
    judge: Arc<Judge>,
    threads: Threads,
    limits: Shadowing,
    lanes: Vec<Lane>,
    /// The lane of a candidate, by model and name.
    places: HashMap<(Arc<str>, String), usize>,
    /// By the address of the copies.
    routes: HashMap<usize, Route>,
    done: UnboundedSender<Done>,
    waiting: Gauge,
}

impl Worker {
    async fn run(mut self, mut ends: UnboundedReceiver<Done>, is_ended: &AtomicBool) {
        let mut rest = REST;
        while !is_ended.load(Ordering::Acquire) {
            tokio::select! {
                Some(done) = ends.recv() => {
                    self.finish(done);
                    while let Ok(done) = ends.try_recv() {
                        self.finish(done);
                    }
                }
                () = tokio::time::sleep(rest) => {}
            }
            let n_taken = self.gather();
            for lane in &self.lanes {
                lane.give_up(self.limits.timeout, &self.threads);
            }
            self.dispatch();
            self.waiting.set(self.inner.room.taken() as f64);
            rest = if n_taken == 0 { REST } else { BREATH };
        }
        self.threads.end();
    }

    fn dispatch(&mut self) {
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            lane.dispatch(index, self.limits.concurrency, &self.threads, &self.done);
        }
    }

    /// Takes copies from the queue to the lanes of their candidates. Returns how many there were.
    fn gather(&mut self) -> usize {
        let inner = Arc::clone(&self.inner);
        let mut n_large = 0;
        let n_taken = inner.queues.drain(|waiting| match waiting {
            Waiting::Block(block) => block.each(&inner.room, |copy| self.take(copy)),
            Waiting::Large(large) => {
                n_large += 1;
                self.take(large.open(&inner.room));
            }
        });
        if n_large == 0 {
            inner.room.spent.drop_all();
        }
        n_taken
    }

    fn take(&mut self, copy: Copy) {
        let copy = Arc::new(copy);
        let route = self.route(&copy.origin);
        let takes = |below: Option<u64>| below.is_none_or(|below| copy.hash < below);
        let Copies { shadows, remotes, .. } = &*copy.origin.copies;
        let of_shadows = route.shadows.iter().zip(shadows).enumerate();
        let of_shadows = of_shadows
            .filter_map(|(at, (&lane, s))| takes(s.below).then_some((lane, To::Shadow(at))));
        let of_remotes = route.remotes.iter().zip(remotes).enumerate();
        let of_remotes = of_remotes
            .filter_map(|(at, (&lane, r))| takes(r.below).then_some((lane, To::Remote(at))));
        let wanted: SmallVec<[(usize, To); 4]> = of_shadows.chain(of_remotes).collect();
        // No candidate takes the room of all.
        let most = (self.inner.room.most() / self.lanes.len().max(1)).max(1);
        for (lane, to) in wanted {
            let entry = Entry { copy: Arc::clone(&copy), to };
            if let Err(entry) = self.lanes[lane].push(entry, most) {
                judge::dropped(&entry);
            }
        }
    }

    fn route(&mut self, origin: &Origin) -> &Route {
        let address = Arc::as_ptr(&origin.copies) as usize;
        if self.routes.len() >= MOST_ROUTES && !self.routes.contains_key(&address) {
            self.routes.retain(|_, route| route.copies.strong_count() > 0);
        }
        let (places, lanes) = (&mut self.places, &mut self.lanes);
        self.routes.entry(address).or_insert_with(|| {
            let model = &origin.primary.model;
            let mut lane = |name: String| {
                *places.entry((Arc::clone(model), name)).or_insert_with(|| {
                    lanes.push(Lane::default());
                    lanes.len() - 1
                })
            };
            let Copies { shadows, remotes, .. } = &*origin.copies;
            let shadows = shadows.iter().map(|s| lane(s.version.number_text.clone())).collect();
            let remotes = remotes.iter().map(|remote| lane(remote.name(model))).collect();
            Route { copies: Arc::downgrade(&origin.copies), shadows, remotes }
        })
    }

    fn finish(&mut self, done: Done) {
        match done {
            Done::Ran(group) => self.lanes[group.lane].ran(&group),
            Done::Asked { lane, entry, ended } => {
                let lane = &mut self.lanes[lane];
                lane.asked();
                self.judge.judge(&lane.last_pair, &entry, &ended);
            }
        }
    }
}
