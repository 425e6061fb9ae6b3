//! The dispatcher: what fires, and which messages that makes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::encode::{CloudEvent, Message};
use super::firing::{Alert, Change, Firing, Kind};
use super::worker::Target;
use crate::config::{AlertEvent, Alerts, TargetKind};
use crate::monitor::times::now_ms;
use crate::monitor::verdict::Event;
use crate::telemetry::{Counter, Gauge, Telemetry, names};

/// Events of one model that are gathered, at most; a full group is told at once.
const LARGEST_GROUP: usize = 1000;

/// What the dispatcher is told.
#[derive(Debug)]
pub(super) enum Command {
    Event(Box<Event>),
    Resolve { model: String, version: u64, segment: Option<String>, feature: Option<String> },
}

/// Events of a model that are gathered into one message.
#[derive(Debug)]
struct Group {
    due: Instant,
    changes: Vec<(Kind, Change, Event)>,
    ended: Vec<Alert>,
}

pub(super) struct Dispatcher {
    configured: watch::Receiver<Arc<Alerts>>,
    config: Arc<Alerts>,
    telemetry: Arc<Telemetry>,
    targets: Vec<Target>,
    firing: Firing,
    groups: HashMap<String, Group>,
    resend: Instant,
    /// Makes ids unique over restarts and gateways.
    nonce: u64,
    made: u64,
    n_firing: Gauge,
    dropped: Counter,
}

impl Dispatcher {
    pub(super) fn new(configured: watch::Receiver<Arc<Alerts>>, telemetry: Arc<Telemetry>) -> Self {
        let config = Arc::clone(&configured.borrow());
        Self {
            configured,
            resend: Instant::now() + config.resend,
            config,
            targets: Vec::new(),
            firing: Firing::default(),
            groups: HashMap::new(),
            nonce: fastrand::u64(..),
            made: 0,
            n_firing: telemetry.gauge(names::ALERTS_FIRING, &[]),
            dropped: telemetry.counter(names::ALERT_EVENTS_DROPPED, &[]),
            telemetry,
        }
    }

