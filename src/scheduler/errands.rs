//! Work for the pool that is no request's run: reading what is too long for an I/O thread, which goes
//! before all versions, and what no client waits for, which goes behind them.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::pool::{Class, Line, Pool, Queue};

/// Work of no version, for which an I/O thread has no time. Does not panic.
pub(super) type Errand = Box<dyn FnOnce() + Send>;

impl Pool {
    /// Runs `work` on a thread of the pool. The receiver yields what it gives or its panic, or nothing
    /// where the pool is closed.
    pub(super) fn run_errand<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> oneshot::Receiver<std::thread::Result<T>> {
        self.add_errand(work, |line| &mut line.errands)
    }

    /// The same of work that no client waits for, on the threads that are left for shadows.
    pub(super) fn run_errand_behind<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> oneshot::Receiver<std::thread::Result<T>> {
        self.add_errand(work, |line| &mut line.behind)
    }

    fn add_errand<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
        list: impl FnOnce(&mut Line) -> &mut VecDeque<Errand>,
    ) -> oneshot::Receiver<std::thread::Result<T>> {
        // What the work may leave half done is dropped with it.
        let work = move || std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        let (reply, outcome) = oneshot::channel();
        let mut line = self.shared.line();
        if !line.closed {
            // Nobody to tell if the caller left meanwhile.
            list(&mut line).push_back(Box::new(move || drop(reply.send(work()))));
            let wakes = line.idle > 0;
            drop(line);
            if wakes {
                self.shared.work.notify_one();
            }
        }
        outcome
    }
}

impl Line {
    /// Takes work that no client waits for, where there is some and a thread for it.
    pub(super) fn take_behind(&mut self, share: usize) -> Option<Errand> {
        let errand = if self.has_turn_behind(share) { self.behind.pop_front() } else { None };
        self.running[Class::Shadow as usize] += usize::from(errand.is_some());
        errand
    }

    pub(super) fn has_turn_behind(&self, share: usize) -> bool {
        let is_full =
            |queue: &Arc<Queue>| queue.class == Class::Primary && queue.waiting().running >= share;
        !self.behind.is_empty()
            && self.has_room_for_shadows(share)
            && !self.ready.iter().any(is_full)
    }
}
