//! A connection's clock: when to look what its client does, and when the server drains.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Wake, Waker};
use std::time::Duration;

use tokio::sync::watch;

use crate::registry::Registry;

/// What a connection looks up for.
pub(super) enum Ring {
    /// The server drains.
    Drain,
    /// It is time to see what the client does.
    Tick { header_time: Duration, idle_time: Duration },
}

pub(super) async fn next_ring(
    registry: &Registry,
    drain: &mut watch::Receiver<bool>,
    draining: bool,
) -> Ring {
    let (header_time, idle_time, body_time) = {
        let table = registry.live();
        let limits = &table.config.limits;
        (limits.header_time, limits.idle_time, limits.body_time)
    };
    // `body` relies on being asked again within its time.
    let tick = header_time
        .min(idle_time)
        .min(body_time)
        .clamp(Duration::from_millis(20), Duration::from_secs(5));
    tokio::select! {
        biased;
        // An error means that the server is gone, which ends the connection too.
        _ = drain.wait_for(|drains| *drains), if !draining => Ring::Drain,
        () = tokio::time::sleep(tick / 2) => Ring::Tick { header_time, idle_time },
    }
}

/// Wakes a connection's task for its [`Ring`], and tells that from what comes over the socket: the
/// ring's timer and lock are not looked at for each request.
pub(super) struct Bell {
    task: Waker,
    rung: AtomicBool,
}

impl Bell {
    pub(super) async fn of_this_task() -> Arc<Self> {
        let task = std::future::poll_fn(|context| Poll::Ready(context.waker().clone())).await;
        Arc::new(Self { task, rung: AtomicBool::new(true) })
    }

    pub(super) fn ring(&self) {
        self.rung.store(true, Ordering::Release);
    }

    /// Whether it has rung since this was last asked.
    pub(super) fn has_rung(&self) -> bool {
        // The usual case must not write.
        self.rung.load(Ordering::Relaxed) && self.rung.swap(false, Ordering::AcqRel)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
        self.task.wake_by_ref();
    }
}
