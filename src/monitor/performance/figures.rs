//! The figures of docs/performance.md:
//! `cargo test --lib performance_figures -- --ignored --nocapture`, a minute or two.

use std::sync::Arc;

use super::loss::LossWatch;
use super::*;
use crate::monitor::labels::FeedbackRecord;
use crate::monitor::verdict::State;
use crate::stats::confidence::{RiskTest, long_run_factor};

/// The promise of the defaults: one false alarm in 30 days of ticks of a second.
const MONTH: f64 = 2_592_000.0;

fn bit(rng: &mut fastrand::Rng, share: f64) -> f64 {
    f64::from(u8::from(rng.f64() < share))
}

fn normal(rng: &mut fastrand::Rng) -> f64 {
    let radius = (-2.0 * rng.f64().max(1e-300).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.f64()).cos()
}

/// A bit that is 1 in a tenth of the cases, of an autoregressive normal process.
struct Dependent {
    x: f64,
    phi: f64,
}

impl Dependent {
    fn next(&mut self, rng: &mut fastrand::Rng) -> f64 {
        self.x = self.phi * self.x + (1.0 - self.phi * self.phi).sqrt() * normal(rng);
        // The normal distribution's upper tenth.
        f64::from(u8::from(self.x > 1.281_551_565_544_600_4))
    }
}

/// Starts between alarms over `n` losses whose mean is the limit itself.
fn between(
    n: u64,
    tick: u64,
    limit: f64,
    promised: f64,
    factor: f64,
    mut next: impl FnMut() -> f64,
) -> f64 {
    let new = || RiskTest::new(limit, promised.ln(), factor);
    let (mut test, mut starts, mut alarms) = (new(), 0.0, 0.0);
    for i in 0..n {
        if i % tick == 0 {
            test.start();
            starts += 1.0;
        }
        test.update(next(), i);
        if test.evidence() >= promised.ln() {
            alarms += 1.0;
            test = new();
        }
    }
    starts / f64::max(alarms, 1.0)
}

#[test]
#[ignore = "takes a minute"]
fn performance_figures() {
    at_the_limit();
    of_baselines();
    delays();
    if let Ok(folder) = std::env::var("TIDEGATE_NANNYML") {
        replay(&folder);
    }
}

fn at_the_limit() {
    println!("ticks between false alarms, mean loss at the limit (the worst of the null):");
    let mut rng = fastrand::Rng::with_seed(7);
    for (n, tick, promised) in
        [(2_000_000, 1, 200.0), (4_000_000, 50, 200.0), (4_000_000, 512, 50.0)]
    {
        for (name, limit) in [("bits", 0.05), ("bits", 0.1), ("bits", 0.3), ("half normal", 0.25)] {
            let found = between(n, tick, limit, promised, 1.0, || match name {
                "bits" => bit(&mut rng, limit),
                // E|z| = √(2/π).
                _ => (normal(&mut rng).abs() * limit / 0.797_884_560_802_865_4).min(1.0),
            });
            println!(
                "  {name}, limit {limit}, {tick} labels a tick: {found:.0}, promised {promised}"
            );
            assert!(found >= promised);
        }
    }
    for phi in [0.5, 0.8, 0.95] {
        let mut stream = Dependent { x: 0.0, phi };
        let reference: Vec<f64> = (0..500_000).map(|_| stream.next(&mut rng)).collect();
        let factor = long_run_factor(&reference);
        let mut found =
            |factor| between(3_000_000, 1, 0.1, 500.0, factor, || stream.next(&mut rng));
        let (tempered, plain) = (found(factor), found(1.0));
        println!(
            "  dependent bits, phi {phi}: variance factor {factor:.2}, {tempered:.0} tempered, {plain:.0} plain, promised 500"
        );
        assert!(tempered >= 500.0);
    }
}

fn of_baselines() {
    println!(
        "streams whose error rate is the baseline's true one (0.1), 20,000 labels each, a tick a label, promise 1 per 1,000 ticks, no tolerance:"
    );
    let mut rng = fastrand::Rng::with_seed(9);
    for rows in [200, 1_000, 5_000, 20_000] {
        let mut alarms = 0;
        for _ in 0..50 {
            let losses: Vec<f64> = (0..rows).map(|_| bit(&mut rng, 0.1)).collect();
            let mut reference = LossBaseline::nothing(LossKind::ZeroOne, 1.0);
            reference.learn(&losses);
            let mut watch = LossWatch::new(reference, 0, 0.0, 1_000f64.ln(), 0);
            for at in 0..20_000 {
                watch.start();
                watch.update(bit(&mut rng, 0.1), at);
                alarms += usize::from(
                    watch.decide(at).is_some_and(|_| watch.state().0 == State::Drifted),
                );
            }
        }
        println!("  baseline of {rows} rows: {alarms} alarms, promised at most 1,000");
        assert!(alarms <= 1_000);
    }
}

fn delays() {
    println!(
        "labels until the alarm, promise 1 per {MONTH} ticks, mean of 20 streams (ln(promise) / KL in brackets):"
    );
    for (limit, share) in
        [(0.05, 0.075), (0.05, 0.1), (0.1, 0.12), (0.1, 0.15), (0.1, 0.2), (0.3, 0.4)]
    {
        let kl: f64 = {
            let term = |p: f64, q: f64| p * (p / q).ln();
            term(share, limit) + term(1.0 - share, 1.0 - limit)
        };
        let mut line = format!("  limit {limit}, error rate {share} ({:.0}):", MONTH.ln() / kl);
        for (tick, before) in [(1, 0), (50, 0), (50, 50_000), (100_000, 50_000)] {
            let mut total = 0.0;
            for seed in 0..20 {
                let mut rng = fastrand::Rng::with_seed(seed);
                let mut test = RiskTest::new(limit, MONTH.ln(), 1.0);
                let mut n = 0;
                while test.evidence() < MONTH.ln() && n < before + 200_000 {
                    if n % tick == 0 {
                        test.start();
                    }
                    let share = if n < before { 0.85 * limit } else { share };
                    test.update(bit(&mut rng, share), n);
                    n += 1;
                }
                total += n as f64 - before as f64;
            }
            line = format!("{line} {:.0} ({tick} a tick, after {before})", total / 20.0);
        }
        println!("{line}");
    }
}

/// NannyML's data sets, each row labelled at once; a tick every 50 rows.
fn replay(folder: &str) {
    println!("data sets in their order; what is watched changes at the middle:");
    for name in ["car_loan", "work_home", "credit"] {
        let rows = |part: &str| {
            golden::rows_of(&std::path::Path::new(folder).join(format!("{name}_{part}.csv")))
        };
        let settings = Settings {
            wait: 3_600_000,
            most: 10_000,
            tolerance: 0.1,
            threshold: MONTH.ln(),
            by_label: false,
            learn: 1_000,
            detectors: vec![crate::config::Classical::Adwin],
        };
        let mut live = Performance::new(Arc::new(rows("reference").fit()), &settings, 0);
        let analysis = rows("analysis");
        for (row, label) in analysis.labels.iter().enumerate() {
            let now = row as u64;
            live.observe(Some(row.to_string().as_bytes()), &analysis.part(row, row + 1), now);
            let label = label.clone().unwrap();
            live.feedback(&[FeedbackRecord { id: row.to_string(), row: 0, label }], now);
            if row % 50 == 49 {
                for change in live.tick(now) {
                    println!(
                        "  {name}, row {row}: {} {:?}, onset {:?}: {}",
                        change.detector, change.to, change.onset, change.text
                    );
                }
            }
        }
    }
}
