//! Protocols: bytes to tensors and back. Pure: nothing here reads a socket or knows a status. Tensors
//! that a request leaves in shared memory are copied from there.
//!
//! Invariants:
//! - any bytes give a request or an error, never a panic; nothing is allocated because of a size
//!   that was announced, only because of bytes that came or that a registered region has;
//! - tensors of a decoded request fit the signature: known, complete, of the declared datatype
//!   and of a shape that the declaration accepts;
//! - what was sent as binary is shared with the body, not copied.

mod base64;
mod binding;
pub mod grpc;
mod region;
pub mod rows;
pub mod v1;
pub mod v2;

pub use region::{Memory, write_regions};
