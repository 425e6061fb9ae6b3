//! Tidegate: a model inference gateway with built-in monitoring.
pub mod app;
pub mod cli;
pub mod config;
pub mod engine;
pub mod error;
pub mod protocol;
pub mod registry;
pub mod repository;
pub mod scheduler;
pub mod server;
pub mod telemetry;
pub mod tensor;
pub mod traffic;
