//! Tidegate: a model inference gateway with built-in monitoring.
//!
//! A module uses only modules of lower layers; `tests/architecture.rs` holds it to that. Modules
//! in parentheses have their place, and are not there yet.
//!
//! | layer | module | owns |
//! |---|---|---|
//! | 0 | [`error`] | the closed set of failure codes |
//! | 0 | [`tensor`] | datatype, shape, tensor, signature |
//! | 1 | [`telemetry`] | every metric's name, help and buckets; handles; logs |
//! | 1 | [`config`] | the file as written and, separately, the valid configuration; differences |
//! | 1 | [`shared_memory`] | regions of clients on this machine: registered, read, written |
//! | 1 | [`stats`] | effect sizes, the sequential detector, confidence sequences, performance |
//! | 2 | [`protocol`] | bytes to tensors and back |
//! | 2 | [`engine`] | ONNX file to executable plan |
//! | 2 | [`repository`] | where versions come from |
//! | 2 | [`dataset`] | rows of files as tensors |
//! | 2 | [`store`] | durable state |
//! | 2 | [`handoff`] | from many threads to one, in reused memory |
//! | 3 | [`scheduler`] | inline or pooled execution, batching, admission, deadlines |
//! | 3 | [`monitor`] | baseline, cells, ticks, drift, outliers, performance |
//! | 3 | [`capture`], (governance) | recording; roles and audit |
//! | 3 | [`traffic`] | which version answers, who gets copies, comparison |
//! | 4 | [`registry`] | the live table, prepare and commit, retire and reap |
//! | 5 | [`observe`], [`alert`] | the one observation of an answer; verdicts out |
//! | 5 | [`rollout`] | stages and gates |
//! | 6 | [`server`] | listeners, the stack, both planes' handlers, status codes, drain |
//! | 6 | (console) | pages |
//! | 7 | [`app`] | the composition root |
//! | 8 | [`cli`] | one file a command |

pub mod error;
pub mod tensor;

pub mod config;
pub mod shared_memory;
pub mod stats;
pub mod telemetry;

pub mod dataset;
pub mod engine;
pub mod handoff;
pub mod protocol;
pub mod repository;
pub mod store;

pub mod capture;
pub mod monitor;
pub mod scheduler;
pub mod traffic;

pub mod registry;

pub mod alert;
pub mod observe;
pub mod rollout;

pub mod server;

pub mod app;

pub mod cli;
