//! `tidegate rollout`, and what it shares with `promote`, `rollback` and `history`.

use bytes::Bytes;
use clap::{Args, Subcommand};
use console::style;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::json;

use super::client::Client;
use super::table::Table;
use super::{ConfigArg, Failure};
use crate::rollout::{GateReport, RolloutView, Said, StateView, SteeredView};

/// Bring a candidate version to the traffic in stages, by evidence.
///
/// A rollout begins as `[models.NAME.rollout]` says: by default the candidate is a shadow first,
/// then answers 5, 25 and 50 % of the requests, then all of them. It goes on when every gate has
/// passed, and goes back at once when one fails. docs/rollouts.md tells how gates decide.
#[derive(Debug, Args)]
pub(super) struct RolloutCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Begin a rollout of the highest version, or of the one named
    Start(Start),
    /// Show stages, gates and evidence
    Status(Status),
    /// Stay in the stage; a gate that fails still takes the candidate back
    Pause(Order),
    /// Go on
    Resume(Order),
    /// Make the candidate primary now, whatever its gates say
    Promote(Order),
    /// End it: the version before answers everything
    Abort(Order),
    /// Give a model that was promoted or taken back to the configuration's primary again
    Release(Order),
}

/// The server and the model.
#[derive(Debug, Args)]
pub(super) struct Whom {
    #[command(flatten)]
    config: ConfigArg,
    /// The running server's admin listener; by default the one that the configuration names
    #[arg(long, visible_alias = "url", value_name = "URL")]
    admin: Option<String>,
    /// The model
    #[arg(long, short, value_name = "NAME")]
    model: String,
}

/// What history is told.
#[derive(Debug, Args)]
pub(super) struct Why {
    /// Why, for the history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Who, for the history; by default the user's name
    #[arg(long, value_name = "NAME", env = "USER")]
    who: Option<String>,
}

#[derive(Debug, Args)]
struct Order {
    #[command(flatten)]
    whom: Whom,
    #[command(flatten)]
    why: Why,
}

#[derive(Debug, Args)]
struct Start {
    #[command(flatten)]
    whom: Whom,
    /// The candidate; by default the highest version that is not primary
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    #[command(flatten)]
    why: Why,
}

#[derive(Debug, Args)]
struct Status {
    #[command(flatten)]
    config: ConfigArg,
    /// The running server's admin listener; by default the one that the configuration names
    #[arg(long, visible_alias = "url", value_name = "URL")]
    admin: Option<String>,
    /// Only this model
    #[arg(long, short, value_name = "NAME")]
    model: Option<String>,
    /// Print the document as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Done {
    text: String,
    ms: f64,
}

/// The admin listener of a running server.
pub(super) fn client(config: &ConfigArg, admin: Option<&String>) -> Result<Client, Failure> {
    let base = match admin {
        Some(admin) => admin.clone(),
        None => {
            let config = config.source().read().map_err(Failure::usage)?;
            format!("http://{}", config.server.admin)
        }
    };
    Ok(Client::new(&base)?)
}

/// Gives an order and says what came of it.
pub(super) fn order(
    whom: &Whom,
    verb: &str,
    version: Option<u64>,
    why: &Why,
) -> Result<(), Failure> {
    let mut body = json!({});
    if let Some(version) = version {
        body["version"] = json!(version);
    }
    for (key, text) in [("who", &why.who), ("reason", &why.reason)] {
        if let Some(text) = text.as_ref().filter(|text| !text.is_empty()) {
            body[key] = json!(text);
        }
    }
    let model = utf8_percent_encode(&whom.model, NON_ALPHANUMERIC);
    let path = format!("/api/v1/rollouts/{model}/{verb}");
    let client = client(&whom.config, whom.admin.as_ref())?;
    let answer = client.post(&path, Bytes::from(body.to_string()), None)?;
    let done: Done = serde_json::from_slice(&answer.body)?;
    println!("{} ({:.1} ms)", done.text, done.ms);
    Ok(())
}

impl RolloutCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Start(Start { whom, version, why }) => order(&whom, "start", version, &why),
            Command::Status(status) => status.run(),
            Command::Pause(Order { whom, why }) => order(&whom, "pause", None, &why),
            Command::Resume(Order { whom, why }) => order(&whom, "resume", None, &why),
            Command::Promote(Order { whom, why }) => order(&whom, "promote", None, &why),
            Command::Abort(Order { whom, why }) => order(&whom, "abort", None, &why),
            Command::Release(Order { whom, why }) => order(&whom, "release", None, &why),
        }
    }
}

impl Status {
    fn run(self) -> Result<(), Failure> {
        let answer = client(&self.config, self.admin.as_ref())?.get("/api/v1/rollouts")?;
        let mut view: StateView = serde_json::from_slice(&answer.body)?;
        if let Some(model) = &self.model {
            view.rollouts.retain(|rollout| rollout.model == *model);
            view.steered.retain(|steered| steered.model == *model);
        }
        if self.json {
            println!("{}", serde_json::to_string_pretty(&view)?);
            return Ok(());
        }
        if let Some(trouble) = &view.trouble {
            println!("{}", style(trouble).red());
        }
        view.rollouts.iter().for_each(show);
        for SteeredView { model, text, .. } in &view.steered {
            println!("{model} is steered: {text}");
        }
        if view.rollouts.is_empty() && view.steered.is_empty() {
            println!("nothing is rolled out: the configuration says what serves");
        }
        Ok(())
    }
}

fn show(rollout: &RolloutView) {
    let RolloutView { model, candidate, primary, state, reason, .. } = rollout;
    println!("{} version {candidate} against {primary}: {}", style(model).bold(), shown(state));
    let stages = rollout.stages.iter().enumerate().map(|(position, stage)| {
        match position.cmp(&(rollout.stage as usize)) {
            std::cmp::Ordering::Less => format!("{stage} ✓"),
            std::cmp::Ordering::Equal => style(format!("[{stage}]")).bold().to_string(),
            std::cmp::Ordering::Greater => stage.clone(),
        }
    });
    println!("  {}", stages.collect::<Vec<_>>().join(" → "));
    println!("  {reason}");
    if rollout.gates.is_empty() {
        return;
    }
    let mut table = Table::new(["gate", "says", "within", "beyond", "what is counted"]);
    for gate in &rollout.gates {
        let GateReport { within, passes_at, beyond, fails_at, text, .. } = gate;
        let says = match gate.said {
            Said::Pass => "pass",
            Said::Fail => "FAIL",
            Said::NotYet => "not yet",
            Said::NothingToSee => "nothing to see",
        };
        let has_evidence = *passes_at > 0.0;
        let of = |evidence: f64, needed: f64| match has_evidence {
            true => format!("{:.1} of {needed:.1}", evidence.max(0.0)),
            false => String::new(),
        };
        table.push([
            gate.gate.name().to_owned(),
            says.to_owned(),
            of(*within, *passes_at),
            of(*beyond, *fails_at),
            text.clone(),
        ]);
    }
    println!("{table}");
}

fn shown(state: &str) -> String {
    let text = state.replace('_', " ");
    match state {
        "running" => style(text).cyan().to_string(),
        "promoted" => style(text).green().to_string(),
        "paused" => style(text).yellow().to_string(),
        _ => style(text).red().to_string(),
    }
}
