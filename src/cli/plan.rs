//! `tidegate plan`

use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use serde::Deserialize;

use super::client::Client;
use super::{ConfigArg, Failure};
use crate::app::Source;
use crate::config::difference;

/// Show what a reload would change, without changing it.
///
/// Asks the running server to compare the file with what it runs, models included: versions that
/// would be loaded, retired or promoted are named, and whatever would make the server refuse the
/// file is an error. With --against, compares two files and needs no server.
#[derive(Debug, Args)]
pub(super) struct Plan {
    #[command(flatten)]
    config: ConfigArg,
    /// The running server's admin listener; by default the one that the file names
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// Compare with this configuration file instead of a running server
    #[arg(long, value_name = "FILE", conflicts_with = "admin")]
    against: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Changes {
    changes: Vec<String>,
}

impl Plan {
    pub(super) fn run(self) -> Result<(), Failure> {
        let source = self.config.source();
        let config = source.read().map_err(Failure::usage)?;
        let changes = match &self.against {
            Some(path) => {
                let running = Source::new(path.clone()).read().map_err(Failure::usage)?;
                difference(&running, &config).iter().map(ToString::to_string).collect()
            }
            None => {
                let admin = self.admin.unwrap_or_else(|| format!("http://{}", config.server.admin));
                let text = std::fs::read(source.path())?;
                let answer =
                    Client::new(&admin)?.post("/api/v1/config/plan", Bytes::from(text), None)?;
                serde_json::from_slice::<Changes>(&answer.body)?.changes
            }
        };
        match changes.as_slice() {
            [] => println!("nothing would change"),
            changes => changes.iter().for_each(|change| println!("{change}")),
        }
        Ok(())
    }
}
