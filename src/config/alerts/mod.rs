//! Who is told of drift, and how: `[alerts]`.

mod check;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Report;
use super::units::HumanDuration;
pub use check::check_url;
pub(super) use check::is_variable;
use check::{check_headers, check_labels, not_a_variable};

/// Targets of one kind, at most: each has a queue and a task of its own.
const MOST_TARGETS: usize = 32;

/// Messages that can wait for one target, at most: each may hold many events.
const MOST_QUEUED: usize = 100_000;

/// Valid settings of alerts.
#[derive(Debug, Clone, PartialEq)]
pub struct Alerts {
    /// How long events of a model are gathered into one message, from the first.
    pub group_wait: Duration,
    /// How often an Alertmanager is told again of what fires.
    pub resend: Duration,
    /// Messages that wait for one target, at most; more are dropped and counted.
    pub queue: usize,
    /// How long one message is tried.
    pub retry_for: Duration,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// Messages a minute to one target; more of them wait.
    pub rate: u32,
    /// The attribute `source` of CloudEvents.
    pub source: String,
    /// How people reach the admin plane: what links in messages begin with.
    pub external_url: Option<String>,
    /// Everybody who is told.
    pub targets: Vec<AlertTarget>,
}

/// Somebody who is told.
#[derive(Debug, Clone, PartialEq)]
pub struct AlertTarget {
    /// Its name in metrics, logs and commands: no other target has it.
    pub name: String,
    /// Where it is.
    pub address: Address,
    /// What it speaks.
    pub kind: TargetKind,
    /// The models that it is told of; all where there is none.
    pub models: Vec<String>,
    /// The environment variable that holds its bearer token.
    pub bearer_env: Option<String>,
    /// Headers of every message.
    pub headers: BTreeMap<String, String>,
    /// Headers whose values are in environment variables.
    pub headers_env: BTreeMap<String, String>,
    /// The file with the certificates of the authorities that alone are trusted; where there is
    /// none, the system's.
    pub ca_file: Option<PathBuf>,
}

/// Where a target is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A URL that is no secret.
    Url(String),
    /// The environment variable that holds the URL.
    Variable(String),
}

/// What a target speaks.
#[derive(Debug, Clone, PartialEq)]
pub enum TargetKind {
    /// CloudEvents 1.0 over HTTP.
    Webhook {
        /// How an event is put into the request.
        mode: EventMode,
        /// What it is told of.
        events: Vec<AlertEvent>,
    },
    /// The API of Prometheus' Alertmanager, version 2.
    Alertmanager {
        /// Labels of every alert.
        labels: BTreeMap<String, String>,
    },
}

/// How a CloudEvent is put into a request (HTTP protocol binding, section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventMode {
    /// Attributes and data in one JSON document.
    #[default]
    Structured,
    /// Attributes in headers, the data in the body.
    Binary,
}

/// What a webhook can be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertEvent {
    /// Evidence gathers.
    Suspected,
    /// It drifted, or performs worse.
    Detected,
    /// It is well again, or somebody acknowledged it.
    Recovered,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawAlerts {
    group_wait: HumanDuration,
    resend: HumanDuration,
    queue: usize,
    retry_for: HumanDuration,
    timeout: HumanDuration,
    rate: u32,
    source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_url: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    webhooks: Vec<RawWebhook>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    alertmanagers: Vec<RawAlertmanager>,
}

impl Default for RawAlerts {
    fn default() -> Self {
        let seconds = |seconds| HumanDuration(Duration::from_secs(seconds));
        Self {
            group_wait: seconds(5),
            resend: seconds(60),
            queue: 1000,
            retry_for: seconds(600),
            timeout: seconds(10),
            rate: 60,
            source: "/tidegate".to_owned(),
            external_url: None,
            webhooks: Vec::new(),
            alertmanagers: Vec::new(),
        }
    }
}

