//! Rows as tables: CSV and Arrow streams in and out of `POST /v2/models/M/predict`.

use std::collections::HashMap;

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};

use crate::dataset::{AnswerColumn, DatasetError, Table, read_arrow, read_csv};
use crate::dataset::{write_arrow, write_csv};
use crate::protocol::v2::ProtocolError;
use crate::registry::Version;
use crate::tensor::Tensor;

/// The media types of tables.
pub(super) const ARROW: HeaderValue =
    HeaderValue::from_static("application/vnd.apache.arrow.stream");
pub(super) const CSV: HeaderValue = HeaderValue::from_static("text/csv; charset=utf-8");

/// Columns that a tensor without names for them is told in, at most; a wider one is a column of lists.
const WIDEST: usize = 64;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Media {
    Json,
    Csv,
    Arrow,
}

impl Media {
    /// How the body is written: JSON, unless the head says that it is a table. What else it says is
    /// not looked at, since clients say all kinds of things of their JSON.
    pub(super) fn of_body(head: &HeaderMap) -> Self {
        let content_type = head.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        content_type.and_then(Self::of).unwrap_or(Self::Json)
    }

    /// How the answer is to be written: the first that the client lists and we know, else as the
    /// request was.
    pub(super) fn of_answer(head: &HeaderMap, body: Self) -> Self {
        let accepted = head.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        accepted.flat_map(|value| value.split(',')).find_map(Self::of).unwrap_or(body)
    }

    fn of(text: &str) -> Option<Self> {
        let (name, _) = text.split_once(';').unwrap_or((text, ""));
        let name = name.trim();
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match () {
            () if is("application/vnd.apache.arrow.stream") => Some(Self::Arrow),
            () if is("text/csv") => Some(Self::Csv),
            () if is("application/json") => Some(Self::Json),
            () => None,
        }
    }
}

/// Reads a table as the inputs of a version.
pub(super) fn read(
    media: Media,
    version: &Version,
    body: &bytes::Bytes,
    limit: usize,
) -> Result<Table, ProtocolError> {
    let specs = &version.signature().inputs;
    let names = &version.rows.naming().features;
    let table = match media {
        Media::Arrow => read_arrow(body, specs, names, limit),
        _ => read_csv(body, specs, names, limit),
    };
    table.map_err(|error| refused(&error, limit))
}

fn refused(error: &DatasetError, limit: usize) -> ProtocolError {
    match error {
        DatasetError::TooLarge { .. } => ProtocolError::TooLarge { limit },
        error => ProtocolError::Tensors(error.to_string()),
    }
}

/// Writes outputs as a table.
pub(super) fn write(
    media: Media,
    version: &Version,
    id: &str,
    outputs: &[Tensor],
    n_rows: usize,
) -> Result<Vec<u8>, ProtocolError> {
    let columns = columns(version, outputs, n_rows)?;
    let written = match media {
        Media::Arrow => {
            let about = [
                ("tidegate.model", &*version.model),
                ("tidegate.version", &version.number_text),
                ("tidegate.digest", &version.loaded.digest),
                ("tidegate.id", id),
            ];
            let about = about.map(|(key, value)| (key.to_owned(), value.to_owned()));
            write_arrow(&columns, outputs, n_rows, HashMap::from(about))
        }
        _ => write_csv(&columns, outputs, n_rows),
    };
    written.map_err(|error| refused(&error, usize::MAX))
}

/// The columns of an answer: an output of one value a row goes by its name, scores by their classes'
/// names as well.
fn columns(
    version: &Version,
    outputs: &[Tensor],
    n_rows: usize,
) -> Result<Vec<AnswerColumn>, ProtocolError> {
    let mut columns = Vec::new();
    let is_whole = version.rows.is_whole();
    for (output, (spec, tensor)) in version.signature().outputs.iter().zip(outputs).enumerate() {
        let has_rows = tensor.shape().first() == Some(&n_rows) || (is_whole && n_rows == 1);
        if !has_rows {
            let shape = tensor.shape();
            return Err(ProtocolError::Tensors(format!(
                "output '{}' {shape:?} has no {n_rows} rows, so it cannot be a column; ask for JSON",
                spec.name
            )));
        }
        let width = tensor.len() / n_rows.max(1);
        let scores = version.rows.naming().scores.as_ref();
        let scores = scores.filter(|scores| scores.output == output && scores.n_columns == width);
        let name = &spec.name;
        match (width, scores) {
            (1, _) => columns.push(AnswerColumn { name: name.clone(), output, element: Some(0) }),
            (_, Some(scores)) => columns.extend((0..width).map(|element| AnswerColumn {
                name: format!("{name}_{}", scores.class(element)),
                output,
                element: Some(element),
            })),
            (2..=WIDEST, None) => columns.extend((0..width).map(|element| AnswerColumn {
                name: format!("{name}_{element}"),
                output,
                element: Some(element),
            })),
            _ => columns.push(AnswerColumn { name: name.clone(), output, element: None }),
        }
    }
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_what_says_so_and_all_else_is_json() {
        for (content_type, accept, expected) in [
            (None, None, (Media::Json, Media::Json)),
            (Some("application/x-www-form-urlencoded"), Some("*/*"), (Media::Json, Media::Json)),
            (Some("text/csv; charset=utf-8"), None, (Media::Csv, Media::Csv)),
            (Some("TEXT/CSV"), Some("application/json"), (Media::Csv, Media::Json)),
            (
                Some("application/json"),
                Some("text/html, application/vnd.apache.arrow.stream;q=0.9, text/csv"),
                (Media::Json, Media::Arrow),
            ),
        ] {
            let mut head = HeaderMap::new();
            for (name, value) in [(CONTENT_TYPE, content_type), (ACCEPT, accept)] {
                if let Some(value) = value {
                    head.insert(name, value.parse().unwrap());
                }
            }
            let body = Media::of_body(&head);
            assert_eq!((body, Media::of_answer(&head, body)), expected, "{content_type:?}");
        }
    }
}
