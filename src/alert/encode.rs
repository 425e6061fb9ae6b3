//! Messages as bytes: CloudEvents 1.0 (HTTP protocol binding, structured and binary content mode)
//! and alerts of Alertmanager's API v2 (`postableAlerts`).

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, header};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Serialize;
use serde_json::{Value, json};

use super::firing::{Alert, Change, Kind};
use crate::config::{self, EventMode, TargetKind};
use crate::monitor::times::rfc3339;
use crate::monitor::verdict::Event;

/// Events told in full in one message, at most: CloudEvents' receivers must take 64 KiB (section
/// "Size Limits"), and an event is some 2 KiB.
const MOST_TOLD: usize = 20;

/// Features named in an annotation, at most.
const MOST_NAMED: usize = 12;

/// How many times `resend` an alert lives without being told again. Prometheus does the same.
const LIVES: u32 = 4;

/// What header values must not have as it is (HTTP protocol binding, section 3.1.3.2).
const IN_HEADER: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// Something to send.
#[derive(Debug)]
pub(super) enum Message {
    /// To webhooks.
    Event(CloudEvent),
    /// To Alertmanagers: all that fires of a model, or of all, and what ended just now.
    Alerts(Vec<Alert>),
}

/// A CloudEvent.
#[derive(Debug, Serialize)]
pub(super) struct CloudEvent {
    specversion: &'static str,
    id: String,
    source: String,
    #[serde(rename = "type")]
    kind: String,
    subject: String,
    time: String,
    datacontenttype: &'static str,
    data: Value,
}

/// One alert as Alertmanager takes it.
#[derive(Debug, Serialize)]
struct Postable {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<&'static str, String>,
    #[serde(rename = "startsAt")]
    starts_at: String,
    #[serde(rename = "endsAt")]
    ends_at: String,
    #[serde(rename = "generatorURL", skip_serializing_if = "Option::is_none")]
    generator: Option<String>,
}

impl CloudEvent {
    /// What happened to a model: changes of one kind, `left_out` more of which are not among
    /// `events`. `id` is unique for the source.
    pub(super) fn new(
        id: String,
        config: &config::Alerts,
        (model, kind, change): (&str, Kind, Change),
        mut events: Vec<&Event>,
        now: u64,
    ) -> Self {
        events.sort_by(|a, b| b.evidence.total_cmp(&a.evidence));
        let told = &events[..events.len().min(MOST_TOLD)];
        let text: Vec<&str> = told.iter().map(|event| event.text.as_str()).collect();
        let mut data = json!({
            "model": model,
            "kind": kind.word(),
            "change": change.word(),
            "text": text.join("\n"),
            "events": told,
            "left_out": events.len() - told.len(),
        });
        if change == Change::Detected {
            data["severity"] = json!(kind.severity());
        }
        if let Some(url) = &config.external_url {
            data["url"] = json!(format!("{url}/api/v1/drift/{model}"));
        }
        let kind = format!("dev.tidegate.{}.{}", kind.word(), change.word());
        Self::plain(id, config, kind, model, data, now)
    }

    /// Any event of ours.
    pub(super) fn plain(
        id: String,
        config: &config::Alerts,
        kind: String,
        subject: &str,
        data: Value,
        now: u64,
    ) -> Self {
        Self {
            specversion: "1.0",
            id,
            source: config.source.clone(),
            kind,
            subject: subject.to_owned(),
            time: rfc3339(now),
            datacontenttype: "application/json",
            data,
        }
    }

    fn encode(&self, mode: EventMode) -> (HeaderMap, Bytes) {
        let mut headers = HeaderMap::new();
        if mode == EventMode::Structured {
            let structured =
                HeaderValue::from_static("application/cloudevents+json; charset=utf-8");
            headers.insert(CONTENT_TYPE, structured);
            return (headers, document(self));
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.datacontenttype));
        for (name, value) in [
            ("ce-specversion", self.specversion),
            ("ce-id", &self.id),
            ("ce-source", &self.source),
            ("ce-type", &self.kind),
            ("ce-subject", &self.subject),
            ("ce-time", &self.time),
        ] {
            let value = utf8_percent_encode(value, IN_HEADER).to_string();
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        (headers, document(&self.data))
    }
}

