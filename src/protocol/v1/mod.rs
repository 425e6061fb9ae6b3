//! The V1 protocol of KServe, which is TensorFlow Serving's: `instances` row by row, or `inputs`
//! column by column; `predictions` or `outputs` back.
//!
//! Decisions where the two differ or are silent:
//! - a row is the value of the only input, a list with one value an input, or an object by names of
//!   inputs or features; a column is an input's whole tensor, or all values of a feature;
//! - a model with one output answers its values, one with several an object by their names;
//! - there is one signature, `serving_default`;
//! - bytes that are no text are `{"b64": "..."}`, what JSON cannot write is `"NaN"`, `"Infinity"`
//!   and `"-Infinity"`.

mod answer;
mod columns;
mod documents;
mod request;

#[cfg(test)]
mod tests;

pub use answer::encode_predictions;
pub use documents::{ModelList, ModelStatus, VersionStatus};
pub use request::{V1Form, V1Request, decode_instances};
