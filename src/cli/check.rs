//! `tidegate check`

use std::sync::Arc;

use clap::Args;

use super::table::{self, Table};
use super::{ConfigArg, Failure};
use crate::registry::{self, State};
use crate::scheduler::Pool;
use crate::telemetry::logging::parse_level;
use crate::telemetry::{Telemetry, names};

/// Check configuration, models and signatures without serving.
///
/// Loads every model as `serve` would: digests, signatures and golden requests included. Exit
/// code 0 if all is well, 64 if not.
#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    config: ConfigArg,
    /// Only the configuration, not the models
    #[arg(long)]
    no_models: bool,
}

impl Check {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.config.source().read().map_err(Failure::usage)?;
        parse_level(&config.log.level)
            .map_err(|error| Failure::usage(format!("log.level: {error}")))?;
        println!("{}: valid, {}", self.config.config.display(), config.digest);
        if self.no_models {
            return Ok(());
        }
        let telemetry = Arc::new(Telemetry::default());
        let (pool, threads) = Pool::start(1, telemetry.gauge(names::COMPUTE_BUSY, &[]), || {})?;
        let table =
            registry::check(&Arc::new(config), &telemetry, pool.clone()).map_err(Failure::usage)?;
        pool.close();
        threads.into_iter().for_each(|thread| drop(thread.join()));
        let mut rows = Table::new(["model", "version", "state", "plan, signature or reason"]);
        for entry in &table.index {
            let version = entry.version.map(|version| version.to_string()).unwrap_or_default();
            let serving =
                entry.version.and_then(|v| table.models.get(&entry.model)?.versions.get(&v));
            let detail = match serving {
                Some(serving) if entry.reason.is_empty() => {
                    let loaded = &serving.version.loaded;
                    let golden = match loaded.n_golden {
                        0 => "no golden requests".to_owned(),
                        n_golden => format!("{n_golden} golden requests pass"),
                    };
                    let signature = serving.version.signature();
                    let (inputs, outputs) =
                        (table::specs(&signature.inputs), table::specs(&signature.outputs));
                    format!("{inputs} -> {outputs}; {}; {golden}", serving.slot)
                }
                _ => entry.reason.clone(),
            };
            let state = if entry.state == State::Idle { "idle" } else { entry.state.name() };
            rows.push([entry.model.to_string(), version, state.to_lowercase(), detail]);
        }
        println!("{rows}");
        let n_troubles = table.index.iter().filter(|entry| entry.is_trouble()).count();
        if n_troubles > 0 {
            return Err(Failure::usage(format!(
                "{n_troubles} of the entries above are not as wished"
            )));
        }
        Ok(())
    }
}