impl Message {
    /// Headers and body for a target. Made for each attempt: an alert that fires says until when,
    /// and that is counted from now.
    pub(super) fn encode(
        &self,
        config: &config::Alerts,
        kind: &TargetKind,
        now: u64,
    ) -> (HeaderMap, Bytes) {
        match (self, kind) {
            (Self::Event(event), TargetKind::Webhook { mode, .. }) => event.encode(*mode),
            (Self::Event(event), TargetKind::Alertmanager { .. }) => {
                event.encode(EventMode::Structured)
            }
            (Self::Alerts(alerts), kind) => {
                let none = BTreeMap::new();
                let labels = match kind {
                    TargetKind::Alertmanager { labels } => labels,
                    TargetKind::Webhook { .. } => &none,
                };
                let alerts: Vec<Postable> =
                    alerts.iter().map(|alert| postable(alert, config, labels, now)).collect();
                (json_headers(), document(&alerts))
            }
        }
    }
}

fn postable(
    alert: &Alert,
    config: &config::Alerts,
    extra: &BTreeMap<String, String>,
    now: u64,
) -> Postable {
    let key = &alert.key;
    let mut labels = BTreeMap::from([
        ("alertname".to_owned(), key.kind.alert_name().to_owned()),
        ("model".to_owned(), key.model.clone()),
        ("version".to_owned(), key.version.to_string()),
        ("severity".to_owned(), key.kind.severity().to_owned()),
    ]);
    labels.extend(key.segment.clone().map(|segment| ("segment".to_owned(), segment)));
    labels.extend(extra.clone());
    let mut events: Vec<&Event> = alert.parts.values().collect();
    events.sort_by(|a, b| b.evidence.total_cmp(&a.evidence));
    let features: Vec<&str> = events.iter().filter_map(|event| event.feature.as_deref()).collect();
    let stream = match &key.segment {
        Some(segment) => format!("{} version {}, segment {segment},", key.model, key.version),
        None => format!("{} version {}", key.model, key.version),
    };
    let verb = match key.kind {
        Kind::Drift => "has drifted",
        Kind::Performance => "performs worse than its baseline",
        Kind::Detector => "made a classical detector alarm",
        Kind::Rollout => "was taken back by its rollout",
    };
    let summary = match features.as_slice() {
        [] => format!("{stream} {verb}"),
        features => format!("{stream} {verb}: {}", named(features)),
    };
    let text: Vec<&str> = events.iter().take(MOST_TOLD).map(|event| event.text.as_str()).collect();
    let mut annotations = BTreeMap::from([("summary", summary), ("description", text.join("\n"))]);
    if !features.is_empty() {
        annotations.insert("features", named(&features));
    }
    if let Some(onset) = events.iter().filter_map(|event| event.onset).min() {
        annotations.insert("onset", rfc3339(onset));
    }
    Postable {
        labels,
        annotations,
        starts_at: rfc3339(alert.since),
        ends_at: rfc3339(alert.ended.unwrap_or_else(|| lives_until(now, config.resend))),
        generator: config
            .external_url
            .as_ref()
            .map(|url| format!("{url}/api/v1/drift/{}/{}", key.model, key.version)),
    }
}

/// An alert that stands for nothing and ends by itself, for trying out an Alertmanager.
pub(super) fn trial_alert(extra: &BTreeMap<String, String>, now: u64) -> (HeaderMap, Bytes) {
    let mut labels = BTreeMap::from([
        ("alertname".to_owned(), "TidegateTest".to_owned()),
        ("severity".to_owned(), "none".to_owned()),
    ]);
    labels.extend(extra.clone());
    let text = "A test by `tidegate alert test`. It means nothing and ends by itself.";
    let alert = Postable {
        labels,
        annotations: BTreeMap::from([
            ("summary", "A test".to_owned()),
            ("description", text.to_owned()),
        ]),
        starts_at: rfc3339(now),
        ends_at: rfc3339(lives_until(now, Duration::from_secs(15))),
        generator: None,
    };
    (json_headers(), document(&[alert]))
}

/// Names in a row, and how many more there are.
fn named(features: &[&str]) -> String {
    let shown = features[..features.len().min(MOST_NAMED)].join(", ");
    match features.len().saturating_sub(MOST_NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn lives_until(now: u64, resend: Duration) -> u64 {
    now.saturating_add(u64::try_from((resend * LIVES).as_millis()).unwrap_or(u64::MAX))
}

fn json_headers() -> HeaderMap {
    HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))])
}

fn document(document: &impl Serialize) -> Bytes {
    // Numbers, texts and maps by text: nothing that JSON cannot hold.
    serde_json::to_vec(document).unwrap_or_default().into()
}
