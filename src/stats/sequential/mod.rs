//! Gates: is a rate beyond a limit or within it? Decided from cumulative counts, at any time and
//! as often as one likes, at error rates that the user states.
//!
//! Each function gives two pieces of evidence, the natural logarithms of e-values: that the
//! candidate is *within* the limit (against "it is beyond") and that it is *beyond* (against "it
//! is within"). By Ville's inequality an e-value of a true hypothesis ever reaches `1 / alpha`
//! with probability at most `alpha`, whenever one looks and stops. So a gate passes at
//! `within ≥ ln(1 / alpha)`, fails at `beyond ≥ ln(1 / beta)`, and says "not yet" before.
//!
//! Sources:
//! - Robbins, *Statistical methods related to the law of the iterated logarithm*, Annals of
//!   Mathematical Statistics 1970: mixtures of likelihood ratios bound a sum at all times.
//! - Howard, Ramdas, McAuliffe and Sekhon, Annals of Statistics 2021 (arXiv 1810.08240), appendix:
//!   the one-sided and two-sided beta-binomial mixtures.
//! - Waudby-Smith and Ramdas, JRSS B 2023 (arXiv 2010.09686): the same for values in [0, 1], since
//!   `u^x v^(1 − x) ≤ u x + v (1 − x)`.
//! - Wasserman, Ramdas and Balakrishnan, *Universal inference*, PNAS 2020 (arXiv 1912.11436): a
//!   composite hypothesis is refuted where the least of its members' evidence is large.

mod cells;
mod incomplete;
mod pair;
mod rate;

pub use cells::distance;
pub use pair::difference;
pub use rate::rate;

/// What a gate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The candidate is within the limit.
    Pass,
    /// It is beyond the limit.
    Fail,
    /// The counts do not tell yet.
    NotYet,
}

/// Evidence for either side: natural logarithms of e-values. 0 where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Evidence {
    /// Against "the rate is at least the limit".
    pub within: f64,
    /// Against "the rate is at most the limit".
    pub beyond: f64,
}

/// Evidence that decides.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// ln(1 / alpha): of [`Evidence::within`].
    pub pass: f64,
    /// ln(1 / beta): of [`Evidence::beyond`].
    pub fail: f64,
}

impl Thresholds {
    /// For a gate that passes what is beyond the limit with probability at most `alpha`, and fails
    /// what is within it with probability at most `beta`. Both are clipped to [1e-12, 1].
    #[must_use]
    pub fn new(alpha: f64, beta: f64) -> Self {
        let threshold = |rate: f64| -(if rate > 1e-12 { rate.min(1.0) } else { 1e-12 }).ln();
        Self { pass: threshold(alpha), fail: threshold(beta) }
    }
}

impl Evidence {
    /// What it says at these thresholds. Where both sides were refuted, the failure counts: the
    /// premise that the rate stands still does not hold then.
    #[must_use]
    pub fn decide(&self, thresholds: Thresholds) -> Decision {
        if self.beyond >= thresholds.fail {
            Decision::Fail
        } else if self.within >= thresholds.pass {
            Decision::Pass
        } else {
            Decision::NotYet
        }
    }
}

/// Something that was counted: `sum` of `n` values in [0, 1], which are 0 or 1 where they are
/// events.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Count {
    /// Values.
    pub n: f64,
    /// Their sum.
    pub sum: f64,
}

impl Count {
    /// `sum` events in `n` cases.
    #[must_use]
    pub fn of(sum: u64, n: u64) -> Self {
        Self { n: n as f64, sum: sum as f64 }
    }

    /// The mean, where there is a value.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.n > 0.0).then(|| self.sum / self.n)
    }

    /// Itself where it makes sense, with `0 ≤ sum ≤ n`; nothing where it is empty.
    fn sound(self) -> Option<Self> {
        // More than a double counts exactly is no count.
        let is_sound = self.n > 0.0 && self.n <= 9e15 && !self.sum.is_nan();
        is_sound.then(|| Self { n: self.n, sum: self.sum.clamp(0.0, self.n) })
    }

    /// The logarithm of the likelihood at the rate `p`, strictly between 0 and 1.
    fn likelihood(&self, p: f64) -> f64 {
        self.sum * p.ln() + (self.n - self.sum) * (-p).ln_1p()
    }
}

/// ln B(a, b) of positive a and b.
fn ln_beta(a: f64, b: f64) -> f64 {
    use super::special::ln_gamma_positive as ln_gamma;
    ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b)
}

#[cfg(test)]
mod tests;
