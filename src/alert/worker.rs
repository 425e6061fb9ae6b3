//! A target's worker: one message after the other, at the target's rate, each one again and again
//! until it is taken, cannot be taken, or its time is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::encode::Message;
use super::endpoint::{Endpoint, SendError};
use crate::config::{AlertTarget, Alerts};
use crate::monitor::times::now_ms;
use crate::telemetry::{Counter, Gauge, Telemetry, names};

/// The wait before the second attempt; it doubles from one to the next.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// The longest wait between two attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A target's queue, and the worker behind it.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) config: AlertTarget,
    queue: mpsc::Sender<Arc<Message>>,
    metrics: Arc<Metrics>,
    worker: AbortHandle,
}

/// What becomes of messages: made = sent + failed + dropped + waiting.
#[derive(Debug)]
struct Metrics {
    sent: Counter,
    failed: Counter,
    dropped: Counter,
    retries: Counter,
    waiting: Gauge,
    /// Messages in the queue and in the worker's hands.
    n_waiting: AtomicUsize,
}

impl Metrics {
    fn new(telemetry: &Telemetry, target: &str) -> Self {
        let outcome = |outcome| {
            telemetry.counter(names::ALERT_MESSAGES, &[("target", target), ("outcome", outcome)])
        };
        Self {
            sent: outcome("sent"),
            failed: outcome("failed"),
            dropped: outcome("dropped"),
            retries: telemetry.counter(names::ALERT_RETRIES, &[("target", target)]),
            waiting: telemetry.gauge(names::ALERT_WAITING, &[("target", target)]),
            n_waiting: AtomicUsize::new(0),
        }
    }

    fn queued(&self) {
        self.waiting.set((self.n_waiting.fetch_add(1, Ordering::Relaxed) + 1) as f64);
    }

    fn ended(&self) {
        let before = self.n_waiting.fetch_sub(1, Ordering::Relaxed);
        self.waiting.set(before.saturating_sub(1) as f64);
    }
}

impl Target {
    /// Starts the worker on the runtime that this is called on.
    pub(super) fn start(config: &Arc<Alerts>, target: &AlertTarget, telemetry: &Telemetry) -> Self {
        let (queue, received) = mpsc::channel(config.queue);
        let metrics = Arc::new(Metrics::new(telemetry, &target.name));
        let endpoint = Endpoint::new(target, config.timeout);
        if let Err(reason) = &endpoint {
            tracing::error!(target_name = target.name, reason, "alerts cannot be sent to a target");
        }
        let worker = Worker {
            endpoint,
            config: Arc::clone(config),
            target: target.clone(),
            metrics: Arc::clone(&metrics),
            pace: Pace::new(config.rate),
        };
        let worker = Handle::current().spawn(worker.run(received)).abort_handle();
        Self { config: target.clone(), queue, metrics, worker }
    }

    /// Queues a message. One that finds no room is dropped and counted.
    pub(super) fn offer(&self, message: Arc<Message>) {
        match self.queue.try_send(message) {
            Ok(()) => self.metrics.queued(),
            Err(_) => {
                self.metrics.dropped.increment(1);
                tracing::warn!(
                    target_name = self.config.name,
                    "an alert finds no room and is dropped"
                );
            }
        }
    }

    /// Whether nothing waits: what is told again and again need not wait behind itself.
    pub(super) fn is_idle(&self) -> bool {
        self.metrics.n_waiting.load(Ordering::Relaxed) == 0
    }

    /// Whether it is told of a model.
    pub(super) fn is_told_of(&self, model: &str) -> bool {
        let models = &self.config.models;
        models.is_empty() || models.iter().any(|name| name == model)
    }
}

impl Drop for Target {
    /// Ends the worker; what waits is dropped.
    fn drop(&mut self) {
        self.worker.abort();
        let waiting = self.metrics.n_waiting.swap(0, Ordering::Relaxed);
        self.metrics.dropped.increment(waiting as u64);
        self.metrics.waiting.set(0.0);
    }
}

struct Worker {
    endpoint: Result<Endpoint, String>,
    config: Arc<Alerts>,
    target: AlertTarget,
    metrics: Arc<Metrics>,
    pace: Pace,
}

impl Worker {
    async fn run(mut self, mut queue: mpsc::Receiver<Arc<Message>>) {
        while let Some(message) = queue.recv().await {
            let outcome = self.deliver(&message).await;
            self.metrics.ended();
            match outcome {
                Ok(()) => self.metrics.sent.increment(1),
                Err(reason) => {
                    self.metrics.failed.increment(1);
                    tracing::error!(target_name = self.target.name, reason, "an alert is given up");
                }
            }
        }
    }

    /// Tries until it is taken, or says why that is given up.
    async fn deliver(&mut self, message: &Message) -> Result<(), String> {
        let Ok(endpoint) = &self.endpoint else {
            return Err("its settings do not work, see above".to_owned());
        };
        let deadline = Instant::now() + self.config.retry_for;
        let mut wait = FIRST_WAIT;
        let mut attempts = 0_u32;
        loop {
            tokio::time::sleep(self.pace.next(Instant::now())).await;
            let (headers, body) = message.encode(&self.config, &self.target.kind, now_ms());
            attempts += 1;
            let SendError { reason, is_passing, after } = match endpoint.send(headers, body).await {
                Ok(answer) => {
                    let status = answer.status;
                    tracing::debug!(target_name = self.target.name, status, attempts, "alert sent");
                    return Ok(());
                }
                Err(error) => error,
            };
            if !is_passing {
                return Err(reason);
            }
            // Between half of the wait and all of it, so that many gateways do not come at once.
            let pause = wait.mul_f64(0.5 + fastrand::f64() / 2.0).max(after.unwrap_or_default());
            if Instant::now() + pause >= deadline {
                return Err(format!("{reason} (tried {attempts} times)"));
            }
            if attempts == 1 {
                tracing::warn!(target_name = self.target.name, reason, "an alert is tried again");
            }
            self.metrics.retries.increment(1);
            tokio::time::sleep(pause).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }
}

/// A token bucket: as many messages at once as may go in a minute, then one by one.
#[derive(Debug)]
struct Pace {
    /// Messages a minute.
    rate: f64,
    tokens: f64,
    at: Instant,
}

impl Pace {
    fn new(rate: u32) -> Self {
        Self { rate: f64::from(rate), tokens: f64::from(rate), at: Instant::now() }
    }

    /// Takes a token at `now`. Returns how long to wait until there is one.
    fn next(&mut self, now: Instant) -> Duration {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * self.rate / 60.0;
        self.tokens = (self.tokens + gained).min(self.rate) - 1.0;
        self.at = now;
        Duration::from_secs_f64((-self.tokens).max(0.0) * 60.0 / self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_lets_a_burst_through_and_then_one_by_one() {
        let mut pace = Pace::new(3);
        let now = Instant::now();
        let waits: Vec<f64> = (0..5).map(|_| pace.next(now).as_secs_f64().round()).collect();
        assert_eq!(waits, [0.0, 0.0, 0.0, 20.0, 40.0]);
        // An hour later the bucket is full, not fuller.
        let later = now + Duration::from_secs(3600);
        let waits: Vec<f64> = (0..4).map(|_| pace.next(later).as_secs_f64().round()).collect();
        assert_eq!(waits, [0.0, 0.0, 0.0, 20.0]);
    }
}
