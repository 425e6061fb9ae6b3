//! What a path and its query ask for.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::error::{Code, Fault};
use crate::server::route::Methods;

/// What a path asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) enum Ask<'a> {
    /// All that is watched, in short.
    All,
    /// Changes of state.
    Events,
    /// Whole verdicts, of all versions of a model or of one.
    Verdicts(Target<'a>),
    /// One statistic over time.
    History(Target<'a>),
    /// Cells in the baseline and now.
    Histogram(Target<'a>),
    /// The baseline, as `baseline.json` holds it.
    Baseline(Target<'a>),
    /// Something is to be done.
    Do(Command, Target<'a>),
}

/// What can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Command {
    Acknowledge,
    Freeze,
    Rebase,
}

/// A model, and a version or an alias where the path names one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) struct Target<'a> {
    pub(super) model: Cow<'a, str>,
    pub(super) version: Option<Cow<'a, str>>,
}

impl<'a> Ask<'a> {
    /// Nothing where the path is not of this part of the plane.
    pub(in crate::server) fn of(path: &'a str) -> Option<Self> {
        let path = path.strip_prefix("/api/v1/")?;
        let path = path.strip_suffix('/').unwrap_or(path);
        if path == "events" {
            return Some(Self::Events);
        }
        let rest = path.strip_prefix("drift")?;
        if rest.is_empty() {
            return Some(Self::All);
        }
        let mut segments = rest.strip_prefix('/')?.split('/').map(decoded);
        let model = segments.next().filter(|model| !model.is_empty())?;
        let (mut version, mut action) = (segments.next(), segments.next());
        if segments.next().is_some() {
            return None;
        }
        if action.is_none() && version.as_deref().is_some_and(is_action) {
            action = version.take();
        }
        let target = Target { model, version };
        Some(match action.as_deref() {
            None => Self::Verdicts(target),
            Some("history") => Self::History(target),
            Some("histogram") => Self::Histogram(target),
            Some("baseline") => Self::Baseline(target),
            Some("acknowledge") => Self::Do(Command::Acknowledge, target),
            Some("freeze") => Self::Do(Command::Freeze, target),
            Some("rebase") => Self::Do(Command::Rebase, target),
            Some(_) => return None,
        })
    }

    /// The method that it takes.
    pub(in crate::server) fn methods(&self) -> Methods {
        if matches!(self, Self::Do(..)) { Methods::Post } else { Methods::Get }
    }

    /// The parameters that its query may have.
    pub(super) fn parameters(&self) -> &'static [&'static str] {
        match self {
            Self::All | Self::Baseline(_) | Self::Do(..) => &[],
            Self::Events => &["after", "model"],
            Self::Verdicts(_) => &["segment"],
            Self::History(_) => &["feature", "segment"],
            Self::Histogram(_) => &["feature", "segment", "window"],
        }
    }
}

fn is_action(segment: &str) -> bool {
    ["history", "histogram", "baseline", "acknowledge", "freeze", "rebase"].contains(&segment)
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct Refusal {
    code: Code,
    message: String,
}

impl Refusal {
    /// What is asked makes no sense.
    pub(super) fn wrong(message: impl Into<String>) -> Self {
        Self { code: Code::InvalidArgument, message: message.into() }
    }

    /// What is asked for is not there.
    pub(super) fn missing(message: impl Into<String>) -> Self {
        Self { code: Code::NotFound, message: message.into() }
    }

    /// What another module says.
    pub(super) fn of(fault: &impl Fault) -> Self {
        Self { code: fault.code(), message: fault.to_string() }
    }
}

impl Fault for Refusal {
    fn code(&self) -> Code {
        self.code
    }
}

/// What stands behind the question mark.
#[derive(Debug, Default)]
pub(super) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Fails for a parameter that is not `known`, or that comes twice.
    pub(super) fn of(query: Option<&'a str>, known: &[&str]) -> Result<Self, Refusal> {
        let mut found = Self::default();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (unescaped(name), unescaped(value));
            if !known.contains(&name.as_ref()) {
                let known = match known {
                    [] => "there is none here".to_owned(),
                    known => format!("there are: {}", known.join(", ")),
                };
                return Err(Refusal::wrong(format!("there is no parameter '{name}'; {known}")));
            }
            if found.get(&name).is_some() {
                return Err(Refusal::wrong(format!("the parameter '{name}' stands there twice")));
            }
            found.0.push((name, value));
        }
        Ok(found)
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_ref())
    }

    pub(super) fn needed(&self, name: &str) -> Result<&str, Refusal> {
        self.get(name).filter(|value| !value.is_empty()).ok_or_else(|| {
            Refusal::wrong(format!("the parameter '{name}' is missing: add ?{name}=..."))
        })
    }
}

/// A path's segment as text.
fn decoded(segment: &str) -> Cow<'_, str> {
    percent_decode_str(segment).decode_utf8_lossy()
}

/// A part of a query as text, where a plus sign is a space.
fn unescaped(part: &str) -> Cow<'_, str> {
    match part.contains('+') {
        true => Cow::Owned(decoded(&part.replace('+', " ")).into_owned()),
        false => decoded(part),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target<'a>(model: &'a str, version: Option<&'a str>) -> Target<'a> {
        Target { model: model.into(), version: version.map(Cow::Borrowed) }
    }

    #[test]
    fn paths_to_what_is_asked() {
        for (path, expected) in [
            ("/api/v1/drift", Some(Ask::All)),
            ("/api/v1/drift/", Some(Ask::All)),
            ("/api/v1/events", Some(Ask::Events)),
            ("/api/v1/drift/car%2Dloan", Some(Ask::Verdicts(target("car-loan", None)))),
            ("/api/v1/drift/m/stable", Some(Ask::Verdicts(target("m", Some("stable"))))),
            ("/api/v1/drift/m/history", Some(Ask::History(target("m", None)))),
            ("/api/v1/drift/m/2/histogram", Some(Ask::Histogram(target("m", Some("2"))))),
            ("/api/v1/drift/m/2/rebase", Some(Ask::Do(Command::Rebase, target("m", Some("2"))))),
            ("/api/v1/drift/m/freeze", Some(Ask::Do(Command::Freeze, target("m", None)))),
            ("/api/v1/drift//history", None),
            ("/api/v1/drift/m/2/explain", None),
            ("/api/v1/drift/m/2/history/more", None),
            ("/api/v1/drifts", None),
            ("/api/v1/status", None),
        ] {
            assert_eq!(Ask::of(path), expected, "{path}");
        }
    }

    #[test]
    fn queries_are_read_and_what_is_unknown_is_refused() {
        let known = ["feature", "segment"];
        let query = Query::of(Some("feature=a%20b&segment=n+s%2B"), &known).unwrap();
        assert_eq!((query.get("feature"), query.get("segment")), (Some("a b"), Some("n s+")));
        assert!(Query::of(None, &known).unwrap().needed("feature").is_err());
        for (query, expected) in [
            ("featur=a", "there is no parameter 'featur'; there are: feature, segment"),
            ("feature=a&feature=b", "the parameter 'feature' stands there twice"),
        ] {
            let refusal = Query::of(Some(query), &known).unwrap_err();
            assert_eq!(refusal.to_string(), expected);
        }
        let refusal = Query::of(Some("a"), &[]).unwrap_err();
        assert_eq!(refusal.to_string(), "there is no parameter 'a'; there is none here");
    }
}
