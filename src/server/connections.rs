//! Listeners and connections: how many, how idle, how slow, and how they end.
//!
//! Each connection is a task that serves it, ends it when it has been idle for too long or takes
//! too long over a request's head, and lets it finish what it has accepted when the server
//! drains.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::Service as HyperService;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tower::Service;

use super::clock::{Bell, Ring, next_ring};
use super::reply::Body;
use super::streams::Streams;
use crate::registry::Registry;
use crate::telemetry::{Counter, Gauge, Telemetry, names};

/// How long to wait after an accept that failed for lack of file descriptors or memory.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// Streams of one HTTP/2 connection at once.
const MAX_STREAMS: u32 = 256;

/// What a gRPC client may send ahead of what is read, on one stream and on all of a connection: as
/// much as is under way on a network of 10 Gbit/s and a few milliseconds.
const GRPC_WINDOWS: (u32, u32) = (2 << 20, 8 << 20);

/// Larger frames of HTTP/2 than the least that it allows: fewer for a large tensor.
const GRPC_FRAME: u32 = 128 << 10;

/// How often a silent gRPC connection is asked whether its client is there, at most.
const PING_AT_MOST: Duration = Duration::from_secs(10);

/// What a plane's connections speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speech {
    /// HTTP/1.1 or HTTP/2, as the client begins.
    Http,
    /// HTTP/2 alone, with room for large messages.
    Grpc,
}

/// A runtime that serves a share of a plane's connections.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) runtime: Handle,
    open: AtomicUsize,
    /// Streams of HTTP/2 under way.
    pub(super) streams: AtomicUsize,
}

/// What all connections of one plane share.
#[derive(Debug)]
pub(super) struct Connections {
    open: AtomicUsize,
    /// One or more.
    pub(super) shards: Vec<Shard>,
    speech: Speech,
    registry: Registry,
    gauge: Gauge,
    accepted: Counter,
    refused: Counter,
    drain: watch::Receiver<bool>,
}

impl Connections {
    pub(super) fn new(
        telemetry: &Telemetry,
        plane: &'static str,
        speech: Speech,
        registry: Registry,
        drain: watch::Receiver<bool>,
        runtimes: &[Handle],
    ) -> Arc<Self> {
        let plane = [("plane", plane)];
        let shard = |runtime: &Handle| Shard {
            runtime: runtime.clone(),
            open: AtomicUsize::new(0),
            streams: AtomicUsize::new(0),
        };
        Arc::new(Self {
            open: AtomicUsize::new(0),
            shards: runtimes.iter().map(shard).collect(),
            speech,
            registry,
            gauge: telemetry.gauge(names::CONNECTIONS, &plane),
            accepted: telemetry.counter(names::CONNECTIONS_ACCEPTED, &plane),
            refused: telemetry.counter(names::CONNECTIONS_REFUSED, &plane),
            drain,
        })
    }

    /// Connections open now.
    pub(super) fn n_open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Accepts until the server drains; then the listener is closed.
    pub(super) async fn accept<S>(self: Arc<Self>, listener: TcpListener, service: S)
    where
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
    {
        let mut drain = self.drain.clone();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = drain.wait_for(|drains| *drains) => return,
            };
            match accepted {
                Ok((stream, remote)) => self.admit(stream, remote, service.clone()),
                Err(error) if is_connections_own(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }

    fn admit<S>(self: &Arc<Self>, stream: TcpStream, remote: SocketAddr, service: S)
    where
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
    {
        let limit = self.registry.live().config.limits.connections;
        if self.open.fetch_add(1, Ordering::AcqRel) >= limit {
            self.open.fetch_sub(1, Ordering::AcqRel);
            self.refused.increment(1);
            return;
        }
        self.accepted.increment(1);
        self.gauge.increment(1.0);
        // Answers are one write each: waiting for more would only delay them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, %remote, "cannot set nodelay");
        }
        let open = self.open_on_quietest();
        let shard = &self.shards[open.shard];
        // Connections are counted, and awaited by drain.
        if self.shards.len() == 1 {
            shard.runtime.spawn(async move { serve(&open, stream, service).await });
            return;
        }
        // The accepting runtime lets go of the socket, so that the shard's own watches it.
        let stream = match stream.into_std() {
            Ok(stream) => stream,
            Err(error) => return tracing::warn!(%error, %remote, "cannot hand a connection over"),
        };
        shard.runtime.spawn(async move {
            match TcpStream::from_std(stream) {
                Ok(stream) => serve(&open, stream, service).await,
                Err(error) => tracing::warn!(%error, %remote, "cannot take a connection over"),
            }
        });
    }

    /// A place on the shard with the fewest connections. Sharing out by hand rather than by
    /// `SO_REUSEPORT` keeps few long-lived connections, as of HTTP/2, from meeting on one shard.
    fn open_on_quietest(self: &Arc<Self>) -> Open {
        let quietest = self.shards.iter().enumerate();
        let quietest = quietest.min_by_key(|(_, shard)| shard.open.load(Ordering::Relaxed));
        let shard = quietest.map_or(0, |(shard, _)| shard);
        self.shards[shard].open.fetch_add(1, Ordering::Relaxed);
        Open { connections: Arc::clone(self), shard }
    }
}

/// Errors of the connection that was about to be accepted, not of the listener.
fn is_connections_own(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

/// An open connection's place among them.
struct Open {
    connections: Arc<Connections>,
    shard: usize,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connections.gauge.decrement(1.0);
        self.connections.shards[self.shard].open.fetch_sub(1, Ordering::Relaxed);
        self.connections.open.fetch_sub(1, Ordering::AcqRel);
    }
}

