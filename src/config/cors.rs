//! Whose pages may use the data plane from a browser: `[server.cors]`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Report;
use super::units::HumanDuration;

/// Valid settings of cross-origin resource sharing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// Origins whose pages may read answers; none turns it off.
    pub origins: Vec<String>,
    /// Whether every page may.
    pub any: bool,
    /// How long a browser may remember what it was allowed.
    pub max_age: Duration,
}

impl Cors {
    /// Whether pages of `origin` may read answers.
    #[must_use]
    pub fn allows(&self, origin: &[u8]) -> bool {
        self.any || self.origins.iter().any(|allowed| allowed.as_bytes() == origin)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawCors {
    origins: Vec<String>,
    max_age: HumanDuration,
}

impl Default for RawCors {
    fn default() -> Self {
        Self { origins: Vec::new(), max_age: HumanDuration(Duration::from_secs(7200)) }
    }
}

/// Makes sense of `raw`.
pub(super) fn validate(raw: RawCors, report: &mut Report<'_>) -> Cors {
    for origin in raw.origins.iter().filter(|origin| !is_origin(origin)) {
        let message = format!(
            "expected \"*\" or an origin such as \"https://app.example.org\", as browsers send it: scheme, host in lower case, port if it is not the scheme's, no path; got \"{origin}\""
        );
        report.add("server.cors.origins", message);
    }
    let any = raw.origins.iter().any(|origin| origin == "*");
    Cors { any, origins: raw.origins, max_age: raw.max_age.0 }
}

/// Whether a browser could send this as `Origin`. Extensions have schemes of their own; `null` is
/// what pages without an origin send, and is no name for any of them.
fn is_origin(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return text == "*" };
    let uri: Option<http::Uri> = text.parse().ok();
    let is_authority = uri.as_ref().and_then(http::Uri::authority).is_some_and(|a| a == rest);
    !scheme.is_empty() && is_authority && !rest.contains('@') && text == text.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_as_browsers_send_them() {
        for (origin, expected) in [
            ("*", true),
            ("https://app.example.org", true),
            ("http://localhost:3000", true),
            ("http://[::1]:3000", true),
            ("https://app.example.org/", false),
            ("https://app.example.org/path", false),
            ("https://App.example.org", false),
            ("https://user@app.example.org", false),
            ("app.example.org", false),
            ("null", false),
            ("https://", false),
            ("", false),
        ] {
            assert_eq!(is_origin(origin), expected, "{origin}");
        }
    }
}
