//! A model's policy, and what steers it beside the configuration.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::split;
use crate::config::Sticky;

/// What a version is to its model: the metric label `slot`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slot {
    /// It answers requests that name no version.
    Primary,
    /// It answers a share of the requests that name no version.
    Canary,
    /// It gets copies of requests that the primary answered, and answers only those that name it.
    Shadow,
    /// It answers only requests that name it.
    Standby,
}

impl Slot {
    /// The value of the metric label `slot`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Canary => "canary",
            Self::Shadow => "shadow",
            Self::Standby => "standby",
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// A model's policy: of versions that can serve, all of them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Policy {
    /// The version that answers requests that name none and that no canary answers.
    pub primary: u64,
    /// Names for versions.
    pub aliases: BTreeMap<String, u64>,
    /// Versions that answer a share of the requests that name none: number and share, 1 for all.
    pub canaries: Vec<(u64, f64)>,
    /// Versions that get copies: number and share of the requests that the primary answered.
    pub shadows: Vec<(u64, f64)>,
    /// What of a request decides which version answers it.
    pub sticky: Sticky,
    /// What tells this model's split from those of others.
    pub salt: u64,
    /// Whether [`Steering`] is in force, and not what the configuration says.
    pub is_steered: bool,
}

impl Policy {
    /// The version number that `wanted` stands for: a number, an alias, or nothing for the
    /// primary. `None` where `wanted` is neither. The version need not be live.
    #[must_use]
    pub fn choose(&self, wanted: Option<&str>) -> Option<u64> {
        match wanted {
            None => Some(self.primary),
            Some(name) => name.parse().ok().or_else(|| self.aliases.get(name).copied()),
        }
    }

    /// The version that answers a request with that key, which names no version: the primary but
    /// for the canaries' shares. The same key always gets the same version, for as long as the
    /// shares are the same.
    #[must_use]
    pub fn split(&self, key: &[u8]) -> u64 {
        if self.canaries.is_empty() {
            return self.primary;
        }
        let of_canaries: f64 = self.canaries.iter().map(|(_, share)| share).sum();
        let primary = (self.primary, 1.0 - of_canaries);
        let weights = self.canaries.iter().copied().chain([primary]);
        split::choose(key, self.salt, weights).unwrap_or(self.primary)
    }

    /// What the version of that number is to the model.
    #[must_use]
    pub fn slot(&self, version: u64) -> Slot {
        let among = |list: &[(u64, f64)]| list.iter().any(|(number, _)| *number == version);
        if version == self.primary {
            Slot::Primary
        } else if among(&self.canaries) {
            Slot::Canary
        } else if among(&self.shadows) {
            Slot::Shadow
        } else {
            Slot::Standby
        }
    }
}

/// What is to serve of a model, by numbers: overrides the configuration's primary, canaries and
/// shadows for as long as it is in force. A rollout steers by it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Steering {
    /// The version that answers what no canary answers.
    pub primary: u64,
    /// Versions that answer a share of the requests: number and share, 1 for all.
    #[serde(default)]
    pub canaries: Vec<(u64, f64)>,
    /// Versions that get copies: number and share, 1 for all.
    #[serde(default)]
    pub shadows: Vec<(u64, f64)>,
    /// Versions that stay loaded beside them, so that going back to one is a swap.
    #[serde(default)]
    pub warm: Vec<u64>,
}

impl Steering {
    /// Everything to the version of that number.
    #[must_use]
    pub fn primary(primary: u64) -> Self {
        Self { primary, canaries: Vec::new(), shadows: Vec::new(), warm: Vec::new() }
    }

    /// All versions that it names, which must be loaded.
    pub fn versions(&self) -> impl Iterator<Item = u64> {
        let shared = self.canaries.iter().chain(&self.shadows).map(|(number, _)| *number);
        [self.primary].into_iter().chain(shared).chain(self.warm.iter().copied())
    }

    /// Why it cannot be obeyed, whatever versions there are.
    pub fn check(&self) -> Result<(), String> {
        if self.versions().any(|number| number == 0) {
            return Err("version numbers begin with 1".to_owned());
        }
        check_shares("canaries", self.primary, &self.canaries)?;
        check_shares("shadows", self.primary, &self.shadows)?;
        let total: f64 = self.canaries.iter().map(|(_, share)| share).sum();
        if total > 1.0 + 1e-9 {
            return Err(format!("the shares of the canaries add up to {total}, which is above 1"));
        }
        Ok(())
    }
}

