//! `tidegate history`

use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use super::rollout::client;
use super::table::Table;
use super::{ConfigArg, Failure};
use crate::monitor::times::rfc3339;
use crate::store::HistoryRecord;

/// Show what was promoted, taken back and rolled out, when, by whom and why.
#[derive(Debug, Args)]
pub(super) struct History {
    #[command(flatten)]
    config: ConfigArg,
    /// The running server's admin listener; by default the one that the configuration names
    #[arg(long, visible_alias = "url", value_name = "URL")]
    admin: Option<String>,
    /// Only this model
    #[arg(long, short, value_name = "NAME")]
    model: Option<String>,
    /// So many lines, the newest
    #[arg(long, value_name = "N", default_value_t = 20)]
    most: u32,
    /// Print one JSON document, with digests and figures
    #[arg(long)]
    json: bool,
}

#[derive(Serialize, Deserialize)]
struct Lines {
    history: Vec<HistoryRecord>,
}

impl History {
    pub(super) fn run(self) -> Result<(), Failure> {
        let model = self.model.as_deref().unwrap_or_default();
        let model = utf8_percent_encode(model, NON_ALPHANUMERIC);
        let path = format!("/api/v1/history?model={model}&most={}", self.most);
        let answer = client(&self.config, self.admin.as_ref())?.get(&path)?;
        let lines: Lines = serde_json::from_slice(&answer.body)?;
        if self.json {
            println!("{}", serde_json::to_string_pretty(&lines)?);
            return Ok(());
        }
        if lines.history.is_empty() {
            println!("nothing yet");
            return Ok(());
        }
        let mut table = Table::new(["when", "model", "who", "what", "before", "after", "why"]);
        for line in lines.history {
            let HistoryRecord { at, model, who, what, from, to, reason, .. } = line;
            table.push([rfc3339(at), model, who, what, from, to, reason]);
        }
        println!("{table}");
        Ok(())
    }
}
