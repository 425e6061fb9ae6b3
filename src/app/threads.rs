//! How many threads, and of which kind.

use std::io;
use std::thread::{self, JoinHandle, available_parallelism};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

use crate::config::{Server, ThreadCount};
use crate::scheduler;

/// Ticks between two looks at sockets and timers while tasks are ready. A request whose model runs
/// inline is some 30 µs of work, 130 µs at most: 31 of them between looks keep a socket waiting
/// for about 1 ms, 4 ms at worst.
const EVENT_INTERVAL: u32 = 31;

/// How much less of a contended core a compute thread gets: a third of an I/O thread's share.
#[cfg(target_os = "linux")]
const COMPUTE_NICENESS: i32 = 5;

/// The monitor's: the least there is. On two saturated cores it dropped nothing so, and took 0.05
/// less of the requests a second than with a compute thread's (`load-tests/run monitor`).
const MONITOR_NICENESS: i32 = 19;

/// A shadow's, where it cannot have the class below.
const SHADOW_NICENESS: i32 = 19;

/// Numbers of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Threads {
    /// Runtimes that share out the data plane's connections: one for each I/O thread where nothing
    /// else is configured. Threads that share none of their work answered 1.14 times the requests
    /// a second of two that do, at a third of the latency's 99th percentile.
    pub(super) shards: usize,
    /// Threads of all of them.
    pub(super) io: usize,
    pub(super) compute: usize,
    /// Threads that run candidates: half of those, at least one.
    pub(super) shadows: usize,
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
        let io = count(server.io_threads, cores);
        let compute = count(server.compute_threads, compute);
        Self { shards: count(server.shards, io).min(io), io, compute, shadows: compute.div_ceil(2) }
    }
}

/// The data plane's runtimes.
#[derive(Debug)]
pub(super) struct Shards {
    handles: Vec<Handle>,
    running: Vec<Running>,
}

#[derive(Debug)]
enum Running {
    /// Workers that take tasks from each other.
    Workers(Runtime),
    /// One thread, which needs none of the machinery for that.
    Alone { end: oneshot::Sender<Duration>, thread: JoinHandle<()> },
}

impl Shards {
    /// Starts the runtimes, with the I/O threads shared out among them.
    pub(super) fn start(threads: Threads) -> io::Result<Self> {
        let Threads { shards, io, .. } = threads;
        let mut started = Self { handles: Vec::new(), running: Vec::new() };
        for shard in 0..shards {
            let n_threads = io / shards + usize::from(shard < io % shards);
            started.start_one(shard, n_threads)?;
        }
        Ok(started)
    }

    fn start_one(&mut self, shard: usize, n_threads: usize) -> io::Result<()> {
        let mut builder = match n_threads {
            1 => Builder::new_current_thread(),
            _ => Builder::new_multi_thread(),
        };
        let runtime = builder
            .worker_threads(n_threads)
            .thread_name("io")
            .event_interval(EVENT_INTERVAL)
            .on_thread_park(scheduler::io_thread_rests)
            .on_thread_unpark(scheduler::io_thread_wakes)
            .enable_io()
            .enable_time()
            .build()?;
        self.handles.push(runtime.handle().clone());
        self.running.push(match n_threads {
            1 => {
                let (end, ended) = oneshot::channel();
                let thread =
                    thread::Builder::new().name(format!("io-{shard}")).spawn(move || {
                        let limit = runtime.block_on(ended).unwrap_or_default();
                        runtime.shutdown_timeout(limit);
                    })?;
                Running::Alone { end, thread }
            }
            _ => Running::Workers(runtime),
        });
        Ok(())
    }

    /// Where connections can be served.
    pub(super) fn handles(&self) -> &[Handle] {
        &self.handles
    }

    /// Ends all tasks that wait, within `limit` or soon after.
    pub(super) fn shut_down(self, limit: Duration) {
        let ending = self.running.into_iter().filter_map(|running| match running {
            Running::Workers(runtime) => {
                runtime.shutdown_timeout(limit);
                None
            }
            // A thread that is gone already needs no end.
            Running::Alone { end, thread } => end.send(limit).is_ok().then_some(thread),
        });
        join(ending.collect::<Vec<_>>().into_iter(), limit);
    }
}

/// Lets I/O threads go first where both want the core: they decode, encode and run light models,
/// whose clients wait for microseconds, and compute threads run what takes milliseconds anyway.
pub(super) fn yield_to_io() {
    be_nice(COMPUTE_NICENESS);
}

/// Lets all others go first: watching takes what they leave.
pub(super) fn yield_to_all() {
    be_nice(MONITOR_NICENESS);
}

/// Takes only what nobody else wants, for which the system has a class of its own (`SCHED_IDLE`): a
/// thread that wakes takes the core from one of it at once. From one that is only nice it does not: on
/// two cores beside shadows as nice as can be the requests' 99th percentile was 1.6 times that without
/// them (`load-tests/run shadow`).
pub(super) fn take_what_is_left() {
    #[cfg(target_os = "linux")]
    match be_idle() {
        Ok(()) => return,
        Err(error) => tracing::debug!(%error, "the thread is only nice"),
    }
    be_nice(SHADOW_NICENESS);
}

/// Puts the calling thread into the class of those that run only while nothing else wants the core.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "no crate offers the system call")]
fn be_idle() -> io::Result<()> {
    let parameter = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel reads `parameter`, which lives longer than the call, and changes nothing but
    // how the calling thread (0) is scheduled. The C library's own function would fail with musl.
    let outcome = unsafe {
        libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_IDLE, &raw const parameter)
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn be_nice(niceness: i32) {
    #[cfg(target_os = "linux")]
    if let Err(error) =
        rustix::process::setpriority_process(Some(rustix::thread::gettid()), niceness)
    {
        tracing::debug!(%error, niceness, "the thread keeps the priority of I/O threads");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = niceness;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_thread_that_takes_what_is_left_is_in_the_class_for_that() {
        let policy = thread::spawn(|| {
            take_what_is_left();
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            // Behind the name, which stands in brackets, the 41st field is the 39th.
            let (_, fields) = stat.rsplit_once(") ").unwrap();
            fields.split(' ').nth(38).unwrap().to_owned()
        });
        assert_eq!(policy.join().unwrap(), libc::SCHED_IDLE.to_string());
    }
}