async fn serve<S>(open: &Open, stream: TcpStream, service: S)
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let Connections { registry, drain, speech, .. } = &*open.connections;
    let activity = Arc::new(Activity::new());
    let io = TokioIo::new(Observed { stream, activity: Arc::clone(&activity) });
    let mut builder =
        Builder::new(Streams { connections: Arc::clone(&open.connections), shard: open.shard });
    // hyper's own head timeout also ends idle connections, and makes a timer for each request:
    // the clock below does both with one timer a connection.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).pipeline_flush(true);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS);
    if *speech == Speech::Grpc {
        let (stream, connection) = GRPC_WINDOWS;
        builder = builder.http2_only();
        builder
            .http2()
            .initial_stream_window_size(stream)
            .initial_connection_window_size(connection)
            .max_frame_size(GRPC_FRAME)
            // A stream may be silent for long; a client that is gone is found out by this.
            .keep_alive_interval(registry.live().config.limits.idle_time.max(PING_AT_MOST));
    }
    let service = Counting { service, activity: Arc::clone(&activity) };
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut drain = drain.clone();
    let mut draining = false;
    let bell = Bell::of_this_task().await;
    let bell_waker = Waker::from(Arc::clone(&bell));
    loop {
        let mut ring = pin!(next_ring(registry, &mut drain, draining));
        bell.ring();
        let rang = std::future::poll_fn(|context| {
            if let Poll::Ready(ended) = connection.as_mut().poll(context) {
                if let Err(error) = ended {
                    tracing::debug!(error = %error, "connection broke off");
                }
                return Poll::Ready(None);
            }
            if !bell.has_rung() {
                return Poll::Pending;
            }
            ring.as_mut().poll(&mut Context::from_waker(&bell_waker)).map(Some)
        });
        match rang.await {
            None => return,
            Some(Ring::Drain) => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            Some(Ring::Tick { header_time, idle_time }) => {
                match activity.state(header_time, idle_time) {
                    ClientState::Active => {}
                    ClientState::Idle => connection.as_mut().graceful_shutdown(),
                    ClientState::SlowHead => return,
                }
            }
        }
        if draining && activity.is_silent() {
            // Nothing was ever asked: there is nothing to finish.
            return;
        }
    }
}

/// What a connection has been doing, in milliseconds since it was opened.
#[derive(Debug)]
struct Activity {
    opened: Instant,
    requests: AtomicU64,
    in_flight: AtomicUsize,
    /// When the last request ended.
    ended: AtomicU64,
    /// When bytes came after that; 0 if none have.
    head_begun: AtomicU64,
    is_http2: AtomicBool,
}

enum ClientState {
    Active,
    Idle,
    SlowHead,
}

impl Activity {
    fn new() -> Self {
        Self {
            opened: Instant::now(),
            requests: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            ended: AtomicU64::new(0),
            head_begun: AtomicU64::new(0),
            is_http2: AtomicBool::new(false),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn read(&self) {
        if self.in_flight.load(Ordering::Relaxed) == 0
            && self.head_begun.load(Ordering::Relaxed) == 0
        {
            self.head_begun.store(self.now().max(1), Ordering::Relaxed);
        }
    }

    fn request_begun(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.head_begun.store(0, Ordering::Relaxed);
    }

    fn request_ended(&self) {
        self.ended.store(self.now(), Ordering::Relaxed);
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    fn is_silent(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == 0
    }

    fn state(&self, header_time: Duration, idle_time: Duration) -> ClientState {
        let exceeds = |since: u64, limit: Duration| {
            u128::from(self.now().saturating_sub(since)) > limit.as_millis()
        };
        if self.in_flight.load(Ordering::Relaxed) > 0 {
            return ClientState::Active;
        }
        let head_begun = self.head_begun.load(Ordering::Relaxed);
        // HTTP/2 peers send frames between requests, which are no slow heads.
        let is_http2 = self.is_http2.load(Ordering::Relaxed);
        if head_begun > 0 && !is_http2 && exceeds(head_begun, header_time) {
            return ClientState::SlowHead;
        }
        if exceeds(self.ended.load(Ordering::Relaxed), idle_time) {
            // Before its first request a connection has nothing to end gracefully.
            return if self.is_silent() { ClientState::SlowHead } else { ClientState::Idle };
        }
        ClientState::Active
    }
}

/// Notes when requests begin and end.
struct Counting<S> {
    service: S,
    activity: Arc<Activity>,
}

impl<S> HyperService<Request<Incoming>> for Counting<S>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = CountingFuture<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        if request.version() == http::Version::HTTP_2 {
            self.activity.is_http2.store(true, Ordering::Relaxed);
        }
        self.activity.request_begun();
        let under_way = UnderWay(Arc::clone(&self.activity));
        // The stack's services are always ready: it refuses rather than waits.
        CountingFuture { inner: self.service.clone().call(request), under_way: Some(under_way) }
    }
}

/// A request's place among those of its connection.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<Activity>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.request_ended();
    }
}

pin_project_lite::pin_project! {
    struct CountingFuture<F> {
        #[pin]
        inner: F,
        under_way: Option<UnderWay>,
    }
}

impl<F> Future for CountingFuture<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        this.inner.poll(cx).map_ok(|mut response| {
            if let Some(streamed) = response.body_mut().streamed() {
                streamed.under_way = this.under_way.take();
            }
            response
        })
    }
}

/// A stream that notes when bytes come.
struct Observed {
    stream: TcpStream,
    activity: Arc<Activity>,
}

impl AsyncRead for Observed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.activity.read();
        }
        poll
    }
}

impl AsyncWrite for Observed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
