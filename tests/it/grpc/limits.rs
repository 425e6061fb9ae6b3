//! What HTTP's clients may not do, gRPC's may not do either.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::HeaderMap;
use prost::Message;
use tidegate::protocol::grpc::proto::{ModelInferRequest, ModelInferResponse};
use tidegate::tensor::{Datatype, Tensor};
use tonic::{Code, Request};

use super::client::{Client, INFERENCE, output, raw, unary};
use super::{digit, refused};
use crate::harness::{Server, Setup, connect, eventually};
use crate::onnx;

fn rows(n_rows: usize, size: usize) -> Tensor {
    let data = vec![0; n_rows * size * 4];
    Tensor::new(Datatype::Fp32, [n_rows, size].as_slice(), data.into()).unwrap()
}

/// A model that takes long, on one thread.
fn heavy(limits: &str) -> Server {
    Setup::with_models(&[])
        .file("heavy/1/model.onnx", &onnx::heavy(256, 200))
        .file("heavy/model.toml", b"[batching]\nmax_batch = 0")
        .config(&format!(
            "[server]\nhttp = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\ncompute_threads = 1\n{limits}"
        ))
        .start()
}

fn with_timeout(request: ModelInferRequest, timeout: Duration) -> Request<ModelInferRequest> {
    let mut request = Request::new(request);
    request.set_timeout(timeout);
    request
}

/// Runs predictions until `stop`.
fn occupy(server: &Server, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    let (address, stop) = (server.grpc, Arc::clone(stop));
    std::thread::spawn(move || {
        let client = Client::connect(address);
        while !stop.load(Ordering::Relaxed) {
            client.infer(raw("heavy", &[("x", &rows(400, 256))])).unwrap();
        }
    })
}

#[test]
fn a_deadline_passes_in_the_queue_without_a_run() {
    let server = heavy("");
    let stop: Arc<AtomicBool> = Arc::default();
    let busy = occupy(&server, &stop);
    eventually("a run", || {
        (server.metric("tidegate_compute_threads_busy", &[]) > 0.0).then_some(())
    });
    let client = Client::connect(server.grpc);
    let request = with_timeout(raw("heavy", &[("x", &rows(1, 256))]), Duration::from_millis(1));
    let answer = client.ask::<_, ModelInferResponse>(INFERENCE, "ModelInfer", request).unwrap_err();
    // The client's own clock may have been faster.
    assert!(
        matches!(answer.code(), Code::DeadlineExceeded | Code::Cancelled | Code::Unavailable),
        "{answer:?}"
    );
    stop.store(true, Ordering::Relaxed);
    busy.join().unwrap();
}

#[test]
fn a_client_that_leaves_is_withdrawn_from_the_queue() {
    let server = heavy("");
    let stop: Arc<AtomicBool> = Arc::default();
    let busy = occupy(&server, &stop);
    let client = Client::connect(server.grpc);
    let queued = || server.metric("tidegate_predictions_queued", &[]);
    let cancelled = || {
        server.metric("tidegate_predictions_total", &["protocol=\"grpc\"", "code=\"cancelled\""])
    };
    // Until one is caught while it waits.
    eventually("a request to be withdrawn", || {
        let call =
            client.runtime.spawn({
                let grpc = client.grpc();
                let request = Request::new(raw("heavy", &[("x", &rows(1, 256))]));
                async move {
                    unary::<_, ModelInferResponse>(grpc, INFERENCE, "ModelInfer", request).await
                }
            });
        for _ in 0..20 {
            if queued() > 0.0 {
                break;
            }
        }
        call.abort();
        (cancelled() > 0.0).then_some(())
    });
    stop.store(true, Ordering::Relaxed);
    busy.join().unwrap();
    eventually("the queue to be empty", || (queued() == 0.0).then_some(()));
    let labels = ["plane=\"grpc\"", "outcome=\"cancelled\""];
    assert!(server.metric("tidegate_http_requests_total", &labels) >= 1.0);
}

