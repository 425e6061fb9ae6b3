//! What a request tells its trace: when it begins, and how it ends, in the words of HTTP or of gRPC.

use std::sync::Arc;
use std::time::Instant;

use http::header::HeaderValue;

use super::grpc;
use super::reply::status;
use super::route::{Label, Route};
use crate::error::{Code, Outcome};
use crate::telemetry::trace::{Ending, Rpc, Trace, Tracer, Wire};

/// A request that is traced, with what its span says of its protocol.
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
        if let Some(method) = grpc::prediction(self.uri.path()) {
            return end_rpc(&self.trace, method, code, id, error);
        }
        let status = status(code).as_u16();
        let wire = Wire::Http {
            method: self.method.clone(),
            route: Route::of(self.uri.path()).pattern(),
            uri: self.uri.clone(),
            version: self.version,
            status,
        };
        self.trace.end(ending(wire, status >= 500, code, id, error));
    }
}

/// Statuses of gRPC that OpenTelemetry takes for the server's fault: unknown, deadline exceeded,
/// unimplemented, internal, unavailable, data loss.
const FAULTS: [i32; 6] = [2, 4, 12, 13, 14, 15];

/// Ends the trace of a call of gRPC, or of one question of its stream.
pub(super) fn end_rpc(
    trace: &Trace,
    method: &'static str,
    code: Code,
    id: &HeaderValue,
    error: Option<&str>,
) {
    if !trace.is_sampled() {
        return;
    }
    let status = grpc::number(code);
    let wire = Wire::Grpc(Rpc { service: grpc::SERVICE, method, status });
    trace.end(ending(wire, FAULTS.contains(&status), code, id, error));
}

fn ending(wire: Wire, is_fault: bool, code: Code, id: &HeaderValue, error: Option<&str>) -> Ending {
    let is_answered = code.outcome() == Outcome::Answered;
    Ending {
        wire,
        request_id: id.clone(),
        error: (!is_answered).then(|| code.label()),
        is_fault,
        reason: error.map(Into::into),
    }
}
