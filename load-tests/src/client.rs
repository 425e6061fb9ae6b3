//! The two loops of load.
//!
//! **Closed**: each connection sends a request, waits for its answer, and sends the next. A slow
//! server gets fewer requests, not a longer queue: the figures say what the server sustains with so
//! many clients, and latencies are those at saturation.
//!
//! **Open**: requests are due at a fixed rate, whatever the server does. A request that is due while
//! all connections are busy waits for one, and its latency counts from when it was due: clients
//! that are held up by a slow answer do not leave out the requests that they would have sent
//! meanwhile (coordinated omission). What is due and not sent when the time is over is reported.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::histogram::Histogram;
use crate::http::{Head, Target, parse_head};

/// After a connection failed, so that a server that is away is not stormed.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(10);

/// How long the pacer of an open loop sleeps at most.
const LONGEST_SLEEP: Duration = Duration::from_millis(100);

/// What to send, where, and for how long.
pub struct Plan {
    /// Where requests go.
    pub target: Target,
    /// Requests as bytes, sent one after the other over all connections; not empty.
    pub requests: Vec<Vec<u8>>,
    /// Before this much time has passed, answers are counted apart and not measured.
    pub warmup: Duration,
    /// How long to measure.
    pub duration: Duration,
    /// How many requests to measure at most.
    pub limit: Option<u64>,
    /// A request that takes longer is a failed one.
    pub timeout: Duration,
    /// Requests due a second; nothing for the closed loop.
    pub rate: Option<f64>,
    /// How long the pacer of an open loop sleeps at least: it hands out at once what is due by then.
    pub tick: Duration,
    /// Whether an open loop uses the connection that was used last first, as pools of connections do,
    /// instead of the one that rested longest.
    pub pooled: bool,
}

/// A plan that is being carried out; shared by all connections.
pub struct Run {
    plan: Plan,
    measure_from: Instant,
    until: Instant,
    warmup_issued: AtomicU64,
    issued: AtomicU64,
    stopped: AtomicBool,
    start: Instant,
    due: Mutex<Due>,
    /// All that were handed out by the pacer.
    handed_out: AtomicU64,
}

/// Requests of the open loop that are due, and connections that have none.
#[derive(Default)]
struct Due {
    unsent: u64,
    /// In the order in which they came to rest.
    idle: VecDeque<oneshot::Sender<()>>,
    is_over: bool,
}

/// The right to send one request.
struct Ticket {
    number: u64,
    warmup: bool,
    at: Instant,
}

impl Run {
    /// Begins now.
    pub fn start(plan: Plan) -> Self {
        let start = Instant::now();
        let measure_from = start + plan.warmup;
        Self {
            start,
            due: Mutex::default(),
            handed_out: AtomicU64::new(0),
            until: measure_from + plan.duration,
            measure_from,
            plan,
            warmup_issued: AtomicU64::new(0),
            issued: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        }
    }

    /// Lets requests under way end, and sends no more.
    pub fn stop(&self) {
        self.stopped.store(true, Relaxed);
    }

