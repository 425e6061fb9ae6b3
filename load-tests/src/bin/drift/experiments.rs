//! What is measured of our own detector.

use serde_json::{Value, json};

use crate::stats::detector::{Detector, Reference, Settings};
use crate::stats::effect::{self, Order};
use crate::stats::variance::LongRun;
use crate::streams::{Cells, Law, Shift, Stream};
use crate::{Calibrate, Cost, Coverage, Delay, Null, Variance};

/// Values a tick.
pub const TICK: usize = 50;
/// Rows whose counts the variance factor is estimated from at a time.
const GROUP: usize = 8;
/// Logarithm of ticks between false alarms: one in ten thousand.
const PROMISE: f64 = 9.210_340_371_976_184;

/// A watched feature: its cells, reference, detector and stream.
struct Watched<'a> {
    cells: &'a Cells,
    reference: &'a Reference,
    detector: Detector,
    counts: Vec<u32>,
}

impl<'a> Watched<'a> {
    fn new(cells: &'a Cells, reference: &'a Reference) -> Self {
        let detector = Detector::new(cells.len());
        Self { cells, reference, detector, counts: vec![0; cells.len()] }
    }

    /// One tick of values; ln of the sum after it.
    fn tick(&mut self, stream: &mut Stream, shift: Shift) -> f64 {
        self.counts.fill(0);
        for _ in 0..TICK {
            self.counts[self.cells.cell(stream.next(shift))] += 1;
        }
        self.detector.tick(self.reference, &self.counts).log_sum
    }
}

/// An exact reference of 16 equally frequent cells, without tolerance.
fn exact() -> (Cells, Reference) {
    let cells = Cells::exact();
    let mut counts = vec![1 << 40; cells.n_ordered()];
    counts.push(0);
    let settings = Settings { tolerance: 0.0, z: 0.0, variance_factor: 1.0 };
    let reference = Reference::new(&counts, cells.n_ordered(), &settings);
    (cells, reference)
}

/// A baseline of so many rows of the stream, in the stream's order. Its variance factor is
/// estimated from it, too.
fn baseline(
    law: Law,
    stream: &mut Stream,
    rows: usize,
    settings: Settings,
) -> (Cells, Reference, f64) {
    let values: Vec<f64> = (0..rows).map(|_| stream.next(Shift::None)).collect();
    let cells = Cells::of(law, &mut values.clone());
    let counts = cells.count(values.iter().copied());
    let mut long_run = LongRun::new(&counts, cells.n_ordered());
    for group in values.chunks_exact(GROUP) {
        let mut counts = vec![0; cells.len()];
        group.iter().for_each(|&x| counts[cells.cell(x)] += 1);
        long_run.push(&counts);
    }
    let factor = long_run.factor();
    let variance_factor = if settings.variance_factor > 0.0 { factor } else { 1.0 };
    let settings = Settings { variance_factor, ..settings };
    (cells.clone(), Reference::new(&counts, cells.n_ordered(), &settings), variance_factor)
}

