//! Clients that are slow, hasty, greedy or confused: each gets its answer or its end, and the
//! server goes on.

use std::io::{BufReader, ErrorKind, Read, Write};

use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::harness::{Server, Setup, connect, digit, eventually, exchange, head, read_answer};

const INFER: &str = "/v2/models/digits/infer";

fn start(limits: &str) -> Server {
    Setup::with_models(&["digits"]).config(&format!("[limits]\n{limits}")).start()
}

fn request() -> String {
    let body = digit();
    head("POST", INFER, &[], Some(body.len())) + &body
}

/// Whether the server closes the connection within the limit, whatever it sends before.
fn is_closed(stream: &mut impl Read) -> bool {
    match stream.read_to_end(&mut Vec::new()) {
        Ok(_) => true,
        // A reset is a close as well; a wait that ran out is none.
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = start("");
    let mut stream = BufReader::new(connect(server.http));
    let bodies: Vec<String> =
        (0..10).map(|id| digit().replacen('{', &format!("{{\"id\":\"{id}\","), 1)).collect();
    let requests = bodies.iter().map(|body| head("POST", INFER, &[], Some(body.len())) + body);
    stream.get_mut().write_all(requests.collect::<String>().as_bytes()).unwrap();
    for id in 0..10 {
        let answer = read_answer(&mut stream).unwrap();
        assert_eq!(answer.json()["id"], id.to_string());
    }
}

#[test]
fn a_head_may_come_in_pieces_but_not_for_ever() {
    let server = start("header_time = \"500ms\"");
    let mut stream = BufReader::new(connect(server.http));
    for byte in request().bytes() {
        stream.get_mut().write_all(&[byte]).unwrap();
    }
    assert_eq!(read_answer(&mut stream).unwrap().status, 200);
    let mut stalled = connect(server.http);
    stalled.write_all(b"POST /v2/models/digits/infer HTT").unwrap();
    assert!(is_closed(&mut stalled));
}

#[test]
fn a_body_that_stalls_is_answered_with_408() {
    let server = start("body_time = \"300ms\"");
    let mut stream = BufReader::new(connect(server.http));
    let head = head("POST", INFER, &[], Some(100));
    stream.get_mut().write_all((head + "{\"inputs\"").as_bytes()).unwrap();
    let answer = read_answer(&mut stream).unwrap();
    assert_eq!(answer.status, 408);
    assert!(answer.error().contains("did not arrive within 300 ms"), "{}", answer.error());
}

#[test]
fn what_is_announced_costs_nothing_until_it_comes() {
    let server = start("body = \"2GiB\"\nbody_time = \"300ms\"");
    server.post(INFER, &digit());
    let before = server.metric("process_resident_memory_bytes", &[]);
    let mut streams: Vec<_> = (0..8)
        .map(|_| {
            let mut stream = BufReader::new(connect(server.http));
            let head = head("POST", INFER, &[], Some(1 << 30));
            stream.get_mut().write_all((head + "0123456789").as_bytes()).unwrap();
            stream
        })
        .collect();
    eventually("the requests", || {
        (server.metric("tidegate_http_requests_in_flight", &["data"]) == 8.0).then_some(())
    });
    let after = server.metric("process_resident_memory_bytes", &[]);
    assert!(after - before < 64e6, "{before} {after}");
    for stream in &mut streams {
        assert_eq!(read_answer(stream).unwrap().status, 408);
    }
}

#[test]
fn bodies_beyond_the_limit_are_refused_by_head_by_length_and_by_inflation() {
    let server = start("body = \"1KiB\"");
    let announced = exchange(server.http, &head("POST", INFER, &[], Some(1 << 30)), b"0123456789");
    assert_eq!(announced.status, 413);
    assert!(announced.error().contains("1073741824 bytes, more than the limit of 1024"));
    let chunk = format!("800\r\n{}\r\n0\r\n\r\n", "x".repeat(0x800));
    let chunked = head("POST", INFER, &[("transfer-encoding", "chunked")], None);
    assert_eq!(exchange(server.http, &chunked, chunk.as_bytes()).status, 413);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&vec![b' '; 1 << 20]).unwrap();
    let bomb = encoder.finish().unwrap();
    assert!(bomb.len() > 1024);
    let server = start("body = \"64KiB\"");
    let inflated = server.post_with(INFER, &[("content-encoding", "gzip")], &bomb);
    assert_eq!(inflated.status, 413);
    assert!(inflated.error().contains("decompresses to more than"), "{}", inflated.error());
    for (headers, body, status, message) in [
        ([("content-encoding", "gzip")], "not gzip", 400, "not valid gzip"),
        ([("content-encoding", "br")], "{}", 415, "content-encoding 'br' is not supported"),
        ([("inference-header-content-length", "-1")], "{}", 400, "expected a whole number"),
        ([("inference-header-content-length", "3")], "{}", 400, "says 3, but the body has 2 bytes"),
        (
            [("x-request-timeout-ms", "soon")],
            &digit(),
            400,
            "x-request-timeout-ms: expected a whole number",
        ),
    ] {
        let answer = server.post_with(INFER, &headers, body.as_bytes());
        assert_eq!(answer.status, status, "{headers:?} {}", answer.text());
        assert!(answer.error().contains(message), "{headers:?} {}", answer.error());
        assert_eq!(answer.header("content-type"), "application/json");
    }
}

