//! Beyond capacity requests are refused at once, deadlines are kept, batches are exact.

use std::io::{BufReader, Write};
use std::thread;

use serde_json::Value;

use super::harness::{Answer, Server, Setup, connect, eventually, exchange, head, read_answer};
use super::onnx;

const INFER: &str = "/v2/models/heavy/infer";

fn body(rows: usize, parameters: &str) -> String {
    let data: Vec<String> = (0..rows * 256).map(|index| (index % 11).to_string()).collect();
    let data = data.join(",");
    format!(
        "{{{parameters}\"inputs\":[{{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[{rows},256],\"data\":[{data}]}}]}}"
    )
}

/// Starts a request on a thread of its own.
fn send(server: &Server, body: String) -> thread::JoinHandle<Answer> {
    let http = server.http;
    thread::spawn(move || {
        exchange(http, &head("POST", INFER, &[], Some(body.len())), body.as_bytes())
    })
}

fn busy(server: &Server, n_requests: f64) {
    eventually("the requests to be accepted", || {
        (server.metric("tidegate_predictions_in_flight", &[]) >= n_requests).then_some(())
    });
}

/// The first request has left the queue and is being run.
fn running(server: &Server) {
    eventually("the request to be run", || {
        (server.metric("tidegate_compute_threads_busy", &[]) >= 1.0).then_some(())
    });
}

fn heavy(config: &str, settings: &str) -> Server {
    Setup::with_models(&[])
        .file("heavy/1/model.onnx", &onnx::heavy(256, 60))
        .file("heavy/model.toml", settings.as_bytes())
        .config(config)
        .start()
}

#[test]
fn the_global_limit_refuses_with_503_and_the_models_with_429() {
    for (config, settings, status, message) in [
        ("[limits]\nin_flight = 1", "", 503, "limits.in_flight"),
        ("", "max_in_flight = 1", 429, "model 'heavy' version 1: has 1 predictions in flight"),
    ] {
        let server = heavy(config, settings);
        let first = send(&server, body(3000, ""));
        running(&server);
        let refused = server.post(INFER, &body(1, ""));
        assert_eq!(refused.status, status, "{}", refused.text());
        assert!(refused.error().contains(message), "{}", refused.error());
        assert_eq!(refused.header("retry-after"), "1");
        assert_eq!(first.join().unwrap().status, 200);
        assert_eq!(server.post(INFER, &body(1, "")).status, 200);
    }
}

#[test]
fn a_deadline_passes_in_the_queue_without_a_run() {
    let server =
        heavy("[server]\nhttp = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\ncompute_threads = 1", "");
    let first = send(&server, body(8000, ""));
    running(&server);
    let late = server.post(INFER, &body(40, "\"parameters\":{\"timeout\":200000},"));
    assert_eq!(late.status, 504, "{}", late.text());
    assert!(late.error().contains("the deadline of 200 ms passed"), "{}", late.error());
    assert_eq!(first.join().unwrap().status, 200);
    eventually("the entry to be dropped", || {
        (server.metric("tidegate_queue_dropped_total", &[]) == 1.0).then_some(())
    });
    // Two runs are counted: the warm-up is none of them, and the late one never ran.
    assert_eq!(server.metric("tidegate_execution_rows_count", &[]), 1.0);
    assert_eq!(server.metric("tidegate_predictions_queued", &[]), 0.0);
}

#[test]
fn what_cannot_be_answered_in_time_is_refused_at_once() {
    let one_thread =
        "[server]\nhttp = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\ncompute_threads = 1";
    // A run takes many times as long as reading its request.
    let server = Setup::with_models(&[])
        .file("heavy/1/model.onnx", &onnx::heavy(256, 400))
        .file("heavy/model.toml", b"[batching]\nmax_batch = 0")
        .config(one_thread)
        .start();
    let [first, second] = [(); 2].map(|()| send(&server, body(1000, "")));
    eventually("the second to wait", || {
        (server.metric("tidegate_predictions_queued", &[]) >= 1.0).then_some(())
    });
    let body = body(1, "");
    let headers = [("content-type", "application/json"), ("x-request-timeout-ms", "100")];
    let refused = server.post_with(INFER, &headers, body.as_bytes());
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.error().contains("would be answered in about"), "{}", refused.error());
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(first.join().unwrap().status, 200);
    assert_eq!(second.join().unwrap().status, 200);
}

