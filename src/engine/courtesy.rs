//! Long runs make way for whoever has less to do.
//!
//! Where there are more threads that want a processor than processors, the operating system lets the
//! one that has it go on for milliseconds, however little a thread that wakes up needs and however
//! nice the one that runs is. An I/O thread that has to answer a light request then waits longer
//! than its whole work takes. A thread that has said so offers its processor between the nodes of a
//! graph: on two saturated cores the 99th percentile of a wake-up was 0.3 ms then, and 1 to 15 ms
//! without, for 3 % of the throughput. Where nobody waits, an offer takes less than a microsecond.

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

/// How long a run keeps the processor, at least: light models are some 200 µs from end to end.
const TURN: Duration = Duration::from_micros(250);

thread_local! {
    /// When the thread offered its processor last; nothing where it offers none.
    static OFFERED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// From now on, long runs on this thread make way between nodes.
pub fn make_way() {
    OFFERED.set(Some(Instant::now()));
}

/// Called between a graph's nodes.
pub(super) fn between_nodes() {
    let Some(offered) = OFFERED.get() else { return };
    if offered.elapsed() >= TURN {
        thread::yield_now();
        OFFERED.set(Some(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_threads_that_said_so_make_way_and_only_now_and_then() {
        let offers = || {
            let before = OFFERED.get();
            between_nodes();
            OFFERED.get() != before
        };
        thread::spawn(move || {
            assert!(!offers());
            make_way();
            thread::sleep(TURN);
            assert!(offers());
            make_way();
            let start = OFFERED.get().unwrap();
            assert!(!offers() || start.elapsed() >= TURN);
        })
        .join()
        .unwrap();
        assert_eq!(OFFERED.get(), None);
    }
}
