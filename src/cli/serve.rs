//! `tidegate serve`

use clap::Args;

use super::{ConfigArg, Failure};
use crate::app::{self, AppError};

/// Serve the model repository until SIGTERM.
///
/// SIGHUP, a change of the file and `POST /api/v1/config/reload` on the admin listener reload the
/// configuration, whole or not at all. SIGTERM or Ctrl-C: the server turns unready, finishes what
/// it has accepted and exits with 0; a second signal ends it at once.
#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    config: ConfigArg,
}

impl Serve {
    pub(super) fn run(self) -> Result<(), Failure> {
        app::serve(self.config.source()).map_err(|error| match error {
            AppError::Config(error) => Failure::usage(error),
            other => other.into(),
        })
    }
}
