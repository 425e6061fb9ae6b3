//! Labels that come after their predictions: `POST /v2/models/M/feedback`.
//!
//! ```json
//! {"records": [{"id": "request-1", "label": 1}, {"id": "request-2", "row": 3, "label": "cat"}]}
//! ```
//!
//! `id` is the request's id, `row` the row of the request (from 0, 0 by default), `label` what
//! turned out to be true: a number, `true` or `false`, or a class's name.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Code, Fault};

/// What turned out to be true of a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Label {
    /// Whether it is so.
    Bool(bool),
    /// A class's number, or a value.
    Number(f64),
    /// A class's name.
    Text(Box<str>),
}

/// One label and the prediction that it belongs to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FeedbackRecord {
    /// The request's id.
    pub id: String,
    /// The row of the request, from 0.
    pub row: u32,
    /// What was true.
    pub label: Label,
}

/// What became of the records of one call: they add up to its records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FeedbackCounts {
    /// Found their prediction.
    pub joined: u64,
    /// Came before their prediction was counted, and wait a moment for it.
    pub waiting: u64,
    /// Came when their prediction no longer waited.
    pub late: u64,
    /// Belong to no prediction that is known.
    pub unknown: u64,
    /// Came a second time.
    pub duplicate: u64,
    /// Are no label of the model: a class that it does not have, a text for a number.
    pub invalid: u64,
}

/// Why bytes are no feedback. The message names the record and the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeedbackError {
    /// The JSON is malformed, or no object with `records`.
    #[error("not feedback: {0}; expected {{\"records\": [{{\"id\": \"...\", \"label\": 1}}]}}")]
    Json(String),
    /// A record is wrong.
    #[error("record {index}: {reason}")]
    Record {
        /// Its place in the list, from 0.
        index: usize,
        /// The field, what was expected and what came.
        reason: String,
    },
    /// There are too many.
    #[error("{got} records, at most {most} are taken at once; send them in parts")]
    TooMany {
        /// Records that came.
        got: usize,
        /// Records that are taken.
        most: usize,
    },
}

impl Fault for FeedbackError {
    fn code(&self) -> Code {
        match self {
            Self::Json(_) | Self::Record { .. } => Code::InvalidArgument,
            Self::TooMany { .. } => Code::TooLarge,
        }
    }
}

/// The body that carries `records`.
#[must_use]
pub fn encode_feedback(records: &[FeedbackRecord]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a> {
        records: &'a [FeedbackRecord],
    }
    // Numbers, booleans and texts under fixed names: nothing here that JSON cannot write.
    serde_json::to_vec(&Body { records }).unwrap_or_default()
}

/// Reads feedback of at most `most` records.
///
/// # Errors
/// What is wrong, and in which record.
pub fn decode_feedback(body: &[u8], most: usize) -> Result<Vec<FeedbackRecord>, FeedbackError> {
    let mut fields: Map<String, Value> =
        serde_json::from_slice(body).map_err(|error| FeedbackError::Json(error.to_string()))?;
    let records = match fields.remove("records") {
        Some(Value::Array(records)) => records,
        Some(other) => {
            let reason = format!("'records': expected a list, got {}", shown(&other));
            return Err(FeedbackError::Json(reason));
        }
        None => return Err(FeedbackError::Json("'records' is missing".to_owned())),
    };
    if let Some(key) = fields.keys().next() {
        return Err(FeedbackError::Json(format!("'{key}' is no field: records is")));
    }
    if records.len() > most {
        return Err(FeedbackError::TooMany { got: records.len(), most });
    }
    let records = records.into_iter().enumerate();
    records
        .map(|(index, value)| {
            record(value).map_err(|reason| FeedbackError::Record { index, reason })
        })
        .collect()
}