/// Bounds of a share by Wilson's score interval (1927), 95 %.
fn wilson(hits: usize, all: usize) -> (f64, f64) {
    const Z: f64 = 1.959_963_984_540_054;
    let (n, p) = (all as f64, hits as f64 / all as f64);
    let middle = (p + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let half = Z / (1.0 + Z * Z / n) * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    ((middle - half).max(0.0), middle + half)
}

/// The detector starts anew after each alarm, against the same baseline.
pub fn null(options: &Null) -> Value {
    let threshold = options.promise.ln();
    let settings = Settings {
        tolerance: if options.no_tolerance { 0.0 } else { 0.1 },
        z: if options.no_widening { 0.0 } else { 3.5 },
        variance_factor: if options.no_tempering { 0.0 } else { 1.0 },
    };
    // Lognormal values are normal ones in other places: the same streams would say nothing new.
    let first_seed = if options.law == Law::Lognormal { 1_500_000 } else { 1_000_000 };
    let (mut alarms, mut alarmed_streams, mut factors) = (0, 0, 0.0);
    let mut highest = Vec::new();
    for seed in 0..options.streams {
        let mut stream = Stream::new(options.law, first_seed + seed as u64);
        let (cells, reference, factor) = baseline(options.law, &mut stream, options.rows, settings);
        factors += factor;
        let mut watched = Watched::new(&cells, &reference);
        let (before, mut most) = (alarms, 0.0_f64);
        for _ in 0..options.ticks {
            let log_sum = watched.tick(&mut stream, Shift::None);
            most = most.max(log_sum);
            if log_sum >= threshold {
                alarms += 1;
                watched.detector = Detector::new(cells.len());
            }
        }
        highest.push(most);
        alarmed_streams += usize::from(alarms > before);
    }
    highest.sort_by(f64::total_cmp);
    let ticks = options.streams * options.ticks;
    let (_, most_frequent) = wilson(alarms, ticks);
    json!({
        "law": format!("{:?}", options.law), "rows": options.rows, "ticks": ticks,
        "promise": options.promise, "alarms": alarms, "streams_with_alarm": alarmed_streams,
        "streams": options.streams,
        "run_length_at_least": 1.0 / most_frequent,
        "variance_factor": factors / options.streams as f64,
        "median_highest_log_sum": highest[highest.len() / 2],
        "highest_log_sum": highest[highest.len() - 1],
    })
}

/// A stream whose detector alarms before the change starts anew with another seed.
pub fn delay(options: &Delay) -> Value {
    let tolerance = if options.no_tolerance { 0.0 } else { 0.1 };
    let settings = Settings { tolerance, z: 3.5, variance_factor: 1.0 };
    let (mut delays, mut missed, mut early) = (Vec::new(), 0, 0);
    let mut seed = 0;
    while delays.len() + missed < options.streams {
        let mut stream = Stream::new(Law::Normal(0.0), seed);
        let (cells, reference) = if options.rows == 0 {
            exact()
        } else {
            // Eight streams share a baseline's seed, not its stream.
            let mut of_baseline = Stream::new(Law::Normal(0.0), 2_000_000 + seed / 8);
            let (cells, reference, _) =
                baseline(Law::Normal(0.0), &mut of_baseline, options.rows, settings);
            (cells, reference)
        };
        seed += 1;
        let mut watched = Watched::new(&cells, &reference);
        let alarm = |watched: &mut Watched<'_>, stream: &mut Stream, shift, ticks: usize| {
            (1..=ticks).find(|_| watched.tick(stream, shift) >= options.threshold)
        };
        if alarm(&mut watched, &mut stream, Shift::None, options.before / TICK).is_some() {
            early += 1;
            continue;
        }
        match alarm(&mut watched, &mut stream, options.shift, options.horizon / TICK) {
            Some(ticks) => delays.push((ticks * TICK) as f64),
            None => missed += 1,
        }
    }
    let mut document = summary(&mut delays, missed);
    document["shift"] = format!("{:?}", options.shift).into();
    document["rows"] = options.rows.into();
    document["early"] = early.into();
    document
}

/// Mean, its standard error and the 90 % point of delays.
pub fn summary(delays: &mut [f64], missed: usize) -> Value {
    delays.sort_by(f64::total_cmp);
    let n = delays.len() as f64;
    if delays.is_empty() {
        return json!({ "found": 0, "missed": missed });
    }
    let mean = delays.iter().sum::<f64>() / n;
    let variance = delays.iter().map(|delay| (delay - mean).powi(2)).sum::<f64>() / n;
    json!({
        "found": delays.len(), "missed": missed, "mean": mean, "error": (variance / n).sqrt(),
        "p90": delays[delays.len() * 9 / 10],
    })
}

/// Mean ticks to the first crossing of each threshold: all ticks over crossings, streams that do
/// not cross in time included (the estimate for exponential times).
pub fn calibrate(options: &Calibrate) -> Value {
    let (cells, reference) = exact();
    let thresholds: Vec<f64> = (0..17).map(|k| 5.5 + 0.25 * f64::from(k)).collect();
    let mut ticks = vec![0_usize; thresholds.len()];
    let mut crossings = vec![0_usize; thresholds.len()];
    for seed in 0..options.streams {
        let mut stream = Stream::new(Law::Normal(0.0), 3_000_000 + seed as u64);
        let mut watched = Watched::new(&cells, &reference);
        let (mut at, mut tick) = (0, 0);
        while at < thresholds.len() && tick < options.ticks {
            tick += 1;
            let log_sum = watched.tick(&mut stream, Shift::None);
            while at < thresholds.len() && log_sum >= thresholds[at] {
                ticks[at] += tick;
                crossings[at] += 1;
                at += 1;
            }
        }
        ticks[at..].iter_mut().for_each(|sum| *sum += tick);
    }
    let lengths: Vec<f64> =
        ticks.iter().zip(&crossings).map(|(&t, &c)| t as f64 / c.max(1) as f64).collect();
    let calibrated = lengths.windows(2).zip(thresholds.windows(2)).find_map(|(run, threshold)| {
        let part = (PROMISE - run[0].ln()) / (run[1].ln() - run[0].ln());
        (run[0].ln() < PROMISE && run[1].ln() >= PROMISE)
            .then(|| threshold[0] + part * (threshold[1] - threshold[0]))
    });
    json!({
        "thresholds": thresholds, "run_lengths": lengths, "crossings": crossings,
        "threshold_of_10000_ticks": calibrated,
    })
}

