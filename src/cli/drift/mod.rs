//! `tidegate drift`

pub(super) mod bars;
pub(super) mod columns;
mod page;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::client::{Client, ClientError, unexpected};
use super::predictions::compare;
use super::watch::watch;
use super::{ConfigArg, Failure, print_raw};
use crate::monitor::times::now_ms;
use crate::monitor::verdict::{BaselineInfo, Histogram, History, State, Verdict};

/// All but the unreserved characters of RFC 3986, section 2.3.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const NO_BASELINE: &str = "nothing is watched yet. A version is watched when it has a baseline:\n  \
    tidegate baseline --model MODEL --version VERSION --data reference.csv\n\
    or when it may learn one from its first rows, in the configuration:\n  \
    [models.MODEL.monitor]\n  baseline = { learn = 20000 }";

/// Show what drifts: which feature, which values, since when, how much.
///
/// Without --model, everything that is watched; with it, a row for each feature: its state, its
/// evidence against what means drift, how that went lately, effect sizes against the baseline, and
/// the values that moved most. With --feature, that feature's values in the baseline and now.
#[derive(Debug, Args)]
pub(super) struct Drift {
    /// The model
    #[arg(long, short)]
    model: Option<String>,
    /// A version or an alias; without it all are shown, and --feature and commands take the primary
    #[arg(long, requires = "model")]
    version: Option<String>,
    /// A part of the traffic, where it is watched by parts
    #[arg(long, requires = "model")]
    segment: Option<String>,
    /// One feature: its values in the baseline and now, and how it went
    #[arg(long, requires = "model")]
    feature: Option<String>,
    /// Time that effect sizes are of: 5m, 1h, 24h, all, or change (since the change began)
    #[arg(long, default_value = "1h")]
    window: String,
    /// Features shown at most, those with the most evidence first
    #[arg(long, default_value_t = 30, value_name = "COUNT")]
    limit: usize,
    /// The server's admin listener
    #[arg(long, default_value = "http://127.0.0.1:8002")]
    url: String,
    /// Look again every second, until Ctrl-C
    #[arg(long, conflicts_with_all = ["data", "acknowledge", "freeze", "rebase"])]
    watch: bool,
    /// Print the server's JSON instead of tables
    #[arg(long)]
    json: bool,
    /// Compare the rows of this file (.csv, .parquet, .jsonl) with the baseline, without a server
    #[arg(long, value_name = "FILE", requires = "model", conflicts_with_all = ["segment", "feature", "acknowledge", "freeze", "rebase"])]
    data: Option<PathBuf>,
    /// Rows of the file read, at most
    #[arg(long, requires = "data")]
    rows: Option<u64>,
    #[command(flatten)]
    config: ConfigArg,
    /// Say that the drift has been seen, of --feature or of all: its alert ends
    #[arg(long, requires = "model", conflicts_with_all = ["freeze", "rebase"])]
    acknowledge: bool,
    /// End the learning of a baseline with the rows so far
    #[arg(long, requires = "model", conflicts_with_all = ["rebase", "feature", "segment"])]
    freeze: bool,
    /// Learn a new baseline from so many rows to come
    #[arg(long, requires = "model", value_name = "ROWS", conflicts_with_all = ["feature", "segment"])]
    rebase: Option<u64>,
    /// Who says so, for the log
    #[arg(long, value_name = "NAME", env = "USER")]
    who: Option<String>,
}

/// What the admin plane says of everything that is watched.
#[derive(Deserialize)]
struct Overview {
    verdicts: Vec<Summary>,
    unwatched: Vec<Unwatched>,
}

#[derive(Deserialize)]
struct Summary {
    model: String,
    version: u64,
    #[serde(default)]
    segment: Option<String>,
    state: State,
    state_since: u64,
    acknowledged: bool,
    rows: u64,
    evidence: f64,
    threshold: f64,
    baseline: BaselineInfo,
    drifted: Vec<String>,
    suspected: Vec<String>,
}

#[derive(Deserialize)]
struct Unwatched {
    model: String,
    version: u64,
}

#[derive(Deserialize)]
struct OfModel {
    verdicts: Vec<Verdict>,
}

impl Drift {
    pub(super) fn run(self) -> Result<(), Failure> {
        if let Some(data) = &self.data {
            return self.offline(data);
        }
        let client = Client::new(&self.url)?;
        if self.acknowledge || self.freeze || self.rebase.is_some() {
            return self.command(&client);
        }
        if !self.watch {
            let text = self.look(&client)?;
            print_raw(&text);
            return Ok(());
        }
        watch(self.json, || self.look(&client))
    }

