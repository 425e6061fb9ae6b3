//! Labels that come after their predictions: `POST /v2/models/M/feedback`.

use std::sync::Arc;

use super::account::Call;
use super::reply::Reply;
use super::route::Target;
use super::{DataPlane, body};
use crate::error::Code;
use crate::monitor::Recorder;
use crate::protocol::v2::{FeedbackCounts, decode_feedback};
use crate::registry::Route;

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
    let (version, others) = {
        let table = plane.registry.live();
        match table.route(&target.model, target.version.as_deref()) {
            Ok(route) => (Arc::clone(&route.serving.version), Others::of(&route)),
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
    // A shadow's predictions are nobody's answers: what becomes of their labels is not told.
    for recorder in others.shadows {
        drop(plane.monitors.feedback(recorder, records.clone()).await);
    }
    let n_records = records.len() as u64;
    let mut counts = Vec::new();
    for recorder in others.canaries {
        match plane.monitors.feedback(recorder, records.clone()).await {
            Ok(of_canary) => counts.push(of_canary),
            Err(error) => return Reply::fault(&error),
        }
    }
    match plane.monitors.feedback(recorder, records).await {
        Ok(of_primary) if counts.is_empty() => Reply::document(&of_primary),
        Ok(of_primary) => {
            counts.push(of_primary);
            Reply::document(&together(&counts, n_records))
        }
        Err(error) => Reply::fault(&error),
    }
}

/// Who else may have predicted what labels are for, where they name no version.
struct Others {
    canaries: Vec<Arc<Recorder>>,
    shadows: Vec<Arc<Recorder>>,
}

impl Others {
    fn of(route: &Route<'_>) -> Self {
        let canaries = route.split.iter().flat_map(|split| &split.canaries);
        let canaries = canaries.filter_map(|serving| serving.version.recorder.clone());
        let canaries: Vec<Arc<Recorder>> = canaries.collect();
        let shadows = route.copies.iter().flat_map(|copies| &copies.shadows);
        let shadows = shadows.filter_map(|shadow| shadow.version.recorder.clone());
        // One that is both gets them once.
        let is_new = |shadow: &Arc<Recorder>| !canaries.iter().any(|c| Arc::ptr_eq(c, shadow));
        let shadows = shadows.filter(is_new).collect();
        Self { canaries, shadows }
    }
}

/// What became of records that each belong to one of several versions: they add up to `n_records`.
fn together(counts: &[FeedbackCounts], n_records: u64) -> FeedbackCounts {
    let sum = |of: fn(&FeedbackCounts) -> u64| counts.iter().map(of).sum::<u64>();
    let most = |of: fn(&FeedbackCounts) -> u64| counts.iter().map(of).max().unwrap_or_default();
    // Each version is asked for all of them, and does not know the others' predictions.
    let joined = sum(|c| c.joined).min(n_records);
    let mut rest = n_records - joined;
    let mut take = |n: u64| {
        let taken = n.min(rest);
        rest -= taken;
        taken
    };
    let late = take(sum(|c| c.late));
    let duplicate = take(sum(|c| c.duplicate));
    let invalid = take(most(|c| c.invalid));
    let waiting = take(most(|c| c.waiting));
    FeedbackCounts { joined, waiting, late, unknown: rest, duplicate, invalid }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_records_adds_up_over_versions() {
        let primary = FeedbackCounts { joined: 6, unknown: 3, late: 1, ..Default::default() };
        let canary = FeedbackCounts { joined: 2, unknown: 8, ..Default::default() };
        let both = together(&[primary, canary], 10);
        let expected = FeedbackCounts { joined: 8, late: 1, unknown: 1, ..Default::default() };
        assert_eq!(both, expected);
        let waits = FeedbackCounts { waiting: 10, ..Default::default() };
        assert_eq!(together(&[waits, waits], 10), waits);
    }
}
