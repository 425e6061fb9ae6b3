//! What the load generator (`load`, and `grpc-load` for gRPC) is made of. The scenarios in
//! `scenarios/` start it, the bare servers (`bare-hyper`, `bare-tonic`) and the gateway; see
//! `README.md`.
//!
//! The generator is written here, on raw sockets, because it shares the machine with the server it
//! measures: what a general HTTP client spends on a request would be taken from the server, and
//! every ratio would move towards 1.

pub mod client;
pub mod grpc;
pub mod histogram;
pub mod http;
pub mod options;
pub mod report;
