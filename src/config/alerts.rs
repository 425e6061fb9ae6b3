//! Who is told of drift, and how: `[alerts]`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Report;
use super::units::HumanDuration;

/// Targets of one kind, at most: each has a queue and a task of its own.
const MOST_TARGETS: usize = 32;

/// Messages that can wait for one target, at most: each may hold many events.
const MOST_QUEUED: usize = 100_000;

/// Labels that only Tidegate sets: others would make two alerts of one.
const OWN_LABELS: [&str; 4] = ["alertname", "model", "version", "segment"];

/// Headers that are made from the message, or whose values are secrets and belong into the
/// environment.
const OWN_HEADERS: [&str; 6] =
    ["content-length", "content-type", "host", "connection", "transfer-encoding", "authorization"];

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
    labels: BTreeMap<String, String>,
}

impl Default for Alerts {
    /// Nobody is told.
    fn default() -> Self {
        let mut problems = Vec::new();
        let mut report = Report { text: "", problems: &mut problems, is_merged: false };
        validate(RawAlerts::default(), &mut report)
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
pub(super) fn validate(raw: RawAlerts, report: &mut Report<'_>) -> Alerts {
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
            mode,
            events,
        } = raw;
        let events = events.unwrap_or_else(|| vec![AlertEvent::Detected, AlertEvent::Recovered]);
        let common = Common { name, url, url_env, models, bearer_env, headers, headers_env };
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
            labels,
        } = raw;
        let common = Common { name, url, url_env, models, bearer_env, headers, headers_env };
        (common, "alertmanager", index, TargetKind::Alertmanager { labels })
    });
    let targets: Vec<AlertTarget> = webhooks
        .chain(alertmanagers)
        .map(|(common, what, index, kind)| target(common, what, index, kind, report))
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
    what: &str,
    index: usize,
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
        for label in labels.keys() {
            if OWN_LABELS.contains(&label.as_str()) {
                wrong("labels", format!("the label {label} is set by Tidegate"));
            } else if !is_label(label) {
                let expected = "expected a label's name: letters, digits and '_', not beginning with a digit or \"__\"";
                wrong("labels", format!("{expected}, got \"{label}\""));
            }
        }
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
    }
}

fn check_headers(
    plain: &BTreeMap<String, String>,
    secret: &BTreeMap<String, String>,
    wrong: &mut impl FnMut(&str, String),
) {
    let is_token = |name: &str| http::HeaderName::from_bytes(name.as_bytes()).is_ok();
    for name in plain.keys().chain(secret.keys()).filter(|name| !is_token(name)) {
        wrong("headers", format!("\"{name}\" cannot be a header's name"));
    }
    for (name, value) in plain {
        if http::HeaderValue::from_str(value).is_err() {
            wrong("headers", format!("the value of {name} cannot be sent in a header"));
        }
    }
    let is_own = |name: &&String| OWN_HEADERS.contains(&name.to_lowercase().as_str());
    for name in plain.keys().filter(is_own) {
        let message = match name.eq_ignore_ascii_case("authorization") {
            true => "authorization is a secret: put it into the environment, by bearer_env or headers_env".to_owned(),
            false => format!("the header {name} is set by Tidegate"),
        };
        wrong("headers", message);
    }
    for name in secret.keys().filter(is_own).filter(|n| !n.eq_ignore_ascii_case("authorization")) {
        wrong("headers_env", format!("the header {name} is set by Tidegate"));
    }
}

