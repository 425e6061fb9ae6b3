//! Shared memory of clients on this machine: the calls of [`crate::server::memory`] as messages.

use super::DataPlane;
use super::status::Status;
use crate::error::Code;
use crate::protocol::grpc::proto::system_shared_memory_status_response::RegionStatus;
use crate::protocol::grpc::proto::{
    SystemSharedMemoryRegisterRequest, SystemSharedMemoryRegisterResponse,
    SystemSharedMemoryStatusRequest, SystemSharedMemoryStatusResponse,
    SystemSharedMemoryUnregisterRequest, SystemSharedMemoryUnregisterResponse,
};
use crate::server::memory::{self, NO_CUDA};

pub(super) fn status(
    plane: &DataPlane,
    request: SystemSharedMemoryStatusRequest,
) -> Result<SystemSharedMemoryStatusResponse, Status> {
    let regions = memory::status(plane, named(&request.name))?.into_iter().map(|region| {
        let crate::shared_memory::RegionStatus { name, key, offset, byte_size } = region;
        (name.clone(), RegionStatus { name, key, offset, byte_size })
    });
    Ok(SystemSharedMemoryStatusResponse { regions: regions.collect() })
}

pub(super) fn register(
    plane: &DataPlane,
    request: SystemSharedMemoryRegisterRequest,
) -> Result<SystemSharedMemoryRegisterResponse, Status> {
    let SystemSharedMemoryRegisterRequest { name, key, offset, byte_size } = request;
    memory::register(plane, &name, &key, offset, byte_size)?;
    Ok(SystemSharedMemoryRegisterResponse {})
}

pub(super) fn unregister(
    plane: &DataPlane,
    request: SystemSharedMemoryUnregisterRequest,
) -> Result<SystemSharedMemoryUnregisterResponse, Status> {
    memory::unregister(plane, named(&request.name))?;
    Ok(SystemSharedMemoryUnregisterResponse {})
}

/// One region, or all where none is named.
fn named(name: &str) -> Option<&str> {
    Some(name).filter(|name| !name.is_empty())
}

pub(super) fn no_cuda() -> Status {
    Status::new(Code::Unimplemented, NO_CUDA)
}
