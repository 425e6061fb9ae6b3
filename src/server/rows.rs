//! Predictions by name, ours: `POST /v2/models/M/predict` takes rows as JSON objects, as CSV or as
//! an Arrow stream, and answers in any of them.

use super::DataPlane;
use super::account::Call;
use super::asking::{Decoded, Written, ask};
use super::reply::{JSON, Reply};
use super::route::Target;
use super::tables::{self, ARROW, CSV, Media};
use crate::dataset::Table;
use crate::protocol::rows::{RowsAnswer, RowsRequest, decode_rows, encode_rows};
use crate::registry::{Protocol, Version};
use crate::tensor::Tensor;

/// Bytes that a row's answer takes, more or less.
const ROW_SIZE: usize = 128;

/// What the answer's writer needs to know of the request.
struct Form {
    n_rows: usize,
    is_list: bool,
}

/// Answers `POST /v2/models/M/predict`.
pub(super) async fn predict(plane: &DataPlane, call: &mut Call, target: &Target<'_>) -> Reply {
    let id = call.id.clone();
    let body_media = Media::of_body(&call.head.headers);
    let answer_media = Media::of_answer(&call.head.headers, body_media);
    let protocol = match body_media {
        Media::Arrow => Protocol::Arrow,
        Media::Json | Media::Csv => Protocol::Rows,
    };
    let decode = move |version: &Version, body: &bytes::Bytes, limit: usize| match body_media {
        Media::Json => {
            let RowsRequest { inputs, n_rows, is_list } = decode_rows(body, &version.rows, limit)?;
            Ok(Decoded { inputs, form: Form { n_rows, is_list } })
        }
        Media::Csv | Media::Arrow => {
            let Table { n_rows, inputs } = tables::read(body_media, version, body, limit)?;
            Ok(Decoded { inputs, form: Form { n_rows, is_list: true } })
        }
    };
    let encode = move |version: &Version, form: Form, outputs: &[Tensor]| {
        let Form { n_rows, is_list } = form;
        let id = id.to_str().unwrap_or_default();
        let content_type = match answer_media {
            Media::Json => {
                let answer = RowsAnswer {
                    model_name: &version.model,
                    model_version: &version.number_text,
                    id,
                    specs: &version.signature().outputs,
                    outputs,
                    n_rows,
                    is_list,
                };
                let mut body = Vec::with_capacity((n_rows + 1) * ROW_SIZE);
                encode_rows(&answer, &version.rows, &mut body);
                return Ok(Written { content_type: JSON, body });
            }
            Media::Csv => CSV,
            Media::Arrow => ARROW,
        };
        let body = tables::write(answer_media, version, id, outputs, n_rows)?;
        Ok(Written { content_type, body })
    };
    ask(plane, call, target, protocol, decode, encode).await
}
