//! The threads that run candidates.
//!
//! They are few, and of a class that runs only while nothing else wants the core, where the system has
//! one. A run cannot be ended from outside: one that takes too long keeps its thread, and another one
//! is started in its place, up to [`MOST_HANGING`]; beyond it other candidates wait as well.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use super::group::Group;
use super::judge::Judge;
use super::lane::Done;

/// Threads that may hang and have another one in their place.
const MOST_HANGING: usize = 16;

/// How long threads have to end.
const END_AT_MOST: Duration = Duration::from_secs(1);

/// How often it is looked whether they have.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Runs groups on threads of its own.
pub(super) struct Threads(Arc<Shared>);

struct Shared {
    line: Mutex<Line>,
    work: Condvar,
    /// Threads that do not hang.
    wanted: usize,
    prepare: fn(),
    judge: Arc<Judge>,
    done: UnboundedSender<Done>,
    is_over: AtomicBool,
}

#[derive(Default)]
struct Line {
    groups: VecDeque<Arc<Group>>,
    threads: usize,
    /// Of these, threads whose group was given up.
    hanging: usize,
    /// Numbers that threads have been given.
    named: usize,
}

impl Threads {
    /// Starts `wanted` threads, each of which runs `prepare` first. `done` is told of each group.
    pub(super) fn start(
        wanted: usize,
        prepare: fn(),
        judge: &Arc<Judge>,
        done: &UnboundedSender<Done>,
    ) -> std::io::Result<Self> {
        let shared = Shared {
            line: Mutex::default(),
            work: Condvar::new(),
            wanted: wanted.max(1),
            prepare,
            judge: Arc::clone(judge),
            done: done.clone(),
            is_over: AtomicBool::new(false),
        };
        let threads = Self(Arc::new(shared));
        let mut line = threads.0.line();
        for _ in 0..threads.0.wanted {
            threads.start_one(&mut line)?;
        }
        drop(line);
        Ok(threads)
    }

    fn start_one(&self, line: &mut Line) -> std::io::Result<()> {
        let shared = Arc::clone(&self.0);
        let name = format!("shadow-{}", line.named);
        std::thread::Builder::new().name(name).spawn(move || {
            (shared.prepare)();
            shared.work();
        })?;
        line.named += 1;
        line.threads += 1;
        Ok(())
    }

    pub(super) fn submit(&self, group: Arc<Group>) {
        self.0.line().groups.push_back(group);
        self.0.work.notify_one();
    }

    /// Waits for a group no longer, and starts another thread in the place of the one that runs it.
    pub(super) fn give_up(&self, group: &Group) {
        let mut line = self.0.line();
        let Some(given_up) = group.give_up() else { return };
        line.hanging += 1;
        if line.threads - line.hanging < self.0.wanted
            && line.hanging <= MOST_HANGING
            && let Err(error) = self.start_one(&mut line)
        {
            tracing::warn!(%error, "no thread in the place of one whose shadow hangs");
        }
        drop(line);
        group.judge_given_up(given_up, &self.0.judge);
    }

    /// Ends the threads that do not hang. What waits does not run.
    pub(super) fn end(&self) {
        let deadline = Instant::now() + END_AT_MOST;
        let mut line = self.0.line();
        self.0.is_over.store(true, Ordering::Relaxed);
        self.0.work.notify_all();
        while line.threads > line.hanging && Instant::now() < deadline {
            let waited = self.0.work.wait_timeout(line, LOOK_EVERY);
            line = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Shared {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Runs groups until there is no need of this thread.
    fn work(&self) {
        while let Some(group) = self.next() {
            group.run(&self.judge, || self.is_over());
            let is_needed = self.is_needed_after(&group);
            // Nobody to tell when the shadows' thread has ended.
            let _ = self.done.send(Done::Ran(group));
            if !is_needed {
                return;
            }
        }
    }

    fn next(&self) -> Option<Arc<Group>> {
        let mut line = self.line();
        loop {
            if self.is_over() {
                line.threads -= 1;
                return None;
            }
            if let Some(group) = line.groups.pop_front() {
                return Some(group);
            }
            line = self.work.wait(line).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether there are too few threads without this one, which has come back from `group`.
    fn is_needed_after(&self, group: &Group) -> bool {
        if !group.is_given_up() {
            return true;
        }
        let mut line = self.line();
        line.hanging -= 1;
        let is_needed = line.threads - line.hanging <= self.wanted;
        line.threads -= usize::from(!is_needed);
        is_needed
    }
}
