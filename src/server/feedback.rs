//! Labels that come after their predictions: `POST /v2/models/M/feedback`.

use super::account::Call;
use super::reply::Reply;
use super::route::Target;
use super::{DataPlane, body};
use crate::error::Code;
use crate::protocol::v2::decode_feedback;

/// Records of one call, at most.
const MOST_RECORDS: usize = 100_000;

/// Joins labels with the predictions of a version, and says what became of them.
pub(super) async fn feedback(plane: &DataPlane, call: &mut Call, target: &Target<'_>) -> Reply {
    let Call { head, body, .. } = call;
    let (most, time) = {
        let limits = &plane.registry.live().config.limits;
        (limits.body, limits.body_time)
    };
    let body = match body::read(head, body, most, time).await {
        Ok(body) => body,
        Err(error) => return Reply::fault(&error),
    };
    let version = {
        let table = plane.registry.live();
        match table.resolve(&target.model, target.version.as_deref()) {
            Ok(serving) => std::sync::Arc::clone(&serving.version),
            Err(error) => return Reply::fault(&error),
        }
    };
    let Some(recorder) = version.recorder.clone() else {
        let message = format!(
            "model '{}' version {} is not watched, so there are no predictions to join labels with; {}",
            version.model,
            version.number,
            version.unwatched.as_deref().unwrap_or(
                "make a baseline with `tidegate baseline`, or set monitor.baseline = { learn = 20000 }"
            )
        );
        return Reply::error(Code::Conflict, &message);
    };
    // Up to 64 MiB of JSON: too long for an I/O thread.
    let decoded = version.executor.run_aside(move || decode_feedback(&body, MOST_RECORDS)).await;
    let records = match decoded {
        Ok(Ok(records)) => records,
        Ok(Err(error)) => return Reply::fault(&error),
        Err(error) => return Reply::fault(&error),
    };
    match plane.monitors.feedback(recorder, records).await {
        Ok(counts) => Reply::document(&counts),
        Err(error) => Reply::fault(&error),
    }
}
