//! Loads a file as the gateway loads a model, and runs it: an error is an answer.
//!
//! A finding is what the gateway could not turn into an error: the end of the process, more memory
//! or time than the limits of `fuzz/run`, and a panic in this crate's own code. Panics of the engine
//! below are caught, as they are there.
#![no_main]
#![allow(missing_docs, dead_code, unreachable_pub, reason = "parts of the crate, by path")]

#[path = "../../src/engine/mod.rs"]
mod engine;
#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/tensor/mod.rs"]
mod tensor;

use std::sync::Arc;

libfuzzer_sys::fuzz_target!(
    init: std::panic::set_hook(Box::new(|panic| {
        let is_ours = |place: &std::panic::Location<'_>| place.file().contains("src/engine/");
        if panic.location().is_some_and(is_ours) {
            eprintln!("{panic}\n{}", std::backtrace::Backtrace::force_capture());
            std::process::abort();
        }
    })),
    |file: &[u8]| {
        let Ok(model) = engine::OnnxModel::parse(file) else { return };
        let Ok(plan) = engine::Plan::compile(Arc::new(model), &[]) else { return };
        let _ = plan.warm_up();
    }
);