#[test]
fn chunked_uploads_old_clients_and_expectations() {
    let server = start("");
    let body = digit();
    let (first, second) = body.split_at(50);
    let chunks =
        format!("{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n", first.len(), second.len());
    let chunked = head("POST", INFER, &[("transfer-encoding", "chunked")], None);
    assert_eq!(exchange(server.http, &chunked, chunks.as_bytes()).status, 200);
    let old = request().replace("HTTP/1.1", "HTTP/1.0");
    let mut stream = BufReader::new(connect(server.http));
    stream.get_mut().write_all(old.as_bytes()).unwrap();
    assert_eq!(read_answer(&mut stream).unwrap().status, 200);
    assert!(is_closed(&mut stream));
    let expects = head("POST", INFER, &[("expect", "100-continue")], Some(body.len()));
    let mut stream = BufReader::new(connect(server.http));
    stream.get_mut().write_all(expects.as_bytes()).unwrap();
    assert_eq!(read_answer(&mut stream).unwrap().status, 100);
    stream.get_mut().write_all(body.as_bytes()).unwrap();
    assert_eq!(read_answer(&mut stream).unwrap().status, 200);
}

#[test]
fn idle_connections_are_closed_and_used_ones_are_kept() {
    let server = start("idle_time = \"1s\"");
    let mut stream = BufReader::new(connect(server.http));
    for _ in 0..20 {
        stream.get_mut().write_all(request().as_bytes()).unwrap();
        assert_eq!(read_answer(&mut stream).unwrap().status, 200);
    }
    assert!(is_closed(&mut stream));
    assert!(is_closed(&mut connect(server.http)));
    eventually("the connections to be counted out", || {
        (server.metric("tidegate_connections", &["data"]) == 0.0).then_some(())
    });
}

#[test]
fn connections_beyond_the_limit_are_closed_and_counted() {
    let server = start("connections = 3");
    let kept: Vec<_> = (0..3)
        .map(|_| {
            let mut stream = BufReader::new(connect(server.http));
            stream.get_mut().write_all(request().as_bytes()).unwrap();
            assert_eq!(read_answer(&mut stream).unwrap().status, 200);
            stream
        })
        .collect();
    assert!(is_closed(&mut connect(server.http)));
    assert_eq!(server.metric("tidegate_connections_refused_total", &["data"]), 1.0);
    drop(kept);
    eventually("room", || {
        let mut stream = BufReader::new(connect(server.http));
        stream.get_mut().write_all(request().as_bytes()).ok()?;
        read_answer(&mut stream)
    });
}

#[test]
fn garbage_and_nonsense_leave_the_server_as_it_was() {
    let server = start("header_time = \"300ms\"");
    let long = format!("GET /v2 HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    let many = format!("GET /v2 HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(500));
    for bytes in [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(),
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
        b"POST /v2/models/digits/infer HTTP/1.1\r\ncontent-length: -5\r\n\r\n",
        b"POST /v2/models/digits/infer HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n12345",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"GET  HTTP/1.1\r\n\r\n",
        long.as_bytes(),
        many.as_bytes(),
    ] {
        let mut stream = connect(server.http);
        drop(stream.write_all(bytes));
        drop(stream.shutdown(std::net::Shutdown::Write));
        assert!(is_closed(&mut stream));
    }
    assert_eq!(server.post(INFER, &digit()).status, 200);
}

