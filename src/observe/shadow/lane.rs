//! One candidate's copies: those that wait, and those that are being run.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use super::copy::Copy;
use super::remote::{AskError, Endpoint};
use crate::config::RemoteShadow;
use crate::error::{Code, Fault};
use crate::observe::thread::thread_cpu_ns;
use crate::registry::{Shadow, Timings};
use crate::stats::hash::scramble;
use crate::tensor::Tensor;

/// Small models' copies go to the pool together, as many as take about this long: a hop to it costs
/// more than one of them.
const TOGETHER: Duration = Duration::from_millis(1);

/// Copies that go together, at most.
const MOST_TOGETHER: usize = 64;

/// One in so many copies is timed on both sides.
const TIMED: u64 = 4;

/// How often a run that has not begun is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// A copy for one of its candidates.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) copy: Arc<Copy>,
    /// Which one of the copy's shadows, or of its remotes.
    pub(super) to: To,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum To {
    Shadow(usize),
    Remote(usize),
}

impl Entry {
    pub(super) fn shadow(&self) -> Option<&Shadow> {
        match self.to {
            To::Shadow(index) => self.copy.copies.shadows.get(index),
            To::Remote(_) => None,
        }
    }

    /// Whether it is for the same version as `other`.
    fn is_for_the_same(&self, other: &Self) -> bool {
        let pair = self.shadow().zip(other.shadow());
        pair.is_some_and(|(own, other)| Arc::ptr_eq(&own.version, &other.version))
    }
}

/// Times of both sides that can be compared.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Times {
    /// Nothing where the primary's time under the same conditions is not known.
    pub(super) primary: Option<Duration>,
    pub(super) candidate: Option<Duration>,
}

/// What became of a copy.
#[derive(Debug)]
pub(super) enum Ended {
    /// Outputs, the times to be compared, and where the candidate's went.
    Answered(Vec<Tensor>, Times, Timings),
    Failed(Code, String),
    TimedOut,
    /// It never ran: there was no room, or the server is going down.
    Unrun,
}

/// Copies that came to an end together.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) lane: usize,
    pub(super) runs: Vec<(Entry, Ended)>,
    /// Whether their place is free again.
    pub(super) frees: bool,
}

/// A remote candidate's client, or why there is none, and the settings that it was made of.
type Made = (Arc<RemoteShadow>, Result<Arc<Endpoint>, String>);

/// One candidate's copies.
#[derive(Debug, Default)]
pub(super) struct Lane {
    waiting: VecDeque<Entry>,
    running: usize,
    endpoint: Option<Made>,
}

impl Lane {
    /// Takes a copy, unless so many are waiting; then it comes back.
    pub(super) fn push(&mut self, entry: Entry, most: usize) -> Result<(), Entry> {
        if self.waiting.len() >= most {
            return Err(entry);
        }
        self.waiting.push_back(entry);
        Ok(())
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running == 0
    }

    /// A place is free again.
    pub(super) fn free(&mut self) {
        self.running = self.running.saturating_sub(1);
    }

    /// Runs what may run now. `done` is told of each end.
    pub(super) fn dispatch(
        &mut self,
        lane: usize,
        limits: (usize, Duration),
        done: &UnboundedSender<Done>,
    ) {
        let (concurrency, timeout) = limits;
        while let Some(first) = self.waiting.front() {
            let most = match first.to {
                To::Shadow(_) => concurrency,
                To::Remote(index) => {
                    let remote = first.copy.copies.remotes.get(index);
                    remote.map_or(1, |remote| remote.settings.concurrency)
                }
            };
            if self.running >= most {
                return;
            }
            self.running += 1;
            match first.to {
                To::Shadow(_) => {
                    let group = self.take_group();
                    drop(tokio::task::spawn_local(run_on_pool(lane, group, timeout, done.clone())));
                }
                To::Remote(index) => {
                    let Some(entry) = self.waiting.pop_front() else { return };
                    let endpoint = self.endpoint(&entry.copy, index);
                    drop(tokio::task::spawn_local(ask(lane, entry, endpoint, done.clone())));
                }
            }
        }
    }

    /// Copies for the same version that take about as long as is worth a hop; at least one.
    fn take_group(&mut self) -> Vec<Entry> {
        let mut group: Vec<Entry> = Vec::new();
        let mut expected = Duration::ZERO;
        while let Some(next) = self.waiting.front() {
            let fits = group.first().is_none_or(|first| first.is_for_the_same(next));
            if !fits || group.len() >= MOST_TOGETHER || expected >= TOGETHER {
                break;
            }
            let cost = next.shadow().map(|shadow| shadow.version.executor.expected_cost());
            let rows = u32::try_from(next.copy.rows()).unwrap_or(u32::MAX);
            expected += cost.unwrap_or_default().saturating_mul(rows);
            group.extend(self.waiting.pop_front());
        }
        group
    }

    /// The client of the remote candidate, made anew where its settings have changed.
    fn endpoint(&mut self, copy: &Copy, index: usize) -> Result<Arc<Endpoint>, String> {
        let Some(remote) = copy.copies.remotes.get(index) else {
            return Err("the candidate is gone".to_owned());
        };
        match &self.endpoint {
            Some((settings, endpoint)) if **settings == *remote.settings => endpoint.clone(),
            _ => {
                let endpoint = Endpoint::new(remote, &copy.primary.model).map(Arc::new);
                self.endpoint = Some((Arc::clone(&remote.settings), endpoint.clone()));
                endpoint
            }
        }
    }
}

