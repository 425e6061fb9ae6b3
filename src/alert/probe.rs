//! A test message to every target, without a server: what `tidegate alert test` does.

use std::time::{Duration, Instant};

use serde_json::json;

use super::encode::{CloudEvent, Message, trial_alert};
use super::endpoint::{Endpoint, SendError};
use crate::config::{AlertTarget, Alerts, TargetKind};
use crate::monitor::times::now_ms;

/// What came of a test message.
#[derive(Debug, Clone)]
pub struct Probed {
    /// The target's name.
    pub name: String,
    /// `webhook` or `alertmanager`.
    pub kind: &'static str,
    /// Its URL, without what may be secret in it.
    pub url: String,
    /// What it answered, or why there is no answer that it took it.
    pub outcome: Result<String, String>,
    /// What may help, where it did not.
    pub hint: Option<&'static str>,
    /// How long it took.
    pub took: Duration,
}

/// Sends a test message to a target, once.
pub async fn probe(config: &Alerts, target: &AlertTarget) -> Probed {
    let started = Instant::now();
    let outcome = send(config, target).await;
    let kind = match target.kind {
        TargetKind::Webhook { .. } => "webhook",
        TargetKind::Alertmanager { .. } => "alertmanager",
    };
    let hint = outcome.as_ref().err().and_then(|reason| hint(reason, kind));
    let (name, url) = (target.name.clone(), Endpoint::shown(target));
    Probed { name, kind, url, outcome, hint, took: started.elapsed() }
}

async fn send(config: &Alerts, target: &AlertTarget) -> Result<String, String> {
    let endpoint = Endpoint::new(target, config.timeout)?;
    let now = now_ms();
    let (headers, body) = match &target.kind {
        TargetKind::Alertmanager { labels } => trial_alert(labels, now),
        TargetKind::Webhook { .. } => {
            let id = format!("{:016x}-test", fastrand::u64(..));
            let text = "A test by `tidegate alert test`. It means nothing.";
            let data = json!({ "kind": "test", "change": "test", "text": text, "events": [] });
            let kind = "dev.tidegate.alert.test".to_owned();
            let event = CloudEvent::plain(id, config, kind, "test", data, now);
            Message::Event(event).encode(config, &target.kind, now)
        }
    };
    let answer = endpoint.send(headers, body).await;
    let answer = answer.map_err(|SendError { reason, .. }| reason)?;
    let colon = if answer.text.is_empty() { "" } else { ": " };
    Ok(format!("status {}{colon}{}", answer.status, answer.text))
}

/// What usually is the matter.
fn hint(reason: &str, kind: &str) -> Option<&'static str> {
    let has = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    if has(&["status 401", "status 403"]) {
        Some("it wants to know who asks: set bearer_env or headers_env, or look at the token")
    } else if has(&["status 404", "status 405"]) && kind == "alertmanager" {
        Some("name the URL at which its pages are, such as http://127.0.0.1:9093")
    } else if has(&[
        "status 404",
        "status 405",
        "status 301",
        "status 302",
        "status 307",
        "status 308",
    ]) {
        Some("is this the whole URL? redirections are not followed")
    } else if has(&["status 400", "status 415", "status 422"]) && kind == "webhook" {
        Some(
            "it does not take this form: try mode = \"binary\" or \"structured\"; chat services want an Alertmanager between",
        )
    } else if has(&["UnknownIssuer", "invalid peer certificate"]) {
        Some(
            "its certificate is signed by an authority that is not known here: name its file as ca_file",
        )
    } else if has(&["InvalidContentType", "corrupt message"]) {
        Some("it does not speak TLS on this port: http:// instead of https://?")
    } else if has(&["Connection refused"]) {
        Some("nothing listens there: is it running, and is the port right?")
    } else if has(&["dns error", "failed to lookup"]) {
        Some("its name is not known here")
    } else if has(&["no answer within"]) {
        Some("a firewall, or it is slow: alerts.timeout is how long it may take")
    } else {
        None
    }
}