    /// What is to be printed now.
    fn look(&self, client: &Client) -> Result<String, ClientError> {
        let Some(model) = &self.model else {
            let document: Value = client.read("/api/v1/drift")?;
            return self.shown(document, |overview: Overview| overview_page(&overview));
        };
        let base = self.path(model);
        if let Some(feature) = &self.feature {
            let feature = format!("feature={}{}", encoded(feature), self.segment_after("&"));
            let window = encoded(&self.window);
            let histogram: Value =
                client.read(&format!("{base}/histogram?{feature}&window={window}"))?;
            let history: Value = client.read(&format!("{base}/history?{feature}"))?;
            let document = json!({ "histogram": histogram, "history": history });
            return self.shown(document, |of: OfFeature| page::feature(&of.histogram, &of.history));
        }
        let document: Value = client.read(&format!("{base}{}", self.segment_after("?")))?;
        if self.version.is_some() {
            return self.shown(document, |verdict: Verdict| self.verdict_page(&verdict));
        }
        self.shown(document, |of: OfModel| {
            let pages: Vec<String> = of.verdicts.iter().map(|v| self.verdict_page(v)).collect();
            pages.join("\n")
        })
    }

    fn verdict_page(&self, verdict: &Verdict) -> String {
        page::verdict(verdict, &self.window, self.limit, now_ms())
    }

    /// A document as it is, on one line, or what `page` makes of it.
    fn shown<T: DeserializeOwned>(
        &self,
        document: Value,
        page: impl FnOnce(T) -> String,
    ) -> Result<String, ClientError> {
        if self.json {
            return Ok(format!("{document}\n"));
        }
        serde_json::from_value(document).map(page).map_err(|error| unexpected(&error))
    }

    fn command(&self, client: &Client) -> Result<(), Failure> {
        let base = self.path(self.model.as_deref().unwrap_or_default());
        let (action, body) = match self.rebase {
            Some(rows) => ("rebase", json!({ "rows": rows, "who": self.who })),
            None if self.freeze => ("freeze", json!({ "who": self.who })),
            None => {
                let (feature, segment) = (&self.feature, &self.segment);
                ("acknowledge", json!({ "feature": feature, "segment": segment, "who": self.who }))
            }
        };
        let body = Bytes::from(body.to_string());
        let answer = client.post(&format!("{base}/{action}"), body, None)?;
        let answer: Value = serde_json::from_slice(&answer.body)?;
        if self.json {
            print_raw(&format!("{answer}\n"));
            return Ok(());
        }
        let model = format!(
            "{} version {}",
            answer["model"].as_str().unwrap_or_default(),
            answer["version"]
        );
        match (action, answer["acknowledged"].as_u64()) {
            ("acknowledge", Some(0)) => {
                println!("{model}: nothing drifts that was not acknowledged")
            }
            ("acknowledge", count) => {
                println!("{model}: acknowledged, {} of them", count.unwrap_or_default());
            }
            ("freeze", _) => println!("{model}: the baseline is fixed with the rows so far"),
            _ => println!("{model}: learning a new baseline"),
        }
        Ok(())
    }

    /// The admin plane's path of the model, or of the version that is meant.
    fn path(&self, model: &str) -> String {
        let version = self.version.as_deref().map(|version| format!("/{}", encoded(version)));
        format!("/api/v1/drift/{}{}", encoded(model), version.unwrap_or_default())
    }

    fn segment_after(&self, mark: &str) -> String {
        let segment = self.segment.as_deref();
        segment.map(|segment| format!("{mark}segment={}", encoded(segment))).unwrap_or_default()
    }

    fn offline(&self, data: &Path) -> Result<(), Failure> {
        let config = self.config.source().read().map_err(Failure::usage)?;
        let model = self.model.as_deref().unwrap_or_default();
        let comparison = compare(&config, model, self.version.as_deref(), data, self.rows)?;
        print_raw(&match self.json {
            true => format!("{}\n", serde_json::to_string(&comparison)?),
            false => page::comparison(&comparison, self.limit),
        });
        Ok(())
    }
}

#[derive(Deserialize)]
struct OfFeature {
    histogram: Histogram,
    history: History,
}

fn encoded(text: &str) -> impl std::fmt::Display {
    utf8_percent_encode(text, ENCODED)
}

fn overview_page(overview: &Overview) -> String {
    let hint = format!("{NO_BASELINE}\n");
    if overview.verdicts.is_empty() {
        return hint;
    }
    let mut text = page::overview(&overview.verdicts, now_ms());
    let unwatched = overview.unwatched.iter().map(|of| format!("{} {}", of.model, of.version));
    let unwatched: Vec<String> = unwatched.collect();
    if !unwatched.is_empty() {
        text.push_str(&format!("not watched, without a baseline: {}\n", unwatched.join(", ")));
    }
    text
}
