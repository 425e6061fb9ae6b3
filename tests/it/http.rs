//! What clients expect of HTTP beside the protocol: methods, compression, pages of browsers,
//! connections, names.

use std::io::{BufReader, Read, Write};
use std::net::SocketAddr;

use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::GzEncoder;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;

use super::harness::{Answer, Server, Setup, connect, digit, exchange, head, read_answer};

const INFER: &str = "/v2/models/digits/infer";
const READS: &str = "GET, HEAD, OPTIONS";
const WRITES: &str = "POST, OPTIONS";

fn start(config: &str) -> Server {
    Setup::with_models(&["digits"]).config(config).start()
}

fn ask(server: &Server, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    exchange(server.http, &head(method, path, headers, None), b"")
}

/// The head of an answer and everything that follows it until the server closes.
fn raw(address: SocketAddr, request: &str) -> (String, Vec<u8>) {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    let end = all.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head") + 4;
    let body = all.split_off(end);
    (String::from_utf8(all).unwrap().to_lowercase(), body)
}

/// A request for `rows` rows, whose answer is worth compressing.
fn digits(rows: usize) -> String {
    let mut request: Value = serde_json::from_str(&digit()).unwrap();
    let input = &mut request["inputs"][0];
    input["shape"][0] = rows.into();
    let one = input["data"].as_array().unwrap().clone();
    input["data"] = std::iter::repeat_n(one, rows).flatten().collect();
    request.to_string()
}

#[test]
fn head_is_get_without_the_body() {
    let server = start("");
    for (address, path) in [
        (server.http, "/v2"),
        (server.http, "/v2/health/ready"),
        (server.http, "/v2/models/digits"),
        (server.http, "/v2/models/nobody"),
        (server.admin, "/metrics"),
        (server.admin, "/api/v1/status"),
        (server.admin, "/api/v1/drift"),
    ] {
        let request = |method: &str| head(method, path, &[("connection", "close")], None);
        let (with, body) = raw(address, &request("GET"));
        let (without, nothing) = raw(address, &request("HEAD"));
        assert!(nothing.is_empty(), "{path}: {nothing:?}");
        let line = |head: &str, name: &str| {
            head.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned()
        };
        for name in ["http/1.1 ", "content-type:"] {
            assert_eq!(line(&with, name), line(&without, name), "{path}");
        }
        // What is counted and timed meanwhile makes the metrics longer.
        if !path.starts_with("/metrics") && !path.starts_with("/api") {
            let length = format!("content-length: {}", body.len());
            assert_eq!(line(&without, "content-length:"), length, "{path}");
        }
    }
    let (refused, nothing) =
        raw(server.http, &head("HEAD", INFER, &[("connection", "close")], None));
    assert!(refused.starts_with("http/1.1 405") && nothing.is_empty(), "{refused}");
}

#[test]
fn options_says_what_can_be_asked() {
    let server = start("");
    for (path, status, allow) in [
        ("/v2", 204, READS),
        ("/v2/models/digits", 204, READS),
        (INFER, 204, WRITES),
        ("/v2/repository/index", 204, WRITES),
        ("*", 204, "GET, HEAD, POST, OPTIONS"),
        ("/nowhere", 404, ""),
    ] {
        let answer = ask(&server, "OPTIONS", path, &[]);
        assert_eq!((answer.status, answer.header("allow")), (status, allow), "{path}");
        // Nobody was let in from another origin.
        assert_eq!(answer.header("access-control-allow-origin"), "");
    }
    for (path, allow) in [("/metrics", READS), ("/api/v1/config/reload", WRITES)] {
        let answer = exchange(server.admin, &head("OPTIONS", path, &[], None), b"");
        assert_eq!((answer.status, answer.header("allow")), (204, allow), "{path}");
    }
}

