//! The loss against the reference's: a sequential test and its states.

use serde::{Deserialize, Serialize};

use super::baseline::{LossBaseline, LossKind};
use super::verdict::LossVerdict;
use crate::monitor::verdict::State;
use crate::stats::confidence::{ConfidenceSequence, RiskTest, upper_bound};

/// Probability that the reference's upper bound is below its true loss: the chance that a baseline
/// is one for which the promise does not hold.
const DELTA: f64 = 0.001;

/// Probability that the shown interval ever misses.
const ALPHA: f64 = 0.05;

/// Evidence of the opposite test from which a drifted stream is well again: once in a thousand
/// ticks by chance, where the mean is still at the limit.
const RECOVERED: f64 = 6.907_755_278_982_137;

/// Losses that a reference is learned of, at most.
const MOST_LEARNED: u64 = 100_000;

/// Evidence below the threshold, in nats, from which a stream is suspected: a hundredth.
const SUSPECTED: f64 = 4.605_170_185_988_091;

/// Watches the losses of one stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LossWatch {
    tolerance: f64,
    threshold: f64,
    /// Labels that the reference is learned of, where it is.
    learn: u64,
    reference: LossBaseline,
    /// The losses that it is being learned of, in the order of their coming.
    learned: Option<Vec<f64>>,
    test: RiskTest,
    /// The opposite test, against a mean beyond the limit, while it is drifted.
    recovery: Option<RiskTest>,
    sequence: ConfidenceSequence,
    state: State,
    since: u64,
    acknowledged: bool,
}

impl LossWatch {
    /// Watches against `reference`; learns it of the first `learn` losses where it has no rows.
    /// The limit is the reference's upper bound plus `tolerance` times its mean. `threshold` is
    /// the logarithm of the promised number of starts between false alarms.
    #[must_use]
    pub fn new(
        reference: LossBaseline,
        learn: u64,
        tolerance: f64,
        threshold: f64,
        now_ms: u64,
    ) -> Self {
        let is_known = reference.rows > 0;
        let mut watch = Self {
            tolerance,
            threshold,
            learn: learn.clamp(2, MOST_LEARNED),
            reference,
            learned: (!is_known).then(Vec::new),
            test: RiskTest::new(1.0, threshold, 1.0),
            recovery: None,
            sequence: ConfidenceSequence::new(ALPHA),
            state: if is_known { State::Ok } else { State::Learning },
            since: now_ms,
            acknowledged: false,
        };
        if is_known {
            watch.begin();
        }
        watch
    }

    /// Begins to test.
    fn begin(&mut self) {
        let LossBaseline { mean, variance, rows, variance_factor, .. } = self.reference;
        let factor = variance_factor.unwrap_or(1.0).max(1.0);
        // Rows that depend on each other say as much as fewer independent ones.
        let upper = upper_bound(mean, variance, rows as f64 / factor, DELTA);
        let limit = (upper + self.tolerance * mean).min(1.0);
        self.test = RiskTest::new(limit, self.threshold, factor);
        self.recovery = None;
        self.sequence = ConfidenceSequence::new(ALPHA);
    }

    /// The reference, learned or given.
    #[must_use]
    pub fn reference(&self) -> LossBaseline {
        self.reference
    }

    /// The state, when it began, and whether somebody has seen it.
    #[must_use]
    pub fn state(&self) -> (State, u64, bool) {
        (self.state, self.since, self.acknowledged)
    }

    /// A tick begins: the unit in which the promise counts.
    pub fn start(&mut self) {
        self.test.start();
        if let Some(recovery) = &mut self.recovery {
            recovery.start();
        }
    }

    /// Takes the loss of a label that came at `now_ms`.
    pub fn update(&mut self, loss: f64, now_ms: u64) {
        let Some(learned) = &mut self.learned else {
            self.sequence.update(loss);
            self.test.update(loss, now_ms);
            if let Some(recovery) = &mut self.recovery {
                recovery.update(1.0 - loss, now_ms);
            }
            return;
        };
        learned.push(loss);
        if learned.len() as u64 >= self.learn {
            self.reference.learn(learned);
            self.learned = None;
            self.begin();
        }
    }

    /// Decides; returns the state before where it changed.
    pub fn decide(&mut self, now_ms: u64) -> Option<State> {
        let evidence = self.test.evidence();
        // Once suspected, it stays so until the evidence is a tenth of what made it so.
        let slack = if self.state == State::Suspected { SUSPECTED * 1.5 } else { SUSPECTED };
        let is_suspicious = evidence >= self.threshold - slack;
        let next = match self.state {
            State::Learning if self.learned.is_some() => State::Learning,
            State::Drifted => {
                let recovery = self.recovery.as_ref().map_or(0.0, RiskTest::evidence);
                match (recovery >= RECOVERED, self.acknowledged) {
                    (false, _) => State::Drifted,
                    (true, true) => State::Ok,
                    (true, false) => State::Recovered,
                }
            }
            _ if evidence >= self.threshold => State::Drifted,
            State::Recovered => State::Recovered,
            _ if is_suspicious => State::Suspected,
            _ => State::Ok,
        };
        let before = self.state;
        if next == before {
            return None;
        }
        (self.state, self.since) = (next, now_ms);
        if next == State::Drifted {
            let factor = self.reference.variance_factor.unwrap_or(1.0);
            self.recovery = Some(RiskTest::new(1.0 - self.test.limit(), RECOVERED, factor));
        } else if before == State::Drifted {
            // What was gained while it was ill says nothing of what comes.
            self.begin();
        }
        // A new drift is unseen; so is what comes after it.
        if next == State::Drifted || next == State::Ok {
            self.acknowledged = false;
        }
        Some(before)
    }

    /// Somebody has seen it: a recovered stream is well again, a drifted one will be as soon as
    /// it recovers. Returns the state before where it changed.
    pub fn acknowledge(&mut self, now_ms: u64) -> Option<State> {
        match self.state {
            State::Recovered => {
                (self.state, self.since, self.acknowledged) = (State::Ok, now_ms, false);
                Some(State::Recovered)
            }
            State::Drifted => {
                self.acknowledged = true;
                None
            }
            _ => None,
        }
    }

    /// Evidence and what means an alarm.
    #[must_use]
    pub fn evidence(&self) -> (f64, f64) {
        (self.test.evidence(), self.threshold)
    }

    /// What is to be said.
    #[must_use]
    pub fn verdict(&self) -> LossVerdict {
        let is_known = self.learned.is_none();
        let evidence = self.test.evidence();
        let onset = self.test.onset().filter(|_| evidence >= self.threshold - SUSPECTED);
        LossVerdict {
            kind: self.reference.kind,
            rows: self.sequence.n(),
            learning: self.learned.as_ref().map(|learned| self.learn - learned.len() as u64),
            reference: (self.reference.rows > 0).then_some(self.reference.mean),
            limit: is_known.then(|| self.test.limit()),
            mean: self.sequence.mean(),
            interval: (self.sequence.n() > 0).then(|| self.sequence.interval()),
            // JSON has no −∞, which nothing yet is.
            // No evidence is none, as with drift.
            evidence: evidence.max(0.0),
            threshold: self.threshold,
            onset: onset.map(|onset| onset.at),
            rows_since: onset.map(|onset| onset.n),
            mean_since: onset.map(|onset| onset.mean),
        }
    }

    /// The name of the loss in a sentence.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self.reference.kind {
            LossKind::ZeroOne => "error rate",
            LossKind::LogLoss => "log loss (of 16.1 nats)",
            LossKind::AbsoluteError => "absolute error (of the scale)",
        }
    }
}
