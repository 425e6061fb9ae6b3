//! Keys to versions, by weighted rendezvous hashing (Thaler and Ravishankar 1998; weights by
//! exponential races as in Schindelhauer and Schomaker 2005).
//!
//! Each version draws, from the hash of the key and its own number, an arrival time that is
//! exponential with its weight as the rate; the first one gets the key. So a key always goes to the
//! same version, on every replica and after every restart; and changing one version's weight moves
//! keys to that version, or away from it, and no others.

use crate::stats::hash::{hash, scramble};

/// A name as a salt: the same key falls differently for every model, so that nobody is among the
/// first to try every model's candidate.
#[must_use]
pub fn salt(name: &str) -> u64 {
    scramble(hash(name.as_bytes()))
}

/// The position among `weights` (number, weight) that gets `key`; nothing where none has a weight
/// above 0. O(versions).
#[must_use]
pub fn choose(key: &[u8], salt: u64, weights: impl IntoIterator<Item = (u64, f64)>) -> Option<u64> {
    let key = hash(key) ^ salt;
    let mut first: Option<(f64, u64)> = None;
    for (number, weight) in weights {
        // A weight of NaN is no weight.
        if weight.is_nan() || weight <= 0.0 {
            continue;
        }
        let bits = scramble(key ^ scramble(number));
        // In the middle of 2^53 steps: never 0, never 1.
        let uniform = ((bits >> 11) as f64 + 0.5) / 2_f64.powi(53);
        let time = -uniform.ln() / weight;
        if first.is_none_or(|(least, _)| time < least) {
            first = Some((time, number));
        }
    }
    first.map(|(_, number)| number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEYS: u64 = 4_000;

    fn keys() -> impl Iterator<Item = [u8; 8]> {
        (0..KEYS).map(|n| scramble(n).to_le_bytes())
    }

    fn owners(weights: &[(u64, f64)]) -> Vec<u64> {
        keys().map(|key| choose(&key, 7, weights.iter().copied()).unwrap()).collect()
    }

    /// Six standard deviations of a share of so many keys.
    fn noise(share: f64) -> f64 {
        6.0 * (share * (1.0 - share) / KEYS as f64).sqrt() + 1e-3
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_version_gets_its_share(weights in prop::collection::vec(0.0..1.0_f64, 1..6)) {
            let weights: Vec<(u64, f64)> = (1..).zip(weights.iter().map(|w| w + 0.01)).collect();
            let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
            let owners = owners(&weights);
            for (number, weight) in &weights {
                let share = owners.iter().filter(|owner| *owner == number).count() as f64;
                let expected = weight / total;
                prop_assert!((share / KEYS as f64 - expected).abs() < noise(expected));
            }
        }

        #[test]
        fn a_changed_weight_moves_keys_to_or_from_its_version_alone(
            weights in prop::collection::vec(0.01..1.0_f64, 2..6),
            changed in 0_usize..6,
            factor in 0.0..4.0_f64,
        ) {
            let before: Vec<(u64, f64)> = (1..).zip(weights).collect();
            let mut after = before.clone();
            let changed = changed % after.len();
            after[changed].1 *= factor;
            let number = after[changed].0;
            for (old, new) in owners(&before).into_iter().zip(owners(&after)) {
                if old != new {
                    let expected = if factor > 1.0 { new } else { old };
                    prop_assert_eq!(expected, number, "{} -> {}", old, new);
                }
            }
        }
    }

    #[test]
    fn nobody_without_a_weight_gets_a_key() {
        assert_eq!(choose(b"key", 0, []), None);
        assert_eq!(choose(b"key", 0, [(1, 0.0), (2, f64::NAN), (3, -1.0)]), None);
        assert_eq!(choose(b"key", 0, [(1, 0.0), (2, 1e-300)]), Some(2));
    }

    #[test]
    fn models_split_their_keys_differently() {
        let weights = [(1, 0.5), (2, 0.5)];
        let of = |model: &str| -> Vec<Option<u64>> {
            keys().map(|key| choose(&key, salt(model), weights)).collect()
        };
        let same = of("a").iter().zip(of("b")).filter(|(a, b)| **a == *b).count() as f64;
        assert!((same / KEYS as f64 - 0.5).abs() < noise(0.5), "{same}");
    }
}