#[test]
fn pages_of_the_origins_that_are_named_may_use_it() {
    let server = start(
        "[server]\nhttp = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n[server.cors]\norigins = [\"https://app.example.org\"]\nmax_age = \"10m\"\n",
    );
    let page = ("origin", "https://app.example.org");
    let preflight = |origin| {
        let asks = ("access-control-request-method", "POST");
        let headers = ("access-control-request-headers", "content-type,x-request-id");
        ask(&server, "OPTIONS", INFER, &[("origin", origin), asks, headers])
    };
    let answer = preflight(page.1);
    assert_eq!(answer.status, 204);
    for (name, value) in [
        ("allow-origin", "https://app.example.org"),
        ("allow-methods", WRITES),
        ("allow-headers", "content-type,x-request-id"),
        ("max-age", "600"),
        ("allow-credentials", ""),
    ] {
        assert_eq!(answer.header(&format!("access-control-{name}")), value, "{name}");
    }
    assert_eq!(answer.header("vary"), "origin");
    let other = preflight("https://other.example.org");
    assert_eq!((other.status, other.header("vary")), (204, "origin"));
    assert!(other.headers.keys().all(|name| !name.starts_with("access-control-")));
    // Answers and errors alike can be read by the page.
    for (body, status) in [(digit(), 200), ("{}".to_owned(), 400)] {
        let answer = server.post_with(INFER, &[page], body.as_bytes());
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("access-control-allow-origin"), page.1);
        assert!(answer.header("access-control-expose-headers").contains("x-request-id"));
        assert_eq!(answer.header("timing-allow-origin"), page.1);
    }
    // Who sends no origin is no page.
    let plain = server.post(INFER, &digit());
    assert_eq!(plain.status, 200);
    assert_eq!(plain.header("access-control-allow-origin"), "");
    // Both reasons to differ are named.
    let big = digits(100);
    let answer = server.post_with(INFER, &[page, ("accept-encoding", "gzip")], big.as_bytes());
    assert_eq!(answer.header("content-encoding"), "gzip");
    // Off and on again without a restart.
    server.write_config("[server.cors]\norigins = [\"*\"]\n");
    assert_eq!(server.admin_post("/api/v1/config/reload", "").status, 200);
    let answer = server.post_with(INFER, &[("origin", "null")], digit().as_bytes());
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert_eq!(answer.header("vary"), "");
    server.write_config("");
    assert_eq!(server.admin_post("/api/v1/config/reload", "").status, 200);
    let answer = server.post_with(INFER, &[page], digit().as_bytes());
    assert_eq!(answer.header("access-control-allow-origin"), "");
}

#[test]
fn answers_are_compressed_as_the_client_likes_best() {
    let server = start("");
    let request = digits(100);
    let post = |headers: &[(&str, &str)]| server.post_with(INFER, headers, request.as_bytes());
    let plain = post(&[]).json();
    for (accepts, coding) in [
        ("gzip, deflate, br, zstd", "zstd"),
        ("zstd;q=0.5, gzip;q=0.9", "gzip"),
        ("deflate", "deflate"),
        ("*", "zstd"),
        ("br", ""),
        ("zstd;q=0", ""),
        ("identity, gzip;q=0.5", ""),
    ] {
        let answer = post(&[("accept-encoding", accepts)]);
        assert_eq!(answer.header("content-encoding"), coding, "{accepts}");
        let mut text = Vec::new();
        match coding {
            "zstd" => text = zstd::decode_all(&answer.body[..]).unwrap(),
            "gzip" => drop(GzDecoder::new(&answer.body[..]).read_to_end(&mut text).unwrap()),
            "deflate" => drop(ZlibDecoder::new(&answer.body[..]).read_to_end(&mut text).unwrap()),
            _ => text.clone_from(&answer.body),
        }
        assert_eq!(serde_json::from_slice::<Value>(&text).unwrap(), plain, "{accepts}");
        let vary = if coding.is_empty() { "" } else { "accept-encoding" };
        assert_eq!(answer.header("vary"), vary);
    }
    // What fits into one packet stays as it is.
    let small = server.post_with(INFER, &[("accept-encoding", "zstd")], digit().as_bytes());
    assert_eq!(small.header("content-encoding"), "");
}

