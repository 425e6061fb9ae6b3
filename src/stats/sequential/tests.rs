use super::*;

/// Rollouts simulated for each case: enough to see an error rate that is twice what it may be.
const RUNS: u64 = 300;
const ALPHA: f64 = 0.05;
const BETA: f64 = 0.05;

fn events(rng: &mut fastrand::Rng, n: u64, p: f64) -> u64 {
    (0..n).filter(|_| rng.f64() < p).count() as u64
}

/// Shares of runs that passed and failed, looked at after every `step` rows until `most`.
fn shares(
    step: u64,
    most: u64,
    mut look: impl FnMut(&mut fastrand::Rng, u64) -> Evidence,
) -> (f64, f64) {
    let thresholds = Thresholds::new(ALPHA, BETA);
    let (mut passed, mut failed) = (0, 0);
    for seed in 0..RUNS {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut decision = Decision::NotYet;
        let mut n = 0;
        // A run of no rows begins anew.
        look(&mut rng, 0);
        while decision == Decision::NotYet && n < most {
            n += step;
            decision = look(&mut rng, step).decide(thresholds);
        }
        passed += u64::from(decision == Decision::Pass);
        failed += u64::from(decision == Decision::Fail);
    }
    (passed as f64 / RUNS as f64, failed as f64 / RUNS as f64)
}

#[test]
fn a_rate_is_decided_within_the_stated_errors() {
    let limit = 0.02;
    let case = |p: f64| {
        let (mut n, mut s) = (0, 0);
        shares(50, 10_000, move |rng, step| {
            (n, s) = if step == 0 { (0, 0) } else { (n + step, s + events(rng, step, p)) };
            rate(Count::of(s, n), limit)
        })
    };
    let (passed, failed) = case(limit);
    assert!(passed <= ALPHA && failed <= BETA, "at the limit: {passed} passed, {failed} failed");
    let (passed, failed) = case(limit / 4.0);
    assert!(passed == 1.0 && failed == 0.0, "good: {passed} passed, {failed} failed");
    let (passed, failed) = case(2.0 * limit);
    assert!(passed <= 0.01 && failed >= 0.99, "bad: {passed} passed, {failed} failed");
}

#[test]
fn a_difference_is_decided_within_the_stated_errors() {
    let margin = 0.02;
    let case = |p0: f64, p1: f64| {
        let (mut n, mut s0, mut s1) = (0, 0, 0);
        shares(100, 20_000, move |rng, step| {
            if step == 0 {
                (n, s0, s1) = (0, 0, 0);
            }
            n += step;
            // The primary has nine requests for each of the canary's.
            s0 += events(rng, 9 * step, p0);
            s1 += events(rng, step, p1);
            difference(Count::of(s0, 9 * n), Count::of(s1, n), margin)
        })
    };
    let (passed, failed) = case(0.01, 0.03);
    assert!(passed <= ALPHA && failed <= BETA, "at the margin: {passed} passed, {failed} failed");
    let (passed, failed) = case(0.01, 0.01);
    assert!(passed >= 0.99 && failed == 0.0, "equal: {passed} passed, {failed} failed");
    let (passed, failed) = case(0.01, 0.05);
    assert!(passed <= 0.01 && failed >= 0.99, "bad: {passed} passed, {failed} failed");
}

#[test]
fn a_distance_is_decided_within_the_stated_errors() {
    let limit = 0.1;
    let case = |moved: f64| {
        let mut counts = [[0_u64; 4]; 2];
        shares(500, 20_000, move |rng, step| {
            if step == 0 {
                counts = [[0; 4]; 2];
            }
            for (side, shift) in [0.0, moved].into_iter().enumerate() {
                for _ in 0..step {
                    // The first cell's share, a quarter, moves to the last.
                    let u = rng.f64();
                    let cell =
                        if u < 0.25 - shift { 0 } else { ((u + shift) * 4.0).min(3.0) as usize };
                    counts[side][cell.min(3)] += 1;
                }
            }
            distance(&counts[0], &counts[1], limit)
        })
    };
    let (passed, failed) = case(0.0);
    assert!(passed >= 0.99 && failed == 0.0, "same: {passed} passed, {failed} failed");
    let (passed, failed) = case(0.2);
    assert!(passed == 0.0 && failed >= 0.99, "far: {passed} passed, {failed} failed");
}

#[test]
fn evidence_of_known_counts() {
    // No event in 300 cases against 2 %: the mixture loses to the best bet, 300 ln(1 / 0.98).
    let evidence = rate(Count::of(0, 300), 0.02);
    assert!(evidence.within > 3.0 && evidence.within < 300.0 * 0.0202, "{evidence:?}");
    assert!(evidence.beyond < 0.0);
    // What is as likely on either side.
    let evidence = rate(Count::of(500, 1_000), 0.5);
    assert!((evidence.within - evidence.beyond).abs() < 1e-6);
    // Fractions count as well.
    let half = rate(Count { n: 200.0, sum: 20.5 }, 0.02);
    let (less, more) = (rate(Count::of(20, 200), 0.02), rate(Count::of(21, 200), 0.02));
    assert!(less.beyond < half.beyond && half.beyond < more.beyond);
    // Huge counts are no trouble.
    let evidence = rate(Count::of(20_000_000, 2_000_000_000), 0.0101);
    assert!(evidence.within > 100.0, "{evidence:?}");
}

#[test]
fn nothing_breaks_it() {
    let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0, 0.5, 1.0, 1e300];
    for n in odd {
        for sum in odd {
            for limit in odd {
                let count = Count { n, sum };
                for evidence in [
                    rate(count, limit),
                    difference(count, Count::of(3, 9), limit),
                    difference(Count::of(0, 4), count, limit),
                ] {
                    assert!(
                        !evidence.within.is_nan() && !evidence.beyond.is_nan(),
                        "{count:?} {limit}"
                    );
                }
            }
        }
    }
    assert_eq!(rate(Count::default(), 0.1), Evidence::default());
    assert_eq!(distance(&[], &[], 0.1), Evidence::default());
    assert_eq!(distance(&[1, 2], &[1], 0.1), Evidence::default());
    let thresholds = Thresholds::new(f64::NAN, 0.0);
    assert!(thresholds.pass > 20.0 && thresholds.fail > 20.0);
    assert_eq!(Evidence::default().decide(Thresholds::new(1.0, 1.0)), Decision::Fail);
}