    /// Whether [`stop`](Self::stop) was called.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Relaxed)
    }

    /// Requests issued since the end of the warm-up.
    pub fn issued(&self) -> u64 {
        self.issued.load(Relaxed).min(self.plan.limit.unwrap_or(u64::MAX))
    }

    /// Time since the end of the warm-up; zero before it.
    pub fn measured(&self) -> Duration {
        self.measure_from.elapsed()
    }

    /// Hands out requests of an open loop as they become due, on a thread of its own: timers of the
    /// runtime are a millisecond coarse. Returns when the time is over.
    pub fn pace(&self) {
        let Some(rate) = self.plan.rate else { return };
        while !self.hand_out() {
            let next = (self.handed_out.load(Relaxed) + 1) as f64 / rate;
            let next = self.start + Duration::from_secs_f64(next);
            let rest = next.saturating_duration_since(Instant::now());
            thread::sleep(rest.max(self.plan.tick).min(LONGEST_SLEEP));
        }
    }

    /// Hands out what is due in an open loop; whether the time is over.
    pub fn hand_out(&self) -> bool {
        let Some(rate) = self.plan.rate else { return true };
        let mut due = self.due();
        due.is_over |= self.is_stopped() || Instant::now() >= self.until;
        if due.is_over {
            // Whoever waits for a request sees that there are no more.
            due.idle.clear();
            return true;
        }
        let until_now = (self.start.elapsed().as_secs_f64() * rate) as u64;
        due.unsent += until_now - self.handed_out.swap(until_now, Relaxed);
        while due.unsent > 0 {
            let next = if self.plan.pooled { due.idle.pop_back() } else { due.idle.pop_front() };
            let Some(connection) = next else { break };
            // A connection that does not wait any longer leaves its turn to another one.
            due.unsent -= u64::from(connection.send(()).is_ok());
        }
        false
    }

    fn due(&self) -> MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a request is due; nothing when the time is over.
    async fn wait_for_one(&self) -> Option<()> {
        let handed_out = {
            let mut due = self.due();
            if due.is_over {
                return None;
            }
            if due.unsent > 0 {
                due.unsent -= 1;
                return Some(());
            }
            let (sender, handed_out) = oneshot::channel();
            due.idle.push_back(sender);
            handed_out
        };
        handed_out.await.ok()
    }

    /// Requests that were due and never sent.
    pub fn unsent(&self) -> u64 {
        let sent = self.warmup_issued.load(Relaxed) + self.issued.load(Relaxed);
        self.handed_out.load(Relaxed).saturating_sub(sent)
    }

    async fn ticket(&self) -> Option<Ticket> {
        let Some(rate) = self.plan.rate else { return self.ticket_at(Instant::now()) };
        self.wait_for_one().await?;
        // Requests are alike, so it does not matter who takes which. The first is due after one
        // interval.
        let number = self.warmup_issued.load(Relaxed) + self.issued.load(Relaxed) + 1;
        let ticket = self.ticket_at(self.start + Duration::from_secs_f64(number as f64 / rate))?;
        (Instant::now() < self.until).then_some(ticket)
    }

    fn ticket_at(&self, at: Instant) -> Option<Ticket> {
        if self.is_stopped() || at >= self.until {
            return None;
        }
        let warmup = at < self.measure_from;
        let number = if warmup { &self.warmup_issued } else { &self.issued }.fetch_add(1, Relaxed);
        let beyond = !warmup && self.plan.limit.is_some_and(|limit| number >= limit);
        (!beyond).then_some(Ticket { number, warmup, at })
    }

    fn request(&self, ticket: &Ticket) -> &[u8] {
        let requests = &self.plan.requests;
        &requests[(ticket.number % requests.len() as u64) as usize]
    }

    /// One connection until the run ends, opened again as often as needed: what it counted.
    pub async fn connection(&self) -> Tallies {
        let mut tallies = Tallies::default();
        let mut connection = Connection::default();
        while let Some(ticket) = self.ticket().await {
            let request = self.request(&ticket);
            let exchange = connection.exchange(&self.plan.target, request);
            let outcome = timeout(self.plan.timeout, exchange).await.unwrap_or_else(|_| {
                Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))
            });
            let tally = if ticket.warmup { &mut tallies.warmup } else { &mut tallies.measured };
            tally.bytes_sent += request.len() as u64;
            match outcome {
                Ok(head) => {
                    tally.answer(&head, ticket.at.elapsed(), &connection.buffer);
                    if head.close {
                        connection.stream = None;
                    }
                }
                Err(error) => {
                    tally.connection_error(&error);
                    connection.stream = None;
                    sleep(PAUSE_AFTER_ERROR).await;
                }
            }
        }
        tallies.reconnects = connection.opened.saturating_sub(1);
        tallies
    }
}