fn check_shares(what: &str, primary: u64, shares: &[(u64, f64)]) -> Result<(), String> {
    for (position, (number, share)) in shares.iter().enumerate() {
        if !(0.0..=1.0).contains(share) {
            return Err(format!("{what}: expected shares from 0 to 1, got {share}"));
        }
        if *number == primary {
            return Err(format!("{what}: version {number} is the primary"));
        }
        if shares[..position].iter().any(|(other, _)| other == number) {
            return Err(format!("{what}: version {number} stands there twice"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_aliases_and_the_primary() {
        let aliases = BTreeMap::from([("stable".to_owned(), 3)]);
        let policy = Policy { primary: 4, aliases, ..Policy::default() };
        for (wanted, expected) in [
            (None, Some(4)),
            (Some("7"), Some(7)),
            (Some("stable"), Some(3)),
            (Some("canary"), None),
            (Some("-1"), None),
            (Some(""), None),
        ] {
            assert_eq!(policy.choose(wanted), expected, "{wanted:?}");
        }
        assert_eq!(policy.slot(4), Slot::Primary);
        assert_eq!(policy.slot(3), Slot::Standby);
    }

    #[test]
    fn a_version_that_answers_a_share_is_a_canary_though_it_gets_copies_as_well() {
        let (canaries, shadows) = (vec![(2, 0.1)], vec![(2, 1.0), (3, 0.5)]);
        let policy = Policy { primary: 1, canaries, shadows, ..Policy::default() };
        let slots = [1, 2, 3, 4].map(|version| policy.slot(version));
        assert_eq!(slots, [Slot::Primary, Slot::Canary, Slot::Shadow, Slot::Standby]);
    }

    fn owners(canaries: &[(u64, f64)]) -> Vec<u64> {
        let policy = Policy { primary: 1, canaries: canaries.to_vec(), ..Policy::default() };
        (0..4000).map(|key: u32| policy.split(format!("user-{key}").as_bytes())).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// One canary: a key moves only between it and the primary, and only in the direction of
        /// the change.
        #[test]
        fn a_canarys_new_share_moves_what_it_must(from in 0.0..1.0_f64, to in 0.0..1.0_f64) {
            let (before, after) = (owners(&[(2, from)]), owners(&[(2, to)]));
            let moved: Vec<_> = before.iter().zip(&after).filter(|(old, new)| old != new).collect();
            let expected = if to > from { (&1, &2) } else { (&2, &1) };
            prop_assert!(moved.iter().all(|pair| *pair == expected));
            let share = moved.len() as f64 / before.len() as f64;
            prop_assert!((share - (to - from).abs()).abs() < 0.05, "{share} of {from} -> {to}");
        }

        /// More canaries: none takes a key from another whose share is the same.
        #[test]
        fn other_canaries_do_not_trade(a in 0.0..0.3_f64, b in 0.0..0.3_f64, c in 0.0..0.3_f64, to in 0.0..0.4_f64) {
            let (before, after) = (owners(&[(2, a), (3, b), (4, c)]), owners(&[(2, to), (3, b), (4, c)]));
            let traded = before.iter().zip(&after).filter(|(old, new)| {
                old != new && [3, 4].contains(*old) && [3, 4].contains(*new)
            });
            prop_assert_eq!(traded.count(), 0);
            let moved = before.iter().zip(&after).filter(|(old, new)| old != new).count() as f64;
            let least = (to - a).abs();
            let most = least * (1.0 + 2.0 * (b + c) / (1.0 - b - c).max(0.1)) + 0.05;
            prop_assert!(moved / before.len() as f64 <= most, "{moved} beyond {most}");
        }
    }

    #[test]
    fn what_cannot_be_obeyed_is_said() {
        let mut steering = Steering::primary(1);
        assert_eq!(steering.check(), Ok(()));
        steering.canaries = vec![(2, 0.6), (3, 0.5)];
        assert!(steering.check().unwrap_err().contains("add up to 1.1"));
        steering.canaries = vec![(1, 0.1)];
        assert!(steering.check().unwrap_err().contains("version 1 is the primary"));
        steering.canaries = vec![(2, f64::NAN)];
        assert!(steering.check().unwrap_err().contains("from 0 to 1, got NaN"));
        steering.canaries = vec![(2, 0.1), (2, 0.2)];
        assert!(steering.check().unwrap_err().contains("twice"));
        steering = Steering { shadows: vec![(0, 1.0)], ..Steering::primary(1) };
        assert!(steering.check().unwrap_err().contains("begin with 1"));
        let read: Steering = serde_json::from_str("{\"primary\":2,\"warm\":[1]}").unwrap();
        assert_eq!(read.versions().collect::<Vec<_>>(), [2, 1]);
    }
}
