//! Which version answers: pure policy, decided from names and numbers alone.
//!
//! A request may name a version by its number or by an alias; without one, the primary answers.
//! Weights, shadows and the comparison of answers will stand here as well: they too are functions
//! of a policy and a request, and know nothing of what a version is.

use std::collections::BTreeMap;
use std::fmt;

/// What a version is to its model: the metric label `slot`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slot {
    /// It answers requests that name no version.
    Primary,
    /// It answers only requests that name it.
    Standby,
}

impl Slot {
    /// The value of the metric label `slot`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Standby => "standby",
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// A model's policy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// The version that answers requests that name none.
    pub primary: u64,
    /// Names for versions.
    pub aliases: BTreeMap<String, u64>,
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

    /// What the version of that number is to the model.
    #[must_use]
    pub fn slot(&self, version: u64) -> Slot {
        if version == self.primary { Slot::Primary } else { Slot::Standby }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_aliases_and_the_primary() {
        let aliases = BTreeMap::from([("stable".to_owned(), 3)]);
        let policy = Policy { primary: 4, aliases };
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
}
