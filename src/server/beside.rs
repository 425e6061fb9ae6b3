//! What is told of a prediction beside its answer: the observation, to those who watch and those who
//! record, and what the monitor's rules say, in the answer's head.

use std::num::NonZeroU64;

use http::header::{HeaderName, HeaderValue};

use super::predict::{PredictError, Question};
use super::reply::Reply;
use crate::capture::{Capture, Facts, Offered as Record};
use crate::config::When;
use crate::error::{Code, Fault};
use crate::monitor::times::now_ms;
use crate::observe::{Monitors, Offered};
use crate::registry::{Timings, Version};
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

/// What is observed of a prediction that ran.
pub(super) struct Observed {
    /// The id that the client gave the request in its body.
    pub(super) id: Option<Box<str>>,
    pub(super) inputs: Vec<Tensor>,
    pub(super) outputs: Vec<Tensor>,
    pub(super) timings: Timings,
    /// The batch, the place of the first row there, the batch's rows.
    pub(super) batch: (Option<NonZeroU64>, usize, usize),
}

/// What is recorded of a prediction that did not run.
#[derive(Default)]
pub(super) struct Unrun {
    /// The id that the client gave the request in its body.
    pub(super) id: Option<Box<str>>,
    /// None where they could not be read.
    pub(super) inputs: Vec<Tensor>,
}

/// Whom it is about.
pub(super) struct Answerer<'a> {
    pub(super) version: &'a Version,
    pub(super) slot: &'static str,
    pub(super) question: &'a Question<'a>,
}

impl Answerer<'_> {
    /// Clients know a request by the id in its body, else by `x-request-id`.
    fn id<'a>(&'a self, own: Option<&'a str>) -> &'a [u8] {
        own.map_or(self.question.id.as_bytes(), str::as_bytes)
    }

    fn header(&self, name: Option<&str>) -> Option<&[u8]> {
        name.and_then(|name| self.question.head.get(name)).map(HeaderValue::as_bytes)
    }

    fn protocol(&self) -> &'static str {
        self.question.protocol.label()
    }

    /// Offers the prediction, which ended with `error` or well, to those who record and those who
    /// watch.
    pub(super) fn observe(
        &self,
        monitors: &Monitors,
        capture: &Capture,
        observed: Observed,
        error: Option<&PredictError>,
    ) {
        let Observed { id: own, inputs, outputs, timings, batch } = observed;
        let id = self.id(own.as_deref());
        let at = now_ms();
        if let Some(subject) = &self.version.capture.subject {
            let code = error.map_or(Code::Ok, Fault::code);
            if let Some(reason) = subject.reason(id, code) {
                let (batch, first_row, batch_rows) = batch;
                let facts = Facts {
                    protocol: self.protocol(),
                    slot: self.slot,
                    code,
                    total: timings.total,
                    queue: timings.queue,
                    decode: timings.decode,
                    compute: timings.compute,
                    encode: timings.encode,
                    batch,
                    first_row,
                    batch_rows,
                };
                let message = error.map(ToString::to_string);
                capture.offer(&Record {
                    subject,
                    reason,
                    id,
                    segment: self.header(subject.segment_header()),
                    at,
                    facts,
                    error: message.as_deref(),
                    inputs: &inputs,
                    outputs: &outputs,
                });
            }
        }
        if let Some(recorder) = &self.version.recorder
            && recorder.takes(id)
        {
            let segment = self.header(recorder.segment_header());
            monitors.offer(Offered { recorder, id, segment, at, inputs, outputs });
        }
    }

    /// Offers a prediction that did not run to those who record.
    pub(super) fn unrun(&self, capture: &Capture, unrun: &Unrun, error: &PredictError) {
        let Some(subject) = &self.version.capture.subject else { return };
        let id = self.id(unrun.id.as_deref());
        let Some(reason) = subject.reason(id, error.code()) else { return };
        let total = self.question.received.elapsed();
        capture.offer(&Record {
            subject,
            reason,
            id,
            segment: self.header(subject.segment_header()),
            at: now_ms(),
            facts: Facts::failed(self.protocol(), self.slot, error.code(), total),
            error: Some(&error.to_string()),
            inputs: &unrun.inputs,
            outputs: &[],
        });
    }
}
