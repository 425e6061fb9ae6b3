use proptest::prelude::*;

use super::super::special::normal_quantile;
use super::tolerance::{Nearest, Tolerance};
use super::*;

const EXACT: Settings = Settings { tolerance: 0.0, z: 0.0, variance_factor: 1.0 };

/// Logarithm of ten thousand ticks between false alarms.
const PROMISE: f64 = 9.210_340_371_976_184;

/// Counts of 50 values a tick in 16 equally frequent cells of a standard normal law, and a cell for
/// those missing.
struct Traffic {
    rng: fastrand::Rng,
    edges: Vec<f64>,
}

impl Traffic {
    fn new(seed: u64) -> Self {
        let edges = (1..16).map(|k| normal_quantile(f64::from(k) / 16.0)).collect();
        Self { rng: fastrand::Rng::with_seed(seed), edges }
    }

    fn tick(&mut self, change: impl Fn(f64) -> f64) -> [u32; 17] {
        let mut counts = [0; 17];
        for _ in 0..50 {
            let x = change(normal_quantile(self.rng.f64().max(1e-300)));
            let cell = if x.is_nan() { 16 } else { self.edges.partition_point(|&edge| edge < x) };
            counts[cell] += 1;
        }
        counts
    }
}

fn reference(rows: u64, settings: &Settings) -> Reference {
    let mut counts = [rows / 16; 17];
    counts[16] = 0;
    Reference::new(&counts, 16, settings)
}

/// The largest expectation of something a cell over all laws of the box.
fn largest_expectation(tolerance: &Tolerance, of: &[f64]) -> f64 {
    let mut order: Vec<usize> = (0..of.len()).collect();
    order.sort_by(|&a, &b| of[b].total_cmp(&of[a]));
    let mut left = 1.0 - tolerance.lowest.iter().sum::<f64>();
    let mut sum: f64 = tolerance.lowest.iter().zip(of).map(|(share, value)| share * value).sum();
    for cell in order {
        let more = (tolerance.highest[cell] - tolerance.lowest[cell]).min(left);
        sum += more * of[cell];
        left -= more;
    }
    sum
}

fn any_settings() -> impl Strategy<Value = Settings> {
    let tolerance = prop_oneof![Just(0.0), Just(0.1), 0.0..2.0, Just(f64::NAN)];
    (tolerance, prop_oneof![Just(0.0), Just(3.5)], 1.0..30.0)
        .prop_map(|(tolerance, z, variance_factor)| Settings { tolerance, z, variance_factor })
}

