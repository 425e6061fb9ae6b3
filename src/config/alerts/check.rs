//! What headers, labels, URLs and names of variables can be.

use std::collections::BTreeMap;

/// Labels that only Tidegate sets: others would make two alerts of one.
const OWN_LABELS: [&str; 4] = ["alertname", "model", "version", "segment"];

/// Headers that are made from the message, or whose values are secrets and belong into the
/// environment.
const OWN_HEADERS: [&str; 6] =
    ["content-length", "content-type", "host", "connection", "transfer-encoding", "authorization"];

/// Labels that an alert can have beside its own.
pub(super) fn check_labels(
    labels: &BTreeMap<String, String>,
    wrong: &mut impl FnMut(&str, String),
) {
    for label in labels.keys() {
        if OWN_LABELS.contains(&label.as_str()) {
            wrong("labels", format!("the label {label} is set by Tidegate"));
        } else if !is_variable(label) || label.starts_with("__") {
            let expected = "expected a label's name: letters, digits and '_', not beginning with a digit or \"__\"";
            wrong("labels", format!("{expected}, got \"{label}\""));
        }
    }
}

pub(super) fn check_headers(
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

pub(in crate::config) fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

pub(super) fn not_a_variable(name: &str) -> String {
    format!("expected the name of an environment variable, got \"{name}\"")
}
