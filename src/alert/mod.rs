//! Verdicts out: changes of state become messages to webhooks (CloudEvents 1.0) and to
//! Alertmanagers (API v2).
//!
//! ```text
//! Sender -> bounded channel -> dispatcher -> bounded queue of a target -> its worker -> HTTP
//! ```
//!
//! The dispatcher knows what fires. It gathers the events of a model for `group_wait`, makes one
//! message of them for each target, and tells Alertmanagers every `resend` what still fires. A
//! worker sends one message after the other, at the target's rate, each one again and again within
//! `retry_for`.
//!
//! Invariants:
//! - offering an event never waits and never fails; what finds no room is counted;
//! - messages to one target are in order: what is resolved is not told to fire later;
//! - a message made is sent, failed, dropped or waits, and the metrics say which;
//! - a secret is in no log, metric, document or message but to its target.

mod dispatch;
mod encode;
mod endpoint;
mod firing;
mod probe;
mod worker;

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

pub use probe::{Probed, probe};

use crate::config;
use crate::monitor::verdict::Event;
use crate::telemetry::{Counter, Telemetry, names};
use dispatch::{Command, Dispatcher};

/// Events that wait for the dispatcher, at most. It does nothing slow: they hardly ever do.
const MOST_EVENTS: usize = 1000;

/// Takes changes of state, to tell whoever the configuration names. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sender {
    commands: mpsc::Sender<Command>,
    config: Arc<watch::Sender<Arc<config::Alerts>>>,
    dropped: Counter,
}

/// Starts the dispatcher on `runtime`. It ends with the runtime, or when the last [`Sender`] is
/// dropped.
#[must_use]
pub fn start(config: &config::Alerts, telemetry: &Arc<Telemetry>, runtime: &Handle) -> Sender {
    let (commands, received) = mpsc::channel(MOST_EVENTS);
    let (config, configured) = watch::channel(Arc::new(config.clone()));
    let dispatcher = Dispatcher::new(configured, Arc::clone(telemetry));
    drop(runtime.spawn(dispatcher.run(received)));
    let dropped = telemetry.counter(names::ALERT_EVENTS_DROPPED, &[]);
    Sender { commands, config: Arc::new(config), dropped }
}

impl Sender {
    /// Tells of a change of state. Never blocks; an event that finds no room is counted.
    pub fn offer(&self, event: Event) {
        self.command(Command::Event(Box::new(event)));
    }

    /// Ends what fires of a version, such as when it no longer serves; of one segment or feature
    /// where they are named, such as when somebody acknowledged it.
    pub fn resolve(&self, model: &str, version: u64, segment: Option<&str>, feature: Option<&str>) {
        self.command(Command::Resolve {
            model: model.to_owned(),
            version,
            segment: segment.map(str::to_owned),
            feature: feature.map(str::to_owned),
        });
    }

    /// Takes a new configuration. What waits for targets that stay as they are is sent; what
    /// waits for others is dropped and counted.
    pub fn configure(&self, config: &config::Alerts) {
        self.config.send_if_modified(|running| {
            let is_new = **running != *config;
            if is_new {
                *running = Arc::new(config.clone());
            }
            is_new
        });
    }

    fn command(&self, command: Command) {
        if self.commands.try_send(command).is_err() {
            self.dropped.increment(1);
        }
    }
}

#[cfg(test)]
mod tests;