#[test]
fn a_message_beyond_the_limit_is_refused() {
    let server = Setup::with_models(&["digits"]).config("[limits]\nbody = \"1KiB\"").start();
    let client = Client::connect(server.grpc);
    client.infer(digit()).unwrap();
    let large = Tensor::new(Datatype::Fp32, [8, 8, 8].as_slice(), vec![0; 2048].into()).unwrap();
    let answer = client.infer(raw("digits", &[("image", &large)]));
    refused(answer, Code::ResourceExhausted, "more than the limit of 1024 (limits.body)");
    // What is small and becomes large is refused too.
    let answer = client.infer_zipped(raw("digits", &[("image", &large)]));
    refused(answer, Code::ResourceExhausted, "decompresses to more than the limit of 1024 bytes");
}

#[test]
fn a_large_message_goes_both_ways() {
    use tract_onnx::pb::tensor_proto::DataType;
    let server = Setup::with_models(&[])
        .file("same/1/model.onnx", &onnx::identity(DataType::Float, &["N", "M"]))
        .start();
    let client = Client::connect(server.grpc);
    let data: Vec<u8> = (0..4_u32 << 20).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let tensor = Tensor::new(Datatype::Fp32, [4096, 1024].as_slice(), data.into()).unwrap();
    let answer = client.infer(raw("same", &[("x", &tensor)])).unwrap();
    assert_eq!(output(&answer), tensor);
}

#[test]
fn what_came_compressed_is_answered_compressed() {
    use tract_onnx::pb::tensor_proto::DataType;
    let server = Setup::with_models(&[])
        .file("same/1/model.onnx", &onnx::identity(DataType::Float, &["N", "M"]))
        .start();
    let client = Client::connect(server.grpc);
    let tensor = rows(64, 256);
    let answer = client.infer_zipped(raw("same", &[("x", &tensor)])).unwrap();
    assert_eq!(answer.metadata().get("grpc-encoding").unwrap(), "gzip");
    assert_eq!(output(&answer.into_inner()), tensor);
    let bytes = server.metric("tidegate_http_response_body_bytes_total", &["plane=\"grpc\""]);
    assert!(bytes < 8192.0, "{bytes}");
}

#[test]
fn there_is_room_for_so_many_predictions_and_no_more() {
    let server = heavy("[limits]\nin_flight = 1");
    let stop: Arc<AtomicBool> = Arc::default();
    let client = Client::connect(server.grpc);
    let (address, inner) = (server.grpc, Arc::clone(&stop));
    let busy = std::thread::spawn(move || {
        let client = Client::connect(address);
        while !inner.load(Ordering::Relaxed) {
            drop(client.infer(raw("heavy", &[("x", &rows(400, 256))])));
        }
    });
    eventually("a refusal", || {
        let status = client.infer(raw("heavy", &[("x", &rows(1, 256))])).err()?;
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(status.message().contains("limits.in_flight"), "{status:?}");
        Some(())
    });
    stop.store(true, Ordering::Relaxed);
    busy.join().unwrap();
}

