//! Traces: which requests have one, and what is told of them.
//!
//! Nothing is made while a request is served but a [`Trace`], and that only for a request that is
//! sampled or whose client sent a trace. What happened inside is noted in it from timings that are
//! taken anyway; when the request ends it goes into a bounded queue as one [`Record`]. A task
//! makes spans of records and exports them, on a runtime that serves no requests.
//!
//! Invariants:
//! - without a receiver a request costs one branch;
//! - an unsampled request costs a random number and a comparison, without memory or lock;
//! - ending a trace never waits: what finds no room in the queue is dropped and counted.

mod context;
mod export;
mod record;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crossbeam_queue::ArrayQueue;
use http::header::{HeaderMap, HeaderValue};
use tokio::sync::Notify;

pub use context::{Carried, TRACEPARENT, TRACESTATE};
pub use export::{Exporting, Protocol, Settings, start};
pub use record::{Ending, Inside, Rpc, Times, Wire};

use crate::telemetry::Counter;
use record::Record;

/// Decides which requests are traced, and takes what is told of them. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Tracer(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    /// Trace ids whose lower 63 bits are below it are sampled.
    threshold: AtomicU64,
    /// The share that the threshold was made of, as bits.
    share: AtomicU64,
    /// Whether a client's own decision counts.
    parent: AtomicBool,
    queue: ArrayQueue<Box<Record>>,
    /// Wakes the exporter when the queue fills.
    filled: Notify,
    /// Spans that found no room.
    dropped: Counter,
}

impl Shared {
    fn new(queue: usize, dropped: Counter) -> Self {
        Self {
            threshold: AtomicU64::new(0),
            share: AtomicU64::new(0),
            parent: AtomicBool::new(true),
            queue: ArrayQueue::new(queue),
            filled: Notify::new(),
            dropped,
        }
    }

    /// The same answer for the same trace in every service that decides by the lower bits of its
    /// id, as OpenTelemetry's ratio samplers do.
    fn samples(&self, trace: u128) -> bool {
        let lower = trace as u64 >> 1;
        lower < self.threshold.load(Ordering::Relaxed)
    }

    fn offer(&self, record: Record) {
        match self.queue.push(Box::new(record)) {
            Ok(()) if self.queue.len() == self.queue.capacity() / 2 => self.filled.notify_one(),
            Ok(()) => {}
            Err(record) => self.dropped.increment(record.n_spans()),
        }
    }
}

impl Tracer {
    /// Traces nothing.
    #[must_use]
    pub fn off() -> Self {
        Self(None)
    }

    /// Whether there is a receiver.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The share of requests that are sampled where the client does not say; 0 where there is no
    /// receiver.
    #[must_use]
    pub fn share(&self) -> f64 {
        let shared = self.0.as_ref();
        shared.map_or(0.0, |shared| f64::from_bits(shared.share.load(Ordering::Relaxed)))
    }

    /// Samples `share` of the requests from now on; what is not between 0 and 1 is made so.
    pub fn set_share(&self, share: f64) {
        let Some(shared) = &self.0 else { return };
        let share = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
        // 2^63 ids; of share 1 every one is below.
        let threshold = (share * (1_u64 << 63) as f64) as u64;
        shared.threshold.store(threshold, Ordering::Relaxed);
        shared.share.store(share.to_bits(), Ordering::Relaxed);
    }

    /// Lets clients that send a trace decide over their own requests, or not.
    pub fn set_parent(&self, counts: bool) {
        if let Some(shared) = &self.0 {
            shared.parent.store(counts, Ordering::Relaxed);
        }
    }

    /// The trace of a request, whose head came at `received`: where it is sampled, or where its
    /// client sent one, which is then answered and passed on though nothing is recorded.
    #[must_use]
    pub fn begin(&self, head: &HeaderMap, received: Instant) -> Option<Arc<Trace>> {
        self.0.as_ref().and_then(|shared| begin(shared, head, received))
    }
}

fn begin(shared: &Arc<Shared>, head: &HeaderMap, received: Instant) -> Option<Arc<Trace>> {
    let (trace, parent, is_sampled) = match context::parent(head) {
        Some(parent) => {
            let decides = shared.parent.load(Ordering::Relaxed);
            let is_sampled = if decides { parent.is_sampled } else { shared.samples(parent.trace) };
            (parent.trace, Some(parent.span), is_sampled)
        }
        None => {
            let trace = fastrand::u128(1..);
            if !shared.samples(trace) {
                return None;
            }
            (trace, None, true)
        }
    };
    Some(Arc::new(Trace {
        shared: Arc::clone(shared),
        trace,
        span: fastrand::u64(1..),
        parent,
        is_part: false,
        is_sampled,
        state: parent.and_then(|_| context::state(head)),
        received,
        inside: OnceLock::new(),
        times: OnceLock::new(),
    }))
}

/// A request's trace, while it is served.
#[derive(Debug)]
pub struct Trace {
    shared: Arc<Shared>,
    trace: u128,
    /// The request's own span.
    span: u64,
    parent: Option<u64>,
    /// Whether the parent is a request here, and not the client's.
    is_part: bool,
    is_sampled: bool,
    state: Option<HeaderValue>,
    received: Instant,
    inside: OnceLock<Inside>,
    times: OnceLock<Times>,
}

impl Trace {
    /// Whether spans are made of it: only then what happens inside need be noted.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.is_sampled
    }

    /// The trace's id, for logs: 32 digits.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{:032x}", self.trace)
    }

    /// What goes into the answer, and into calls that are made on the request's behalf.
    #[must_use]
    pub fn carried(&self) -> Carried {
        Carried {
            trace: self.trace,
            span: self.span,
            is_sampled: self.is_sampled,
            state: self.state.clone(),
        }
    }

    /// The trace of one question of many that the request asks, such as one of a stream: its span is
    /// below the request's own. It has come at `received`.
    #[must_use]
    pub fn part(&self, received: Instant) -> Arc<Self> {
        Arc::new(Self {
            shared: Arc::clone(&self.shared),
            trace: self.trace,
            span: fastrand::u64(1..),
            parent: Some(self.span),
            is_part: true,
            is_sampled: self.is_sampled,
            state: self.state.clone(),
            received,
            inside: OnceLock::new(),
            times: OnceLock::new(),
        })
    }

    /// Notes who answers, once; what is told again is passed over.
    pub fn resolved(&self, inside: Inside) {
        let _ = self.inside.set(inside);
    }

    /// Notes where the time went, once it has run.
    pub fn ran(&self, times: Times) {
        let _ = self.times.set(times);
    }

    /// Ends the request: its record goes to the exporter, where it is sampled.
    pub fn end(&self, ending: Ending) {
        if !self.is_sampled {
            return;
        }
        self.shared.offer(Record {
            carried: self.carried(),
            parent: self.parent,
            is_part: self.is_part,
            received: self.received,
            ended: Instant::now(),
            inside: self.inside.get().cloned(),
            times: self.times.get().copied(),
            ending,
        });
    }
}

#[cfg(test)]
mod tests;