/// The true PSI is that of two very long samples' shares, whose cells are the first baseline's.
pub fn coverage(options: &Coverage) -> Value {
    const LONG: usize = 4_000_000;
    let mut stream = Stream::new(Law::Normal(0.0), 7);
    let cells = Cells::exact();
    let mut long = |shift| cells.count((0..LONG).map(|_| stream.next(shift)));
    let (unchanged, changed) = (long(Shift::None), long(options.shift));
    let ordered = cells.n_ordered();
    let truth = if options.shift == Shift::None {
        0.0
    } else {
        effect::psi(&effect::shares(&changed[..ordered]), &effect::shares(&unchanged[..ordered]))
    };
    let (mut below, mut above, mut debiased) = (0, 0, 0.0);
    for _ in 0..options.repeats {
        let reference = cells.count((0..options.rows).map(|_| stream.next(Shift::None)));
        let live = cells.count((0..options.live).map(|_| stream.next(options.shift)));
        let effects = effect::effects(&reference, &live, Order::None);
        below += usize::from(effects.psi_interval.1 < truth);
        above += usize::from(effects.psi_interval.0 > truth);
        debiased += effects.psi_debiased;
    }
    let repeats = options.repeats as f64;
    json!({
        "shift": format!("{:?}", options.shift), "rows": options.rows, "live": options.live,
        "truth": truth, "covered": 1.0 - (below + above) as f64 / repeats,
        "below": below, "above": above, "mean_debiased": debiased / repeats,
    })
}

pub fn variance(options: &Variance) -> Value {
    let law = Law::Normal(options.phi);
    let settings = Settings::default();
    let mut factors: Vec<f64> = (0..options.repeats)
        .map(|seed| {
            let mut stream = Stream::new(law, 4_000_000 + seed as u64);
            baseline(law, &mut stream, options.rows, settings).2
        })
        .collect();
    factors.sort_by(f64::total_cmp);
    json!({
        "phi": options.phi, "rows": options.rows,
        "truth": (1.0 + options.phi) / (1.0 - options.phi),
        "p5": factors[factors.len() / 20], "median": factors[factors.len() / 2],
        "p95": factors[factors.len() * 19 / 20],
    })
}

/// Ticks of an unchanged feature of 20 cells.
pub fn cost(options: &Cost) -> Value {
    let mut counts = vec![options.rows / 16; 16];
    counts.extend([0; 4]);
    let reference = Reference::new(&counts, 18, &Settings::default());
    let mut detector = Detector::new(counts.len());
    let mut rng = fastrand::Rng::with_seed(1);
    let ticks: Vec<Vec<u32>> = (0..1000)
        .map(|_| {
            let mut counts = vec![0; 20];
            (0..options.rows_per_tick).for_each(|_| counts[rng.usize(0..16)] += 1);
            counts
        })
        .collect();
    let started = processor_time();
    for at in 0..options.ticks {
        std::hint::black_box(detector.tick(&reference, &ticks[at % ticks.len()]));
    }
    json!({
        "cells": 20, "rows": options.rows, "rows_per_tick": options.rows_per_tick, "ticks": options.ticks,
        "microseconds_per_tick": (processor_time() - started) / options.ticks as f64,
    })
}

/// Microseconds of processor time that this thread took: the machine may be busy otherwise. 0 where
/// Linux's `/proc` is missing.
fn processor_time() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse::<f64>().ok()).unwrap_or(0.0) / 1e3
}
