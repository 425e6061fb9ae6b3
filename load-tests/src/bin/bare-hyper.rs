//! The ceiling: what hyper serves on this machine when it parses the request and does nothing else.
//!
//! The server reads the body, parses it as a V2 inference request, and answers with fixed bytes. What
//! the gateway loses against it is what the gateway itself does: routing, checking, resolving the
//! version, running the model, writing the answer, counting.
//!
//! It is built to be fast rather than to be simple, or else the comparison would flatter the gateway:
//! - The request is parsed into a derived structure, names borrowed from the body and data as one
//!   flat `Vec<f32>`. `serde_json::Value` would allocate each name and keep each number as a
//!   tagged 32-byte value: a slower parse that no server would choose, and a lower ceiling.
//! - It has the gateway's default allocator.
//! - A request whose data is nested, or whose names are escaped, is refused (400) and not handled.

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::{fs, io};

use bytes::Bytes;
use clap::Parser;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

/// The size of an answer for one row of the digits model; `--answer` gives the real one.
const ANSWER: &str = concat!(
    r#"{"model_name":"digits","model_version":"1","outputs":["#,
    r#"{"name":"label","datatype":"INT64","shape":[1],"data":[7]},"#,
    r#"{"name":"probabilities","datatype":"FP32","shape":[1,10],"data":[0.00012345,0.00012345,"#,
    r#"0.00012345,0.00012345,0.00012345,0.00012345,0.00012345,0.99876543,0.00012345,0.00012345]}]}"#,
);

/// Serves a fixed answer to V2 inference requests, as fast as hyper can.
#[derive(Parser)]
struct Options {
    /// Where to listen; only loopback addresses are accepted
    #[arg(long, default_value = "127.0.0.1:18080")]
    listen: SocketAddr,
    /// File with the answer to give [default: one like the gateway's for the digits model]
    #[arg(long, value_name = "FILE")]
    answer: Option<PathBuf>,
    /// Give the request's body back, unread: the ceiling for large binary tensors
    #[arg(long, conflicts_with = "answer")]
    echo: bool,
}

/// What requests are answered with.
#[derive(Clone)]
enum Answer {
    Fixed(Bytes),
    Echo,
}

#[derive(Deserialize)]
struct Infer<'a> {
    #[serde(borrow)]
    inputs: Vec<Input<'a>>,
}

#[derive(Deserialize)]
struct Input<'a> {
    name: &'a str,
    datatype: &'a str,
    shape: Vec<usize>,
    data: Vec<f32>,
}

impl Input<'_> {
    /// Looks at every field, so that none is parsed in vain.
    fn is_valid(&self) -> bool {
        !self.name.is_empty()
            && !self.datatype.is_empty()
            && self.shape.iter().product::<usize>() == self.data.len()
    }
}

// One worker thread for each core, which is tokio's default.
#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    if !options.listen.ip().is_loopback() {
        return Err(format!("{} is not a loopback address", options.listen.ip()).into());
    }
    let answer = match &options.answer {
        _ if options.echo => Answer::Echo,
        Some(file) => Answer::Fixed(Bytes::from(fs::read(file)?)),
        None => Answer::Fixed(Bytes::from_static(ANSWER.as_bytes())),
    };
    let listener = TcpListener::bind(options.listen).await?;
    println!("listening on {}", listener.local_addr()?);

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                stream.set_nodelay(true)?;
                connections.spawn(serve(stream, answer.clone()));
            }
            Some(_) = connections.join_next() => {}
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
        }
    }
}

async fn serve(stream: TcpStream, answer: Answer) {
    let service = service_fn(|request| reply(request, &answer));
    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    if let Err(error) = served
        && !is_hang_up(&error)
    {
        eprintln!("bare-hyper: {error}");
    }
}

/// Clients that go away are no news.
fn is_hang_up(error: &hyper::Error) -> bool {
    let kind = error.source().and_then(|source| source.downcast_ref()).map(io::Error::kind);
    error.is_incomplete_message()
        || matches!(kind, Some(io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected))
}

async fn reply(
    request: Request<Incoming>,
    answer: &Answer,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() == Method::GET {
        // The scenarios wait for readiness as they do with the gateway.
        return Ok(Response::new(Full::default()));
    }
    let Ok(body) = request.into_body().collect().await else {
        return Ok(refusal());
    };
    let body = body.to_bytes();
    let Answer::Fixed(answer) = answer else { return Ok(Response::new(Full::new(body))) };
    match serde_json::from_slice::<Infer<'_>>(&body) {
        Ok(infer) if infer.inputs.iter().all(Input::is_valid) => {
            let mut response = Response::new(Full::new(answer.clone()));
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(CONTENT_TYPE, json);
            Ok(response)
        }
        _ => Ok(refusal()),
    }
}

fn refusal() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from("not a request that this server reads"));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
}
