//! Behaviour through the real sockets of the real binary: one module for each promise.

mod accounting;
mod drain;
mod harness;
mod onnx;
mod overload;
mod reload;
mod swap;
