//! A client of gRPC that costs as little as it can: the message is framed once, connections are of
//! the bare HTTP/2 library, answers are taken as bytes.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{Method, Request, Version};
use prost::Message;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::client::Tallies;

/// The messages, and the service as tonic generates it.
pub mod proto {
    #![allow(missing_docs, clippy::all, reason = "generated")]
    tonic::include_proto!("inference");
}

use proto::ModelInferRequest;
use proto::model_infer_request::InferInputTensor;

/// The path of a prediction.
pub const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

/// What the answer may be ahead of what is read.
const WINDOW: u32 = 4 << 20;

/// Bytes before a message.
const PREFIX: usize = 5;

/// The message of a request for `model`, from a V2 request as JSON with FP32 inputs.
pub fn message(model: &str, json: &[u8]) -> Result<ModelInferRequest, String> {
    let request: Value = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let mut message = ModelInferRequest { model_name: model.to_owned(), ..Default::default() };
    let inputs = request["inputs"].as_array().ok_or("the body has no inputs")?;
    for input in inputs {
        let text = |member: &str| input[member].as_str().unwrap_or_default().to_owned();
        let (name, datatype) = (text("name"), text("datatype"));
        if datatype != "FP32" {
            return Err(format!("input '{name}' is {datatype}; only FP32 is read"));
        }
        let shape = input["shape"].as_array().ok_or("an input has no shape")?;
        let shape = shape.iter().filter_map(Value::as_i64).collect();
        let mut data = Vec::new();
        flatten(&input["data"], &mut data);
        message.inputs.push(InferInputTensor { name, datatype, shape, ..Default::default() });
        message.raw_input_contents.push(data);
    }
    Ok(message)
}

fn flatten(value: &Value, data: &mut Vec<u8>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| flatten(value, data)),
        value => data.put_f32_le(value.as_f64().unwrap_or(f64::NAN) as f32),
    }
}

/// The message with its prefix.
pub fn framed(message: &ModelInferRequest) -> Bytes {
    let mut frame = BytesMut::with_capacity(PREFIX + message.encoded_len());
    frame.put_u8(0);
    frame.put_u32(message.encoded_len() as u32);
    // There is room for it.
    let _ = message.encode(&mut frame);
    frame.freeze()
}

/// Connects; what drives the connection runs as a task.
pub async fn connect(address: SocketAddr) -> io::Result<SendRequest<Bytes>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(4 * WINDOW)
        .handshake(stream)
        .await
        .map_err(io::Error::other)?;
    let driven = tokio::runtime::Handle::current().spawn(async move {
        // Its streams see the error.
        let _ = connection.await;
    });
    drop(driven);
    Ok(client)
}

/// One call: the answer's message.
pub async fn call(client: &mut SendRequest<Bytes>, frame: &Bytes) -> Result<Bytes, String> {
    let broken = |error: h2::Error| error.to_string();
    let request = Request::builder()
        .method(Method::POST)
        .version(Version::HTTP_2)
        .uri(format!("http://localhost{INFER}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .map_err(|error| error.to_string())?;
    poll_fn(|context| client.poll_ready(context)).await.map_err(broken)?;
    let (response, mut stream) = client.send_request(request, false).map_err(broken)?;
    stream.send_data(frame.clone(), true).map_err(broken)?;
    let response = response.await.map_err(broken)?;
    let (head, mut body) = response.into_parts();
    let mut answer = Bytes::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(broken)?;
        let _ = body.flow_control().release_capacity(data.len());
        answer = match answer.is_empty() {
            true => data,
            false => [answer, data].concat().into(),
        };
    }
    let trailers = body.trailers().await.map_err(broken)?.unwrap_or(head.headers);
    match trailers.get("grpc-status").map(|status| status.as_bytes()) {
        Some(b"0") if answer.len() > PREFIX => Ok(answer.slice(PREFIX..)),
        status => Err(format!("grpc-status {status:?}: {:?}", trailers.get("grpc-message"))),
    }
}

/// How long calls are made and counted.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Before this, answers are counted apart.
    pub measure_from: Instant,
    /// After this, nothing is sent.
    pub until: Instant,
}

/// One stream at a time on a connection, one after the other.
pub async fn calls(
    mut client: SendRequest<Bytes>,
    frame: Bytes,
    times: Times,
    timeout: Duration,
) -> Tallies {
    let mut tallies = Tallies::default();
    loop {
        let begun = Instant::now();
        if begun >= times.until {
            return tallies;
        }
        let is_warmup = begun < times.measure_from;
        let tally = if is_warmup { &mut tallies.warmup } else { &mut tallies.measured };
        let answer = tokio::time::timeout(timeout, call(&mut client, &frame)).await;
        match answer.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
            Ok(answer) => {
                tally.latency.record(begun.elapsed());
                tally.bytes_sent += frame.len() as u64;
                tally.bytes_received += answer.len() as u64;
                *tally.statuses.entry(200).or_default() += 1;
            }
            Err(error) => {
                tally.connection_errors += 1;
                tally.first_failure.get_or_insert(error);
                // A connection that is gone is not stormed.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}