/// Runs of a group, as far as they have come.
#[derive(Debug, Default)]
struct Progress {
    started: OnceLock<Instant>,
    abandoned: AtomicBool,
    ended: Mutex<Vec<Ended>>,
}

impl Progress {
    fn take(&self) -> Vec<Ended> {
        std::mem::take(&mut *self.ended.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs the group on the calling thread.
    fn run(&self, group: &[Entry]) {
        // It is set once: here.
        let _ = self.started.set(Instant::now());
        for entry in group {
            if self.abandoned.load(Ordering::Relaxed) {
                return;
            }
            let ended = entry.shadow().map_or(Ended::Unrun, |shadow| run_one(shadow, &entry.copy));
            self.ended.lock().unwrap_or_else(PoisonError::into_inner).push(ended);
        }
    }
}

/// Runs a copy; of some also the primary's run once more, so that both are timed on the same thread,
/// one right after the other: what a busy machine did to the client's own run says nothing of either
/// model.
fn run_one(shadow: &Shadow, copy: &Copy) -> Ended {
    let dice = scramble(copy.hash);
    let is_timed = dice.is_multiple_of(TIMED) && copy.answer.is_ok();
    // Whoever runs second finds the inputs in the cache.
    let is_primary_first = dice & (1 << 32) == 0;
    let rehearse = || {
        let (outcome, took) = timed(|| copy.primary.executor.rehearse(&copy.inputs));
        outcome.is_ok().then_some(took)
    };
    let mut primary = if is_timed && is_primary_first { rehearse() } else { None };
    let run = || shadow.version.executor.run_behind(&copy.inputs, copy.rows());
    let (outcome, took) = timed(run);
    let execution = match outcome {
        Ok(execution) => execution,
        Err(error) => return Ended::Failed(error.code(), error.to_string()),
    };
    if is_timed && !is_primary_first {
        primary = rehearse();
    }
    let computed = execution.computed;
    let timings = Timings { total: computed, compute: computed, ..Timings::default() };
    Ended::Answered(execution.outputs, Times { primary, candidate: Some(took) }, timings)
}

/// What `run` gives and the thread's own time that it took: a shadow yields to everybody, which is
/// not its model's fault.
fn timed<T>(run: impl FnOnce() -> T) -> (T, Duration) {
    let before = thread_cpu_ns();
    let outcome = run();
    (outcome, Duration::from_nanos(thread_cpu_ns().saturating_sub(before)))
}

/// Runs a group on the pool, behind all clients, and waits for it; not for ever.
async fn run_on_pool(
    lane: usize,
    group: Vec<Entry>,
    timeout: Duration,
    done: UnboundedSender<Done>,
) {
    let Some(executor) = group.first().and_then(Entry::shadow).map(|s| Arc::clone(&s.version))
    else {
        return;
    };
    let progress = Arc::new(Progress::default());
    let group: Arc<[Entry]> = group.into();
    let mut outcome = {
        let (progress, group) = (Arc::clone(&progress), Arc::clone(&group));
        executor.executor.run_aside_behind(move || progress.run(&group))
    };
    let is_late = loop {
        let started = progress.started.get().copied();
        let due = started.map_or_else(|| Instant::now() + LOOK, |started| started + timeout);
        tokio::select! {
            _ = &mut outcome => break false,
            () = tokio::time::sleep_until(due.into()) => {
                if started.is_some_and(|started| started.elapsed() >= timeout) {
                    break true;
                }
            }
        }
    };
    progress.abandoned.store(is_late, Ordering::Relaxed);
    let mut ended = progress.take();
    if is_late {
        ended.push(Ended::TimedOut);
    }
    let ended = ended.into_iter().chain(std::iter::repeat_with(|| Ended::Unrun));
    let runs = group.iter().cloned().zip(ended).collect();
    // Nobody to tell when the shadows' thread has ended.
    let _ = done.send(Done { lane, runs, frees: !is_late });
    if is_late {
        drop(group);
        // The place is taken for as long as the run is: nothing can end it.
        let _ = outcome.await;
        let _ = done.send(Done { lane, runs: Vec::new(), frees: true });
    }
}

/// Asks a candidate on another server.
async fn ask(
    lane: usize,
    entry: Entry,
    endpoint: Result<Arc<Endpoint>, String>,
    done: UnboundedSender<Done>,
) {
    let begun = Instant::now();
    let copy = &entry.copy;
    let ended = match endpoint {
        Ok(endpoint) => match endpoint.ask(copy).await {
            Ok(outputs) => {
                let took = begun.elapsed();
                let primary = copy.answer.as_ref().ok().map(|answer| answer.total);
                let times = Times { primary, candidate: Some(took) };
                Ended::Answered(outputs, times, Timings { total: took, ..Timings::default() })
            }
            Err(AskError::TimedOut) => Ended::TimedOut,
            Err(error @ AskError::Failed(_)) => Ended::Failed(Code::Unavailable, error.to_string()),
        },
        Err(reason) => Ended::Failed(Code::Unavailable, reason),
    };
    let _ = done.send(Done { lane, runs: vec![(entry, ended)], frees: true });
}
