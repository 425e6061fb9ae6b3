//! The model repository extension: index, load, unload.

use std::borrow::Cow;
use std::time::Duration;

use hyper::body::Incoming;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::account::Call;
use super::order::object;
use super::reply::Reply;
use super::{DataPlane, body};
use crate::error::{Code, Fault};
use crate::protocol::v2::documents::IndexEntry;
use crate::registry::{ChangeError, IndexEntry as RegistryEntry, LiveTable, State};

/// Larger bodies than this are not what these calls take.
const LARGEST_BODY: u64 = 1 << 20;

const BODY_TIME: Duration = Duration::from_secs(10);

#[derive(Deserialize, Default)]
#[serde(default)]
struct IndexRequest {
    /// Only versions that serve.
    ready: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct LoadRequest<'a> {
    #[serde(borrow)]
    parameters: std::collections::BTreeMap<Cow<'a, str>, &'a RawValue>,
}

/// Why a model was not loaded or unloaded.
#[derive(Debug, thiserror::Error)]
pub(super) enum ControlError {
    #[error("load and unload are turned off on this listener (repository.api = false)")]
    Off,
    /// Models come from the repository alone, so that what serves can be reproduced from it.
    #[error(
        "parameter '{0}' is not supported: put the files into the repository, and settings into model.toml"
    )]
    Parameter(String),
    #[error(transparent)]
    Change(#[from] ChangeError),
}

impl Fault for ControlError {
    fn code(&self) -> Code {
        match self {
            Self::Off | Self::Parameter(_) => Code::Unimplemented,
            Self::Change(error) => error.code(),
        }
    }
}

/// Loads what the repository has for a model.
pub(super) async fn load_model(
    plane: &DataPlane,
    model: &str,
    parameters: &[&str],
) -> Result<(), ControlError> {
    check_allowed(plane)?;
    let is_refused = |name: &&&str| **name == "config" || name.starts_with("file:");
    if let Some(name) = parameters.iter().find(is_refused) {
        return Err(ControlError::Parameter((*name).to_owned()));
    }
    plane.registry.load(model).await?;
    Ok(())
}

/// Takes a model out of service.
pub(super) async fn unload_model(plane: &DataPlane, model: &str) -> Result<(), ControlError> {
    check_allowed(plane)?;
    plane.registry.unload(model).await?;
    Ok(())
}

fn check_allowed(plane: &DataPlane) -> Result<(), ControlError> {
    let allowed = plane.registry.live().config.repository.api;
    if allowed { Ok(()) } else { Err(ControlError::Off) }
}

/// The versions in the repository, or only those that serve.
pub(super) fn entries(table: &LiveTable, ready: bool) -> impl Iterator<Item = &RegistryEntry> {
    table.index.iter().filter(move |entry| !ready || entry.state == State::Ready)
}

pub(super) async fn index(plane: &DataPlane, call: &mut Call) -> Reply {
    let body = match read(&call.head, &mut call.body).await {
        Ok(body) => body,
        Err(reply) => return *reply,
    };
    let request: IndexRequest = match parse(&body) {
        Ok(request) => request,
        Err(reply) => return *reply,
    };
    let table = plane.registry.live();
    let entries: Vec<IndexEntry<'_>> = entries(&table, request.ready)
        .map(|entry| IndexEntry {
            name: &entry.model,
            version: entry.version.map(|version| version.to_string()),
            state: entry.state.name(),
            reason: &entry.reason,
        })
        .collect();
    Reply::document(&entries)
}

pub(super) async fn load(plane: &DataPlane, call: &mut Call, model: &str) -> Reply {
    // Before the body is read: whatever it says, the answer is no.
    if let Err(error) = check_allowed(plane) {
        return Reply::fault(&error);
    }
    let body = match read(&call.head, &mut call.body).await {
        Ok(body) => body,
        Err(reply) => return *reply,
    };
    let request: LoadRequest<'_> = match parse(&body) {
        Ok(request) => request,
        Err(reply) => return *reply,
    };
    let parameters: Vec<&str> = request.parameters.keys().map(AsRef::as_ref).collect();
    match load_model(plane, model, &parameters).await {
        Ok(()) => Reply::document(&serde_json::json!({})),
        Err(error) => Reply::fault(&error),
    }
}

pub(super) async fn unload(plane: &DataPlane, call: &mut Call, model: &str) -> Reply {
    if let Err(error) = check_allowed(plane) {
        return Reply::fault(&error);
    }
    let body = match read(&call.head, &mut call.body).await {
        Ok(body) => body,
        Err(reply) => return *reply,
    };
    if let Err(reply) = parse::<LoadRequest<'_>>(&body) {
        return *reply;
    }
    match unload_model(plane, model).await {
        Ok(()) => Reply::document(&serde_json::json!({})),
        Err(error) => Reply::fault(&error),
    }
}

/// The body of a call as JSON; an empty one is an empty object.
pub(super) async fn read_json<T: DeserializeOwned + Default>(
    call: &mut Call,
) -> Result<T, Box<Reply>> {
    let body = read(&call.head, &mut call.body).await?;
    parse(&body)
}

async fn read(
    head: &http::request::Parts,
    body: &mut Incoming,
) -> Result<bytes::Bytes, Box<Reply>> {
    body::read(head, body, LARGEST_BODY, BODY_TIME)
        .await
        .map_err(|error| Box::new(Reply::fault(&error)))
}

/// What the body asks for.
fn parse<'a, T: Deserialize<'a> + Default>(body: &'a [u8]) -> Result<T, Box<Reply>> {
    object(body).map_err(|message| Box::new(Reply::error(Code::InvalidArgument, &message)))
}
