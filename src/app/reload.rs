//! Changes of the running configuration: when the file changes, on SIGHUP, when the admin plane
//! asks. Applied whole or not at all; what needs a restart is reported, never ignored.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::{Source, traces, unix_seconds};
use crate::alert;
use crate::capture::Capture;
use crate::config::{Change, Config, Effect, difference};
use crate::error::{Code, Fault};
use crate::registry::Registry;
use crate::repository;
use crate::rollout::Rollouts;
use crate::server::{ConfigFault, ConfigOutcome, ConfigRequest, LastReload};
use crate::telemetry::logging::{Logging, parse_level};
use crate::telemetry::trace::Tracer;
use crate::telemetry::{Telemetry, names};

/// A file that is being saved gives several events: they are waited out.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// How often the count of dropped log lines is published.
const PUBLISH: Duration = Duration::from_secs(1);

/// Owns the running configuration.
pub(super) struct Reloader {
    pub(super) source: Source,
    pub(super) registry: Registry,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) logging: Arc<Logging>,
    pub(super) alerts: alert::Sender,
    pub(super) rollouts: Rollouts,
    pub(super) capture: Capture,
    pub(super) tracer: Tracer,
    pub(super) last: Arc<Mutex<LastReload>>,
}

impl Reloader {
    /// Serves requests, SIGHUP and file events for ever.
    pub(super) async fn run(self, mut requests: mpsc::Receiver<ConfigRequest>) {
        self.publish(true);
        let (changed, mut changes) = mpsc::channel(1);
        let _watch = self.watch(changed);
        let mut hangups = signal(SignalKind::hangup()).ok();
        let mut ticks = tokio::time::interval(PUBLISH);
        let mut seen = self.source.stamp();
        loop {
            tokio::select! {
                Some(request) = requests.recv() => self.answer(request).await,
                Some(()) = changes.recv() => {
                    tokio::time::sleep(DEBOUNCE).await;
                    while changes.try_recv().is_ok() {}
                    // Another file of the folder: a log that is written there would otherwise
                    // have each of its own lines followed by another.
                    let stamp = self.source.stamp();
                    let is_new = stamp != seen;
                    seen = stamp;
                    if is_new && self.registry.live().config.reload.watch {
                        self.report(self.reload("file").await);
                    }
                }
                Some(()) = hangup(&mut hangups) => self.report(self.reload("SIGHUP").await),
                _ = ticks.tick() => {
                    let dropped = self.telemetry.counter(names::LOG_DROPPED, &[]);
                    dropped.absolute(self.logging.n_dropped());
                }
            }
        }
    }

    async fn answer(&self, request: ConfigRequest) {
        // Whoever asked may have gone; the change is made all the same.
        match request {
            ConfigRequest::Reload(reply) => {
                let outcome = self.reload("request").await;
                self.report(outcome.clone());
                drop(oneshot::Sender::send(reply, outcome));
            }
            ConfigRequest::Plan(text, reply) => drop(reply.send(self.plan(text).await)),
        }
    }

    /// Reads the file again and applies it.
    async fn reload(&self, trigger: &'static str) -> ConfigOutcome {
        let outcome = self.apply().await;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.attempted_at = unix_seconds();
        let label = match &outcome {
            Ok((lines, needs_restart)) => {
                last.reason = None;
                last.needs_restart.clone_from(needs_restart);
                last.outcome = if lines.is_empty() { "unchanged" } else { "applied" };
                if !lines.is_empty() {
                    last.applied_at = last.attempted_at;
                }
                last.outcome
            }
            Err(fault) => {
                last.reason = Some(fault.message.clone());
                last.outcome = "refused";
                "refused"
            }
        };
        drop(last);
        tracing::debug!(trigger, outcome = label, "reload");
        self.telemetry.counter(names::RELOADS, &[("outcome", label)]).increment(1);
        self.publish(outcome.is_ok());
        outcome.map(|(lines, _)| lines)
    }

