//! The closed set of ways in which something can fail.
//!
//! Every module has its own error type with its own words; each maps to one [`Code`] through
//! [`Fault`]. The code decides the HTTP status (in `server::reply`, the one place that does so),
//! the metric label and which side of the accounts a request falls on. A code is never invented
//! on the way: adding one means adding it here, with its label and its outcome.

use std::fmt;

/// Why a request or an operation did not succeed. Closed: it is also a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// It succeeded.
    Ok,
    /// The request itself is wrong; sending it again unchanged cannot help.
    InvalidArgument,
    /// No such model, version, alias or route.
    NotFound,
    /// The route exists, but not with this method.
    MethodNotAllowed,
    /// The operation clashes with the present state.
    Conflict,
    /// The body is larger than the configured limit.
    TooLarge,
    /// The body's encoding or media type is not understood.
    UnsupportedMedia,
    /// The client took too long to send its request.
    SlowClient,
    /// A per-client or per-model limit was reached.
    RateLimited,
    /// The server has no room for the request now; later it may.
    Overloaded,
    /// The model or server is not ready, or is shutting down.
    Unavailable,
    /// The deadline passed before there was an answer.
    DeadlineExceeded,
    /// The client went away.
    Cancelled,
    /// The protocol knows the request, this server does not do it.
    Unimplemented,
    /// The engine or the server failed.
    Internal,
}

/// Which side of the accounts a request falls on:
/// received = answered + refused + failed + cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// An answer was produced.
    Answered,
    /// The request was turned down, for a reason in the request or for lack of room.
    Refused,
    /// The server accepted the request and could not answer it.
    Failed,
    /// The client went away first.
    Cancelled,
}

impl Code {
    /// All codes, in the order of [`Code::index`].
    pub const ALL: [Self; 15] = [
        Self::Ok,
        Self::InvalidArgument,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Conflict,
        Self::TooLarge,
        Self::UnsupportedMedia,
        Self::SlowClient,
        Self::RateLimited,
        Self::Overloaded,
        Self::Unavailable,
        Self::DeadlineExceeded,
        Self::Cancelled,
        Self::Unimplemented,
        Self::Internal,
    ];

    /// Position in [`Code::ALL`]; tables of counters are indexed by it.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// The value of the metric label `code`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::InvalidArgument => "invalid_argument",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Conflict => "conflict",
            Self::TooLarge => "too_large",
            Self::UnsupportedMedia => "unsupported_media",
            Self::SlowClient => "slow_client",
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Cancelled => "cancelled",
            Self::Unimplemented => "unimplemented",
            Self::Internal => "internal",
        }
    }

    /// Which side of the accounts a request with this code falls on.
    #[must_use]
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Ok => Outcome::Answered,
            Self::DeadlineExceeded | Self::Internal => Outcome::Failed,
            Self::Cancelled => Outcome::Cancelled,
            Self::InvalidArgument
            | Self::NotFound
            | Self::MethodNotAllowed
            | Self::Conflict
            | Self::TooLarge
            | Self::UnsupportedMedia
            | Self::SlowClient
            | Self::RateLimited
            | Self::Overloaded
            | Self::Unavailable
            | Self::Unimplemented => Outcome::Refused,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// An error that knows its [`Code`]. Its `Display` is what the client reads: it names the thing
/// at fault, what was expected and what came, and never a file of this machine or a line of code.
pub trait Fault: std::error::Error {
    /// The code that this error is reported, counted and logged under.
    fn code(&self) -> Code;
}

/// The name that was probably meant by one that is unknown, where one is near enough.
pub fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // One slip, of which two letters in the wrong order is the likeliest, is as near as it gets.
    let is_slip = |name: &str| name.len() > 2 && strsim::damerau_levenshtein(wrong, name) == 1;
    let likeness = |name| if is_slip(name) { 1.0 } else { strsim::jaro_winkler(wrong, name) };
    let likeness = names.into_iter().map(|name| (likeness(name), name));
    let best = likeness.max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(likeness, _)| *likeness > 0.8).map(|(_, name)| name)
}

/// An error with what caused it, and that with its own cause, in one line.
#[must_use]
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_is_the_position_in_all_and_labels_are_distinct() {
        let mut labels = std::collections::HashSet::new();
        for (position, code) in Code::ALL.iter().enumerate() {
            assert_eq!(code.index(), position);
            assert!(labels.insert(code.label()), "label {code} is used twice");
        }
    }
}
