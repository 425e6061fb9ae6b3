//! Requests on which a shadow disagrees, for those who record: what the primary answered, unless it is
//! in the sample and recorded already, and what the candidate did.

use std::sync::Arc;
use std::time::Duration;

use super::shadow::Disagreed;
use crate::capture::{Capture, Facts, Offered, Reason};
use crate::error::Code;
use crate::registry::Version;
use crate::tensor::Tensor;

/// What the column `protocol` says of a copy: it came in by none.
const COPY: &str = "copy";

/// Offers both sides of a disagreement to `capture`. Does not block.
pub fn record(capture: &Capture, disagreed: &Disagreed<'_>) {
    let Disagreed { primary, candidate_version, primary_outputs, candidate_outputs, .. } =
        disagreed;
    offer(capture, disagreed, primary, "primary", *primary_outputs);
    if let Some(candidate) = candidate_version {
        offer(capture, disagreed, candidate, "shadow", *candidate_outputs);
    }
}

fn offer(
    capture: &Capture,
    disagreed: &Disagreed<'_>,
    version: &Arc<Version>,
    slot: &'static str,
    outputs: Option<&[Tensor]>,
) {
    let Some(subject) = &version.capture.subject else { return };
    let Disagreed { id, segment, at, inputs, .. } = *disagreed;
    let reason = match slot {
        // Nobody else records what a shadow answers.
        "shadow" => subject.wants_disagreements().then_some(Reason::Disagreement),
        _ => subject.disagreement(id),
    };
    let Some(reason) = reason else { return };
    let code = if outputs.is_some() { Code::Ok } else { Code::Internal };
    let facts = Facts::failed(COPY, slot, code, Duration::ZERO);
    let outputs = outputs.unwrap_or_default();
    let error = None;
    capture.offer(&Offered { subject, reason, id, segment, at, facts, error, inputs, outputs });
}
