//! What a request over HTTP tells its trace: when it begins, and how it ends.

use std::sync::Arc;
use std::time::Instant;

use http::header::HeaderValue;

use super::reply::status;
use super::route::{Label, Route};
use crate::error::{Code, Outcome};
use crate::telemetry::trace::{Ending, Trace, Tracer, Wire};

/// A request that is traced, with what its span says of HTTP.
#[derive(Debug)]
pub(super) struct Traced {
    pub(super) trace: Arc<Trace>,
    method: http::Method,
    uri: http::Uri,
    version: http::Version,
}

impl Traced {
    /// Begins a trace, of a prediction alone: probes and scrapes would drown what is looked for.
    pub(super) fn begin(
        tracer: &Tracer,
        label: Label,
        head: &http::request::Parts,
        received: Instant,
    ) -> Option<Box<Self>> {
        if !tracer.is_on() || !label.is_prediction() {
            return None;
        }
        let trace = tracer.begin(&head.headers, received)?;
        let (method, uri, version) = (head.method.clone(), head.uri.clone(), head.version);
        Some(Box::new(Self { trace, method, uri, version }))
    }

    /// Ends it, answered or not.
    pub(super) fn end(&self, code: Code, id: &HeaderValue, error: Option<&str>) {
        if !self.trace.is_sampled() {
            return;
        }
        let status = status(code).as_u16();
        let is_answered = code.outcome() == Outcome::Answered;
        self.trace.end(Ending {
            wire: Wire::Http {
                method: self.method.clone(),
                route: Route::of(self.uri.path()).pattern(),
                uri: self.uri.clone(),
                version: self.version,
                status,
            },
            request_id: id.clone(),
            error: (!is_answered).then(|| code.label()),
            is_fault: status >= 500,
            reason: error.map(Into::into),
        });
    }
}
