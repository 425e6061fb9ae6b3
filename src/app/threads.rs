//! How many threads, and of which kind.

use std::io;
use std::thread::{JoinHandle, available_parallelism};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

use crate::config::{Server, ThreadCount};

/// Ticks between two looks at sockets and timers while tasks are ready. A request whose model runs
/// inline is some 30 µs of work, 130 µs at most: 31 of them between looks keep a socket waiting
/// for about 1 ms, 4 ms at worst.
const EVENT_INTERVAL: u32 = 31;

/// Numbers of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Threads {
    pub(super) io: usize,
    pub(super) compute: usize,
}

impl Threads {
    /// As configured, or by the cores that the process may use (affinity and cgroup quota
    /// included). I/O threads decode, encode and run small models, so there is one a core; the
    /// pool leaves them a core where there are enough.
    pub(super) fn of(server: &Server) -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        let compute = match cores {
            0..=3 => cores,
            4..=15 => cores - 1,
            _ => cores - 2,
        };
        let count = |wished, default| match wished {
            ThreadCount::Auto => default,
            ThreadCount::Fixed(count) => count,
        };
        Self {
            io: count(server.io_threads, cores),
            compute: count(server.compute_threads, compute),
        }
    }
}

/// The data plane's runtime.
pub(super) fn data_runtime(n_threads: usize) -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(n_threads)
        .thread_name("io")
        .event_interval(EVENT_INTERVAL)
        .enable_io()
        .enable_time()
        .build()
}

/// The admin plane's runtime: on the thread that started the process, so that it answers while
/// the data plane is saturated.
pub(super) fn admin_runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_io().enable_time().build()
}

/// Waits for threads to end, for `limit` at most; what has not ended by then ends with the
/// process.
pub(super) fn join(threads: impl Iterator<Item = JoinHandle<()>>, limit: Duration) {
    let deadline = Instant::now() + limit;
    for thread in threads {
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        if thread.is_finished() && thread.join().is_err() {
            tracing::error!("a thread ended in a panic");
        }
    }
}