fn record(value: Value) -> Result<FeedbackRecord, String> {
    let Value::Object(mut fields) = value else {
        return Err(format!("expected an object with 'id' and 'label', got {}", shown(&value)));
    };
    let id = match fields.remove("id") {
        Some(Value::String(id)) if !id.is_empty() => id,
        Some(other) => {
            return Err(format!("'id': expected the request's id, got {}", shown(&other)));
        }
        None => return Err("'id' is missing: the id of the request".to_owned()),
    };
    let row = match fields.remove("row") {
        None => 0,
        Some(value) => {
            let row = value.as_u64().and_then(|row| u32::try_from(row).ok());
            row.ok_or_else(|| {
                format!("'row': expected a row of the request, from 0, got {}", shown(&value))
            })?
        }
    };
    let label = match fields.remove("label") {
        Some(Value::Bool(label)) => Label::Bool(label),
        Some(Value::Number(label)) => Label::Number(label.as_f64().unwrap_or(f64::NAN)),
        Some(Value::String(label)) => Label::Text(label.into()),
        Some(other) => {
            let wanted = "expected a number, true, false or a class's name";
            return Err(format!("'label': {wanted}, got {}", shown(&other)));
        }
        None => return Err("'label' is missing: what turned out to be true".to_owned()),
    };
    match fields.keys().next() {
        Some(key) => Err(format!("'{key}' is no field of a record: id, row and label are")),
        None => Ok(FeedbackRecord { id, row, label }),
    }
}

/// A value, cut short, as an error shows it.
fn shown(value: &Value) -> String {
    const LONGEST: usize = 40;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_every_kind_of_label_are_read_and_written() {
        let body = br#"{"records": [
            {"id": "a", "label": 1}, {"id": "b", "row": 3, "label": "cat"},
            {"id": "c", "label": true}, {"id": "d", "label": -2.5}
        ]}"#;
        let record = |id: &str, row, label| FeedbackRecord { id: id.to_owned(), row, label };
        let expected = [
            record("a", 0, Label::Number(1.0)),
            record("b", 3, Label::Text("cat".into())),
            record("c", 0, Label::Bool(true)),
            record("d", 0, Label::Number(-2.5)),
        ];
        assert_eq!(decode_feedback(body, 4).unwrap(), expected);
        assert_eq!(decode_feedback(&encode_feedback(&expected), 4).unwrap(), expected);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_record() {
        for (body, expected) in [
            ("{", "not feedback: EOF"),
            ("[]", "not feedback: invalid type"),
            (r#"{"rows": []}"#, "'records' is missing"),
            (r#"{"records": {}}"#, "'records': expected a list, got {}"),
            (r#"{"records": [], "model": 1}"#, "'model' is no field"),
            (
                r#"{"records": [{"id": "a", "label": 1}, 7]}"#,
                "record 1: expected an object with 'id' and 'label', got 7",
            ),
            (r#"{"records": [{"label": 1}]}"#, "record 0: 'id' is missing"),
            (
                r#"{"records": [{"id": 5, "label": 1}]}"#,
                "record 0: 'id': expected the request's id, got 5",
            ),
            (r#"{"records": [{"id": "", "label": 1}]}"#, "record 0: 'id': expected"),
            (r#"{"records": [{"id": "a"}]}"#, "record 0: 'label' is missing"),
            (
                r#"{"records": [{"id": "a", "label": null}]}"#,
                "record 0: 'label': expected a number, true, false or a class's name, got null",
            ),
            (
                r#"{"records": [{"id": "a", "row": -1, "label": 1}]}"#,
                "record 0: 'row': expected a row of the request, from 0, got -1",
            ),
            (
                r#"{"records": [{"id": "a", "label": 1, "lable": 2}]}"#,
                "record 0: 'lable' is no field",
            ),
        ] {
            let error = decode_feedback(body.as_bytes(), 10).unwrap_err();
            assert!(error.to_string().contains(expected), "{body}: {error}");
            assert_eq!(error.code(), Code::InvalidArgument);
        }
        let error = decode_feedback(br#"{"records": [1, 2, 3]}"#, 2).unwrap_err();
        assert_eq!(error, FeedbackError::TooMany { got: 3, most: 2 });
        let long = format!(r#"{{"records": [{{"id": "a", "label": [{:?}]}}]}}"#, "ä".repeat(99));
        assert!(decode_feedback(long.as_bytes(), 1).unwrap_err().to_string().ends_with("..."));
    }
}
