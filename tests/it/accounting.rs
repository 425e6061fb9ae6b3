//! What the metrics count adds up, and each name keeps its promise.

use std::io::Write;

use super::harness::{Load, Server, Setup, connect, digit, eventually, head};
use super::onnx;

/// received = answered + refused + failed + cancelled (+ in flight)
fn assert_balanced(server: &Server) {
    // The scrape itself is on the other plane.
    let plane = "plane=\"data\"";
    eventually("the books to balance", || {
        let received = server.metric("tidegate_http_requests_received_total", &[plane]);
        let outcomes = ["answered", "refused", "failed", "cancelled"];
        let ended: f64 = outcomes
            .iter()
            .map(|outcome| server.metric("tidegate_http_requests_total", &[plane, outcome]))
            .sum();
        let in_flight = server.metric("tidegate_http_requests_in_flight", &[plane]);
        (received == ended && in_flight == 0.0).then_some(())
    });
}

#[test]
fn received_is_answered_refused_failed_and_cancelled() {
    let server = Setup::with_models(&["digits"])
        .file("heavy/1/model.onnx", &onnx::heavy(512, 200))
        .config("[limits]\nbody = \"4MiB\"")
        .start();
    let infer = "/v2/models/digits/infer";
    for _ in 0..5 {
        assert_eq!(server.post(infer, &digit()).status, 200);
    }
    assert_eq!(server.post(infer, "{}").status, 400);
    assert_eq!(server.post(infer, "not JSON").status, 400);
    assert_eq!(server.get(infer).status, 405);
    assert_eq!(server.get("/nowhere").status, 404);
    assert_eq!(server.post("/v2/models/nobody/infer", &digit()).status, 404);
    assert_eq!(
        server.post_with(infer, &[("x-request-timeout-ms", "0")], digit().as_bytes()).status,
        504
    );
    // A client that leaves while its request is computed.
    let data = "1,".repeat(200 * 512 - 1);
    let body = format!(
        "{{\"inputs\":[{{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[200,512],\"data\":[{data}1]}}]}}"
    );
    let mut leaving = connect(server.http);
    let request = head("POST", "/v2/models/heavy/infer", &[], Some(body.len())) + &body;
    leaving.write_all(request.as_bytes()).unwrap();
    // Not before it is computed: while its body is read it belongs to no model yet.
    eventually("the request to be run", || {
        (server.metric("tidegate_compute_threads_busy", &[]) > 0.0).then_some(())
    });
    drop(leaving);
    let count = |code: &str| {
        server.metric(
            "tidegate_http_requests_total",
            &["plane=\"data\"", &format!("code=\"{code}\"")],
        )
    };
    eventually("the request to be cancelled", || (count("cancelled") == 1.0).then_some(()));
    assert_balanced(&server);
    assert_eq!(count("invalid_argument"), 2.0);
    assert_eq!(count("method_not_allowed"), 1.0);
    assert_eq!(count("not_found"), 2.0);
    assert_eq!(count("deadline_exceeded"), 1.0);
    // By model, where there is one: five answered, two refused, one too late.
    let of_digits = |code: &str| {
        server.metric(
            "tidegate_predictions_total",
            &["model=\"digits\"", &format!("code=\"{code}\"")],
        )
    };
    assert_eq!(
        (of_digits("ok"), of_digits("invalid_argument"), of_digits("deadline_exceeded")),
        (5.0, 2.0, 1.0)
    );
    assert_eq!(server.metric("tidegate_predictions_total", &["model=\"heavy\"", "cancelled"]), 1.0);
    assert!(!server.log_lines("\"status\":499").is_empty());
}

#[test]
fn the_books_balance_after_load_and_histograms_count_every_prediction() {
    let server = Setup::with_models(&["digits"])
        .config("[log]\nformat = \"json\"\naccess = \"off\"")
        .start();
    let load = Load::start(server.http, 8, "/v2/models/digits/infer", &digit());
    let ok = |server: &Server| server.metric("tidegate_predictions_total", &["code=\"ok\""]);
    eventually("two thousand predictions", || (ok(&server) > 2000.0).then_some(()));
    let report = load.stop();
    report.assert_all_ok();
    assert_balanced(&server);
    let sent = report.statuses[&200] as f64;
    assert_eq!(ok(&server), sent);
    for histogram in ["duration", "queue", "compute"] {
        let name = format!("tidegate_prediction_{histogram}_seconds_count");
        assert_eq!(server.metric(&name, &["model=\"digits\"", "slot=\"primary\""]), sent, "{name}");
    }
    assert_eq!(server.metric("tidegate_execution_rows_count", &["model=\"digits\""]), sent);
    assert_eq!(server.metric("tidegate_prediction_rows_total", &["model=\"digits\""]), sent);
    let stats = server.get("/v2/models/digits/versions/1/stats").json();
    assert_eq!(stats["model_stats"][0]["inference_stats"]["success"]["count"], sent);
    assert_eq!(stats["model_stats"][0]["inference_count"], sent);
}

#[test]
fn metrics_follow_the_text_format_and_name_the_live_versions() {
    let server = Setup::with_models(&["digits"]).start();
    let text = server.admin_get("/metrics").text();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let name = series.split('{').next().unwrap();
        assert!(name.starts_with("tidegate_") || name.starts_with("process_"), "{line}");
    }
    let families: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let mut distinct = families.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), families.len(), "a family stands twice");
    assert_eq!(
        server.metric(
            "tidegate_model_info",
            &["version=\"1\"", "slot=\"primary\"", "digest=\"sha256:"]
        ),
        1.0
    );
    assert_eq!(server.metric("tidegate_model_info", &["version=\"2\"", "slot=\"standby\""]), 1.0);
    server.file("digits/model.toml", b"versions = [2]");
    eventually("version 1 to leave the metrics", || {
        (server.metric("tidegate_model_info", &["version=\"1\""]) == 0.0).then_some(())
    });
}
