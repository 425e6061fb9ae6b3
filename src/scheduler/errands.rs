//! Work for the pool that is no request's run: reading what is too long for an I/O thread, which goes
//! before all versions.

use tokio::sync::oneshot;

use super::pool::Pool;

/// Work of no version, for which an I/O thread has no time. Does not panic.
pub(super) type Errand = Box<dyn FnOnce() + Send>;

impl Pool {
    /// Runs `work` on a thread of the pool. The receiver yields what it gives or its panic, or nothing
    /// where the pool is closed.
    pub(super) fn run_errand<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> oneshot::Receiver<std::thread::Result<T>> {
        // What the work may leave half done is dropped with it.
        let work = move || std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        let (reply, outcome) = oneshot::channel();
        let mut line = self.shared.line();
        if !line.closed {
            // Nobody to tell if the caller left meanwhile.
            line.errands.push_back(Box::new(move || drop(reply.send(work()))));
            let wakes = line.idle > 0;
            drop(line);
            if wakes {
                self.shared.work.notify_one();
            }
        }
        outcome
    }
}
