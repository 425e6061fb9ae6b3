//! Bounds on the mean of values in [0, 1] that hold at every moment, and a test against a limit
//! that may be looked at after every value.
//!
//! Sources:
//! - Podkopaev and Ramdas, *Tracking the risk of a deployed model and detecting harmful
//!   distribution shifts*, ICLR 2022 (arXiv 2110.06177): alarm when the lower confidence bound of
//!   the live loss is beyond the upper bound of the reference's loss plus a tolerance.
//! - Waudby-Smith and Ramdas, *Estimating means of bounded random variables by betting*, JRSS B
//!   2023 (arXiv 2010.09686): the products `∏ (1 + λ (x − m))`.
//! - Shin, Ramdas and Rinaldo, *E-detectors* (arXiv 2203.03532): sums of such products over all
//!   starting points (Shiryaev–Roberts), whose run length without a change is bounded below.
//! - Howard, Ramdas, McAuliffe and Sekhon, *Time-uniform, nonparametric, nonasymptotic confidence
//!   sequences*, Annals of Statistics 2021 (arXiv 1810.08240): the interval.

use serde::{Deserialize, Serialize};

/// The upper confidence bound of a mean, from `n` independent values in [0, 1] with this mean and
/// variance (of the population): beyond the true mean with probability at least `1 − delta`.
///
/// The smaller of two bounds, each at `delta / 2`: Hoeffding's in its Kullback–Leibler form
/// (1963, theorem 1), sharp for values that are 0 or 1, and the empirical Bernstein bound of
/// Maurer and Pontil (2009, theorem 4), sharp for values that vary little. 1 where there are
/// fewer than two values. O(1).
#[must_use]
pub fn upper_bound(mean: f64, variance: f64, n: f64, delta: f64) -> f64 {
    if !(n >= 2.0 && mean.is_finite() && variance.is_finite() && delta > 0.0) {
        return 1.0;
    }
    let mean = mean.clamp(0.0, 1.0);
    let log = (2.0 / delta).ln();
    // Maurer and Pontil use the sample variance.
    let variance = variance.max(0.0) * n / (n - 1.0);
    let log_2 = std::f64::consts::LN_2 + log;
    let bernstein = mean + (2.0 * variance * log_2 / n).sqrt() + 7.0 * log_2 / (3.0 * (n - 1.0));
    let (mut low, mut high) = (mean, 1.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if n * divergence(mean, middle) <= log { low = middle } else { high = middle }
    }
    bernstein.min(high).min(1.0)
}

/// Kullback–Leibler divergence of two coins, in nats.
fn divergence(p: f64, q: f64) -> f64 {
    let term = |p: f64, q: f64| if p > 0.0 { p * (p / q).ln() } else { 0.0 };
    term(p, q) + term(1.0 - p, 1.0 - q)
}

/// An interval for the running mean of the true means of all values so far, at all times together.
///
/// The empirical Bernstein confidence sequence of Howard et al. 2021 (theorem 4) with the
/// polynomial stitched boundary (theorem 1; η = 2, s = 1.4, m = 1, c = 1). The values may depend
/// on each other and their means may change: it covers the mean of the conditional means.
/// O(1) a value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConfidenceSequence {
    /// Probability that it ever misses.
    alpha: f64,
    n: u64,
    sum: f64,
    /// Squared differences of each value from the mean of those before it.
    spread: f64,
}

impl ConfidenceSequence {
    /// One that ever misses with probability at most `alpha`.
    #[must_use]
    pub fn new(alpha: f64) -> Self {
        Self { alpha, n: 0, sum: 0.0, spread: 0.0 }
    }

    /// Takes a value, clipped to [0, 1]. NaN is passed over.
    pub fn update(&mut self, x: f64) {
        if x.is_nan() {
            return;
        }
        let x = x.clamp(0.0, 1.0);
        // Predicts the first values by a half, which is forgotten as they come.
        let predicted = (self.sum + 0.5) / (self.n as f64 + 1.0);
        self.spread += (x - predicted) * (x - predicted);
        self.sum += x;
        self.n += 1;
    }

    /// Values taken.
    #[must_use]
    pub fn n(&self) -> u64 {
        self.n
    }