#[test]
fn request_ids_are_given_back_or_made() {
    let server = start("");
    let answer = server.post_with(INFER, &[("x-request-id", "abc-123")], digit().as_bytes());
    assert_eq!(answer.header("x-request-id"), "abc-123");
    let made = server.post(INFER, &digit());
    assert_eq!(made.header("x-request-id").len(), 32);
    let line = eventually("the access line", || server.log_lines("abc-123").pop());
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["status"], 200);
    assert_eq!(line["path"], INFER);
    assert_eq!(server.log_lines("abc-123").len(), 1);
    let timed = server.post_with(INFER, &[("x-server-timing", "1")], digit().as_bytes());
    for part in ["total;dur=", "decode;dur=", "queue;dur=", "compute;dur=", "encode;dur="] {
        assert!(timed.header("server-timing").contains(part), "{}", timed.header("server-timing"));
    }
    assert_eq!(made.header("server-timing"), "");
}

#[test]
fn http2_without_tls_carries_many_streams_on_one_connection() {
    let server = start("");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(server.http).await.unwrap();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        #[expect(clippy::disallowed_methods, reason = "ends with the runtime")]
        tokio::task::spawn(connection);
        let calls = (0..20).map(|_| {
            let mut sender = sender.clone();
            let uri = format!("http://{}{INFER}", server.http);
            let request =
                http::Request::post(uri).body(Full::new(bytes::Bytes::from(digit()))).unwrap();
            async move {
                let answer = sender.send_request(request).await.unwrap();
                assert_eq!(answer.status(), 200);
                let body = answer.into_body().collect().await.unwrap().to_bytes();
                serde_json::from_slice::<serde_json::Value>(&body).unwrap()["outputs"][1]["data"]
                    .clone()
            }
        });
        for call in calls.collect::<Vec<_>>() {
            assert_eq!(call.await, serde_json::json!([5]));
        }
    });
    assert_eq!(server.metric("tidegate_connections_accepted_total", &["data"]), 1.0);
}

#[test]
fn methods_and_paths_that_do_not_exist() {
    let server = start("");
    for (method, path, allow) in [
        ("GET", INFER, "POST, OPTIONS"),
        ("PUT", "/v2/models/digits", "GET, HEAD, OPTIONS"),
        ("POST", "/v2/health/live", "GET, HEAD, OPTIONS"),
        ("GET", "/v2/repository/index", "POST, OPTIONS"),
        ("DELETE", "/v2", "GET, HEAD, OPTIONS"),
    ] {
        let answer = exchange(server.http, &head(method, path, &[], Some(0)), b"");
        assert_eq!((answer.status, answer.header("allow")), (405, allow), "{method} {path}");
    }
    for path in ["/nothing", "/v1", "/v2/models/digits/explain", "/v2/models/digits/versions"] {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
    let unknown = server.post("/v2/models/nobody/infer", &digit()).error();
    assert_eq!(unknown, "model 'nobody' is not known; models that serve: digits");
    let version = server.post("/v2/models/digits/versions/9/infer", &digit()).error();
    assert_eq!(
        version,
        "model 'digits' has no version '9' that serves; versions that serve: 1, 2, candidate, stable"
    );
    let wrong = server.post(INFER, &digit().replace("\"shape\":[1,8,8]", "\"shape\":[64]")).error();
    assert_eq!(
        wrong,
        "model 'digits' version 1: tensor 'image': expected image FP32 [-1,8,8], got FP32 [64]"
    );
    let deep = format!("{{\"inputs\":{}", "[".repeat(100_000));
    assert_eq!(server.post(INFER, &deep).status, 400);
    let empty =
        "{\"inputs\":[{\"name\":\"image\",\"datatype\":\"FP32\",\"shape\":[0,8,8],\"data\":[]}]}";
    let answer = server.post(INFER, empty);
    assert!([200, 400].contains(&answer.status), "{}", answer.text());
    assert_eq!(server.post(INFER, &digit()).status, 200);
}
