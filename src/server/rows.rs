//! Predictions by name, ours: `POST /v2/models/M/predict` takes rows as JSON objects.

use super::DataPlane;
use super::account::Call;
use super::asking::{Decoded, Written, ask};
use super::reply::{JSON, Reply};
use super::route::Target;
use crate::protocol::rows::{RowsAnswer, RowsRequest, decode_rows, encode_rows};
use crate::registry::{Protocol, Version};
use crate::tensor::Tensor;

/// Bytes that a row's answer takes, more or less.
const ROW_SIZE: usize = 128;

/// Answers `POST /v2/models/M/predict`.
pub(super) async fn predict(plane: &DataPlane, call: Call, target: &Target<'_>) -> Reply {
    let id = call.id.clone();
    ask(
        plane,
        call,
        target,
        Protocol::Rows,
        |version, body, limit| {
            let RowsRequest { inputs, n_rows, is_list } = decode_rows(body, &version.rows, limit)?;
            Ok(Decoded { inputs, form: (n_rows, is_list) })
        },
        move |version: &Version, (n_rows, is_list), outputs: &[Tensor]| {
            let answer = RowsAnswer {
                model_name: &version.model,
                model_version: &version.number_text,
                id: id.to_str().unwrap_or_default(),
                specs: &version.signature().outputs,
                outputs,
                n_rows,
                is_list,
            };
            let mut body = Vec::with_capacity((n_rows + 1) * ROW_SIZE);
            encode_rows(&answer, &version.rows, &mut body);
            Ok(Written::new(JSON, body))
        },
    )
    .await
}
