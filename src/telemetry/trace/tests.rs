use std::time::Duration;

use opentelemetry::trace::{SpanKind, Status};
use opentelemetry::{InstrumentationScope, SpanId, Value};
use opentelemetry_sdk::trace::SpanData;

use super::record::Anchor;
use super::*;
use crate::telemetry::{Telemetry, names};

const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

fn tracer(queue: usize, share: f64) -> Tracer {
    let dropped = Telemetry::default().counter(names::TRACE_SPANS, &[("outcome", "dropped")]);
    let tracer = Tracer(Some(Arc::new(Shared::new(queue, dropped))));
    tracer.set_share(share);
    tracer
}

fn head(headers: &[(&'static str, &'static str)]) -> HeaderMap {
    headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

fn begun(tracer: &Tracer, headers: &[(&'static str, &'static str)]) -> Option<Arc<Trace>> {
    tracer.begin(&head(headers), Instant::now())
}

fn ending(error: Option<&'static str>, is_fault: bool) -> Ending {
    Ending {
        wire: Wire::Http {
            method: http::Method::POST,
            route: "/v2/models/{model}/infer",
            uri: "/v2/models/m/infer?a=b".parse().unwrap(),
            version: http::Version::HTTP_11,
            status: 200,
        },
        request_id: HeaderValue::from_static("r-1"),
        error,
        is_fault,
        reason: error.map(|_| "why".into()),
    }
}

fn inside() -> Inside {
    Inside {
        model: "m".into(),
        version: 3,
        digest: bytes::Bytes::from_static(b"sha256:0"),
        slot: "primary",
    }
}

fn spans(tracer: &Tracer) -> Vec<SpanData> {
    let mut spans = Vec::new();
    let scope = InstrumentationScope::builder("test").build();
    while let Some(record) = tracer.0.as_ref().unwrap().queue.pop() {
        record.spans(Anchor::now(), &scope, &mut spans);
    }
    spans
}

fn attribute(span: &SpanData, key: &str) -> Option<Value> {
    let found = span.attributes.iter().find(|attribute| attribute.key.as_str() == key);
    found.map(|attribute| attribute.value.clone())
}

#[test]
fn without_a_receiver_there_is_no_trace() {
    let tracer = Tracer::off();
    tracer.set_share(1.0);
    assert!(begun(&tracer, &[("traceparent", SAMPLED)]).is_none());
    assert_eq!(tracer.share(), 0.0);
}

#[test]
fn the_share_is_kept_and_the_client_decides_over_its_own() {
    let tracer = tracer(1, 0.1);
    let n = 20_000;
    let sampled = (0..n).filter(|_| begun(&tracer, &[]).is_some()).count();
    // Six standard deviations.
    assert!((1745..2255).contains(&sampled), "{sampled} of {n}");
    let trace = begun(&tracer, &[("traceparent", SAMPLED), ("tracestate", "a=1")]).unwrap();
    assert!(trace.is_sampled());
    assert_eq!(trace.id(), "4bf92f3577b34da6a3ce929d0e0e4736");
    let mut call = HeaderMap::new();
    trace.carried().put(&mut call);
    assert_eq!(call[TRACESTATE], "a=1");
    let parent = call[TRACEPARENT].to_str().unwrap();
    assert!(parent.starts_with(&SAMPLED[..36]) && parent.ends_with("-01"), "{parent}");
    assert_ne!(&parent[36..52], &SAMPLED[36..52]);
    // An unsampled one goes on as such, and leaves nothing.
    let trace = begun(&tracer, &[("traceparent", UNSAMPLED)]).unwrap();
    assert!(!trace.is_sampled());
    trace.end(ending(None, false));
    assert!(spans(&tracer).is_empty());
    assert!(trace.carried().traceparent().to_str().unwrap().ends_with("-00"));
}

#[test]
fn where_clients_do_not_decide_the_share_does_the_same_for_a_trace() {
    let tracer = tracer(1, 0.0);
    tracer.set_parent(false);
    assert!(!begun(&tracer, &[("traceparent", SAMPLED)]).unwrap().is_sampled());
    tracer.set_share(1.0);
    assert!(begun(&tracer, &[("traceparent", UNSAMPLED)]).unwrap().is_sampled());
    tracer.set_share(0.5);
    let first = begun(&tracer, &[("traceparent", SAMPLED)]).unwrap().is_sampled();
    for _ in 0..100 {
        assert_eq!(begun(&tracer, &[("traceparent", SAMPLED)]).unwrap().is_sampled(), first);
    }
    tracer.set_share(7.0);
    assert_eq!(tracer.share(), 1.0);
    tracer.set_share(f64::NAN);
    assert_eq!(tracer.share(), 0.0);
}

#[test]
fn an_answer_is_a_span_with_its_parts_inside_and_in_order() {
    let tracer = tracer(1, 1.0);
    let received = Instant::now().checked_sub(Duration::from_millis(10)).unwrap();
    let trace = tracer.begin(&head(&[("traceparent", SAMPLED)]), received).unwrap();
    let ms = Duration::from_millis;
    trace.resolved(inside());
    trace.ran(Times {
        rows: 2,
        batch_rows: 8,
        admitted: received + ms(2),
        total: ms(9),
        decode: ms(1),
        queue: ms(2),
        compute: ms(3),
        encode: ms(1),
    });
    trace.end(ending(None, false));
    let spans = spans(&tracer);
    let names: Vec<_> = spans.iter().map(|span| &*span.name).collect();
    assert_eq!(names, ["infer m", "decode", "queue", "compute", "encode"]);
    let server = &spans[0];
    assert_eq!(server.parent_span_id, SpanId::from(0x00f0_67aa_0ba9_02b7));
    assert!(server.parent_span_is_remote);
    assert_eq!(server.span_kind, SpanKind::Server);
    assert_eq!(server.status, Status::Unset);
    assert_eq!(attribute(server, "url.path"), Some("/v2/models/m/infer".into()));
    assert_eq!(attribute(server, "http.response.status_code"), Some(Value::I64(200)));
    assert_eq!(attribute(server, "error.type"), None);
    assert_eq!(attribute(&spans[3], "tidegate.batch.rows"), Some(Value::I64(8)));
    let mut at = server.start_time;
    for child in &spans[1..] {
        assert_eq!(child.parent_span_id, server.span_context.span_id());
        assert_eq!(child.span_context.trace_id(), server.span_context.trace_id());
        assert_eq!(attribute(child, "tidegate.model.version"), Some(Value::I64(3)));
        assert!(at <= child.start_time && child.start_time < child.end_time, "{}", child.name);
        at = child.end_time;
    }
    assert!(at <= server.end_time);
    let took = |n: usize| spans[n].end_time.duration_since(spans[n].start_time).unwrap();
    assert_eq!([1, 2, 3, 4].map(took), [ms(1), ms(2), ms(3), ms(1)]);
}

#[test]
fn a_question_of_a_stream_is_below_the_stream() {
    let tracer = tracer(2, 0.0);
    let stream = begun(&tracer, &[("traceparent", SAMPLED)]).unwrap();
    let question = stream.part(Instant::now());
    question.resolved(inside());
    question.end(ending(None, false));
    stream.end(ending(None, false));
    let spans = spans(&tracer);
    assert_eq!((&*spans[0].name, &*spans[1].name), ("infer m", "infer"));
    assert_eq!(spans[0].parent_span_id, spans[1].span_context.span_id());
    assert_eq!(spans[0].span_kind, SpanKind::Internal);
    assert!(!spans[0].parent_span_is_remote);
    assert_eq!(spans[0].span_context.trace_id(), spans[1].span_context.trace_id());
}

#[test]
fn parts_that_do_not_fit_are_cut_to_the_request() {
    let tracer = tracer(1, 1.0);
    let trace = begun(&tracer, &[]).unwrap();
    let second = Duration::from_secs(1);
    let times = Times {
        rows: 1,
        batch_rows: 1,
        admitted: Instant::now() + second,
        total: second,
        decode: second,
        queue: second,
        compute: second,
        encode: second,
    };
    trace.ran(times);
    trace.end(ending(None, false));
    let spans = spans(&tracer);
    for child in &spans[1..] {
        assert!(spans[0].start_time <= child.start_time && child.start_time <= child.end_time);
        assert!(child.end_time <= spans[0].end_time);
    }
}

#[test]
fn what_is_refused_says_why_and_what_failed_is_an_error() {
    let tracer = tracer(2, 1.0);
    begun(&tracer, &[]).unwrap().end(ending(Some("not_found"), false));
    let trace = begun(&tracer, &[]).unwrap();
    trace.resolved(inside());
    trace.end(ending(Some("internal"), true));
    let spans = spans(&tracer);
    assert_eq!(spans.len(), 2);
    assert_eq!(spans[0].name, "infer");
    assert_eq!(attribute(&spans[0], "error.type"), Some("not_found".into()));
    assert_eq!(attribute(&spans[0], "tidegate.reason"), Some("why".into()));
    assert_eq!(spans[0].status, Status::Unset);
    assert_eq!(spans[1].name, "infer m");
    assert_eq!(spans[1].status, Status::error("why"));
}

#[test]
fn what_finds_no_room_is_counted_span_by_span() {
    let telemetry = Telemetry::default();
    let dropped = telemetry.counter(names::TRACE_SPANS, &[("outcome", "dropped")]);
    let tracer = Tracer(Some(Arc::new(Shared::new(1, dropped))));
    tracer.set_share(1.0);
    for _ in 0..4 {
        begun(&tracer, &[]).unwrap().end(ending(None, false));
    }
    let line = "tidegate_trace_spans_total{outcome=\"dropped\"} 3";
    assert!(telemetry.render().contains(line));
}