    /// Lines that say what changed, and the keys that need a restart.
    async fn apply(&self) -> Result<(Vec<String>, Vec<String>), ConfigFault> {
        let config = self.source.read().map_err(|error| invalid(&error.to_string()))?;
        check_level(&config)?;
        let config = Arc::new(config);
        let changes = self.changes(&config);
        let applied =
            self.registry.configure(Arc::clone(&config)).await.map_err(|error| fault(&error))?;
        if let Err(error) = self.logging.set_level(&config.log.level) {
            tracing::warn!(error, "the log keeps its level");
        }
        self.alerts.configure(&config.alerts);
        self.capture.configured(&config.digest);
        traces::configure(&self.tracer, &config.tracing);
        let needs_restart = changes.iter().filter(|change| change.effect == Effect::Restart);
        let needs_restart = needs_restart.map(|change| change.key.clone()).collect();
        let lines = changes.iter().map(ToString::to_string).chain(applied.changes).collect();
        Ok((lines, needs_restart))
    }

    async fn plan(&self, text: Option<String>) -> ConfigOutcome {
        let config = match text {
            Some(text) => self.source.parse(&text),
            None => self.source.read(),
        };
        let config = Arc::new(config.map_err(|error| invalid(&error.to_string()))?);
        check_level(&config)?;
        let changes = self.changes(&config);
        let disagreements = self.rollouts.disagreements(&config);
        let applied = self.registry.plan(config).await.map_err(|error| fault(&error))?;
        let lines = changes.iter().map(ToString::to_string).chain(applied.changes);
        Ok(lines.chain(disagreements).collect())
    }

    fn changes(&self, config: &Config) -> Vec<Change> {
        difference(&self.registry.live().config, config)
    }

    fn report(&self, outcome: ConfigOutcome) {
        match outcome {
            Ok(lines) if lines.is_empty() => tracing::info!("the configuration has not changed"),
            Ok(lines) => lines.iter().for_each(|change| tracing::info!(change, "configured")),
            Err(fault) => {
                tracing::error!(
                    reason = fault.message,
                    "the configuration is refused; the running one goes on"
                );
            }
        }
    }

    fn publish(&self, ok: bool) {
        let applied_at = self.last.lock().unwrap_or_else(PoisonError::into_inner).applied_at;
        self.telemetry.gauge(names::RELOADED_AT, &[]).set(applied_at as f64);
        self.telemetry.gauge(names::RELOAD_OK, &[]).set(if ok { 1.0 } else { 0.0 });
    }

    /// Watches the folder that the file is in: editors replace files.
    fn watch(&self, changed: mpsc::Sender<()>) -> Option<repository::Watch> {
        let folder = self.source.path().parent().filter(|folder| !folder.as_os_str().is_empty());
        let watch = repository::watch(folder.unwrap_or(Path::new(".")), move || {
            // A full channel holds a change that is not looked at yet: this one is in it.
            let _ = changed.try_send(());
        });
        match watch {
            Ok(watch) => Some(watch),
            Err(error) => {
                tracing::warn!(
                    error,
                    "no file events for the configuration; reload it by SIGHUP or by the admin API"
                );
                None
            }
        }
    }
}

async fn hangup(hangups: &mut Option<tokio::signal::unix::Signal>) -> Option<()> {
    match hangups {
        Some(hangups) => hangups.recv().await,
        None => std::future::pending().await,
    }
}

fn check_level(config: &Config) -> Result<(), ConfigFault> {
    parse_level(&config.log.level)
        .map(|_| ())
        .map_err(|error| invalid(&format!("log.level: {error}")))
}

fn invalid(message: &str) -> ConfigFault {
    ConfigFault { code: Code::InvalidArgument, message: message.to_owned() }
}

fn fault(error: &impl Fault) -> ConfigFault {
    ConfigFault { code: error.code(), message: error.to_string() }
}
