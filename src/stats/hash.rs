//! Hashes that stay the same for ever: baselines hold them, and samples are drawn by them.
//!
//! A share of the requests is always taken by the hash of their ids, so that the same requests are
//! in every sample of the same share, on every replica: a prediction, its copies, its label and
//! its capture are in or out together.

/// The hash of the empty text. No other text has it.
pub const EMPTY: u64 = 0;

/// A 64-bit hash of `text`: words of 8 bytes folded into the 128-bit product with an odd constant.
/// It must never change. O(length).
#[must_use]
pub fn hash(text: &[u8]) -> u64 {
    if text.is_empty() {
        return EMPTY;
    }
    let fold = |state: u64, word: u64| {
        let product = u128::from(state ^ word) * 0xa076_1d64_78bd_642f_u128;
        (product as u64) ^ ((product >> 64) as u64)
    };
    let (words, rest) = text.as_chunks::<8>();
    let mut state = (text.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xe703_7ed1_a0b4_28db;
    for word in words {
        state = fold(state, u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let hash = scramble(fold(state, u64::from_le_bytes(last)));
    if hash == EMPTY { 1 } else { hash }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): well mixed, and for ever the
/// same.
#[must_use]
pub fn scramble(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Hashes below it are a sample of `share` of all texts; nothing where all are taken.
#[must_use]
pub fn sampled_below(share: f64) -> Option<u64> {
    // A share below 0, or NaN, takes nothing.
    (share.is_nan() || share < 1.0).then(|| (share.max(0.0) * 2_f64.powi(64)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hashed_today_is_what_baselines_hold() {
        assert_eq!(hash(b""), EMPTY);
        assert_eq!(hash(b"a"), hash(b"a"));
        assert_ne!(hash(b"a"), hash(b"b"));
        assert_ne!(hash(b"12345678"), hash(b"12345678\0"));
    }

    #[test]
    fn a_share_of_texts_is_below_its_bound() {
        let below = |share| {
            let bound = sampled_below(share);
            let texts = (0..10_000).map(|n: u32| format!("request-{n}"));
            texts.filter(|text| bound.is_none_or(|bound| hash(text.as_bytes()) < bound)).count()
        };
        assert_eq!((below(0.0), below(f64::NAN), below(1.0)), (0, 0, 10_000));
        assert!((900..1100).contains(&below(0.1)), "{}", below(0.1));
    }
}
