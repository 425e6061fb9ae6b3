//! What is made of evidence: the states of a feature and of a stream, which are latched.
//!
//! `ok` becomes `suspected` at a hundredth of what is promised to mean drift, and `drifted` at the
//! whole of it. A drift stays until the newest windows have been back within the tolerance for
//! some ticks in a row; then it is `recovered`, and evidence gathers anew. Whoever acknowledges a
//! drift ends its alerts, not the state.

use super::verdict::State;

/// Evidence short of drift, below which nothing is suspected: ln 100.
const SUSPICION: f64 = 4.605_170_185_988_091;

/// Ticks in a row that a drift must be back within the tolerance for, to have recovered.
const BACK: u32 = 20;

/// The state of one feature, or of a stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Latch {
    pub(super) state: State,
    /// When it began, in milliseconds since 1970.
    pub(super) since: u64,
    /// Whether somebody has seen the drift.
    pub(super) acknowledged: bool,
    /// Ticks back within the tolerance, in a row.
    back: u32,
}

/// What one tick says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signs {
    /// Evidence, a natural logarithm.
    pub(super) evidence: f64,
    /// Evidence that means drift.
    pub(super) threshold: f64,
    /// Whether the newest windows are within the tolerance.
    pub(super) is_back: bool,
}

impl Latch {
    pub(super) fn new(state: State, now: u64) -> Self {
        Self { state, since: now, acknowledged: false, back: 0 }
    }

    /// Takes a tick's signs; returns the state before, where it changed.
    pub(super) fn update(&mut self, signs: Signs, now: u64) -> Option<State> {
        let Signs { evidence, threshold, is_back } = signs;
        self.back = if is_back { self.back + 1 } else { 0 };
        let next = match self.state {
            State::Drifted if self.back >= BACK => State::Recovered,
            State::Drifted => State::Drifted,
            _ if evidence >= threshold => State::Drifted,
            _ if evidence >= threshold - SUSPICION => State::Suspected,
            // Shown until something else happens: a drift that came and went is news for a day.
            State::Recovered => State::Recovered,
            _ => State::Ok,
        };
        self.go_to(next, now)
    }

    /// Goes to `next`; returns the state before, where that is another.
    pub(super) fn go_to(&mut self, next: State, now: u64) -> Option<State> {
        if next == self.state {
            return None;
        }
        let before = std::mem::replace(&mut self.state, next);
        self.since = now;
        self.acknowledged = false;
        self.back = 0;
        Some(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drift_is_latched_until_it_is_back_for_a_while() {
        let mut latch = Latch::new(State::Ok, 0);
        let mut tick = |now, evidence, is_back| {
            latch.update(Signs { evidence, threshold: 10.0, is_back }, now);
            latch.state
        };
        assert_eq!(tick(1, 1.0, true), State::Ok);
        assert_eq!(tick(2, 6.0, true), State::Suspected);
        assert_eq!(tick(3, 1.0, true), State::Ok);
        assert_eq!(tick(4, 10.0, false), State::Drifted);
        assert_eq!(tick(5, 0.0, false), State::Drifted);
        for now in 6..25 {
            assert_eq!(tick(now, 0.0, true), State::Drifted, "{now}");
        }
        assert_eq!(tick(25, 0.0, true), State::Recovered);
        assert_eq!(tick(26, 0.0, true), State::Recovered);
        assert_eq!(tick(27, 11.0, false), State::Drifted);
    }
}
