//! What a stage has counted so far, on both sides.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::gates::Gate;
use crate::registry::{LATENCY_CELLS, LatencyCounts, latency_bound};
use crate::stats::sequential::Count;

/// Cumulative counts of one version since the process began, or since its files were loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct SideSample {
    /// The digest of what serves under that number.
    pub digest: String,
    /// Requests that it answered or failed to answer.
    pub requests: u64,
    /// Of these, those that failed for no fault of the request's.
    pub faults: u64,
    /// Answers by their time.
    pub latency: LatencyCounts,
    /// Predictions whose label came, and of these the wrong ones.
    pub labelled: u64,
    /// See above.
    pub wrong: u64,
    /// What its own recorder says; nothing where it is not watched.
    pub drift: Option<Drift>,
}

/// What a recorder says of a version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drift {
    /// Whether it says that inputs or outputs have drifted, and nobody acknowledged it.
    pub has_drifted: bool,
    /// Whether the losses of labelled predictions have got worse than on the reference.
    pub has_worsened: bool,
    /// Whether its reference is complete: while it is learned, nothing is known.
    pub is_ready: bool,
    /// Rows counted.
    pub rows: u64,
    /// Its findings, for people.
    pub text: String,
}

/// Cumulative counts of a pair that answered the same requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pairs {
    /// Requests that both answered, or that one of them failed on.
    pub requests: u64,
    /// Of these, those on which the candidate alone failed.
    pub candidate_faults: u64,
    /// Those on which the primary alone failed.
    pub primary_faults: u64,
    /// Rows whose classes were compared, and of these the same ones.
    pub classed: u64,
    /// See above.
    pub agreed: u64,
    /// Rows whose numbers were compared, and of these those within the tolerance.
    pub rows: u64,
    /// See above.
    pub within: u64,
    /// Pairs of times, and of these those in which the candidate took more than the configured
    /// multiple of the primary's.
    pub timed: u64,
    /// See above.
    pub slower: u64,
}

/// What is seen of a candidate and its primary at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The candidate; nothing where it does not serve.
    pub candidate: Option<SideSample>,
    /// The version that answered before; nothing where it does not serve.
    pub primary: Option<SideSample>,
    /// The pair; nothing where no answers are compared.
    pub pairs: Option<Pairs>,
}

/// Times beyond which an answer is slow: of the primary its own quantile, of the candidate the
/// permitted multiple of it. Chosen once in a stage, from what came before what is counted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Slow {
    /// In nanoseconds.
    pub primary_ns: u64,
    /// In nanoseconds.
    pub candidate_ns: u64,
}

/// The two quantiles that gates look at.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Quantiles<T> {
    /// The median's.
    pub p50: T,
    /// The 99th percentile's.
    pub p99: T,
}

/// What a stage has counted of one version.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Side {
    /// See [`SideSample`].
    pub requests: u64,
    /// See [`SideSample`].
    pub faults: u64,
    /// See [`SideSample`].
    pub labelled: u64,
    /// See [`SideSample`].
    pub wrong: u64,
    /// Answers counted since the thresholds were chosen.
    pub timed: u64,
    /// Of these, the slow ones.
    pub slow: Quantiles<u64>,
}

/// What a stage has counted.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Evidence {
    /// The candidate's.
    pub candidate: Side,
    /// The primary's; in the full stage, those of the stage before.
    pub primary: Side,
    /// Of requests that both answered.
    pub pairs: Pairs,
    /// Gates that have passed.
    pub passed: BTreeSet<Gate>,
    /// When an answer is slow, once that is known.
    pub slow: Option<Quantiles<Slow>>,
    /// What the recorders said last.
    pub candidate_drift: Option<Drift>,
    /// See above.
    pub primary_drift: Option<Drift>,
}

/// Answers of the primary that its quantiles are taken from, at least.
const LEAST_TIMED: u64 = 200;

impl Evidence {
    /// The beginning of the stage after this one: in the full stage, which has no primary beside
    /// it, with what the primary did in this stage.
    pub(super) fn next_stage(&self, is_full: bool) -> Self {
        match is_full {
            true => Self {
                primary: self.primary,
                primary_drift: self.primary_drift.clone(),
                slow: self.slow,
                ..Self::default()
            },
            false => Self::default(),
        }
    }

