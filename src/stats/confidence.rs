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
        const ZETA: f64 = 3.105_547_279_777_589;
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
/// O(16) a loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RiskTest {
    limit: f64,
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
    /// `threshold`.
    #[must_use]
    pub fn new(limit: f64, threshold: f64) -> Self {
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
        Self { limit, cap, bets: BETS.map(bet).to_vec(), n_started: 0 }
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
            bet.sum = ((bet.sum + weight) * factor).min(self.cap);
            if bet.page <= 0.0 {
                (bet.page, bet.onset, bet.n_since, bet.loss_since) = (0.0, at, 0, 0.0);
            }
            bet.page += factor.ln();
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
