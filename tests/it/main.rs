//! Behaviour through the real sockets of the real binary: one module for each promise.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on ends here")]

mod accounting;
mod baseline;
mod capture;
mod cli;
mod datatypes;
mod drain;
mod forms;
mod grpc;
mod harness;
mod http;
mod monitor;
mod onnx;
mod overload;
mod reload;
mod rollout;
mod swap;
mod traffic;
mod untrusted;
mod wire;
