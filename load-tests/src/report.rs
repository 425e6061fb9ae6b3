//! What the load generator reports, for people and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::client::Tallies;
use crate::histogram::Histogram;

/// The outcome of one run.
#[derive(Serialize)]
pub struct Report {
    /// Where requests went.
    pub url: String,
    /// Connections at a time.
    pub connections: usize,
    /// From the end of the warm-up to the last answer.
    pub seconds: f64,
    /// Answers, of whatever status.
    pub answers: u64,
    /// Answers with status 200 a second.
    pub requests_per_second: f64,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests without a whole answer.
    pub connection_errors: u64,
    /// Connections opened again, for whatever reason, warm-up included.
    pub reconnects: u64,
    /// Requests sent before the measurement and answered with status 200.
    pub warmup_answers: u64,
    /// Failed requests, those of the warm-up included.
    pub failed: u64,
    /// One of the failures, to begin the search with.
    pub first_failure: Option<String>,
    /// Requests due a second, in the open loop.
    pub rate: Option<f64>,
    /// Requests that were due and not sent before the time was over.
    pub unsent: u64,
    /// Times of answers with status 200.
    pub latency_us: Latency,
    /// Times of other answers.
    pub refusals_us: Latency,
    /// Bytes of requests.
    pub bytes_sent: u64,
    /// Bytes of answers.
    pub bytes_received: u64,
    /// Whether a signal ended the run before its time.
    pub interrupted: bool,
}

/// Microseconds from sending a request, or from when it was due, to the last byte of its answer.
#[derive(Serialize)]
pub struct Latency {
    min: f64,
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    p99_9: f64,
    max: f64,
}

impl From<&Histogram> for Latency {
    fn from(histogram: &Histogram) -> Self {
        let quantile = |q| micros(histogram.quantile(q));
        Self {
            min: micros(histogram.min()),
            mean: micros(histogram.mean()),
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p99_9: quantile(0.999),
            max: micros(histogram.max()),
        }
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1000.0
}

impl Report {
    /// Puts together what all connections counted within `measured` time.
    pub fn new(url: String, connections: usize, tallies: Tallies, measured: Duration) -> Self {
        let Tallies { warmup, measured: tally, reconnects } = tallies;
        let seconds = measured.as_secs_f64();
        let good = tally.statuses.get(&200).copied().unwrap_or(0);
        Self {
            url,
            connections,
            seconds,
            answers: tally.latency.count() + tally.refusals.count(),
            rate: None,
            unsent: 0,
            requests_per_second: if seconds > 0.0 { good as f64 / seconds } else { 0.0 },
            connection_errors: tally.connection_errors,
            reconnects,
            warmup_answers: warmup.statuses.get(&200).copied().unwrap_or(0),
            failed: warmup.failed() + tally.failed(),
            first_failure: warmup.first_failure.or(tally.first_failure),
            latency_us: Latency::from(&tally.latency),
            refusals_us: Latency::from(&tally.refusals),
            bytes_sent: tally.bytes_sent,
            bytes_received: tally.bytes_received,
            statuses: tally.statuses,
            interrupted: false,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, connections, seconds, answers, requests_per_second, .. } = self;
        writeln!(f, "{url}, {connections} connections, {seconds:.2} s")?;
        writeln!(f, "requests/s   {requests_per_second:.0}")?;
        write!(f, "answers      {answers}")?;
        for (status, count) in &self.statuses {
            write!(f, "   {status}: {count}")?;
        }
        writeln!(f)?;
        let Self { connection_errors, reconnects, failed, bytes_sent, bytes_received, .. } = self;
        writeln!(f, "connections  {connection_errors} errors, {reconnects} opened again")?;
        let Latency { min, mean: _, p50, p90, p99, p99_9, max } = &self.latency_us;
        writeln!(
            f,
            "latency µs   min {min:.0}  p50 {p50:.0}  p90 {p90:.0}  p99 {p99:.0}  \
             p99.9 {p99_9:.0}  max {max:.0}"
        )?;
        if let Some(rate) = self.rate {
            writeln!(f, "open loop    {rate:.0} due a second, {} never sent", self.unsent)?;
        }
        write!(f, "bytes        {bytes_sent} sent, {bytes_received} received")?;
        if self.interrupted {
            write!(f, "\ninterrupted by a signal")?;
        }
        if *failed > 0 {
            write!(f, "\nfailed       {failed}")?;
        }
        if let Some(failure) = &self.first_failure {
            write!(f, ", for example: {failure}")?;
        }
        Ok(())
    }
}
