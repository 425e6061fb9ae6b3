//! How many threads a version may fill: fewer where light requests come, which run on I/O threads and
//! need a core at once.

use std::time::{Duration, Instant};

use crate::telemetry::Sharded;

/// How often it is looked whether light requests come.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Light requests in that time that make it worthwhile to leave them a core.
const LIGHT_TRAFFIC: u64 = 10;

/// Threads that one version may fill.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shares {
    alone: usize,
    beside_light: usize,
}

impl Shares {
    /// Of `n_threads` threads where nothing else wants them: while light requests come, one of the
    /// `cores` is left to those.
    pub(super) fn of(n_threads: usize, cores: usize) -> Self {
        Self { alone: n_threads, beside_light: n_threads.min(cores.saturating_sub(1).max(1)) }
    }

    /// At most.
    pub(super) fn most(self) -> usize {
        self.alone
    }

    pub(super) fn now(self, light: &Light) -> usize {
        if light.comes { self.beside_light } else { self.alone }
    }
}

/// Whether light requests come.
#[derive(Debug, Default)]
pub(super) struct Light {
    looked: Option<Instant>,
    /// Runs on I/O threads until then.
    counted: u64,
    comes: bool,
}

impl Light {
    pub(super) fn comes(&self) -> bool {
        self.comes
    }

    pub(super) fn look(&mut self, counted: &Sharded<1>, now: Instant) {
        let is_due = self.looked.is_none_or(|looked| now >= looked + LOOK_EVERY);
        if is_due {
            let [counted] = counted.sums();
            self.comes = counted - self.counted >= LIGHT_TRAFFIC;
            (self.looked, self.counted) = (Some(now), counted);
        }
    }
}
