//! The comparisons of all pairs, for those who count and those who ask.
//!
//! Those who count run only while nothing else wants the core, and may be stopped anywhere: whoever asks
//! does not wait for them, but is told what was known a second of theirs before.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use arc_swap::ArcSwapOption;

use crate::config;
use crate::monitor::times::now_ms;
use crate::registry::Version;
use crate::traffic::Report;
use crate::traffic::comparison::{Compared, Comparison, Outcome, OutputPlan, Pair};

/// Pairs that are kept. Beyond it the one that was compared longest ago goes.
const MOST_PAIRS: usize = 64;

/// How often those who count leave a report, in milliseconds of the requests' times.
const LEAVE_EVERY: u64 = 1000;

/// A pair's comparison, counted by the shadows' threads and read by whoever asks.
#[derive(Debug)]
pub(super) struct Running {
    comparison: Mutex<Comparison>,
    /// What was known when a report was left.
    left: ArcSwapOption<Report>,
    /// When that was.
    left_at: AtomicU64,
    /// Copies that there was no room for, over all the time.
    dropped: Arc<AtomicU64>,
    /// The same when the comparison began.
    dropped_before: u64,
}

impl Running {
    pub(super) fn take(&self, compared: &Compared<'_>) -> Outcome {
        let mut comparison = self.lock();
        let outcome = comparison.take(compared);
        let left_at = self.left_at.load(Ordering::Relaxed);
        if compared.at.saturating_sub(left_at) >= LEAVE_EVERY {
            self.left_at.store(compared.at, Ordering::Relaxed);
            self.left.store(Some(Arc::new(comparison.report())));
        }
        outcome
    }

    fn report(&self) -> Report {
        let left = || self.left.load().as_deref().cloned();
        let now = match self.comparison.try_lock() {
            Ok(comparison) => Some(comparison.report()),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner().report()),
            Err(TryLockError::WouldBlock) => left(),
        };
        // Nothing is left before the first was counted.
        let mut report = now.unwrap_or_else(|| self.lock().report());
        report.dropped += self.dropped.load(Ordering::Relaxed).wrapping_sub(self.dropped_before);
        report
    }

    fn lock(&self) -> MutexGuard<'_, Comparison> {
        self.comparison.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All pairs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Comparisons(Arc<Mutex<HashMap<Pair, Arc<Running>>>>);

/// What a comparison is made of where there is none yet.
pub(super) struct NewPair<'a> {
    pub(super) primary: &'a Arc<Version>,
    pub(super) candidate: &'a str,
    /// Of the candidate's files, where it is one of ours.
    pub(super) candidate_digest: &'a str,
    pub(super) settings: &'a config::Comparison,
    pub(super) score: Option<&'a str>,
    pub(super) measure: &'static str,
    pub(super) dropped: &'a Arc<AtomicU64>,
}

impl Comparisons {
    /// Everything that is known of all pairs, by model, primary and candidate.
    #[must_use]
    pub fn reports(&self) -> Vec<Arc<Report>> {
        let running: Vec<Arc<Running>> = self.lock().values().cloned().collect();
        let mut reports: Vec<_> = running.iter().map(|r| Arc::new(r.report())).collect();
        reports.sort_unstable_by(|a, b| a.pair.cmp(&b.pair));
        reports
    }

    /// What is known of the newest comparison of a candidate with a primary, by their numbers.
    #[must_use]
    pub fn report(&self, model: &str, primary: u64, candidate: u64) -> Option<Arc<Report>> {
        self.newest(model, primary, &candidate.to_string())
    }

    /// The same of a candidate by its name: a number, or an address.
    #[must_use]
    pub fn newest(&self, model: &str, primary: u64, candidate: &str) -> Option<Arc<Report>> {
        let is_it = |pair: &Pair| {
            (pair.model.as_str(), pair.primary, pair.candidate.as_str())
                == (model, primary, candidate)
        };
        let found: Vec<Arc<Running>> = {
            let pairs = self.lock();
            pairs.iter().filter(|(pair, _)| is_it(pair)).map(|(_, r)| Arc::clone(r)).collect()
        };
        let reports = found.iter().map(|running| running.report());
        reports.max_by_key(|report| (report.since, report.last)).map(Arc::new)
    }

    /// The comparison of a pair, begun where there is none, or where it is to be made otherwise.
    pub(super) fn running(&self, new: &NewPair<'_>) -> Arc<Running> {
        let NewPair { primary, candidate, candidate_digest, settings, score, measure, dropped } =
            *new;
        let pair = Pair {
            model: primary.model.to_string(),
            primary: primary.number,
            primary_digest: primary.loaded.digest.clone(),
            candidate: candidate.to_owned(),
            candidate_digest: candidate_digest.to_owned(),
        };
        let mut pairs = self.lock();
        if let Some(running) = pairs.get(&pair)
            && running.lock().settings() == settings
        {
            return Arc::clone(running);
        }
        if pairs.len() >= MOST_PAIRS {
            let oldest = pairs.iter().min_by_key(|(_, running)| running.lock().last());
            if let Some(oldest) = oldest.map(|(pair, _)| pair.clone()) {
                pairs.remove(&oldest);
            }
        }
        let signature = primary.signature();
        let plan = OutputPlan::of(&signature.outputs, &primary.labels, score, |output| {
            settings.tolerance_of(output)
        });
        let comparison =
            Comparison::new(pair.clone(), settings.clone(), measure, signature, plan, now_ms());
        let running = Arc::new(Running {
            comparison: Mutex::new(comparison),
            left: ArcSwapOption::empty(),
            left_at: AtomicU64::new(0),
            dropped_before: dropped.load(Ordering::Relaxed),
            dropped: Arc::clone(dropped),
        });
        pairs.insert(pair, Arc::clone(&running));
        running
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Pair, Arc<Running>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::tensor::Signature;
    use crate::traffic::comparison::Side;

    fn running() -> Running {
        let pair = Pair {
            model: "m".to_owned(),
            primary: 1,
            primary_digest: String::new(),
            candidate: "2".to_owned(),
            candidate_digest: String::new(),
        };
        let config = Config::parse("", std::path::Path::new("."), []).unwrap();
        let settings = config.model("m", None).unwrap().traffic.comparison;
        let signature = Signature { inputs: Vec::new(), outputs: Vec::new() };
        let plan = OutputPlan::of(&[], &[], None, |output| settings.tolerance_of(output));
        Running {
            comparison: Mutex::new(Comparison::new(pair, settings, "engine", &signature, plan, 5)),
            left: ArcSwapOption::empty(),
            left_at: AtomicU64::new(0),
            dropped: Arc::default(),
            dropped_before: 0,
        }
    }

    fn take(running: &Running, at: u64) {
        let side = || Side::Answered(&[], None);
        let (primary, candidate) = (side(), side());
        running.take(&Compared { id: b"1", segment: None, at, inputs: &[], primary, candidate });
    }

    #[test]
    fn who_asks_does_not_wait_for_one_who_was_stopped_while_counting() {
        let running = running();
        let requests = |report: Report| report.counts.requests;
        for at in [10_000, 10_001, 10_002] {
            take(&running, at);
        }
        assert_eq!(requests(running.report()), 3);
        let stopped = running.lock();
        assert_eq!(requests(running.report()), 1);
        drop(stopped);
        take(&running, 11_000);
        let _stopped = running.lock();
        assert_eq!(requests(running.report()), 4);
    }
}
