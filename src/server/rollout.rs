//! Rollouts, promotions and history on the admin plane.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

use super::account::Call;
use super::admin::{AdminPlane, BODY_TIME};
use super::body;
use super::order::{object, whole};
use super::reply::Reply;
use super::route::Methods;
use crate::error::Code;
use crate::rollout::{Command, RolloutView};
use crate::store::HistoryRecord;

/// Larger orders than this are none.
const LARGEST_BODY: u64 = 64 << 10;

/// Lines of history in an answer, where nobody says how many, and at most.
const LINES: u32 = 100;
const MOST_LINES: u32 = 10_000;

/// Whom history names where an order does not say who gave it.
const NOBODY: &str = "admin API";

/// The longest name and reason that are kept.
const LONGEST: usize = 1000;

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ask<'a> {
    /// Everything.
    All,
    /// What is known of a model.
    Of(Cow<'a, str>),
    /// Something is to be done with a model.
    Do(Cow<'a, str>, Order),
    /// What was done.
    History,
}

/// What can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Start,
    Pause,
    Resume,
    Abort,
    Promote,
    Rollback,
    Release,
}

/// An order's body.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Given {
    #[serde(deserialize_with = "whole")]
    version: Option<u64>,
    who: Option<String>,
    reason: Option<String>,
}

#[derive(Serialize)]
struct OfModel<'a> {
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<&'a str>,
    rollout: Option<&'a RolloutView>,
    steered: Option<&'a crate::rollout::SteeredView>,
}

#[derive(Serialize)]
struct History {
    history: Vec<HistoryRecord>,
}

impl<'a> Ask<'a> {
    /// Nothing where the path is not of this part of the plane.
    pub(super) fn of(path: &'a str) -> Option<Self> {
        let path = path.strip_prefix("/api/v1/")?;
        let path = path.strip_suffix('/').unwrap_or(path);
        if path == "history" {
            return Some(Self::History);
        }
        let rest = path.strip_prefix("rollouts")?;
        if rest.is_empty() {
            return Some(Self::All);
        }
        let mut segments = rest.strip_prefix('/')?.split('/');
        let model = segments.next().filter(|model| !model.is_empty())?;
        let model = percent_decode_str(model).decode_utf8().ok()?;
        let order = match (segments.next(), segments.next()) {
            (None, _) => return Some(Self::Of(model)),
            (Some("start"), None) => Order::Start,
            (Some("pause"), None) => Order::Pause,
            (Some("resume"), None) => Order::Resume,
            (Some("abort"), None) => Order::Abort,
            (Some("promote"), None) => Order::Promote,
            (Some("rollback"), None) => Order::Rollback,
            (Some("release"), None) => Order::Release,
            _ => return None,
        };
        Some(Self::Do(model, order))
    }

    pub(super) fn methods(&self) -> Methods {
        match self {
            Self::Do(..) => Methods::Post,
            Self::All | Self::Of(_) | Self::History => Methods::Get,
        }
    }
}

pub(super) async fn handle(plane: &AdminPlane, call: Call, ask: &Ask<'_>) -> Reply {
    match ask {
        Ask::All => Reply::document(&*plane.rollouts.view()),
        Ask::Of(model) => of_model(plane, model),
        Ask::History => history(plane, call.head.uri.query().unwrap_or_default()).await,
        Ask::Do(model, order) => obey(plane, call, model, *order).await,
    }
}

fn of_model(plane: &AdminPlane, model: &str) -> Reply {
    let view = plane.rollouts.view();
    let rollout = view.rollouts.iter().find(|rollout| rollout.model == model);
    let steered = view.steered.iter().find(|steered| steered.model == model);
    if rollout.is_none() && steered.is_none() {
        let table = plane.registry.live();
        if let Err(error) = table.model(model) {
            return Reply::fault(&error);
        }
    }
    Reply::document(&OfModel { model, trouble: view.trouble.as_deref(), rollout, steered })
}

async fn history(plane: &AdminPlane, query: &str) -> Reply {
    let mut model = None;
    let mut most = LINES;
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let value = percent_decode_str(value).decode_utf8_lossy();
        match key {
            "model" => model = Some(value.into_owned()).filter(|model| !model.is_empty()),
            "most" => match value.parse::<u32>() {
                Ok(wanted @ 1..=MOST_LINES) => most = wanted,
                _ => {
                    let message =
                        format!("most: expected a number from 1 to {MOST_LINES}, got '{value}'");
                    return Reply::error(Code::InvalidArgument, &message);
                }
            },
            _ => {
                let message = format!("'{key}' is not known here; expected model or most");
                return Reply::error(Code::InvalidArgument, &message);
            }
        }
    }
    match plane.rollouts.history(model.as_deref(), most).await {
        Ok(history) => Reply::document(&History { history }),
        Err(error) => Reply::fault(&error),
    }
}

async fn obey(plane: &AdminPlane, call: Call, model: &str, order: Order) -> Reply {
    let text = match body::read(&call.head, call.body, LARGEST_BODY, BODY_TIME).await {
        Ok(text) => text,
        Err(error) => return Reply::fault(&error),
    };
    let given: Given = match object(&text) {
        Ok(given) => given,
        Err(message) => {
            let message = format!(
                "{message}; expected {{\"version\": 2, \"who\": \"...\", \"reason\": \"...\"}}, each of them optional"
            );
            return Reply::error(Code::InvalidArgument, &message);
        }
    };
    let Given { version, who, reason } = given;
    let command = match order {
        Order::Start => Command::Start { candidate: version },
        Order::Promote => Command::Promote { version },
        _ if version.is_some() => {
            let message = "version: only start and promote take one";
            return Reply::error(Code::InvalidArgument, message);
        }
        Order::Pause => Command::Pause,
        Order::Resume => Command::Resume,
        Order::Abort => Command::Abort,
        Order::Rollback => Command::Rollback,
        Order::Release => Command::Release,
    };
    for (field, text) in [("who", &who), ("reason", &reason)] {
        if text.as_ref().is_some_and(|text| text.len() > LONGEST) {
            let message = format!("{field}: expected at most {LONGEST} bytes");
            return Reply::error(Code::InvalidArgument, &message);
        }
    }
    let (who, reason) = (who.unwrap_or_else(|| NOBODY.to_owned()), reason.unwrap_or_default());
    match plane.rollouts.ask(model, command, &who, &reason).await {
        Ok(done) => Reply::document(&done),
        Err(error) => Reply::fault(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for (path, expected) in [
            ("/api/v1/rollouts", Some(Ask::All)),
            ("/api/v1/rollouts/", Some(Ask::All)),
            ("/api/v1/rollouts/car%2Dloan", Some(Ask::Of("car-loan".into()))),
            ("/api/v1/rollouts/m/rollback", Some(Ask::Do("m".into(), Order::Rollback))),
            ("/api/v1/rollouts/m/rollback/now", None),
            ("/api/v1/rollouts/m/dance", None),
            ("/api/v1/rolloutsm", None),
            ("/api/v1/history", Some(Ask::History)),
            ("/rollouts", None),
        ] {
            assert_eq!(Ask::of(path), expected, "{path}");
        }
    }
}