fn any_counts() -> impl Strategy<Value = Vec<u64>> {
    let count = prop_oneof![Just(0), 0_u64..20, 0_u64..100_000, Just(u64::MAX)];
    prop::collection::vec(count, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// What makes a bet evidence: no law of the tolerance gives it an expectation above 1.
    #[test]
    fn no_bet_wins_within_the_tolerance(
        counts in any_counts(), part in 0.0..1.0_f64, settings in any_settings()
    ) {
        let n_ordered = (counts.len() as f64 * part) as usize;
        let reference = Reference::new(&counts, n_ordered, &settings);
        for factors in reference.bets.factors(reference.n_cells()) {
            let most = largest_expectation(&reference.tolerance, &factors);
            // Rounding, of counts up to 2^64.
            prop_assert!(most <= 1.0 + 1e-8, "{most}");
        }
    }

    #[test]
    fn the_nearest_law_is_in_the_box_and_the_likeliest(
        counts in any_counts(),
        live in prop::collection::vec(prop_oneof![Just(0.0), 0.0..1e6], 40),
        settings in any_settings(),
    ) {
        let reference = Reference::new(&counts, 0, &settings);
        let live = &live[..counts.len()];
        let total: f64 = live.iter().sum();
        prop_assume!(total > 0.0);
        let mut nearest = vec![0.0; counts.len()];
        let place = reference.tolerance.nearest(live, total, &mut nearest);
        let ln = |law: &[f64]| -> f64 {
            live.iter().zip(law).filter(|(c, _)| **c > 0.0).map(|(c, p)| c * p.max(1e-300).ln()).sum()
        };
        if place == Nearest::Surface {
            prop_assert!(nearest.iter().sum::<f64>() <= 1.0 + 1e-9);
            // The derivative towards any law of the box is not positive.
            let slopes: Vec<f64> = live.iter().zip(&nearest)
                .map(|(&c, &p)| if c > 0.0 { c / p.max(1e-300) } else { 0.0 }).collect();
            let most = largest_expectation(&reference.tolerance, &slopes);
            prop_assert!(most <= total * (1.0 + 1e-6), "{most} {total}");
        }
        prop_assert!(ln(&reference.shares) <= ln(&nearest) + 1e-6 * total);
        for ((p, low), high) in nearest.iter().zip(&reference.tolerance.lowest).zip(&reference.tolerance.highest) {
            prop_assert!(*p >= low - 1e-12 && *p <= high + 1e-12);
        }
    }

    #[test]
    fn any_counts_are_judged(
        counts in any_counts(),
        ticks in prop::collection::vec(
            prop::collection::vec(prop_oneof![Just(0), 0_u32..50, Just(u32::MAX)], 0..45), 1..30),
        cells in 0_usize..45,
        settings in any_settings(),
    ) {
        let reference = Reference::new(&counts, counts.len() / 2, &settings);
        let mut detector = Detector::new(cells);
        for (at, counts) in ticks.iter().enumerate() {
            let tick = detector.tick(&reference, counts);
            prop_assert!(tick.log_sum >= 0.0 && tick.log_sum.is_finite(), "{tick:?}");
            prop_assert!(!tick.best.log_evidence.is_nan() && tick.best.start_tick <= at as u64);
            prop_assert!(tick.log_sum >= tick.best.log_evidence - 1e-9);
        }
        prop_assert_eq!(detector.n_ticks(), ticks.len() as u64);
    }
}

/// The evidence of a window has expectation at most 1 under laws of the tolerance: all counts of
/// few values are gone through.
#[test]
fn the_expected_evidence_is_at_most_one() {
    let settings = Settings { tolerance: 0.2, z: 0.0, variance_factor: 1.0 };
    let reference = Reference::new(&[500, 300, 200], 3, &settings);
    for law in [[0.5, 0.3, 0.2], [0.6, 0.24, 0.16], [0.5, 0.36, 0.14], [0.41, 0.36, 0.23]] {
        for n in [1_u32, 2, 5, 20, 60] {
            let mut expectation = 0.0;
            for a in 0..=n {
                for b in 0..=n - a {
                    let counts = [a, b, n - a - b];
                    let ways = counts.iter().zip(law).fold(
                        super::super::special::ln_gamma(f64::from(n) + 1.0),
                        |sum, (&count, share)| {
                            let count = f64::from(count);
                            sum + count * f64::ln(share)
                                - super::super::special::ln_gamma(count + 1.0)
                        },
                    );
                    let tick = Detector::new(3).tick(&reference, &counts);
                    // A window within the tolerance counts as nothing.
                    let evidence = if tick.log_sum > 0.0 { tick.log_sum.exp() } else { 0.0 };
                    expectation += ways.exp() * evidence;
                }
            }
            assert!(expectation <= 1.0, "{law:?} {n}: {expectation}");
        }
    }
}

#[test]
fn nothing_changes_and_nothing_is_found() {
    for (rows, settings) in [(1 << 40, EXACT), (20_000, Settings::default())] {
        let reference = reference(rows, &settings);
        let mut alarms = 0;
        for seed in 0..3 {
            let mut traffic = Traffic::new(seed);
            let mut detector = Detector::new(17);
            for _ in 0..700 {
                alarms +=
                    u32::from(detector.tick(&reference, &traffic.tick(|x| x)).log_sum >= PROMISE);
            }
        }
        assert_eq!(alarms, 0);
    }
}

/// Mean number of values until a change is found that comes after 20 ticks.
fn delay(reference: &Reference, change: impl Fn(f64) -> f64 + Copy) -> f64 {
    let streams = 40;
    let mut ticks = 0;
    for seed in 0..streams {
        let mut traffic = Traffic::new(100 + seed);
        let mut detector = Detector::new(17);
        (0..20).for_each(|_| {
            detector.tick(reference, &traffic.tick(|x| x));
        });
        while detector.tick(reference, &traffic.tick(change)).log_sum < PROMISE {}
        ticks += detector.n_ticks() - 20;
    }
    50.0 * ticks as f64 / streams as f64
}

#[test]
fn changes_are_found_soon() {
    let exact = reference(1 << 40, &EXACT);
    assert!(delay(&exact, |x| x + 0.2) < 800.0);
    assert!(delay(&exact, |x| x + 0.5) < 170.0);
    assert!(delay(&exact, |x| x * 1.2) < 600.0);
    assert!(delay(&exact, |x| x * 1.5) < 160.0);
    let corrected = reference(200_000, &Settings::default());
    assert!(delay(&corrected, |x| x + 0.5) < 300.0);
    assert!(delay(&corrected, |x| x * 1.5) < 250.0);
}

#[test]
fn a_special_cell_that_fills_is_found_at_once() {
    let reference = reference(20_000, &Settings::default());
    let mut traffic = Traffic::new(5);
    let mut detector = Detector::new(17);
    for _ in 0..50 {
        detector.tick(&reference, &traffic.tick(|x| x));
    }
    let mut ticks = 0;
    loop {
        ticks += 1;
        let mut counts = traffic.tick(|x| x);
        counts[16] += 3;
        let tick = detector.tick(&reference, &counts);
        if tick.log_sum >= PROMISE {
            assert!(tick.best.start_tick.abs_diff(50) <= 5, "{tick:?}");
            let since = detector.counts_since(tick.best.start_tick);
            assert!(since[16] >= 3 * (ticks - 1) && since.iter().sum::<u64>() == tick.best.rows);
            break;
        }
    }
    assert!(ticks <= 6, "{ticks}");
}

#[test]
fn one_cell_that_never_was_filled_is_no_surprise_of_a_small_reference() {
    // 3 of 1000 may well have been none.
    let reference = reference(1000, &Settings::default());
    let mut detector = Detector::new(17);
    for at in 0..2000_u32 {
        let mut counts = [3; 17];
        counts[16] = u32::from(at % 7 == 0);
        assert!(detector.tick(&reference, &counts).log_sum < PROMISE);
    }
}

#[test]
fn it_says_when_the_newest_rows_are_back() {
    let reference = reference(50_000, &Settings::default());
    let mut traffic = Traffic::new(9);
    let mut detector = Detector::new(17);
    let mut run = |ticks: u64, by: f64| {
        (0..ticks).map(|_| detector.tick(&reference, &traffic.tick(|x| x + by))).last().unwrap()
    };
    assert!(!run(10, 0.0).newest_is_back, "too few rows to tell");
    assert!(run(500, 0.0).newest_is_back);
    let drifted = run(300, 0.4);
    assert!(!drifted.newest_is_back && drifted.log_sum > PROMISE);
    assert!(run(500, 0.0).newest_is_back);
}

#[test]
fn memory_is_bounded_and_nothing_is_lost() {
    let reference = Reference::new(&[1, 1], 0, &EXACT);
    let mut ring = Ring::new(2);
    for tick in 0..100_000 {
        ring.push(tick, &[1, 2], &reference);
        if tick % 9973 == 0 {
            assert_eq!(ring.since(0), [tick + 1, 2 * (tick + 1)]);
        }
    }
    assert!(ring.newest_first().count() <= MOST_WINDOWS);
    // Starts of windows are dense where they are new, and multiples of powers of two.
    let starts: Vec<u64> = ring.newest_first().map(|part| part.start_tick).collect();
    assert_eq!(starts[..4], [99_999, 99_998, 99_997, 99_996]);
    for start in starts {
        let age = 100_000 - start;
        assert!(
            start % (age / 8).max(1).next_power_of_two().min(1 << 14) == 0 || age < 16,
            "{start}"
        );
    }
}

#[test]
fn detectors_are_kept_and_added() {
    let reference = reference(20_000, &Settings::default());
    let (mut all, mut first, mut second) =
        (Detector::new(17), Detector::new(17), Detector::new(17));
    let mut traffic = Traffic::new(3);
    for _ in 0..100 {
        let (a, b) = (traffic.tick(|x| x), traffic.tick(|x| x + 0.1));
        let mut both = a;
        both.iter_mut().zip(b).for_each(|(sum, count)| *sum += count);
        all.tick(&reference, &both);
        first.tick(&reference, &a);
        second.tick(&reference, &b);
    }
    let kept = serde_json::to_string(&first).unwrap();
    let mut first: Detector = serde_json::from_str(&kept).unwrap();
    assert!(first.merge(&second));
    assert_eq!(first.tick(&reference, &[3; 17]), all.tick(&reference, &[3; 17]));
    assert!(!first.merge(&second), "another number of ticks");
    assert!(!Detector::new(3).merge(&Detector::new(4)));
}

#[test]
fn seasons_are_no_drift_and_drift_is_found_in_each() {
    // By day values are higher than by night, an hour of 100 ticks each.
    let by_season: Vec<Reference> = [[1000, 2000, 3000, 4000], [4000, 3000, 2000, 1000]]
        .iter()
        .zip(0..)
        .map(|(counts, slot)| Reference::new(counts, 4, &Settings::default()).in_season(slot))
        .collect();
    let plain = Reference::new(&[5000; 4], 4, &Settings::default());
    let (mut seasonal, mut unaware) = (Detector::new(4), Detector::new(4));
    let mut most = 0.0_f64;
    let mut found = false;
    for tick in 0..2000 {
        let slot = tick / 100 % 2;
        let counts = [[5, 10, 15, 20], [20, 15, 10, 5]][slot];
        most = most.max(seasonal.tick(&by_season[slot], &counts).log_sum);
        found |= unaware.tick(&plain, &counts).log_sum > PROMISE;
    }
    assert!(found && most < 3.0, "{most}");
    assert!(seasonal.tick(&by_season[0], &[5, 10, 15, 20]).newest_is_back);
    // Always night.
    let ticks = (2001..2200).find(|tick| {
        let slot = tick / 100 % 2;
        seasonal.tick(&by_season[slot], &[20, 15, 10, 5]).log_sum > PROMISE
    });
    assert!(ticks.is_some_and(|tick| tick < 2010), "{ticks:?}");
    // Windows of several seasons find what is too small for one of them.
    let mut seasonal = Detector::new(4);
    let found = (0..3000).find_map(|tick| {
        let slot = tick / 4 % 2;
        let counts = [[6, 10, 14, 20], [25, 14, 8, 3]][slot];
        let tick = seasonal.tick(&by_season[slot], &counts);
        (tick.log_sum > PROMISE).then_some(tick)
    });
    assert!(found.is_some_and(|tick| tick.best.rows > 400), "{found:?}");
}

#[test]
fn what_is_read_back_is_not_believed() {
    let reference = reference(20_000, &Settings::default());
    let mut detector = Detector::new(2);
    for _ in 0..20 {
        detector.tick(&reference, &[1, 2]);
    }
    let kept = serde_json::to_value(&detector).unwrap();
    assert!(serde_json::from_value::<Detector>(kept.clone()).is_ok());
    let spoilt: [(&str, serde_json::Value); 5] = [
        ("/ring/counts", serde_json::json!([1, 2, 3])),
        ("/ring/n_cells", serde_json::json!(u64::MAX)),
        ("/ring/expected", serde_json::json!([1.0])),
        ("/ring/buckets/0/level", serde_json::json!(20)),
        ("/ring/buckets/1/start_tick", serde_json::json!(0)),
    ];
    for (pointer, value) in spoilt {
        let mut spoilt = kept.clone();
        *spoilt.pointer_mut(pointer).unwrap() = value;
        assert!(serde_json::from_value::<Detector>(spoilt).is_err(), "{pointer}");
    }
}

#[test]
fn all_features_are_judged_together() {
    assert_eq!(mean(&[]), 0.0);
    assert!((mean(&[5.0, 5.0]) - 5.0).abs() < 1e-12);
    assert!((mean(&[f64::NEG_INFINITY, 2.0_f64.ln()]) - 0.0).abs() < 1e-12);
    assert!((mean(&[1000.0, 0.0]) - (1000.0 - 2.0_f64.ln())).abs() < 1e-9);
    assert_eq!(mean(&[f64::NEG_INFINITY]), f64::NEG_INFINITY);

    // Of four at level 0.1, one needs 40, two 20 each.
    let ln = |values: &[f64]| values.iter().map(|value: &f64| value.ln()).collect::<Vec<_>>();
    assert_eq!(e_bh(&ln(&[1.0, 41.0, 0.5, 3.0]), 0.1), [1]);
    assert_eq!(e_bh(&ln(&[21.0, 39.0, 0.5, 3.0]), 0.1), [1, 0]);
    assert_eq!(e_bh(&ln(&[19.0, 39.0, 0.5, 3.0]), 0.1), [0_usize; 0]);
    assert_eq!(e_bh(&[f64::NAN, 100.0], 0.1), [1]);
    assert_eq!(e_bh(&[], 0.1), [0_usize; 0]);
}
