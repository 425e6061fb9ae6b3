//! One rate against a limit.

use super::incomplete::{ln_lower, ln_upper};
use super::{Count, Evidence, ln_beta};

/// Evidence that the mean of the values of `count` is within or beyond `limit`, which is clipped
/// to (1e-9, 1 − 1e-9).
///
/// Each side is the mixture of likelihood ratios against `limit` over the rates on its own side
/// of it, weighted by a beta law with mean `limit` cut off there. Against every rate of the other
/// side each ratio is a supermartingale, also where the rate moves with time and past: what is
/// tested is "the conditional rate is never below (above) the limit". Values in between 0 and 1
/// count by the same formula. O(√n).
#[must_use]
pub fn rate(count: Count, limit: f64) -> Evidence {
    let Some(count) = count.sound() else { return Evidence::default() };
    if limit.is_nan() {
        return Evidence::default();
    }
    let limit = limit.clamp(1e-9, 1.0 - 1e-9);
    // As wide as the limit is far from 0 or 1: a rate twice the limit is in the midst of it.
    let (a, b) =
        if limit <= 0.5 { (1.0, (1.0 - limit) / limit) } else { (limit / (1.0 - limit), 1.0) };
    let (after_a, after_b) = (a + count.sum, b + count.n - count.sum);
    let both = ln_beta(after_a, after_b) - ln_beta(a, b) - count.likelihood(limit);
    Evidence {
        within: both + ln_lower(limit, after_a, after_b) - ln_lower(limit, a, b),
        beyond: both + ln_upper(limit, after_a, after_b) - ln_upper(limit, a, b),
    }
}
