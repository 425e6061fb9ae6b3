//! `tidegate promote`

use clap::Args;

use super::Failure;
use super::rollout::{Whom, Why, order};

/// Make a version primary at once.
///
/// One atomic change of what serves; the version before stays loaded, so that `tidegate rollback`
/// is one too. Of a model with a rollout under way, it is the candidate that is promoted.
#[derive(Debug, Args)]
pub(super) struct Promote {
    #[command(flatten)]
    whom: Whom,
    /// The version; not needed where a rollout is under way
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    #[command(flatten)]
    why: Why,
}

impl Promote {
    pub(super) fn run(self) -> Result<(), Failure> {
        order(&self.whom, "promote", self.version, &self.why)
    }
}