    /// Their mean, where there are any.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.n > 0).then(|| self.sum / self.n as f64)
    }

    /// The interval; all of [0, 1] while there is nothing.
    #[must_use]
    pub fn interval(&self) -> (f64, f64) {
        const S: f64 = 1.4;
        /// Riemann's zeta function at 1.4.
        const ZETA: f64 = 3.105_547_277_977_58;
        let Some(mean) = self.mean() else { return (0.0, 1.0) };
        let v = self.spread.max(1.0);
        let root = 2f64.powf(0.25);
        let k1 = (root + 1.0 / root) / std::f64::consts::SQRT_2;
        let k2 = f64::midpoint(std::f64::consts::SQRT_2, 1.0);
        let l = S * (1.0 + v.log2()).ln() + (ZETA * 2.0 / self.alpha).ln();
        let bound = (k1 * k1 * v * l + k2 * k2 * l * l).sqrt() + k2 * l;
        let half = bound / self.n as f64;
        ((mean - half).max(0.0), (mean + half).min(1.0))
    }
}

/// By how much the variance of sums of successive values exceeds that of independent ones: the
/// largest ratio over sums of 2, 4, 8, ... values, of which there are at least 64 each. Ratios
/// within three standard errors of 1 count as 1; so does everything of fewer than 128 values.
/// O(n).
#[must_use]
pub fn long_run_factor(values: &[f64]) -> f64 {
    const FEWEST: usize = 64;
    let variance = |values: &[f64]| {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        values.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (n - 1.0)
    };
    let single = if values.len() < 2 * FEWEST { 0.0 } else { variance(values) };
    if single <= 0.0 || !single.is_finite() {
        return 1.0;
    }
    let mut factor = 1.0f64;
    let mut sums = values.to_vec();
    let mut length = 1.0;
    while sums.len() >= 2 * FEWEST {
        sums = sums.as_chunks::<2>().0.iter().map(|[a, b]| a + b).collect();
        length *= 2.0;
        let ratio = variance(&sums) / (length * single);
        let error = (2.0 / (sums.len() as f64 - 1.0)).sqrt();
        if ratio > 1.0 + 3.0 * error {
            factor = factor.max(ratio);
        }
    }
    factor
}

/// Bets of a [`RiskTest`], as shares of the largest that is allowed (1 / limit).
const BETS: [f64; 16] = [
    0.9, 0.6, 0.4, 0.27, 0.18, 0.12, 0.08, 0.053, 0.035, 0.023, 0.015, 0.01, 0.0065, 0.0042,
    0.0028, 0.0018,
];

/// Evidence beyond which sums no longer grow, above what means an alarm: so that a stream that is
/// well again is seen to be so soon.
const HEADROOM: f64 = 6.0;

/// A sequential test of "the mean loss is at most `limit`" against a change at any time.
///
/// For each bet λ it keeps the Shiryaev–Roberts sum `R ← (R + w) (1 + λ (x − limit))` over all
/// starting points, of weight w. While the conditional mean of each loss is at most the limit,
/// `mean over bets of R` minus the weights given so far has expectation at most 0 at every
/// stopping time; so the expected sum of weights until `R ≥ c` is at least c. Weights sum to at
/// most 1 a *start*: with a start a tick, at least c ticks pass between false alarms, on average;
/// with a start a label, c labels.
///
/// Within a tick, the first label's weight is ½; each 256th label after it starts anew with weight
/// ½ / (j (j + 1)), so that a change in the midst of a large batch of labels is found.
/// Losses that depend on those before them (their conditional mean wanders about the limit) break
/// the premise. Factors are therefore tempered: raised to the power of one over the losses'
/// long-run variance factor. To the second order this is the bet that is right for sums of that
/// variance; it is measured, not proven.
///
/// O(16) a loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RiskTest {
    limit: f64,
    /// One over the variance factor.
    temper: f64,
    cap: f64,
    bets: Vec<Bet>,
    /// Labels since the last start.
    n_started: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Bet {
    lambda: f64,
    sum: f64,
    /// The largest product over starting points (Page's cumulative sum), as a logarithm: where it
    /// began is the estimated onset.
    page: f64,
    onset: u64,
    n_since: u64,
    loss_since: f64,
}

/// Where a change is estimated to have begun.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Onset {
    /// The time that the first loss after it was given with.
    pub at: u64,
    /// Losses since.
    pub n: u64,
    /// Their mean.
    pub mean: f64,
}

impl RiskTest {
    /// Labels between the starts within one tick.
    const STRIDE: u64 = 256;

