//! Texts as numbers: their hashes, and a bounded list of what was hashed.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

pub(crate) use crate::stats::hash::{EMPTY as MISSING, hash};

/// Texts of one column that are told apart while a baseline is made, at most.
const MOST_TEXTS: usize = 16_384;

/// The same of all columns, unless there are more than a thousand of them.
const MOST_OF_ALL: usize = 1 << 20;

/// Texts of a column that are told apart where there are so many columns.
pub(crate) fn most_texts(n_columns: usize) -> usize {
    (MOST_OF_ALL / n_columns.max(1)).clamp(1024, MOST_TEXTS)
}

/// Longer texts have no name: they are told apart, and called by none.
pub(crate) const LONGEST_NAME: usize = 128;

/// Hashes and numbers' bits need little hashing.
#[derive(Debug, Default, Clone)]
pub(crate) struct Light(u64);

impl Hasher for Light {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.0 = (self.0 << 8) ^ u64::from(byte));
    }

    fn write_u64(&mut self, number: u64) {
        // Numbers' bits are kept here as well, whose lower half may be all zeros.
        let product = u128::from(number) * 0x9e37_79b9_7f4a_7c15_u128;
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }
}

/// A map by hashes.
pub(crate) type ByHash<T> = HashMap<u64, T, BuildHasherDefault<Light>>;

/// Names by hashes, a bounded number of them.
#[derive(Debug, Clone)]
pub(crate) struct Dictionary {
    names: ByHash<Option<Box<str>>>,
    most: usize,
}

impl Dictionary {
    /// An empty one, for so many names.
    pub(crate) fn new(most: usize) -> Self {
        Self { names: ByHash::default(), most }
    }

    /// Remembers `text`, unless it is empty or there are too many already.
    pub(crate) fn insert(&mut self, hash: u64, text: &[u8]) {
        if hash != MISSING && self.names.len() < self.most {
            self.names.entry(hash).or_insert_with(|| {
                let name = std::str::from_utf8(text).ok()?;
                (name.len() <= LONGEST_NAME).then(|| name.into())
            });
        }
    }

    /// The text of that hash; nothing where it is not known, not UTF-8, or too long for a name.
    pub(crate) fn name(&self, hash: u64) -> Option<&str> {
        self.names.get(&hash)?.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_stay_what_they_are() {
        // Baselines that were written hold them.
        let texts = ["", "a", "salary", "a text of more than one word", "0 - 20K \u{20ac}"];
        let hashes: Vec<u64> = texts.iter().map(|text| hash(text.as_bytes())).collect();
        let expected = [
            0x0000_0000_0000_0000,
            0x59b7_0ede_966f_fe01,
            0xa6f2_2782_8b35_e5f6,
            0x6f4f_eb67_96c9_321e,
            0x360c_b9ce_59a8_5f9a,
        ];
        assert_eq!(hashes, expected);
    }

    #[test]
    fn similar_texts_differ() {
        let mut hashes: Vec<u64> =
            (0..20_000).map(|n| hash(format!("row {n}").as_bytes())).collect();
        hashes.extend((1..100).map(|n| hash(&vec![0; n])));
        let n = hashes.len();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), n);
    }
}
