//! `tidegate rollback`

use clap::Args;

use super::Failure;
use super::rollout::{Whom, Why, order};

/// Go back to the version that answered before, at once.
///
/// Ends a rollout that is under way, or undoes the last promotion. It does not wait for a store
/// that fails or is slow: that is written later.
#[derive(Debug, Args)]
pub(super) struct Rollback {
    #[command(flatten)]
    whom: Whom,
    #[command(flatten)]
    why: Why,
}

impl Rollback {
    pub(super) fn run(self) -> Result<(), Failure> {
        order(&self.whom, "rollback", None, &self.why)
    }
}