    /// A test against `limit`, clipped to (0, 1), whose evidence need not grow far beyond
    /// `threshold`. `variance_factor` is that of [`long_run_factor`], at least 1.
    #[must_use]
    pub fn new(limit: f64, threshold: f64, variance_factor: f64) -> Self {
        let temper = if variance_factor > 1.0 { 1.0 / variance_factor } else { 1.0 };
        let limit = if limit.is_nan() { 1.0 } else { limit.clamp(1e-6, 1.0) };
        let cap = (threshold + HEADROOM).min(600.0).exp();
        let bet = |share: f64| Bet {
            lambda: share / limit,
            sum: 0.0,
            page: 0.0,
            onset: 0,
            n_since: 0,
            loss_since: 0.0,
        };
        Self { limit, temper, cap, bets: BETS.map(bet).to_vec(), n_started: 0 }
    }

    /// The limit.
    #[must_use]
    pub fn limit(&self) -> f64 {
        self.limit
    }

    /// A tick begins (or, where runs are counted in labels, the next label comes).
    pub fn start(&mut self) {
        self.n_started = 0;
    }

    /// Takes a loss, clipped to [0, 1], that came at `at`. NaN is passed over.
    pub fn update(&mut self, loss: f64, at: u64) {
        if loss.is_nan() {
            return;
        }
        let loss = loss.clamp(0.0, 1.0);
        let weight = match self.n_started {
            0 => 0.5,
            n if n % Self::STRIDE == 0 => {
                let j = (n / Self::STRIDE) as f64;
                0.5 / (j * (j + 1.0))
            }
            _ => 0.0,
        };
        self.n_started += 1;
        for bet in &mut self.bets {
            let factor = 1.0 + bet.lambda * (loss - self.limit);
            let log = factor.ln() * self.temper;
            let factor = if self.temper == 1.0 { factor } else { log.exp() };
            bet.sum = ((bet.sum + weight) * factor).min(self.cap);
            if bet.page <= 0.0 {
                (bet.page, bet.onset, bet.n_since, bet.loss_since) = (0.0, at, 0, 0.0);
            }
            bet.page += log;
            bet.n_since += 1;
            bet.loss_since += loss;
        }
    }

    /// The logarithm of the mean sum.
    #[must_use]
    pub fn evidence(&self) -> f64 {
        let sum: f64 = self.bets.iter().map(|bet| bet.sum).sum();
        (sum / self.bets.len() as f64).ln()
    }

