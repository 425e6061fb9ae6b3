//! How often a prediction takes memory: `cargo bench --bench allocations`.
//!
//! Counts the calls of the allocator by the whole process while one client sends single-row requests
//! to `digits`, as JSON and as binary, over a socket. From that it takes what hyper takes for the
//! same bytes (a server beside it that reads the body and answers as much) and what the engine
//! takes for the same run: the rest is the gateway's own. The client takes none.

use std::alloc::{GlobalAlloc, Layout, System};
use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tidegate::app::{self, Source};
use tidegate::engine::{OnnxModel, Plan};
use tidegate::protocol::v2::{Form, decode_request, encode_request};
use tidegate::tensor::{Datatype, Tensor};

/// The system's allocator, counted.
struct Counted;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[expect(unsafe_code, reason = "there is no other way to count")]
// SAFETY: everything is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the place came from `alloc` or `realloc` above.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the place came from `alloc` or `realloc` above.
        unsafe { System.realloc(place, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// Requests of one count.
const REQUESTS: u64 = 100;

/// Counts, of which the lowest is taken: other threads of the process take memory now and then.
const COUNTS: usize = 50;

#[expect(clippy::print_stdout, reason = "the table is what it is for")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let gateway = gateway(root)?;
    let pixels = Tensor::new(Datatype::Fp32, [1, 8, 8].as_slice(), vec![0; 256].into())?;
    let model = std::fs::read(root.join("models/digits/1/model.onnx"))?;
    let plan = Plan::compile(Arc::new(OnnxModel::parse(&model)?), &[])?;
    let engine = counted(|| {
        std::hint::black_box(plan.run(std::slice::from_ref(&pixels))).expect("the model runs");
    });
    println!("allocations of one request    whole   hyper  engine  the gateway's own   to decode");
    for (name, form) in [("JSON", Form::Json), ("binary", Form::Binary)] {
        let mut body = Vec::new();
        let json_length = encode_request(None, &[("image", &pixels)], form, &mut body);
        let mut client = Client::connect(gateway)?;
        let request = post(&body, json_length);
        let answer = client.exchange(&request).to_vec();
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        let whole = counted(|| _ = client.exchange(&request));
        let head = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(0) + 4;
        let mut client = Client::connect(bare(Bytes::copy_from_slice(&answer[head..]))?)?;
        let bare = counted(|| _ = client.exchange(&request));
        let own = whole - bare - engine;
        let shared = Bytes::from(body);
        let decode = counted(|| {
            let decoded = decode_request(&shared, json_length, plan.signature());
            std::hint::black_box(decoded).expect("it can be read");
        });
        println!("{name:27} {whole:7.1} {bare:7.1} {engine:7.1} {own:18.1} {decode:11.1}");
    }
    Ok(())
}

/// Allocations of the process for each call of `work`.
fn counted(mut work: impl FnMut()) -> f64 {
    let counts = (0..COUNTS).map(|_| {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        (0..REQUESTS).for_each(|_| work());
        ALLOCATIONS.load(Ordering::Relaxed) - before
    });
    counts.min().unwrap_or(0) as f64 / REQUESTS as f64
}

/// A gateway on a thread of its own, which ends with the process.
fn gateway(root: &Path) -> Result<SocketAddr, Box<dyn std::error::Error>> {
    let (address, admin) = {
        let [http, admin] = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
        (http.local_addr()?, admin.local_addr()?)
    };
    let text = format!(
        "[server]\nhttp = \"{address}\"\ngrpc = \"off\"\nadmin = \"{admin}\"\n[repository]\npath = {:?}\n\
         watch = false\npoll = \"0s\"\n[log]\nlevel = \"warn\"\naccess = \"off\"\n",
        root.join("models")
    );
    let file: PathBuf = root.join("target").join("allocations.toml");
    std::fs::create_dir_all(root.join("target"))?;
    std::fs::write(&file, text)?;
    std::thread::spawn(move || app::serve(Source::new(file)));
    let start = Instant::now();
    // What it takes to load the models is none of a request's.
    while !is_ready(address) {
        if start.elapsed() > Duration::from_secs(60) {
            return Err("the gateway does not start".into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(address)
}

fn is_ready(address: SocketAddr) -> bool {
    let request = b"GET /v2/health/ready HTTP/1.1\r\nhost: localhost\r\n\r\n";
    Client::connect(address)
        .is_ok_and(|mut client| client.exchange(request).starts_with(b"HTTP/1.1 200"))
}

/// A server that reads the body and answers with `answer`.
fn bare(answer: Bytes) -> Result<SocketAddr, Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let (stream, _) = listener.accept().await?;
            let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
                let answer = answer.clone();
                async move {
                    drop(request.into_body().collect().await);
                    Ok::<_, Infallible>(hyper::Response::new(Full::new(answer)))
                }
            });
            let http = hyper::server::conn::http1::Builder::new();
            let served = http.serve_connection(TokioIo::new(stream), service).await;
            served.map_err(std::io::Error::other)
        })
    });
    Ok(address)
}

fn post(body: &[u8], json_length: Option<usize>) -> Vec<u8> {
    let length = json_length.map(|length| format!("inference-header-content-length: {length}\r\n"));
    let head = format!(
        "POST /v2/models/digits/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n{}\r\n",
        body.len(),
        length.unwrap_or_default()
    );
    [head.as_bytes(), body].concat()
}

/// A client that takes no memory for a request.
struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    fn connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; 1 << 16] })
    }

    /// Sends a request and reads its answer, which comes in one piece or more.
    fn exchange(&mut self, request: &[u8]) -> &[u8] {
        self.stream.write_all(request).expect("the server reads");
        let mut length = 0;
        loop {
            let n_read = self.stream.read(&mut self.buffer[length..]).expect("the server answers");
            assert!(n_read > 0, "the server hung up");
            length += n_read;
            if let Some(whole) = whole_length(&self.buffer[..length])
                && length >= whole
            {
                return &self.buffer[..length];
            }
        }
    }
}

/// The length of the answer that begins with `bytes`, once its head is there.
fn whole_length(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let name = b"content-length: ";
    let at = bytes.windows(name.len()).position(|window| window == name)? + name.len();
    let digits = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(head + digits.fold(0, |length, digit| length * 10 + usize::from(digit - b'0')))
}
