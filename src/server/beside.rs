//! What is told of a prediction beside its answer: the observation, to those who watch, and what the
//! monitor's rules say, in the answer's head.

use std::sync::Arc;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use super::reply::Reply;
use crate::config::When;
use crate::monitor::Recorder;
use crate::monitor::times::now_ms;
use crate::observe::{Monitors, Offered};
use crate::tensor::Tensor;

/// Rules of the monitor that held, with their rows.
const FLAGS: HeaderName = HeaderName::from_static("tidegate-flags");
/// How unusual each row is.
const OUTLIER_SCORE: HeaderName = HeaderName::from_static("tidegate-outlier-score");

/// Rows that a header names.
const MOST_NAMED: usize = 32;

/// What the monitor's rules say of the rows, for the answer's head.
#[derive(Default)]
pub(super) struct Flags {
    pub(super) held: Vec<(When, Vec<usize>)>,
    pub(super) outlier_scores: Option<Vec<f32>>,
}

impl Flags {
    /// `tidegate-flags: outlier=0,3; low_margin=1` and `tidegate-outlier-score: 3.2,14.1`.
    pub(super) fn tell(&self, reply: &mut Reply) {
        let list = |texts: &mut dyn Iterator<Item = String>, n: usize| {
            let shown: Vec<String> = texts.take(MOST_NAMED).collect();
            format!("{}{}", shown.join(","), if n > MOST_NAMED { ",..." } else { "" })
        };
        if !self.held.is_empty() {
            let rules = self.held.iter().map(|(when, rows)| {
                let rows = list(&mut rows.iter().map(usize::to_string), rows.len());
                format!("{}={rows}", when.name())
            });
            // Names, digits and commas.
            if let Ok(value) = HeaderValue::try_from(rules.collect::<Vec<_>>().join("; ")) {
                reply.set(FLAGS, value);
            }
        }
        if let Some(scores) = &self.outlier_scores {
            let text = list(&mut scores.iter().map(|score| format!("{score:.2}")), scores.len());
            if let Ok(value) = HeaderValue::try_from(text) {
                reply.set(OUTLIER_SCORE, value);
            }
        }
    }
}

/// What is observed of a prediction.
pub(super) struct Observed {
    /// The id that the client gave the request in its body.
    pub(super) id: Option<Box<str>>,
    pub(super) inputs: Vec<Tensor>,
    pub(super) outputs: Vec<Tensor>,
}

/// Offers the prediction to those who watch. Clients know a request by the id in its body, else by
/// `x-request-id`.
pub(super) fn observe(
    monitors: &Monitors,
    recorder: &Arc<Recorder>,
    observed: Observed,
    head: &HeaderMap,
    id: &HeaderValue,
) {
    let Observed { id: own, inputs, outputs } = observed;
    let id = own.as_ref().map_or(id.as_bytes(), |id| id.as_bytes());
    if !recorder.takes(id) {
        return;
    }
    let segment = recorder.segment_header().and_then(|name| head.get(name));
    let segment = segment.map(HeaderValue::as_bytes);
    monitors.offer(Offered { recorder, id, segment, at: now_ms(), inputs, outputs });
}