    /// Adds what was counted from `before` to `now`. `ratios` are the permitted multiples of the
    /// primary's quantiles.
    pub(super) fn add(
        &mut self,
        before: &Sample,
        now: &Sample,
        is_full: bool,
        ratios: Quantiles<f64>,
    ) {
        if self.slow.is_none()
            && let Some(primary) = &before.primary
        {
            self.slow = thresholds(&primary.latency, ratios);
        }
        let slow = self.slow;
        if let Some(now) = &now.candidate {
            let limits = slow.map(|slow| (slow.p50.candidate_ns, slow.p99.candidate_ns));
            self.candidate.add(before.candidate.as_ref(), now, limits);
            self.candidate_drift.clone_from(&now.drift);
        }
        if let Some(now) = now.primary.as_ref().filter(|_| !is_full) {
            let limits = slow.map(|slow| (slow.p50.primary_ns, slow.p99.primary_ns));
            self.primary.add(before.primary.as_ref(), now, limits);
            self.primary_drift.clone_from(&now.drift);
        }
        if let Some(now) = &now.pairs {
            self.pairs.add(before.pairs.as_ref(), now);
        }
    }
}

impl Side {
    fn add(&mut self, before: Option<&SideSample>, now: &SideSample, limits: Option<(u64, u64)>) {
        // Other files are counted from zero.
        let before = before.filter(|before| before.digest == now.digest);
        let since = |count: fn(&SideSample) -> u64| delta(before.map(count), count(now));
        self.requests += since(|side| side.requests);
        self.faults += since(|side| side.faults);
        self.labelled += since(|side| side.labelled);
        self.wrong += since(|side| side.wrong);
        let Some((p50, p99)) = limits else { return };
        for (cell, &count) in now.latency.0.iter().enumerate() {
            let count = delta(before.map(|before| before.latency.0[cell]), count);
            let from = if cell == 0 { 0 } else { latency_bound(cell - 1) };
            self.timed += count;
            self.slow.p50 += if from >= p50 { count } else { 0 };
            self.slow.p99 += if from >= p99 { count } else { 0 };
        }
    }

    /// Requests that failed.
    pub(super) fn faults(&self) -> Count {
        Count::of(self.faults, self.requests)
    }

    /// Labelled predictions that were wrong.
    pub(super) fn wrong(&self) -> Count {
        Count::of(self.wrong, self.labelled)
    }
}

impl Pairs {
    fn add(&mut self, before: Option<&Self>, now: &Self) {
        // One that begins anew counts from zero.
        let before = before.filter(|before| before.requests <= now.requests);
        let since = |count: fn(&Self) -> u64| delta(before.map(count), count(now));
        self.requests += since(|pairs| pairs.requests);
        self.candidate_faults += since(|pairs| pairs.candidate_faults);
        self.primary_faults += since(|pairs| pairs.primary_faults);
        self.classed += since(|pairs| pairs.classed);
        self.agreed += since(|pairs| pairs.agreed);
        self.rows += since(|pairs| pairs.rows);
        self.within += since(|pairs| pairs.within);
        self.timed += since(|pairs| pairs.timed);
        self.slower += since(|pairs| pairs.slower);
    }
}

/// What came since; all of it where the counter began anew.
fn delta(before: Option<u64>, now: u64) -> u64 {
    match before {
        Some(before) if before <= now => now - before,
        _ => now,
    }
}

/// When an answer is slow, by the primary's answers so far; nothing while there are few.
fn thresholds(latency: &LatencyCounts, ratios: Quantiles<f64>) -> Option<Quantiles<Slow>> {
    let total: u64 = latency.0.iter().sum();
    if total < LEAST_TIMED {
        return None;
    }
    let slow = |quantile: f64, ratio: f64| {
        let wanted = (total as f64 * quantile).ceil() as u64;
        let mut seen = 0;
        let cell = latency.0.iter().position(|&count| {
            seen += count;
            seen >= wanted
        });
        let primary_ns = latency_bound(cell.unwrap_or(LATENCY_CELLS - 1));
        // The next bound at or above the multiple: counts are known at bounds alone.
        let least = (primary_ns as f64 * ratio) as u64;
        let candidate_ns = (0..LATENCY_CELLS).map(latency_bound).find(|&bound| bound >= least);
        Slow { primary_ns, candidate_ns: candidate_ns.unwrap_or(u64::MAX) }
    };
    Some(Quantiles { p50: slow(0.5, ratios.p50), p99: slow(0.99, ratios.p99) })
}
