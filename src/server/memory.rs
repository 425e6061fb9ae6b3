//! Shared memory of clients on this machine: what both protocols of V2 ask of it, and the calls of
//! HTTP.

use std::sync::Arc;

use serde::Deserialize;

use super::account::Call;
use super::reply::Reply;
use super::route::MemoryCall;
use super::{DataPlane, control, order};
use crate::config::SharedMemory;
use crate::error::{Code, Fault};
use crate::protocol::Memory;
use crate::shared_memory::{RegionError, RegionStatus, Regions};

/// Tensors in shared memory are copied on the compute pool from this size on: it takes about a
/// millisecond, in which an I/O thread serves no other connection.
pub(super) const COPY_ASIDE_FROM: u64 = 4 << 20;

/// Why there is no shared memory of CUDA.
pub(super) const NO_CUDA: &str = "CUDA shared memory is not supported: models run on the CPU; for clients on the same machine there is system shared memory";

/// Why a call about regions did nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum MemoryError {
    #[error(
        "shared memory is turned off (server.shared_memory.enabled): send tensors with the request, as binary data or raw_input_contents"
    )]
    Off,
    #[error("`{0}` is missing: expected an object with `key`, `byte_size` and optionally `offset`")]
    Missing(&'static str),
    #[error(transparent)]
    Region(#[from] RegionError),
}

impl Fault for MemoryError {
    fn code(&self) -> Code {
        match self {
            Self::Off => Code::Unimplemented,
            Self::Missing(_) => Code::InvalidArgument,
            Self::Region(error) => error.code(),
        }
    }
}

/// Regions, where the configuration turns them on.
pub(super) fn start(config: &SharedMemory) -> Option<Arc<Regions>> {
    let SharedMemory { enabled, prefix, regions, region_size } = config;
    enabled.then(|| Arc::new(Regions::new(prefix, *regions, *region_size)))
}

/// What a prediction needs of shared memory, where it is on: the regions, and the bytes that its
/// inputs may have there.
pub(super) fn of(plane: &DataPlane) -> Option<(Arc<Regions>, u64)> {
    let regions = plane.regions.as_ref()?;
    Some((Arc::clone(regions), plane.registry.live().config.limits.body))
}

/// The same as the protocols take it.
pub(super) fn lent(memory: Option<&(Arc<Regions>, u64)>) -> Memory<'_> {
    let regions = memory.map(|(regions, _)| &**regions);
    Memory::of(regions, memory.map_or(0, |(_, most)| *most))
}

/// Whether a request in JSON may have much to copy: it names regions, and there are large ones.
pub(super) fn is_long(regions: &Regions, json: &[u8]) -> bool {
    const WORD: &[u8] = b"shared_memory_region";
    regions.any_from(COPY_ASIDE_FROM) && json.windows(WORD.len()).any(|window| window == WORD)
}

/// The regions, where they are on.
pub(super) fn regions(plane: &DataPlane) -> Result<&Regions, MemoryError> {
    plane.regions.as_deref().ok_or(MemoryError::Off)
}

/// Registers a region.
pub(super) fn register(
    plane: &DataPlane,
    name: &str,
    key: &str,
    offset: u64,
    byte_size: u64,
) -> Result<(), MemoryError> {
    regions(plane)?.register(name, key, offset, byte_size)?;
    tracing::info!(region = name, key, offset, byte_size, "shared memory registered");
    Ok(())
}

/// Forgets a region, or all.
pub(super) fn unregister(plane: &DataPlane, name: Option<&str>) -> Result<(), MemoryError> {
    let count = regions(plane)?.unregister(name);
    tracing::info!(region = name, count, "shared memory unregistered");
    Ok(())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RegisterRequest {
    key: Option<String>,
    #[serde(deserialize_with = "order::whole")]
    offset: Option<u64>,
    #[serde(deserialize_with = "order::whole")]
    byte_size: Option<u64>,
}

/// Answers the calls below `/v2/systemsharedmemory`.
pub(super) async fn answer(plane: &DataPlane, call: &mut Call, asked: MemoryCall<'_>) -> Reply {
    let done = |outcome: Result<(), MemoryError>| match outcome {
        Ok(()) => Reply::document(&serde_json::json!({})),
        Err(error) => Reply::fault(&error),
    };
    match asked {
        MemoryCall::Status(name) => match status(plane, name.as_deref()) {
            Ok(regions) => Reply::document(&regions),
            Err(error) => Reply::fault(&error),
        },
        MemoryCall::Unregister(name) => done(unregister(plane, name.as_deref())),
        MemoryCall::Register(name) => {
            // Before the body is read: whatever it says, the answer is no.
            if let Err(error) = regions(plane) {
                return Reply::fault(&error);
            }
            let request: RegisterRequest = match control::read_json(call).await {
                Ok(request) => request,
                Err(reply) => return *reply,
            };
            let RegisterRequest { key, offset, byte_size } = request;
            done(match (key, byte_size) {
                (None, _) => Err(MemoryError::Missing("key")),
                (_, None) => Err(MemoryError::Missing("byte_size")),
                (Some(key), Some(size)) => register(plane, &name, &key, offset.unwrap_or(0), size),
            })
        }
    }
}

/// All regions, or one.
pub(super) fn status(
    plane: &DataPlane,
    name: Option<&str>,
) -> Result<Vec<RegionStatus>, MemoryError> {
    Ok(regions(plane)?.status(name)?)
}

/// Everything below `/v2/cudasharedmemory`.
pub(super) fn no_cuda() -> Reply {
    Reply::error(Code::Unimplemented, NO_CUDA)
}
