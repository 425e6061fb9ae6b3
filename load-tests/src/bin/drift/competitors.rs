//! Tests on windows, with thresholds found by simulation, so that they alarm as seldom as ours.

use clap::ValueEnum;
use fastrand::Rng;
use serde_json::Value;

use crate::Windowed;
use crate::experiments::summary;
use crate::stats::effect;
use crate::stats::special::normal_cdf;
use crate::streams::{Cells, Law, Shift, Stream};

/// Windows whose statistics make a threshold, times the windows between two alarms.
const WINDOWS: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Test {
    /// Tumbling windows, Kolmogorov–Smirnov against the exact law.
    Ks,
    /// Tumbling windows, chi-square of 16 cells.
    ChiSquare,
    /// Tumbling windows, PSI of 16 cells.
    Psi,
    /// KSWIN (Raab, Heusinger and Schleif 2020) as river has it: at each value, Kolmogorov–Smirnov
    /// of the newest values against as many drawn from the 70 before.
    Kswin,
}

/// Older values that KSWIN draws from.
const OLDER: usize = 70;

pub fn windowed(options: &Windowed) -> Value {
    let (threshold, run_length) = match options.test {
        Test::Kswin => kswin_threshold(options),
        _ => tumbling_threshold(options),
    };
    let shifts = ["mean:0.2", "mean:0.5", "sd:1.2", "sd:1.5", "bimodal"];
    let mut document = serde_json::json!({
        "test": format!("{:?}", options.test), "window": options.window,
        "threshold": threshold, "run_length": run_length,
    });
    for name in shifts {
        let shift = Shift::parse(name).expect("the names above are known");
        let (mut delays, mut missed) = (Vec::new(), 0);
        for seed in 0..options.streams {
            let mut stream = Stream::new(Law::Normal(0.0), seed as u64);
            match one(options, &mut stream, shift, threshold) {
                Some(delay) => delays.push(delay as f64),
                None => missed += 1,
            }
        }
        document[name] = summary(&mut delays, missed);
    }
    document
}

/// Values until the first alarm after the change. The change comes at a random place of a tumbling
/// window.
fn one(options: &Windowed, stream: &mut Stream, shift: Shift, threshold: f64) -> Option<usize> {
    if options.test == Test::Kswin {
        let mut kswin = Kswin::new(options.window);
        (0..1000).for_each(|_| kswin.push(stream.next(Shift::None)));
        return (1..=options.horizon).find(|_| {
            kswin.push(stream.next(shift));
            kswin.statistic() >= threshold
        });
    }
    let mut window: Vec<f64> = Vec::with_capacity(options.window);
    let head = Rng::with_seed(stream.next(Shift::None).to_bits()).usize(0..options.window);
    window.extend((0..head).map(|_| stream.next(Shift::None)));
    let cells = Cells::exact();
    (1..=options.horizon).find(|_| {
        window.push(stream.next(shift));
        if window.len() < options.window {
            return false;
        }
        let found = tumbling(options.test, &cells, &mut window) >= threshold;
        window.clear();
        found
    })
}

fn tumbling(test: Test, cells: &Cells, window: &mut [f64]) -> f64 {
    let n = window.len() as f64;
    if test == Test::Ks {
        window.sort_by(f64::total_cmp);
        let distances = window.iter().enumerate().map(|(at, &x)| {
            let below = normal_cdf(x);
            (below - at as f64 / n).max((at + 1) as f64 / n - below)
        });
        return distances.fold(0.0, f64::max);
    }
    let counts = cells.count(window.iter().copied());
    let counts = &counts[..cells.n_ordered()];
    let expected = 1.0 / counts.len() as f64;
    if test == Test::ChiSquare {
        return counts.iter().map(|&c| (c as f64 - n * expected).powi(2) / (n * expected)).sum();
    }
    effect::psi(&effect::smoothed(counts), &vec![expected; counts.len()])
}

/// The statistic that one in so many windows exceeds where nothing changes.
fn tumbling_threshold(options: &Windowed) -> (f64, f64) {
    let between = options.run_length / options.window as f64;
    let windows = (between * WINDOWS as f64) as usize;
    let mut stream = Stream::new(Law::Normal(0.0), 5_000_000);
    let cells = Cells::exact();
    let mut values = vec![0.0; options.window];
    let mut statistics: Vec<f64> = (0..windows)
        .map(|_| {
            values.iter_mut().for_each(|x| *x = stream.next(Shift::None));
            tumbling(options.test, &cells, &mut values)
        })
        .collect();
    statistics.sort_by(f64::total_cmp);
    (statistics[windows - WINDOWS], options.run_length)
}

/// The smallest distance whose run length is at least the one wanted. Distances are multiples of
/// one over the window, so the run length is somewhat longer.
fn kswin_threshold(options: &Windowed) -> (f64, f64) {
    let n = options.window;
    let mut stream = Stream::new(Law::Normal(0.0), 5_000_001);
    let mut kswin = Kswin::new(n);
    (0..1000).for_each(|_| kswin.push(stream.next(Shift::None)));
    let values = options.run_length as usize * 20;
    // Alarms of each threshold; the window is forgotten after one, as river does.
    let (mut alarms, mut ready) = (vec![0_usize; n + 1], vec![0_usize; n + 1]);
    for at in 0..values {
        kswin.push(stream.next(Shift::None));
        let steps = (kswin.statistic() * n as f64).round() as usize;
        for step in 0..=steps {
            if at >= ready[step] {
                alarms[step] += 1;
                ready[step] = at + OLDER + n;
            }
        }
    }
    let length = |step: usize| values as f64 / alarms[step].max(1) as f64;
    let step = (1..=n).find(|&step| length(step) >= options.run_length).unwrap_or(n);
    (step as f64 / n as f64 - 1e-9, length(step))
}

struct Kswin {
    rng: Rng,
    recent: usize,
    values: std::collections::VecDeque<f64>,
    sorted: [Vec<f64>; 2],
}

impl Kswin {
    fn new(recent: usize) -> Self {
        let values = std::collections::VecDeque::with_capacity(OLDER + recent);
        Self { rng: Rng::with_seed(6), recent, values, sorted: [Vec::new(), Vec::new()] }
    }

    fn push(&mut self, x: f64) {
        if self.values.len() == OLDER + self.recent {
            self.values.pop_front();
        }
        self.values.push_back(x);
    }

    fn statistic(&mut self) -> f64 {
        if self.values.len() < OLDER + self.recent {
            return 0.0;
        }
        let [newest, older] = &mut self.sorted;
        newest.clear();
        newest.extend(self.values.range(OLDER..));
        older.clear();
        let chosen = self.rng.choose_multiple(0..OLDER, self.recent.min(OLDER));
        older.extend(chosen.into_iter().map(|at| self.values[at]));
        newest.sort_by(f64::total_cmp);
        older.sort_by(f64::total_cmp);
        let (mut i, mut j, mut most) = (0, 0, 0.0_f64);
        while i < newest.len() && j < older.len() {
            if newest[i] <= older[j] {
                i += 1
            } else {
                j += 1
            }
            let difference = i as f64 / newest.len() as f64 - j as f64 / older.len() as f64;
            most = most.max(difference.abs());
        }
        most
    }
}
