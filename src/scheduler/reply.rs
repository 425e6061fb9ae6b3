//! Telling callers how their requests ended.
//!
//! A runtime that sleeps is woken by a write to its event file, once for each task that another thread
//! wakes. A batch answers many tasks of the same runtime at once, so that these are woken by a task of
//! their own: one write for all of them.

use std::thread::{self, ThreadId};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::{ExecuteError, Execution};

/// Where an outcome goes.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) outcome: oneshot::Sender<Result<Execution, ExecuteError>>,
    /// The thread and the runtime of the caller, where it has one.
    pub(super) home: Option<(ThreadId, Handle)>,
}

impl Reply {
    /// Whether nobody waits any longer.
    pub(super) fn is_closed(&self) -> bool {
        self.outcome.is_closed()
    }

    pub(super) fn send(self, outcome: Result<Execution, ExecuteError>) {
        // Nobody to tell if the caller left meanwhile.
        drop(self.outcome.send(outcome));
    }

    fn is_at(&self, thread: ThreadId) -> bool {
        self.home.as_ref().is_some_and(|(own, _)| *own == thread)
    }
}

/// Sends each its outcome.
pub(super) fn send_all(mut replies: Vec<(Reply, Result<Execution, ExecuteError>)>) {
    let own = thread::current().id();
    while let Some((reply, outcome)) = replies.pop() {
        if reply.is_at(own) {
            // It is awake.
            reply.send(outcome);
            continue;
        }
        let Some((thread, runtime)) = reply.home.clone() else {
            reply.send(outcome);
            continue;
        };
        let mut together: Vec<_> =
            replies.extract_if(.., |(other, _)| other.is_at(thread)).collect();
        if together.is_empty() {
            reply.send(outcome);
            continue;
        }
        together.push((reply, outcome));
        // A runtime that has ended drops the task, which tells its callers that nothing comes.
        drop(runtime.spawn(async move {
            together.into_iter().for_each(|(reply, outcome)| reply.send(outcome));
        }));
    }
}