/// Whether messages can be sent to `url`; else what was expected. URLs of the environment are
/// checked by it as well, when they are read.
pub fn check_url(url: &str) -> Result<http::Uri, String> {
    let expected = || "expected a URL such as \"https://alerts.example.org/hook\"".to_owned();
    let uri: http::Uri = url.parse().map_err(|_| expected())?;
    let authority = uri.authority().ok_or_else(expected)?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || authority.host().is_empty() {
        return Err(expected());
    }
    if authority.as_str().contains('@') {
        return Err("has a user or a password in it: put secrets into the environment, by bearer_env or headers_env".to_owned());
    }
    Ok(uri)
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn not_a_variable(name: &str) -> String {
    format!("expected the name of an environment variable, got \"{name}\"")
}

fn is_label(name: &str) -> bool {
    is_variable(name) && !name.starts_with("__")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Config, ConfigErrors};
    use super::*;

    fn parse(alerts: &str) -> Result<Alerts, ConfigErrors> {
        Config::parse(alerts, Path::new("."), []).map(|config| config.alerts)
    }

    #[test]
    fn targets_are_read_with_their_defaults() {
        let alerts = parse(
            "[alerts]\nexternal_url = \"https://gate.example.org/\"\n\
             [[alerts.webhooks]]\nurl = \"https://example.org/hook?a=b\"\n\
             [[alerts.webhooks]]\nname = \"pager\"\nurl_env = \"PAGER_URL\"\nmode = \"binary\"\nevents = [\"suspected\"]\n\
             [[alerts.alertmanagers]]\nurl = \"http://127.0.0.1:9093\"\nlabels = { team = \"risk\" }\n",
        )
        .unwrap();
        let names: Vec<_> = alerts.targets.iter().map(|target| target.name.as_str()).collect();
        assert_eq!(names, ["webhook-1", "pager", "alertmanager-1"]);
        assert_eq!(alerts.external_url.as_deref(), Some("https://gate.example.org"));
        let TargetKind::Webhook { mode, events } = &alerts.targets[0].kind else { panic!() };
        assert_eq!(*mode, EventMode::Structured);
        assert_eq!(*events, [AlertEvent::Detected, AlertEvent::Recovered]);
        assert_eq!(alerts.targets[1].address, Address::Variable("PAGER_URL".to_owned()));
        assert_eq!(Alerts::default().targets, []);
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_place() {
        for (text, expected) in [
            ("[[alerts.webhooks]]\nmode = \"binary\"", "alerts.webhooks.url: webhook-1: needs url"),
            (
                "[[alerts.webhooks]]\nurl = \"example.org\"",
                "line 2: alerts.webhooks.url: webhook-1: expected a URL",
            ),
            ("[[alerts.webhooks]]\nurl = \"ftp://example.org\"", "expected a URL such as"),
            (
                "[[alerts.webhooks]]\nurl = \"http://me:pass@example.org\"",
                "put secrets into the environment",
            ),
            (
                "[[alerts.webhooks]]\nurl = \"http://a\"\nurl_env = \"B\"",
                "has both url and url_env",
            ),
            ("[[alerts.webhooks]]\nurl = \"http://a\"\nurls = 1", "unknown field `urls`"),
            (
                "[[alerts.webhooks]]\nurl = \"http://a\"\nevents = [\"drift\"]",
                "unknown variant `drift`",
            ),
            ("[[alerts.webhooks]]\nurl = \"http://a\"\nevents = []", "is told of nothing"),
            (
                "[[alerts.webhooks]]\nurl = \"http://a\"\nbearer_env = \"a b\"",
                "expected the name of an environment variable",
            ),
            (
                "[[alerts.webhooks]]\nurl = \"http://a\"\nheaders = { Authorization = \"x\" }",
                "authorization is a secret",
            ),
            (
                "[[alerts.webhooks]]\nurl = \"http://a\"\nheaders = { \"a b\" = \"x\" }",
                "cannot be a header's name",
            ),
            (
                "[[alerts.alertmanagers]]\nurl = \"http://a\"\nlabels = { model = \"x\" }",
                "the label model is set by Tidegate",
            ),
            (
                "[[alerts.alertmanagers]]\nurl = \"http://a\"\nlabels = { \"a-b\" = \"x\" }",
                "expected a label's name",
            ),
            (
                "[[alerts.webhooks]]\nname = \"a\"\nurl = \"http://a\"\n[[alerts.alertmanagers]]\nname = \"a\"\nurl = \"http://a\"",
                "two targets are named \"a\"",
            ),
            ("[alerts]\nqueue = 0", "line 2: alerts.queue: expected 1 to 100000 messages, got 0"),
            ("[alerts]\nrate = 0", "alerts.rate: must be at least 1, got 0"),
            ("[alerts]\nresend = \"1ms\"", "alerts.resend: must be at least 100ms, got 1ms"),
            ("[alerts]\nsource = \"a b\"", "alerts.source: expected a URI"),
            ("[alerts]\nexternal_url = \"gate\"", "alerts.external_url: expected a URL"),
        ] {
            let problems = parse(text).unwrap_err().to_string();
            assert!(problems.contains(expected), "{text}\n{problems}");
        }
    }
}