#[test]
fn compressed_bodies_are_read_and_bombs_are_not() {
    let server = start("[limits]\nbody = \"1MiB\"\n");
    let expected = server.post(INFER, &digit()).json();
    let zstd = zstd::encode_all(digit().as_bytes(), 3).unwrap();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(digit().as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    for (coding, body) in [("zstd", &zstd), ("ZSTD", &zstd), ("gzip", &gzip), ("x-gzip", &gzip)] {
        let answer = server.post_with(INFER, &[("content-encoding", coding)], body);
        assert_eq!(answer.status, 200, "{coding}: {}", answer.text());
        assert_eq!(answer.json(), expected, "{coding}");
    }
    let bomb = zstd::encode_all(&vec![b' '; 64 << 20][..], 1).unwrap();
    assert!(bomb.len() < 20_000);
    for (coding, body, status, reason) in [
        (
            "zstd",
            &bomb,
            413,
            "the body decompresses to more than the limit of 1048576 bytes (limits.body)",
        ),
        ("zstd", &gzip, 400, "the body is not valid zstd"),
        ("gzip", &zstd, 400, "the body is not valid gzip"),
        (
            "br",
            &gzip,
            415,
            "content-encoding 'br' is not supported; send zstd, gzip, deflate or identity",
        ),
        ("gzip, zstd", &gzip, 415, "content-encoding 'gzip, zstd' is not supported"),
    ] {
        let answer = server.post_with(INFER, &[("content-encoding", coding)], body);
        assert_eq!(answer.status, status, "{coding}");
        assert!(answer.error().starts_with(reason), "{}", answer.error());
    }
}

#[test]
fn who_waits_to_be_asked_for_the_body_is_asked_or_refused() {
    let server = start("[limits]\nbody = \"1MiB\"\n");
    let mut stream = BufReader::new(connect(server.http));
    let body = digit();
    let expects = [("expect", "100-continue")];
    let request = head("POST", INFER, &expects, Some(body.len()));
    stream.get_mut().write_all(request.as_bytes()).unwrap();
    assert_eq!(read_answer(&mut stream).unwrap().status, 100);
    stream.get_mut().write_all(body.as_bytes()).unwrap();
    assert_eq!(read_answer(&mut stream).unwrap().status, 200);
    // Nothing of a body that is too large is asked for.
    let mut stream = BufReader::new(connect(server.http));
    let request = head("POST", INFER, &expects, Some(2 << 20));
    stream.get_mut().write_all(request.as_bytes()).unwrap();
    let refused = read_answer(&mut stream).unwrap();
    assert_eq!(refused.status, 413);
    assert!(refused.error().contains("2097152 bytes, more than the limit of 1048576"));
}

#[test]
fn connections_are_kept_or_closed_as_the_client_asks() {
    let server = start("");
    let mut stream = BufReader::new(connect(server.http));
    for _ in 0..3 {
        stream.get_mut().write_all(head("GET", "/v2", &[], None).as_bytes()).unwrap();
        assert_eq!(read_answer(&mut stream).unwrap().status, 200);
    }
    let last = head("GET", "/v2", &[("connection", "close")], None);
    stream.get_mut().write_all(last.as_bytes()).unwrap();
    let answer = read_answer(&mut stream).unwrap();
    assert_eq!((answer.status, answer.header("connection")), (200, "close"));
    assert!(read_answer(&mut stream).is_none());
    // HTTP/1.0 closes, unless it is asked not to.
    let (head, _) = raw(server.http, "GET /v2 HTTP/1.0\r\n\r\n");
    assert!(head.starts_with("http/1.0 200"), "{head}");
    let mut stream = BufReader::new(connect(server.http));
    for _ in 0..2 {
        let request = "GET /v2 HTTP/1.0\r\nconnection: keep-alive\r\n\r\n";
        stream.get_mut().write_all(request.as_bytes()).unwrap();
        let answer = read_answer(&mut stream).unwrap();
        assert_eq!((answer.status, answer.header("connection")), (200, "keep-alive"));
    }
}

#[test]
fn an_upgrade_to_http2_is_passed_over_and_prior_knowledge_is_enough() {
    let server = start("");
    let mut stream = BufReader::new(connect(server.http));
    let upgrade = [
        ("connection", "Upgrade, HTTP2-Settings"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABkAAQAAP__"),
    ];
    for _ in 0..2 {
        stream.get_mut().write_all(head("GET", "/v2", &upgrade, None).as_bytes()).unwrap();
        // In HTTP/1.1, as a server may that does not want to switch.
        assert_eq!(read_answer(&mut stream).unwrap().status, 200);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(server.http).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        #[expect(clippy::disallowed_methods, reason = "ends with the runtime")]
        tokio::task::spawn(connection);
        for (method, path, status, has_body) in
            [("GET", "/v2", 200, true), ("HEAD", "/v2", 200, false), ("OPTIONS", INFER, 204, false)]
        {
            let uri = format!("http://{}{path}", server.http);
            let request = http::Request::builder().method(method).uri(uri);
            let request = request.body(Full::<bytes::Bytes>::default()).unwrap();
            let answer = sender.send_request(request).await.unwrap();
            assert_eq!(answer.status(), status, "{method}");
            let length = answer.headers().get("content-length").cloned();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(!body.is_empty(), has_body, "{method}");
            // Of HEAD it is the length that GET has.
            let length = length.map_or(0, |length| length.to_str().unwrap().parse().unwrap());
            assert_eq!(length > 0, status == 200, "{method}");
        }
    });
}

#[test]
fn ids_come_back_unless_they_could_do_harm() {
    let server = start("");
    for (sent, is_kept) in [
        ("abc-123", true),
        ("a/b;c=d\"e\"", true),
        (&"x".repeat(128), true),
        (&"x".repeat(129), false),
        ("with blank", false),
        ("caf\u{e9}", false),
        ("", false),
    ] {
        let answer = ask(&server, "GET", "/v2", &[("x-request-id", sent)]);
        let id = answer.header("x-request-id");
        assert_eq!(id == sent, is_kept, "{sent}: {id}");
        assert!(is_kept || (id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())), "{id}");
    }
    // Errors and what is not there have one too.
    assert_eq!(server.get("/nowhere").header("x-request-id").len(), 32);
}

