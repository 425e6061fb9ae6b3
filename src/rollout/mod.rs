//! Rollouts: a candidate sees traffic in stages, and goes on, or back, by what is counted.
//!
//! One driver ([`driver`]) owns all of it. Twice a second it adds up what both versions counted
//! ([`evidence`]), asks the gates ([`gates`]), and where they decide makes a change ([`change`]):
//! first the store, then one swap of the live table through [`crate::registry::Registry::steer`]. Where evidence
//! comes from is handed to it, so that it knows neither monitors nor copies of requests.
//!
//! Invariants:
//! - a change is in the store before it is visible, so that a crash at any moment leaves a state
//!   that is taken up again: a start steers what the store remembers. The one exception is a way
//!   back: it is not held up by a store that fails or is slow, and is written later;
//! - one rollout a model; what is steered ends when the configuration's wish for the model changes:
//!   the file is the wish, the store the history ([`wish`]);
//! - a candidate or primary whose file is another one than when it began ends the rollout;
//! - nothing here is on a request's way: a driver that hangs leaves what serves as it is.

mod automatic;
mod change;
mod commands;
mod driver;
mod evidence;
mod gates;
mod view;
mod wish;

pub use commands::{Command, CommandError, Done, Order};
pub use driver::{Driver, Parts, Rollouts, start};
pub use evidence::{Drift, Evidence, Pairs, Sample, Side, SideSample};
pub use gates::{Gate, GateReport, Said};
pub use view::{RolloutView, StateView, SteeredView};
pub use wish::{Recalled, recall};

/// The states of a rollout, as they are kept.
pub mod states {
    /// It goes on by its gates.
    pub const RUNNING: &str = "running";
    /// It stays where it is until somebody says otherwise; a gate that fails still takes it back.
    pub const PAUSED: &str = "paused";
    /// The candidate is primary.
    pub const PROMOTED: &str = "promoted";
    /// A gate failed, or somebody took it back.
    pub const ROLLED_BACK: &str = "rolled_back";
    /// Something else ended it.
    pub const ABORTED: &str = "aborted";
}