    /// Where the bet that gained most began to gain; nothing where none did.
    #[must_use]
    pub fn onset(&self) -> Option<Onset> {
        let best = self.bets.iter().max_by(|a, b| a.page.total_cmp(&b.page))?;
        (best.page > 0.0).then(|| Onset {
            at: best.onset,
            n: best.n_since,
            mean: best.loss_since / best.n_since as f64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bit(rng: &mut fastrand::Rng, share: f64) -> f64 {
        f64::from(u8::from(rng.f64() < share))
    }

    /// A bit that is 1 in a tenth of the cases and stays what it was with probability `stay`.
    fn sticky(rng: &mut fastrand::Rng, last: f64, stay: f64) -> f64 {
        if rng.f64() < stay { last } else { bit(rng, 0.1) }
    }

    #[test]
    fn upper_bounds_are_rarely_below_the_truth() {
        let mut rng = fastrand::Rng::with_seed(3);
        for (share, n) in [(0.1, 200), (0.02, 1_000), (0.5, 500)] {
            let mut n_below = 0;
            for _ in 0..500 {
                let mean = (0..n).map(|_| bit(&mut rng, share)).sum::<f64>() / f64::from(n);
                let bound = upper_bound(mean, mean * (1.0 - mean), f64::from(n), 0.05);
                assert!(bound > mean && bound < mean + 0.15);
                n_below += usize::from(bound < share);
            }
            assert!(n_below <= 25, "{n_below} of 500 where 25 are allowed");
        }
        assert_eq!(upper_bound(0.5, 0.25, 1.0, 0.05), 1.0);
        assert_eq!(upper_bound(f64::NAN, 0.25, 100.0, 0.05), 1.0);
        // No error in 1,000 rows bounds the rate by ln(2 / 0.05) / 1000.
        assert!((upper_bound(0.0, 0.0, 1e3, 0.05) - 0.00368).abs() < 1e-4);
    }

    #[test]
    fn the_interval_covers_at_all_times_a_mean_that_moves() {
        let mut n_missed = 0;
        for seed in 0..100 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut sequence = ConfidenceSequence::new(0.05);
            let (mut sum, mut has_missed) = (0.0, false);
            for n in 1..=5_000 {
                let share = if n % 2_000 < 1_000 { 0.1 } else { 0.5 };
                sum += share;
                sequence.update(bit(&mut rng, share));
                let (low, high) = sequence.interval();
                has_missed |= !(low..=high).contains(&(sum / f64::from(n)));
            }
            n_missed += usize::from(has_missed);
            let (low, high) = sequence.interval();
            assert!(high - low < 0.08, "{low} to {high}");
        }
        assert!(n_missed <= 5, "{n_missed} of 100");
        assert_eq!(ConfidenceSequence::new(0.05).interval(), (0.0, 1.0));
    }

    /// Labels between alarms of streams whose mean loss is the limit itself, the worst of the null.
    #[test]
    fn null_streams_alarm_no_more_often_than_promised() {
        let promised = 200.0f64;
        let n = 400_000;
        for tick in [1, 50] {
            let mut rng = fastrand::Rng::with_seed(1);
            let new = || RiskTest::new(0.1, promised.ln(), 1.0);
            let (mut test, mut starts, mut alarms) = (new(), 0.0, 0.0);
            for i in 0..n {
                if i % tick == 0 {
                    test.start();
                    starts += 1.0;
                }
                test.update(bit(&mut rng, 0.1), i);
                if test.evidence() >= promised.ln() {
                    alarms += 1.0;
                    test = new();
                }
            }
            let between = starts / f64::max(alarms, 1.0);
            assert!(between >= promised, "ticks of {tick}: {between} starts an alarm");
        }
    }

    #[test]
    fn losses_that_stick_together_are_tempered() {
        let promised = 500.0f64;
        let stay = 0.8;
        let mut rng = fastrand::Rng::with_seed(5);
        let mut last = 0.0;
        let mut next = |rng: &mut fastrand::Rng| {
            last = sticky(rng, last, stay);
            last
        };
        let reference: Vec<f64> = (0..50_000).map(|_| next(&mut rng)).collect();
        let factor = long_run_factor(&reference);
        // (1 + 0.8) / (1 − 0.8) = 9.
        assert!((7.0..12.0).contains(&factor), "{factor}");
        let alarms = |factor: f64,
                      rng: &mut fastrand::Rng,
                      next: &mut dyn FnMut(&mut fastrand::Rng) -> f64| {
            let mut test = RiskTest::new(0.1, promised.ln(), factor);
            let mut alarms = 0;
            for i in 0..200_000 {
                test.start();
                test.update(next(rng), i);
                if test.evidence() >= promised.ln() {
                    alarms += 1;
                    test = RiskTest::new(0.1, promised.ln(), factor);
                }
            }
            alarms
        };
        let tempered = alarms(factor, &mut rng, &mut next);
        let plain = alarms(1.0, &mut rng, &mut next);
        assert!(tempered <= 400 && plain > 400, "{tempered} tempered, {plain} plain");
        let independent: Vec<f64> = (0..50_000).map(|_| bit(&mut rng, 0.1)).collect();
        assert!(long_run_factor(&independent) < 1.1);
        assert_eq!(long_run_factor(&[1.0; 100]), 1.0);
        assert_eq!(long_run_factor(&[f64::NAN; 1_000]), 1.0);
    }

    #[test]
    fn a_rise_is_found_soon_whenever_it_comes() {
        // One false alarm in 30 days of ticks of a second.
        let threshold = 2_592_000f64.ln();
        for (before, allowed) in [(0, 700.0), (20_000, 700.0)] {
            let mut total = 0.0;
            for seed in 0..20 {
                let mut rng = fastrand::Rng::with_seed(seed);
                let mut test = RiskTest::new(0.1, threshold, 1.0);
                let mut n = 0;
                while test.evidence() < threshold && n < before + 10_000 {
                    if n % 50 == 0 {
                        test.start();
                    }
                    let share = if n < before { 0.08 } else { 0.18 };
                    test.update(bit(&mut rng, share), n);
                    n += 1;
                }
                let onset = test.onset().unwrap();
                assert!(n > before && onset.at + 600 > before, "{n}, {onset:?}");
                assert!((onset.mean - 0.18).abs() < 0.09);
                total += (n - before) as f64;
            }
            let mean = total / 20.0;
            assert!(mean < allowed, "{mean} labels after {before}");
        }
    }

    #[test]
    fn nothing_breaks_it() {
        for limit in [f64::NAN, -1.0, 0.0, 1.0, 7.0] {
            let mut test = RiskTest::new(limit, 1e9, 1.0);
            for x in [f64::NAN, f64::INFINITY, -5.0, 0.0, 1.0] {
                (0..3_000).for_each(|at| test.update(x, at));
            }
            assert!(!test.evidence().is_nan());
        }
    }
}