/// What both kinds of targets have. Not flattened by serde, which would let unknown keys pass.
#[derive(Debug, Default)]
struct Common {
    name: Option<String>,
    url: Option<String>,
    url_env: Option<String>,
    models: Vec<String>,
    bearer_env: Option<String>,
    headers: BTreeMap<String, String>,
    headers_env: BTreeMap<String, String>,
    ca_file: Option<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawWebhook {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url_env: Option<String>,
    models: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bearer_env: Option<String>,
    headers: BTreeMap<String, String>,
    headers_env: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_file: Option<String>,
    mode: EventMode,
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<Vec<AlertEvent>>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawAlertmanager {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url_env: Option<String>,
    models: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bearer_env: Option<String>,
    headers: BTreeMap<String, String>,
    headers_env: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_file: Option<String>,
    labels: BTreeMap<String, String>,
}

impl Default for Alerts {
    /// Nobody is told.
    fn default() -> Self {
        let mut problems = Vec::new();
        let mut report = Report { text: "", problems: &mut problems, is_merged: false };
        validate(RawAlerts::default(), Path::new(""), &mut report)
    }
}

impl Alerts {
    /// Whether all but the targets is the same.
    #[must_use]
    pub fn is_same_but_targets(&self, other: &Self) -> bool {
        Self { targets: Vec::new(), ..self.clone() }
            == Self { targets: Vec::new(), ..other.clone() }
    }
}

/// Makes sense of `raw`.
pub(super) fn validate(raw: RawAlerts, folder: &Path, report: &mut Report<'_>) -> Alerts {
    let millisecond = HumanDuration(Duration::from_millis(1));
    for (key, value, least) in [
        ("alerts.resend", raw.resend, HumanDuration(Duration::from_millis(100))),
        ("alerts.retry_for", raw.retry_for, millisecond),
        ("alerts.timeout", raw.timeout, millisecond),
    ] {
        report.at_least(key, value, least);
    }
    report.at_least("alerts.rate", raw.rate, 1);
    if !(1..=MOST_QUEUED).contains(&raw.queue) {
        let message = format!("expected 1 to {MOST_QUEUED} messages, got {}", raw.queue);
        report.add("alerts.queue", message);
    }
    if raw.source.is_empty() || raw.source.contains(|c: char| c.is_whitespace() || c.is_control()) {
        let message = format!(
            "expected a URI or a part of one, such as \"/tidegate\", got \"{}\"",
            raw.source
        );
        report.add("alerts.source", message);
    }
    if let Some(url) = &raw.external_url
        && let Err(expected) = check_url(url)
    {
        report.add("alerts.external_url", expected);
    }
    for (key, count) in
        [("webhooks", raw.webhooks.len()), ("alertmanagers", raw.alertmanagers.len())]
    {
        if count > MOST_TARGETS {
            let message = format!("expected at most {MOST_TARGETS} of them, got {count}");
            report.add(&format!("alerts.{key}"), message);
        }
    }
    let webhooks = raw.webhooks.into_iter().enumerate().map(|(index, raw)| {
        let RawWebhook {
            name,
            url,
            url_env,
            models,
            bearer_env,
            headers,
            headers_env,
            ca_file,
            mode,
            events,
        } = raw;
        let events = events.unwrap_or_else(|| vec![AlertEvent::Detected, AlertEvent::Recovered]);
        let common =
            Common { name, url, url_env, models, bearer_env, headers, headers_env, ca_file };
        (common, "webhook", index, TargetKind::Webhook { mode, events })
    });
    let alertmanagers = raw.alertmanagers.into_iter().enumerate().map(|(index, raw)| {
        let RawAlertmanager {
            name,
            url,
            url_env,
            models,
            bearer_env,
            headers,
            headers_env,
            ca_file,
            labels,
        } = raw;
        let common =
            Common { name, url, url_env, models, bearer_env, headers, headers_env, ca_file };
        (common, "alertmanager", index, TargetKind::Alertmanager { labels })
    });
    let targets: Vec<AlertTarget> = webhooks
        .chain(alertmanagers)
        .map(|(common, what, index, kind)| target(common, folder, (what, index), kind, report))
        .collect();
    for (position, target) in targets.iter().enumerate() {
        if targets[..position].iter().any(|other| other.name == target.name) {
            let message =
                format!("two targets are named \"{}\"; give one another name", target.name);
            report.add("alerts", message);
        }
    }
    Alerts {
        group_wait: raw.group_wait.0,
        resend: raw.resend.0,
        queue: raw.queue,
        retry_for: raw.retry_for.0,
        timeout: raw.timeout.0,
        rate: raw.rate,
        source: raw.source,
        external_url: raw.external_url.map(|url| url.trim_end_matches('/').to_owned()),
        targets,
    }
}

/// The target at `index` of its kind.
fn target(
    raw: Common,
    folder: &Path,
    (what, index): (&str, usize),
    kind: TargetKind,
    report: &mut Report<'_>,
) -> AlertTarget {
    let name = raw.name.unwrap_or_else(|| format!("{what}-{}", index + 1));
    let key = format!("alerts.{what}s");
    let mut wrong = |part: &str, message: String| {
        report.add(&format!("{key}.{part}"), format!("{name}: {message}"));
    };
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        wrong("name", "a target's name has letters, digits, '_', '-' and '.'".to_owned());
    }
    let address = match (raw.url, raw.url_env) {
        (Some(url), None) => {
            if let Err(expected) = check_url(&url) {
                wrong("url", expected);
            }
            Address::Url(url)
        }
        (None, Some(variable)) => {
            if !is_variable(&variable) {
                wrong("url_env", not_a_variable(&variable));
            }
            Address::Variable(variable)
        }
        (None, None) => {
            wrong("url", "needs url, or url_env where the URL is a secret".to_owned());
            Address::Url(String::new())
        }
        (Some(_), Some(_)) => {
            wrong("url", "has both url and url_env; one of them is enough".to_owned());
            Address::Url(String::new())
        }
    };
    for variable in raw.bearer_env.iter().chain(raw.headers_env.values()) {
        if !is_variable(variable) {
            wrong("bearer_env", not_a_variable(variable));
        }
    }
    for model in raw.models.iter().filter(|model| !super::is_model_name(model)) {
        wrong("models", format!("\"{model}\" cannot be a model's name"));
    }
    check_headers(&raw.headers, &raw.headers_env, &mut wrong);
    if let TargetKind::Alertmanager { labels } = &kind {
        check_labels(labels, &mut wrong);
    }
    if let TargetKind::Webhook { events, .. } = &kind
        && events.is_empty()
    {
        wrong(
            "events",
            "is told of nothing; name some of \"suspected\", \"detected\", \"recovered\""
                .to_owned(),
        );
    }
    AlertTarget {
        name,
        address,
        kind,
        models: raw.models,
        bearer_env: raw.bearer_env,
        headers: raw.headers,
        headers_env: raw.headers_env,
        ca_file: raw.ca_file.map(|path| folder.join(path)),
    }
}

#[cfg(test)]
mod tests;
