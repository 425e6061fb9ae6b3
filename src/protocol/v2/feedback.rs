//! Labels that come after their predictions: `POST /v2/models/M/feedback`.
//!
//! ```json
//! {"records": [{"id": "request-1", "label": 1}, {"id": "request-2", "row": 3, "label": "cat"}]}
//! ```
//!
//! `id` is the request's id, `row` the row of the request (from 0, 0 by default), `label` what
//! turned out to be true: a number, `true` or `false`, or a class's name.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::error::{Code, Fault};

/// What turned out to be true of a row.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Label {
    /// Whether it is so.
    Bool(bool),
    /// A class's number, or a value.
    Number(f64),
    /// A class's name.
    Text(Box<str>),
}

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(LabelVisitor)
    }
}

struct LabelVisitor;

impl Visitor<'_> for LabelVisitor {
    type Value = Label;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, true, false or a class's name")
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Label, E> {
        Ok(Label::Bool(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Label, E> {
        Ok(Label::Number(number as f64))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Label, E> {
        Ok(Label::Number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Label, E> {
        Ok(Label::Number(number))
    }

    fn visit_str<E>(self, name: &str) -> Result<Label, E> {
        Ok(Label::Text(name.into()))
    }
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
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

/// A body as it should be. Written by hand, because derived structs take lists for objects.
struct Body {
    records: Vec<FeedbackRecord>,
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Body;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with 'records'")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Body, A::Error> {
                let mut records = None;
                while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                    match &*key {
                        "records" => records = Some(map.next_value()?),
                        other => return Err(A::Error::unknown_field(other, &["records"])),
                    }
                }
                records.map(|records| Body { records }).ok_or(A::Error::missing_field("records"))
            }
        }
        from.deserialize_map(Fields)
    }
}

impl<'de> Deserialize<'de> for FeedbackRecord {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = FeedbackRecord;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with 'id' and 'label'")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FeedbackRecord, A::Error> {
                let (mut id, mut row, mut label) = (None, 0, None);
                while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                    match &*key {
                        "id" => id = Some(map.next_value::<String>()?),
                        "row" => row = map.next_value()?,
                        "label" => label = Some(map.next_value()?),
                        other => {
                            return Err(A::Error::unknown_field(other, &["id", "row", "label"]));
                        }
                    }
                }
                let id = id.filter(|id| !id.is_empty());
                let id = id.ok_or(A::Error::missing_field("id"))?;
                let label = label.ok_or(A::Error::missing_field("label"))?;
                Ok(FeedbackRecord { id, row, label })
            }
        }
        from.deserialize_map(Fields)
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
    if let Ok(Body { records }) = serde_json::from_slice(body) {
        let got = records.len();
        return if got > most { Err(FeedbackError::TooMany { got, most }) } else { Ok(records) };
    }
    // Something is wrong: once more, slowly, to say what and where.
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
            // `29.0` is a whole number, as everywhere.
            let whole = value.as_f64().filter(|row| row.fract() == 0.0 && *row >= 0.0);
            let whole = whole.filter(|row| *row <= f64::from(u32::MAX)).map(|row| row as u32);
            let row = value.as_u64().map_or(whole, |row| u32::try_from(row).ok());
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
            (r#"{"records": [["a", 0, 1]]}"#, "record 0: expected an object"),
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