#[derive(Default)]
struct Connection {
    stream: Option<TcpStream>,
    opened: u64,
    buffer: BytesMut,
}

impl Connection {
    /// Sends `request` and reads the whole answer into the buffer. The time to connect, where it is
    /// needed, is part of the exchange: a client would wait for it too.
    async fn exchange(&mut self, target: &Target, request: &[u8]) -> io::Result<Head> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(target.address).await?;
            stream.set_nodelay(true)?;
            self.stream = Some(stream);
            self.opened += 1;
        }
        let Some(stream) = &mut self.stream else { return Err(io::ErrorKind::NotConnected.into()) };
        stream.write_all(request).await?;
        self.buffer.clear();
        let head = loop {
            read_more(stream, &mut self.buffer).await?;
            if let Some(head) = parse_head(&self.buffer).map_err(io::Error::other)? {
                break head;
            }
        };
        let expected = head.head_bytes.saturating_add(head.body_bytes);
        while self.buffer.len() < expected {
            read_more(stream, &mut self.buffer).await?;
        }
        if self.buffer.len() > expected {
            return Err(io::Error::other("more bytes than the answer has"));
        }
        Ok(head)
    }
}

async fn read_more(stream: &mut TcpStream, buffer: &mut BytesMut) -> io::Result<()> {
    buffer.reserve(4096);
    match stream.read_buf(buffer).await? {
        0 => {
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed before the answer was whole"))
        }
        _ => Ok(()),
    }
}

/// What connections counted, warm-up and measurement apart.
#[derive(Default)]
pub struct Tallies {
    /// Requests sent before the measurement; only their failures are of interest.
    pub warmup: Tally,
    /// Requests sent during the measurement.
    pub measured: Tally,
    /// Connections opened again.
    pub reconnects: u64,
}

impl Tallies {
    /// Adds what another connection counted.
    pub fn merge(&mut self, other: Self) {
        self.warmup.merge(other.warmup);
        self.measured.merge(other.measured);
        self.reconnects += other.reconnects;
    }
}

/// Counts of requests.
#[derive(Default)]
pub struct Tally {
    /// Times from sending, or from when it was due, to the last byte of the answer, of answers with
    /// status 200.
    pub latency: Histogram,
    /// The same of all others.
    pub refusals: Histogram,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests without a whole answer.
    pub connection_errors: u64,
    /// Bytes of requests.
    pub bytes_sent: u64,
    /// Bytes of whole answers.
    pub bytes_received: u64,
    /// What went wrong first on one of the connections.
    pub first_failure: Option<String>,
}

impl Tally {
    /// Requests that were not answered with status 200.
    pub fn failed(&self) -> u64 {
        let refused: u64 = self.statuses.iter().filter(|(s, _)| **s != 200).map(|(_, n)| n).sum();
        refused + self.connection_errors
    }

    fn answer(&mut self, head: &Head, latency: Duration, answer: &[u8]) {
        let histogram = if head.status == 200 { &mut self.latency } else { &mut self.refusals };
        histogram.record(latency);
        *self.statuses.entry(head.status).or_default() += 1;
        self.bytes_received += answer.len() as u64;
        if head.status != 200 {
            self.first_failure.get_or_insert_with(|| {
                let body = &answer[head.head_bytes..];
                let start = String::from_utf8_lossy(&body[..body.len().min(300)]);
                format!("status {}: {start}", head.status)
            });
        }
    }

    fn connection_error(&mut self, error: &io::Error) {
        self.connection_errors += 1;
        self.first_failure.get_or_insert_with(|| error.to_string());
    }

    fn merge(&mut self, other: Self) {
        self.latency.merge(&other.latency);
        self.refusals.merge(&other.refusals);
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self.connection_errors += other.connection_errors;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.first_failure = self.first_failure.take().or(other.first_failure);
    }
}
