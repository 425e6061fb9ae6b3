//! `tidegate alert`

use clap::{Args, Subcommand};
use tokio::runtime::Builder;

use super::table::Table;
use super::{ConfigArg, Failure};
use crate::alert::probe;

/// Try out who is told of drift.
#[derive(Debug, Args)]
pub(super) struct Alert {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Test(Test),
}

/// Send a test message to every target of the configuration and say what came back.
///
/// Needs no running server, only the environment that it runs in, where tokens and secret URLs
/// are. Each target is tried once. Exit code 0 if all took it, 1 if not.
#[derive(Debug, Args)]
struct Test {
    #[command(flatten)]
    config: ConfigArg,
    /// Only this target, by its name
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
}

const NOBODY: &str = "the configuration names nobody to tell: add, for example\n\
    [[alerts.alertmanagers]]\n\
    url = \"http://127.0.0.1:9093\"\n\
    or [[alerts.webhooks]] with the URL of your own receiver of CloudEvents";

impl Alert {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Command::Test(Test { config, target: wanted }) = self.command;
        let alerts = config.source().read().map_err(Failure::usage)?.alerts;
        if alerts.targets.is_empty() {
            return Err(Failure::usage(NOBODY));
        }
        let is_wanted = |name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
        let targets: Vec<_> = alerts.targets.iter().filter(|t| is_wanted(&t.name)).collect();
        if targets.is_empty() {
            let names: Vec<&str> = alerts.targets.iter().map(|t| t.name.as_str()).collect();
            let message = format!(
                "no target is named '{}'; there are: {}",
                wanted.unwrap_or_default(),
                names.join(", ")
            );
            return Err(Failure::usage(message));
        }
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        let mut rows = Table::new(["target", "what", "URL", "ms", "outcome"]);
        let mut hints = Vec::new();
        let mut n_failed = 0;
        for target in &targets {
            let probed = runtime.block_on(probe(&alerts, target));
            let outcome = match probed.outcome {
                Ok(answer) => format!("taken, {answer}"),
                Err(reason) => {
                    n_failed += 1;
                    format!("NOT TAKEN, {reason}")
                }
            };
            hints.extend(probed.hint.map(|hint| format!("{}: {hint}", probed.name)));
            let took = probed.took.as_millis().to_string();
            rows.push([probed.name, probed.kind.to_owned(), probed.url, took, outcome]);
        }
        println!("{rows}");
        hints.iter().for_each(|hint| println!("{hint}"));
        match n_failed {
            0 => Ok(()),
            n => Err(Failure {
                code: 1,
                message: format!("{n} of {} targets did not take the test message", targets.len()),
            }),
        }
    }
}
