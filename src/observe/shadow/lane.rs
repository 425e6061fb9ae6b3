//! One candidate's copies: those that wait, and those that are being run.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use super::copy::Copy;
use super::group::Group;
use super::judge::LastPair;
use super::remote::{AskError, Endpoint};
use super::threads::Threads;
use crate::config::RemoteShadow;
use crate::error::Code;
use crate::registry::{Shadow, Timings};
use crate::tensor::Tensor;

/// Small models' copies go to a thread together, as many as take about this long: a hop to it costs
/// more than one of them.
const TOGETHER: Duration = Duration::from_millis(1);

/// Copies that go together, at most. Of groups of 16, 32 and 64 none was better for requests beyond the
/// noise of `load-tests/run shadow`; fewer are more hops.
const MOST_TOGETHER: usize = 64;

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
            To::Shadow(index) => self.copy.origin.copies.shadows.get(index),
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

/// What the shadows' thread is told of.
#[derive(Debug)]
pub(super) enum Done {
    /// A thread has come back from a group.
    Ran(Arc<Group>),
    /// A candidate on another server has answered, or has not.
    Asked { lane: usize, entry: Entry, ended: Ended },
}

/// A remote candidate's client, or why there is none, and the settings that it was made of.
type Made = (Arc<RemoteShadow>, Result<Arc<Endpoint>, String>);

/// One candidate's copies.
#[derive(Debug, Default)]
pub(super) struct Lane {
    waiting: VecDeque<Entry>,
    /// What its version runs, what it has hung on included.
    running: Vec<Arc<Group>>,
    /// Copies that are at the other server.
    asking: usize,
    pub(super) last_pair: Arc<LastPair>,
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

    /// A group's place is free again.
    pub(super) fn ran(&mut self, group: &Arc<Group>) {
        self.running.retain(|other| !Arc::ptr_eq(other, group));
    }

    /// A request's place is free again.
    pub(super) fn asked(&mut self) {
        self.asking = self.asking.saturating_sub(1);
    }

    /// Gives up what runs for too long. Its place is taken for as long as it runs: nothing can end it.
    pub(super) fn give_up(&self, timeout: Duration, threads: &Threads) {
        for group in self.running.iter().filter(|group| group.is_late(timeout)) {
            threads.give_up(group);
        }
    }

    /// Runs what may run now, `concurrency` at the same time. `done` is told of each end.
    pub(super) fn dispatch(
        &mut self,
        lane: usize,
        concurrency: usize,
        threads: &Threads,
        done: &UnboundedSender<Done>,
    ) {
        while let Some(first) = self.waiting.front() {
            match first.to {
                To::Shadow(_) if self.running.len() >= concurrency => return,
                To::Shadow(_) => {
                    let group = Arc::new(Group::new(lane, self.take_group(), &self.last_pair));
                    self.running.push(Arc::clone(&group));
                    threads.submit(group);
                }
                To::Remote(index) => {
                    let remote = first.copy.origin.copies.remotes.get(index);
                    if self.asking >= remote.map_or(1, |remote| remote.settings.concurrency) {
                        return;
                    }
                    let Some(entry) = self.waiting.pop_front() else { return };
                    self.asking += 1;
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
        let Some(remote) = copy.origin.copies.remotes.get(index) else {
            return Err("the candidate is gone".to_owned());
        };
        match &self.endpoint {
            Some((settings, endpoint)) if **settings == *remote.settings => endpoint.clone(),
            _ => {
                let endpoint = Endpoint::new(remote, &copy.origin.primary.model).map(Arc::new);
                self.endpoint = Some((Arc::clone(&remote.settings), endpoint.clone()));
                endpoint
            }
        }
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
    // Nobody to tell when the shadows' thread has ended.
    let _ = done.send(Done::Asked { lane, entry, ended });
}
