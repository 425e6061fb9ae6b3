//! The V1 protocol of KServe and TensorFlow Serving.

use super::DataPlane;
use super::account::Call;
use super::asking::{Decoded, Written, ask};
use super::reply::{JSON, Reply};
use super::route::Target;
use crate::error::Code;
use crate::protocol::v1::{
    ModelList, ModelStatus, V1Request, VersionStatus, decode_instances, encode_predictions,
};
use crate::registry::{Protocol, Version};
use crate::tensor::Tensor;

/// Bytes that a row's answer takes, more or less.
const ROW_SIZE: usize = 64;

/// Answers `POST /v1/models/M:predict`.
pub(super) async fn predict(plane: &DataPlane, call: &mut Call, target: &Target<'_>) -> Reply {
    ask(
        plane,
        call,
        target,
        Protocol::V1,
        |version, body, limit| {
            let V1Request { inputs, form } = decode_instances(body, &version.rows, limit)?;
            let n_rows =
                if version.rows.is_whole() { 1 } else { inputs.first().map_or(1, Tensor::rows) };
            Ok(Decoded { inputs, form: (form, n_rows) })
        },
        |version: &Version, (form, n_rows), outputs: &[Tensor]| {
            let mut body = Vec::with_capacity((n_rows + 1) * ROW_SIZE);
            let specs = &version.signature().outputs;
            encode_predictions(form, specs, outputs, n_rows, &mut body)?;
            Ok(Written { content_type: JSON, body })
        },
    )
    .await
}

/// Refuses what the protocol knows and no model here does.
pub(super) fn refused(verb: &str) -> Reply {
    let message = match verb {
        "explain" => {
            "explanations are not served: no model here has an explainer; ':predict' is".to_owned()
        }
        other => format!(
            "':{other}' is not served: an ONNX model has one signature, asked by ':predict'"
        ),
    };
    Reply::error(Code::Unimplemented, &message)
}

/// `GET /`: what KServe's V1 clients ask for liveness.
pub(super) fn live() -> Reply {
    Reply::document(&serde_json::json!({ "status": "alive" }))
}

/// `GET /v1/models`
pub(super) fn models(plane: &DataPlane) -> Reply {
    let table = plane.registry.live();
    let mut models: Vec<&str> = table.models.keys().map(|name| &**name).collect();
    models.sort_unstable();
    Reply::document(&ModelList { models })
}

/// `GET /v1/models/M`
pub(super) fn model(plane: &DataPlane, target: &Target<'_>) -> Reply {
    let table = plane.registry.live();
    let model = match table.model(&target.model) {
        Ok(model) => model,
        Err(error) => return Reply::fault(&error),
    };
    let serving = match table.resolve(&target.model, target.version.as_deref()) {
        Ok(serving) => serving,
        Err(error) => return Reply::fault(&error),
    };
    let ready = !serving.version.executor.is_quarantined();
    let versions = match target.version {
        Some(_) => vec![&*serving.version.number_text],
        None => model.versions.values().map(|s| s.version.number_text.as_str()).collect(),
    };
    let document = ModelStatus {
        name: &model.name,
        ready,
        model_version_status: versions.into_iter().map(VersionStatus::available).collect(),
    };
    match ready {
        true => Reply::document(&document),
        false => Reply::coded_document(Code::Unavailable, &document),
    }
}
