//! Findings in words, for people: which feature, which values, since when, how much.

use super::times;
use super::verdict::{State, WindowVerdict};

/// One sentence about a feature, such as `car_value drifted since about 2026-11-26 12:00:05 UTC:
/// (41, 57] rose from 6.2 % to 31 % of the values (PSI 0.310, 5000 values)`.
pub(super) fn feature(
    name: &str,
    state: State,
    onset: Option<u64>,
    window: Option<&WindowVerdict>,
) -> String {
    let verb = match state {
        State::Learning => "is being learned",
        State::Ok => "is as in the baseline",
        State::Suspected => "may be drifting",
        State::Drifted => "drifted",
        State::Recovered => "is back within the tolerance",
    };
    let since = onset.map(|at| format!(" since about {}", times::plain(at))).unwrap_or_default();
    let Some(window) = window else { return format!("{name} {verb}{since}") };
    let moved = window.moved.first().map(|moved| {
        let direction = if moved.actual >= moved.expected { "rose" } else { "fell" };
        let (from, to) = (percent(moved.expected), percent(moved.actual));
        format!(": {} {direction} from {from} to {to} of the values", moved.cell)
    });
    let moved = moved.unwrap_or_default();
    let psi = window.effects.psi_debiased.max(0.0);
    format!("{name} {verb}{since}{moved} (PSI {psi:.3}, {} values)", window.rows)
}

/// One sentence about a stream of which `drifted` names the features.
pub(super) fn stream(state: State, drifted: &[&str]) -> String {
    match (state, drifted) {
        (State::Learning, _) => "the baseline is being learned".to_owned(),
        (State::Ok, _) => "traffic is as in the baseline".to_owned(),
        (State::Suspected, _) => "traffic may be drifting".to_owned(),
        (State::Recovered, _) => "traffic is back within the tolerance".to_owned(),
        (State::Drifted, []) => {
            "traffic drifted: all features together, none of them by itself".to_owned()
        }
        (State::Drifted, names) => format!("traffic drifted: {}", names.join(", ")),
    }
}

/// `12 %`, with as many digits as tell it from nothing.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent {
        p if p >= 10.0 || p == 0.0 => format!("{p:.0} %"),
        p if p >= 1.0 => format!("{p:.1} %"),
        p => format!("{p:.2} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_keep_enough_digits() {
        let shown: Vec<_> = [0.0, 0.0004, 0.021, 0.5].map(percent).into();
        assert_eq!(shown, ["0 %", "0.04 %", "2.1 %", "50 %"]);
    }
}