    /// Runs until every sender is gone.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        self.start_targets();
        loop {
            let due = self.groups.values().map(|group| group.due).chain([self.resend]).min();
            let due = due.unwrap_or(self.resend);
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.take(command),
                    None => return,
                },
                changed = self.configured.changed() => match changed {
                    Ok(()) => self.configure(),
                    Err(_) => return,
                },
                () = tokio::time::sleep_until(due) => self.tell_due(Instant::now()),
            }
        }
    }

    fn take(&mut self, command: Command) {
        let now = Instant::now();
        match command {
            Command::Event(event) => {
                let ended = self.firing.apply(&event);
                let Some(change) = Change::of(&event) else { return };
                let group =
                    group(&mut self.groups, &event.subject.model, now, self.config.group_wait);
                group.ended.extend(ended);
                if group.changes.len() < LARGEST_GROUP {
                    group.changes.push((Kind::of(&event), change, *event));
                } else {
                    self.dropped.increment(1);
                }
            }
            Command::Resolve { model, version, segment, feature } => {
                let ended = self.firing.resolve(
                    (&model, version),
                    segment.as_deref(),
                    feature.as_deref(),
                    now_ms(),
                );
                if !ended.is_empty() {
                    let wait = self.config.group_wait;
                    let group = group(&mut self.groups, &model, now, wait);
                    let closed = ended.iter().flat_map(|alert| {
                        let kind = alert.key.kind;
                        alert.parts.values().map(move |event| (kind, Change::Closed, event.clone()))
                    });
                    let room = LARGEST_GROUP.saturating_sub(group.changes.len());
                    group.changes.extend(closed.take(room));
                    group.ended.extend(ended);
                }
            }
        }
        self.n_firing.set(self.firing.len() as f64);
    }

    /// Tells of all groups that have waited long enough, and again of what fires.
    fn tell_due(&mut self, now: Instant) {
        let due = self.groups.extract_if(|_, group| group.due <= now);
        let due: Vec<(String, Group)> = due.collect();
        for (model, group) in due {
            self.tell(&model, &group);
        }
        if self.resend <= now {
            self.resend = now + self.config.resend;
            self.tell_again(|_| true);
        }
    }

    fn tell(&mut self, model: &str, group: &Group) {
        let now = now_ms();
        let mut by_type: HashMap<(Kind, Change), Vec<&Event>> = HashMap::new();
        for (kind, change, event) in &group.changes {
            by_type.entry((*kind, *change)).or_default().push(event);
        }
        let mut by_type: Vec<_> = by_type.into_iter().collect();
        by_type.sort_unstable_by_key(|(of, _)| *of);
        for ((kind, change), events) in by_type {
            let is_told = |target: &&Target| {
                target.is_told_of(model) && is_wished(&target.config.kind, change)
            };
            if !self.targets.iter().any(|target| is_told(&target)) {
                continue;
            }
            self.made += 1;
            let id = format!("{:016x}-{}", self.nonce, self.made);
            let event = CloudEvent::new(id, &self.config, (model, kind, change), events, now);
            let message = Arc::new(Message::Event(event));
            let told = self.targets.iter().filter(is_told);
            told.for_each(|target| target.offer(Arc::clone(&message)));
        }
        // What ended and began again in the meantime fires.
        let ended = group.ended.iter().filter(|alert| !self.firing.is_firing(&alert.key));
        let firing = self.firing.iter().filter(|alert| alert.key.model == model);
        let alerts: Vec<Alert> = ended.chain(firing).cloned().collect();
        if alerts.is_empty() {
            return;
        }
        let message = Arc::new(Message::Alerts(alerts));
        for target in self.targets.iter().filter(|target| is_alertmanager(&target.config.kind)) {
            if target.is_told_of(model) {
                target.offer(Arc::clone(&message));
            }
        }
    }

    /// Tells Alertmanagers that wait for nothing of all that fires.
    fn tell_again(&self, is_meant: impl Fn(&Target) -> bool) {
        let alertmanagers =
            self.targets.iter().filter(|target| is_alertmanager(&target.config.kind));
        for target in alertmanagers.filter(|target| target.is_idle() && is_meant(target)) {
            let told = self.firing.iter().filter(|alert| target.is_told_of(&alert.key.model));
            let alerts: Vec<Alert> = told.cloned().collect();
            if !alerts.is_empty() {
                target.offer(Arc::new(Message::Alerts(alerts)));
            }
        }
    }

    fn configure(&mut self) {
        let config = Arc::clone(&self.configured.borrow_and_update());
        let keeps_all = self.config.is_same_but_targets(&config);
        self.config = config;
        self.targets.retain(|target| keeps_all && self.config.targets.contains(&target.config));
        let kept: Vec<String> = self.targets.iter().map(|t| t.config.name.clone()).collect();
        self.resend = self.resend.min(Instant::now() + self.config.resend);
        self.start_targets();
        self.tell_again(|target| !kept.contains(&target.config.name));
    }

    /// Starts the targets that are configured and do not run.
    fn start_targets(&mut self) {
        for target in &self.config.targets {
            if self.targets.iter().all(|running| running.config.name != target.name) {
                self.targets.push(Target::start(&self.config, target, &self.telemetry));
            }
        }
    }
}

/// The group of a model, which may begin now.
fn group<'a>(
    groups: &'a mut HashMap<String, Group>,
    model: &str,
    now: Instant,
    wait: Duration,
) -> &'a mut Group {
    groups.entry(model.to_owned()).or_insert_with(|| Group {
        due: now + wait,
        changes: Vec::new(),
        ended: Vec::new(),
    })
}

/// Whether a target wants to be told of single changes, and of this one.
fn is_wished(kind: &TargetKind, change: Change) -> bool {
    let TargetKind::Webhook { events, .. } = kind else { return false };
    events.contains(&match change {
        Change::Suspected => AlertEvent::Suspected,
        Change::Detected => AlertEvent::Detected,
        Change::Recovered | Change::Closed => AlertEvent::Recovered,
    })
}

fn is_alertmanager(kind: &TargetKind) -> bool {
    matches!(kind, TargetKind::Alertmanager { .. })
}
