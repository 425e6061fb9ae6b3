//! The end: unready at once, what was accepted is answered, exit code 0.

use std::io::{BufReader, Write};

use super::harness::{Load, Setup, connect, digit, eventually, exchange, head, read_answer};
use super::onnx;

/// A request that keeps `heavy` busy for a while.
fn slow_body() -> String {
    let data = "1,".repeat(400 * 256 - 1);
    format!(
        "{{\"inputs\":[{{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[400,256],\"data\":[{data}1]}}]}}"
    )
}

#[test]
fn sigterm_answers_what_was_accepted_and_exits_with_0() {
    let mut server =
        Setup::with_models(&["digits"]).file("heavy/1/model.onnx", &onnx::heavy(256, 60)).start();
    let http = server.http;
    let slow = std::thread::spawn(move || {
        let body = slow_body();
        exchange(
            http,
            &head("POST", "/v2/models/heavy/infer", &[], Some(body.len())),
            body.as_bytes(),
        )
    });
    eventually("the request to be accepted", || {
        (server.metric("tidegate_predictions_in_flight", &[]) > 0.0).then_some(())
    });
    // An idle connection must not hold up the end.
    let idle = connect(http);
    server.signal("TERM");
    let answer = slow.join().unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let status = server.wait();
    assert_eq!(status.code(), Some(0));
    eventually("the last line of the log", || server.log_lines("ended").pop());
    drop(idle);
}

#[test]
fn during_the_delay_it_is_unready_but_serves() {
    let mut server = Setup::with_models(&["digits"]).config("[shutdown]\ndelay = \"2s\"").start();
    let mut kept = BufReader::new(connect(server.http));
    server.signal("TERM");
    eventually("the server to turn unready", || {
        (server.get("/v2/health/ready").status == 503).then_some(())
    });
    assert_eq!(server.admin_get("/health/ready").status, 503);
    assert_eq!(server.post("/v2/models/digits/infer", &digit()).status, 200);
    let body = digit();
    let request = head("POST", "/v2/models/digits/infer", &[], Some(body.len())) + &body;
    kept.get_mut().write_all(request.as_bytes()).unwrap();
    assert_eq!(read_answer(&mut kept).unwrap().status, 200);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn no_answer_is_cut_off_when_it_ends_under_load() {
    let mut server = Setup::with_models(&["digits"]).start();
    let body = digit();
    let request = head("POST", "/v2/models/digits/infer", &[], Some(body.len())) + &body;
    // Each connection sends until the server closes it, which it may do between two requests but
    // not within an answer.
    let address = server.http;
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let request = request.clone();
            std::thread::spawn(move || {
                let mut stream = BufReader::new(connect(address));
                let mut answered = 0;
                while stream.get_mut().write_all(request.as_bytes()).is_ok() {
                    match read_answer(&mut stream) {
                        Some(answer) => assert_eq!(answer.status, 200),
                        None => break,
                    }
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    eventually("some answers", || {
        (server.metric("tidegate_predictions_total", &["code=\"ok\""]) > 100.0).then_some(())
    });
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    for thread in threads {
        assert!(thread.join().unwrap() > 0);
    }
}

#[test]
fn a_request_beyond_the_drain_limit_does_not_hold_up_the_end() {
    let mut server = Setup::with_models(&[])
        .file("heavy/1/model.onnx", &onnx::heavy(512, 400))
        .config("[shutdown]\ndrain = \"100ms\"")
        .start();
    let data = "1,".repeat(400 * 512 - 1);
    let body = format!(
        "{{\"inputs\":[{{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[400,512],\"data\":[{data}1]}}]}}"
    );
    let mut stream = connect(server.http);
    let request = head("POST", "/v2/models/heavy/infer", &[], Some(body.len())) + &body;
    stream.write_all(request.as_bytes()).unwrap();
    eventually("the request to be accepted", || {
        (server.metric("tidegate_predictions_in_flight", &[]) > 0.0).then_some(())
    });
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn load_goes_on_while_another_server_takes_over_the_models() {
    // Two servers on one repository: each has its own live table.
    let first = Setup::with_models(&["digits"]).start();
    let second = Setup::with_models(&["digits"]).start();
    let load = Load::start(second.http, 2, "/v2/models/digits/infer", &digit());
    first.stop();
    load.stop().assert_all_ok();
    second.stop();
}