#[test]
fn large_requests_are_read_aside_and_their_errors_are_the_same() {
    let server = heavy("", "");
    let small = server.post(INFER, &body(1, "")).json();
    let large = server.post(INFER, &body(2000, ""));
    assert_eq!(large.status, 200, "{}", large.text());
    let (small, large) = (numbers(&small), numbers(&large.json()));
    assert_eq!(large.len(), small.len() * 2000);
    let difference = large[..small.len()].iter().zip(&small).map(|(a, b)| (a - b).abs());
    assert!(difference.fold(0.0, f64::max) <= 1e-6);
    let wrong = server.post(INFER, &body(2000, "").replace("[2000,256]", "[2000,255]"));
    assert_eq!(wrong.status, 400);
    assert!(wrong.error().contains("[2000, 255]"), "{}", wrong.error());
}

#[test]
fn threads_with_connections_of_their_own_answer_all() {
    let shards =
        "[server]\nhttp = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nio_threads = 4\nshards = 3";
    let server = heavy(shards, "");
    let body = body(1, "");
    let head = head("POST", INFER, &[], Some(body.len()));
    let mut connections: Vec<_> = (0..9).map(|_| BufReader::new(connect(server.http))).collect();
    for _ in 0..3 {
        // All ask before the first is read: each shard has some of them.
        for connection in &mut connections {
            connection.get_mut().write_all(head.as_bytes()).unwrap();
            connection.get_mut().write_all(body.as_bytes()).unwrap();
        }
        for connection in &mut connections {
            assert_eq!(read_answer(connection).unwrap().status, 200);
        }
    }
    assert_eq!(server.metric("tidegate_connections", &["plane=\"data\""]), 9.0);
    drop(connections);
    server.stop();
}

#[test]
fn batched_answers_are_those_of_the_same_rows_alone() {
    let alone = heavy("", "");
    let batching = "[batching]\nmax_batch = 64\nmax_delay = \"20ms\"";
    let together = heavy(
        "[server]\nhttp = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\ncompute_threads = 1",
        batching,
    );
    let rows = [1, 2, 3, 5, 8, 1, 1, 13];
    let answers: Vec<Answer> = rows
        .map(|rows| send(&together, body(rows, "")))
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    for (rows, answer) in rows.into_iter().zip(&answers) {
        assert_eq!(answer.status, 200, "{}", answer.text());
        let expected = alone.post(INFER, &body(rows, "")).json();
        let (got, expected) = (numbers(&answer.json()), numbers(&expected));
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(&expected) {
            assert!((got - expected).abs() <= 1e-5 * expected.abs().max(1e-3), "{got} {expected}");
        }
    }
    let executions = together.metric("tidegate_execution_rows_count", &[]);
    let rows_run = together.metric("tidegate_execution_rows_sum", &[]);
    assert_eq!(rows_run, rows.iter().sum::<usize>() as f64);
    assert!(executions < rows.len() as f64, "{executions} executions, none was a batch");
}

fn numbers(answer: &Value) -> Vec<f64> {
    let data = answer["outputs"][0]["data"].as_array().unwrap();
    data.iter().map(|number| number.as_f64().unwrap()).collect()
}

#[test]
fn the_admin_plane_answers_while_the_data_plane_is_saturated() {
    let server = heavy("", "");
    let requests: Vec<_> = (0..6).map(|_| send(&server, body(2000, ""))).collect();
    busy(&server, 3.0);
    // The scrapes come back while requests are out.
    for _ in 0..16 {
        assert_eq!(server.admin_get("/metrics").status, 200);
    }
    for request in requests {
        assert_eq!(request.join().unwrap().status, 200);
    }
}
