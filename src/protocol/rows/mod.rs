//! Predictions by name: rows as JSON objects in, rows as JSON objects out.
//!
//! A request is one object, or a list of them; a key is an input's name, with the value or the list
//! of all its values, or a feature's name, with one value. An answer is what the model says of each
//! row, in words where the model's classes have names.
//!
//! Decisions:
//! - `null` is a missing value: NaN in floating point, empty in BYTES, refused elsewhere. A key
//!   that is not there is an error, unless the version's baseline has seen the feature missing;
//! - a list is nested as its input's shape, or flat;
//! - what JSON cannot write is `"NaN"`, `"Infinity"` and `"-Infinity"`, and bytes that are not
//!   UTF-8 are `{"b64": "..."}`, in both directions;
//! - whatever the keys say, no more memory is filled than the limit of a body.

mod answer;
mod request;
mod schema;
mod value;

#[cfg(test)]
mod tests;

pub(super) use answer::{Cells, nested};
pub use answer::{RowsAnswer, encode_rows};
pub(super) use request::{Row, RowSeed, failed};
pub use request::{RowsRequest, decode_rows};
pub(super) use schema::{InputRow, Key};
pub use schema::{Naming, RowSchema, ScoreKind, Scores};
pub(super) use value::{Scratch, ValueSeed};
