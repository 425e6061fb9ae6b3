//! Where spans go, and of which requests: `[tracing]`.
//!
//! What is left out here is taken from OpenTelemetry's own environment variables where they are
//! set; the composition root does that, since nothing in this module reads the environment.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::alerts::is_variable;
use super::units::HumanDuration;
use super::{Report, check_url};

/// Requests that may wait for export: their places are taken when the server starts.
const MOST_WAITING: usize = 1 << 17;

/// Valid settings of tracing.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracing {
    /// The receiver's URL.
    pub endpoint: Option<String>,
    /// What the receiver speaks.
    pub protocol: Option<TraceProtocol>,
    /// Share of requests that are traced, of those whose client does not say: from 0 to 1.
    pub share: f64,
    /// Whether a client that sends a trace decides over its own request.
    pub parent: bool,
    /// Traced requests that wait to be exported, at most.
    pub queue: usize,
    /// How long one export may take.
    pub timeout: Option<Duration>,
    /// The resource attribute `service.name`.
    pub service: Option<String>,
    /// More resource attributes.
    pub attributes: BTreeMap<String, String>,
    /// Headers of every export, whose values are in environment variables.
    pub headers_env: BTreeMap<String, String>,
}

/// What a receiver of spans speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TraceProtocol {
    /// OTLP over gRPC, port 4317 by convention.
    Grpc,
    /// OTLP over HTTP with protobuf, port 4318 by convention.
    Http,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawTracing {
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<TraceProtocol>,
    share: f64,
    parent: bool,
    queue: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<HumanDuration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    attributes: BTreeMap<String, String>,
    headers_env: BTreeMap<String, String>,
}

impl Default for RawTracing {
    fn default() -> Self {
        Self {
            endpoint: None,
            protocol: None,
            share: 0.01,
            parent: true,
            queue: 4096,
            timeout: None,
            service: None,
            attributes: BTreeMap::new(),
            headers_env: BTreeMap::new(),
        }
    }
}

/// Makes sense of `raw`.
pub(super) fn validate(raw: RawTracing, report: &mut Report<'_>) -> Tracing {
    if let Some(url) = &raw.endpoint
        && let Err(expected) = check_url(url)
    {
        report.add("tracing.endpoint", expected);
    }
    if !(0.0..=1.0).contains(&raw.share) {
        report.add("tracing.share", format!("expected 0 to 1, got {}", raw.share));
    }
    if !(1..=MOST_WAITING).contains(&raw.queue) {
        let message = format!("expected 1 to {MOST_WAITING}, got {}", raw.queue);
        report.add("tracing.queue", message);
    }
    if let Some(timeout) = raw.timeout {
        report.at_least("tracing.timeout", timeout, HumanDuration(Duration::from_millis(1)));
    }
    if raw.service.as_ref().is_some_and(String::is_empty) {
        report.add("tracing.service", "must not be empty");
    }
    if raw.attributes.contains_key("") {
        report.add("tracing.attributes", "an attribute's name must not be empty");
    }
    for (name, variable) in &raw.headers_env {
        if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            let message = format!("\"{name}\" cannot be a header's name");
            report.add("tracing.headers_env", message);
        } else if !is_variable(variable) {
            let message =
                format!("expected the name of an environment variable, got \"{variable}\"");
            report.add("tracing.headers_env", message);
        }
    }
    Tracing {
        endpoint: raw.endpoint,
        protocol: raw.protocol,
        share: raw.share,
        parent: raw.parent,
        queue: raw.queue,
        timeout: raw.timeout.map(|timeout| timeout.0),
        service: raw.service,
        attributes: raw.attributes,
        headers_env: raw.headers_env,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{Config, Effect, difference};

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new(""), []).map_err(|errors| errors.to_string())
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (line, expected) in [
            ("endpoint = \"collector\"", "line 2: tracing.endpoint: expected a URL"),
            ("share = 1.5", "line 2: tracing.share: expected 0 to 1, got 1.5"),
            ("share = nan", "line 2: tracing.share: expected 0 to 1"),
            ("queue = 0", "line 2: tracing.queue: expected 1 to"),
            ("protocol = \"udp\"", "line 2"),
            ("timeout = \"0s\"", "line 2: tracing.timeout: must be at least 1ms"),
            ("service = \"\"", "line 2: tracing.service: must not be empty"),
            ("headers_env = { key = \"a b\" }", "expected the name of an environment variable"),
            ("headers_env = { \"k y\" = \"KEY\" }", "cannot be a header's name"),
            ("sample = 1", "unknown"),
        ] {
            let error = parse(&format!("[tracing]\n{line}\n")).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn share_and_parent_change_without_a_restart_and_the_rest_does_not() {
        let before = parse("[tracing]\nshare = 0.5\n").unwrap();
        let after = parse(
            "[tracing]\nshare = 1.0\nparent = false\nqueue = 1\nattributes = { a = \"b\" }\n",
        )
        .unwrap();
        let live = |effect| {
            let changes = difference(&before, &after);
            let keys = changes.iter().filter(|change| change.effect == effect);
            keys.map(|change| change.key.clone()).collect::<Vec<_>>()
        };
        assert_eq!(live(Effect::Live), ["tracing.parent", "tracing.share"]);
        assert_eq!(live(Effect::Restart), ["tracing.attributes.a", "tracing.queue"]);
    }
}
