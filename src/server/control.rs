//! The model repository extension: index, load, unload.

use std::borrow::Cow;
use std::time::Duration;

use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::account::Call;
use super::order::object;
use super::reply::Reply;
use super::{DataPlane, body};
use crate::error::Code;
use crate::protocol::v2::documents::IndexEntry;
use crate::registry::State;

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
    let entries = table.index.iter().filter(|entry| !request.ready || entry.state == State::Ready);
    let entries: Vec<IndexEntry<'_>> = entries
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
    if let Some(refusal) = refusal(plane) {
        return refusal;
    }
    let body = match read(&call.head, &mut call.body).await {
        Ok(body) => body,
        Err(reply) => return *reply,
    };
    let request: LoadRequest<'_> = match parse(&body) {
        Ok(request) => request,
        Err(reply) => return *reply,
    };
    // Models come from the repository alone, so that what serves can be reproduced from it.
    if let Some(parameter) =
        request.parameters.keys().find(|key| *key == "config" || key.starts_with("file:"))
    {
        let message = format!(
            "parameter '{parameter}' is not supported: put the files into the repository, and settings into model.toml"
        );
        return Reply::error(Code::Unimplemented, &message);
    }
    match plane.registry.load(model).await {
        Ok(_) => Reply::document(&serde_json::json!({})),
        Err(error) => Reply::fault(&error),
    }
}

pub(super) async fn unload(plane: &DataPlane, call: &mut Call, model: &str) -> Reply {
    if let Some(refusal) = refusal(plane) {
        return refusal;
    }
    let body = match read(&call.head, &mut call.body).await {
        Ok(body) => body,
        Err(reply) => return *reply,
    };
    if let Err(reply) = parse::<LoadRequest<'_>>(&body) {
        return *reply;
    }
    match plane.registry.unload(model).await {
        Ok(_) => Reply::document(&serde_json::json!({})),
        Err(error) => Reply::fault(&error),
    }
}

fn refusal(plane: &DataPlane) -> Option<Reply> {
    let allowed = plane.registry.live().config.repository.api;
    (!allowed).then(|| {
        let message = "load and unload are turned off on this listener (repository.api = false)";
        Reply::error(Code::Unimplemented, message)
    })
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