#[test]
fn what_is_accepted_is_answered_when_the_server_ends() {
    let mut server = heavy("");
    let address = server.grpc;
    let call = std::thread::spawn(move || {
        Client::connect(address).infer(raw("heavy", &[("x", &rows(400, 256))]))
    });
    eventually("the request to be accepted", || {
        (server.metric("tidegate_predictions_in_flight", &[]) > 0.0).then_some(())
    });
    server.signal("TERM");
    call.join().unwrap().unwrap();
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn swaps_under_load_fail_no_call() {
    let server = Setup::with_models(&["digits"]).start();
    let stop = Arc::new(AtomicBool::new(false));
    let address = server.grpc;
    let loads: Vec<_> = (0..3)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let client = Client::connect(address);
                let mut answered = 0;
                while !stop.load(Ordering::Relaxed) {
                    client.infer(digit()).unwrap();
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    for round in 0..10 {
        let version = 1 + round % 2;
        server.file(
            "digits/model.toml",
            format!("versions = \"all\"\nprimary = {version}").as_bytes(),
        );
        eventually("the primary to change", || {
            let client = Client::connect(address);
            let answer = client.infer(digit()).unwrap();
            (answer.model_version == version.to_string()).then_some(())
        });
    }
    stop.store(true, Ordering::Relaxed);
    for load in loads {
        assert!(load.join().unwrap() > 0);
    }
}

/// A call by the bare HTTP/2 library: head, pieces of a body, whether it ends; the status and message
/// that came.
fn bare(server: &Server, head: &[(&str, &str)], pieces: &[&[u8]], ends: bool) -> (String, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(server.grpc).await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        let mut client: SendRequest<Bytes> = client.ready().await.unwrap();
        let mut request = http::Request::builder()
            .method("POST")
            .uri(format!("http://localhost/{INFERENCE}/ModelInfer"));
        for (name, value) in head {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        let (response, mut body) = client.send_request(request, false).unwrap();
        for piece in pieces {
            body.send_data(Bytes::copy_from_slice(piece), false).unwrap();
        }
        if ends {
            body.send_data(Bytes::new(), true).unwrap();
        }
        let (head, mut answer) = response.await.unwrap().into_parts();
        while let Some(data) = answer.data().await {
            let length = data.unwrap().len();
            answer.flow_control().release_capacity(length).unwrap();
        }
        let trailers = answer.trailers().await.unwrap().unwrap_or_default();
        let text = |headers: &HeaderMap, name: &str| {
            headers.get(name).map(|value| value.to_str().unwrap().to_owned())
        };
        let find = |name: &str| text(&trailers, name).or_else(|| text(&head.headers, name));
        let status = find("grpc-status").unwrap_or_else(|| head.status.as_u16().to_string());
        (status, find("grpc-message").unwrap_or_default())
    })
}

const GRPC: (&str, &str) = ("content-type", "application/grpc");

#[test]
fn confused_and_slow_clients_get_their_status() {
    let server = Setup::with_models(&["digits"]).config("[limits]\nbody_time = \"500ms\"").start();
    let message = digit().encode_to_vec();
    let mut framed = vec![0];
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(&message);
    let twice = [framed.as_slice(), &framed].concat();
    // Byte for byte is no trouble.
    let (head, tail) = framed.split_at(3);
    assert_eq!(bare(&server, &[GRPC], &[head, tail], true).0, "0");
    let gzip = [GRPC, ("grpc-encoding", "gzip")];
    let cases: [(&[(&str, &str)], &[u8], bool, &str, &str); 12] = [
        (&[], &framed, true, "415", ""),
        (&[("content-type", "application/json")], &framed, true, "415", ""),
        (&[GRPC], &[], true, "3", "the call has no message"),
        (&[GRPC], &twice, true, "3", "more than one message"),
        (&[GRPC], &framed[..20], true, "3", "ended within a message"),
        (&[GRPC], b"not a prefix", true, "3", "begins with 0 or 1"),
        (&[GRPC], &[0, 0, 0, 0, 2, 0xff, 0xff], true, "3", "no ModelInferRequest"),
        (&[GRPC], &[1, 0, 0, 0, 1, 0], true, "3", "grpc-encoding does not say how"),
        (&gzip, &[1, 0, 0, 0, 1, 0], true, "3", "not valid gzip"),
        (&[GRPC, ("grpc-encoding", "snappy")], &framed, true, "12", "'snappy' is not supported"),
        (&[GRPC, ("grpc-timeout", "soon")], &framed, true, "3", "header grpc-timeout"),
        (&[GRPC], &framed[..20], false, "4", "did not arrive within 500 ms"),
    ];
    for (head, body, ends, status, message) in cases {
        let answer = bare(&server, head, &[body], ends);
        assert_eq!(answer.0, status, "{head:?} {message}: {answer:?}");
        assert!(answer.1.contains(message), "{answer:?}");
    }
    // An announced gigabyte is refused before it comes.
    let answer = bare(&server, &[GRPC], &[&[0, 0x40, 0, 0, 0]], false);
    assert_eq!(answer.0, "8", "{answer:?}");
}

#[test]
fn http_1_is_not_spoken_here() {
    let server = Setup::with_models(&[]).start();
    let mut stream = connect(server.grpc);
    stream.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
}
