//! What fires: one alert for each watched stream and kind, as long as any part of it drifts.

use std::collections::BTreeMap;

use crate::monitor::verdict::{Event, State, Subject};

/// The detectors' names of events that are about drift and about performance; others are those of
/// classical detectors.
const DRIFT: &str = "drift";
const PERFORMANCE: &str = "performance";
const ROLLOUT: &str = "rollout";

/// How long the alarm of a classical detector, or a rollout that was taken back, is an alert: neither
/// has an end of its own.
const MOMENT_MS: u64 = 10 * 60 * 1000;

/// What an alert is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    /// Inputs or outputs moved.
    Drift,
    /// Predictions got worse.
    Performance,
    /// A classical detector alarmed: a moment, which promises nothing of false alarms.
    Detector,
    /// A rollout was taken back, or waits for somebody: a moment as well.
    Rollout,
}

impl Kind {
    pub(super) fn of(event: &Event) -> Self {
        match event.detector.as_str() {
            DRIFT => Self::Drift,
            PERFORMANCE => Self::Performance,
            ROLLOUT => Self::Rollout,
            _ => Self::Detector,
        }
    }

    /// The word in CloudEvents' types.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Drift => DRIFT,
            Self::Performance => PERFORMANCE,
            Self::Detector => "detector",
            Self::Rollout => ROLLOUT,
        }
    }

    /// The label `alertname`.
    pub(super) fn alert_name(self) -> &'static str {
        match self {
            Self::Drift => "TidegateDrift",
            Self::Performance => "TidegatePerformance",
            Self::Detector => "TidegateDetector",
            Self::Rollout => "TidegateRollout",
        }
    }

    /// The label `severity`: inputs that move may be harmless, worse predictions are not.
    pub(super) fn severity(self) -> &'static str {
        match self {
            Self::Drift | Self::Rollout => "warning",
            Self::Performance => "critical",
            Self::Detector => "info",
        }
    }
}

/// How a state changed, as far as anybody is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Change {
    Suspected,
    Detected,
    Recovered,
    /// By an operator's word, by a new baseline, or since the version serves no more.
    Closed,
}

impl Change {
    /// Nothing where nobody is told, such as when a suspicion passes.
    pub(super) fn of(event: &Event) -> Option<Self> {
        match (event.from, event.to) {
            (State::Drifted, State::Drifted) => None,
            (_, State::Drifted) => Some(Self::Detected),
            (State::Drifted, State::Recovered) => Some(Self::Recovered),
            (State::Drifted, _) => Some(Self::Closed),
            (_, State::Suspected) => Some(Self::Suspected),
            _ => None,
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Suspected => "suspected",
            Self::Detected => "detected",
            Self::Recovered => "recovered",
            Self::Closed => "closed",
        }
    }
}

/// Which alert.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) model: String,
    pub(super) version: u64,
    pub(super) segment: Option<String>,
    pub(super) kind: Kind,
}

impl Key {
    fn of(event: &Event) -> Self {
        let Subject { model, version, segment, .. } = &event.subject;
        Self {
            model: model.clone(),
            version: *version,
            segment: segment.clone(),
            kind: Kind::of(event),
        }
    }
}

/// One alert that fires, or did until just now; or one whose end is known beforehand.
#[derive(Debug, Clone)]
pub(super) struct Alert {
    pub(super) key: Key,
    /// When its first part was found.
    pub(super) since: u64,
    /// When it ended; nothing while it fires.
    pub(super) ended: Option<u64>,
    /// The newest event of each part, by feature and detector.
    pub(super) parts: BTreeMap<(Option<String>, String), Event>,
}

/// Everything that fires. Bounded by what is watched: models, versions, segments and features.
#[derive(Debug, Default)]
pub(super) struct Firing {
    alerts: BTreeMap<Key, Alert>,
}

impl Firing {
    /// Takes a change of state. Returns the alert that it ended, if it was the last of its parts;
    /// or one that does not go on.
    pub(super) fn apply(&mut self, event: &Event) -> Option<Alert> {
        let key = Key::of(event);
        let part = (event.feature.clone(), event.detector.clone());
        if event.to == State::Drifted {
            let new = Alert { key, since: event.at, ended: None, parts: BTreeMap::new() };
            if matches!(new.key.kind, Kind::Detector | Kind::Rollout) {
                let parts = BTreeMap::from([(part, event.clone())]);
                let ended = Some(event.at.saturating_add(MOMENT_MS));
                return Some(Alert { ended, parts, ..new });
            }
            let alert = self.alerts.entry(new.key.clone()).or_insert(new);
            alert.parts.insert(part, event.clone());
            return None;
        }
        let alert = self.alerts.get_mut(&key)?;
        if alert.parts.len() == 1 && alert.parts.contains_key(&part) {
            return self.end(&key, event.at);
        }
        alert.parts.remove(&part);
        None
    }

    /// Ends what fires of a version; of one segment and of one feature where they are named.
    pub(super) fn resolve(
        &mut self,
        (model, version): (&str, u64),
        segment: Option<&str>,
        feature: Option<&str>,
        now: u64,
    ) -> Vec<Alert> {
        let is_meant = |key: &Key| {
            let is_version = key.model == model && key.version == version;
            is_version && (segment.is_none() || key.segment.as_deref() == segment)
        };
        let keys: Vec<Key> = self.alerts.keys().filter(|key| is_meant(key)).cloned().collect();
        let mut ended = Vec::new();
        for key in keys {
            let Some(alert) = self.alerts.get_mut(&key) else { continue };
            let is_left = |part: &Option<String>| feature.is_some() && part.as_deref() != feature;
            // What is said of all features together goes with the last of them.
            if alert.parts.keys().any(|(part, _)| part.is_some() && is_left(part)) {
                alert.parts.retain(|(part, _), _| is_left(part));
            } else {
                ended.extend(self.end(&key, now));
            }
        }
        ended
    }

    pub(super) fn is_firing(&self, key: &Key) -> bool {
        self.alerts.contains_key(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Alert> {
        self.alerts.values()
    }

    pub(super) fn len(&self) -> usize {
        self.alerts.len()
    }

    /// Takes an alert out, with the parts that it had.
    fn end(&mut self, key: &Key, at: u64) -> Option<Alert> {
        let mut alert = self.alerts.remove(key)?;
        // An end before the beginning would be refused.
        alert.ended = Some(at.max(alert.since));
        Some(alert)
    }
}
