//! Long runs make way for light requests.
//!
//! Where more threads want a processor than there are, the operating system lets the one that has it go
//! on for milliseconds, however little a thread that wakes up needs and however nice the one that
//! runs is. An I/O thread that has to answer a light request then waits longer than its whole work
//! takes. So a thread that was told to offers its processor between the nodes of a graph: on two
//! saturated cores the 99th percentile of a wake-up was 0.3 ms then, and 1 to 15 ms without.
//!
//! An offer costs 3 % of the throughput where nobody but I/O threads takes it. Linux counts it as if
//! the thread had used up its slice (since 6.18), so that whoever always wants the processor gets most
//! of it: no thread makes way but while light requests come.

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

/// How long a run keeps the processor, at least: light models are some 200 µs from end to end.
const TURN: Duration = Duration::from_micros(250);

thread_local! {
    /// When the thread offered its processor last; nothing where it offers none.
    static OFFERED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Whether runs on this thread make way between nodes, from now on.
pub fn make_way(does: bool) {
    OFFERED.set(does.then(Instant::now));
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
            make_way(true);
            thread::sleep(TURN);
            assert!(offers());
            make_way(true);
            let start = OFFERED.get().unwrap();
            assert!(!offers() || start.elapsed() >= TURN);
            make_way(false);
            assert!(!offers());
        })
        .join()
        .unwrap();
        assert_eq!(OFFERED.get(), None);
    }
}