#[test]
fn every_answer_is_timed_where_that_is_configured() {
    let server = start("");
    assert_eq!(server.post(INFER, &digit()).header("server-timing"), "");
    server
        .write_config("[server]\nhttp = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\ntiming = true\n");
    assert_eq!(server.admin_post("/api/v1/config/reload", "").status, 200);
    let timing = server.post(INFER, &digit()).header("server-timing").to_owned();
    assert!(timing.starts_with("total;dur="), "{timing}");
}

#[test]
fn the_media_type_of_a_request_is_not_held_against_it() {
    let server = start("");
    for content_type in [
        None,
        Some("application/json; charset=utf-8"),
        Some("text/plain"),
        Some("application/octet-stream"),
        Some("application/x-www-form-urlencoded"),
        Some("no type at all"),
    ] {
        let headers: Vec<_> =
            content_type.map(|value| ("content-type", value)).into_iter().collect();
        let answer = server.post_with(INFER, &headers, digit().as_bytes());
        assert_eq!(answer.status, 200, "{content_type:?}");
        assert_eq!(answer.header("content-type"), "application/json");
    }
}

#[test]
fn names_may_be_percent_encoded() {
    let server = Setup::with_models(&["car-loan", "digits"]).start();
    for (path, status) in [
        ("/v2/models/car%2Dloan", 200),
        ("/v2/models/%63ar-loan/ready", 200),
        ("/v2/models/digits/versions/%31", 200),
        ("/v2/models/digits/?a=b", 200),
        ("/v2/models/digits%2Fversions%2F1", 404),
        ("/v2/models/..%2f..%2fetc", 404),
        ("/v2/models/%zz", 404),
        ("/v2/models/%ff", 404),
        ("/v2/models/%00", 404),
        ("/v2/%6dodels/digits", 404),
    ] {
        assert_eq!(server.get(path).status, status, "{path}");
    }
    assert_eq!(server.post("/v2/models/digi%74s/infer", &digit()).status, 200);
}

#[test]
fn a_trace_comes_back_only_where_there_is_a_receiver() {
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let sent = [("traceparent", parent)];
    let server = start("");
    assert_eq!(server.post_with(INFER, &sent, digit().as_bytes()).header("traceparent"), "");
    server.stop();
    // Nobody listens there, which is no reason not to serve.
    let server = start(
        "[tracing]\nendpoint = \"http://127.0.0.1:1\"\nshare = 0.0\ntimeout = \"100ms\"\n[shutdown]\ndrain = \"2s\"\n",
    );
    let answer = server.post_with(INFER, &sent, digit().as_bytes());
    let own = answer.header("traceparent");
    assert!(own.starts_with(&parent[..36]) && own.ends_with("-01"), "{own}");
    assert_ne!(own, parent);
    assert_eq!(server.post(INFER, &digit()).header("traceparent"), "");
    server.stop();
}
