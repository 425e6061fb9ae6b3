//! Redaction of features: in the raw bytes, before anything is written.

use std::fmt;
use std::sync::Arc;

use half::{bf16, f16};
use sha2::{Digest, Sha256};

use crate::config::Redaction;
use crate::tensor::{Datatype, push_element};

/// Bytes of a block of SHA-256.
const BLOCK: usize = 64;

/// Bytes of a hash that are written for a text.
const SHOWN: usize = 16;

/// A key of HMAC-SHA256 (RFC 2104).
pub(super) struct Key {
    inner: [u8; BLOCK],
    outer: [u8; BLOCK],
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// Bytes that a key has, at least: a short one is found by trying all.
    pub(super) const SHORTEST: usize = 16;

    pub(super) fn new(key: &[u8]) -> Self {
        let mut padded = [0; BLOCK];
        if key.len() > BLOCK {
            let digest = Sha256::digest(key);
            padded[..digest.len()].copy_from_slice(&digest);
        } else {
            padded[..key.len()].copy_from_slice(key);
        }
        Self { inner: padded.map(|byte| byte ^ 0x36), outer: padded.map(|byte| byte ^ 0x5c) }
    }

    /// HMAC-SHA256 of `data`.
    pub(super) fn hash(&self, data: &[u8]) -> [u8; 32] {
        let inner = Sha256::new().chain_update(self.inner).chain_update(data).finalize();
        Sha256::new().chain_update(self.outer).chain_update(inner).finalize().into()
    }
}

/// Redacts the columns of one tensor.
#[derive(Debug)]
pub(super) struct Redactor {
    /// By column, which repeat with every row.
    columns: Vec<(usize, Redaction)>,
    /// Of every element, where the tensor has no columns.
    everything: Option<Redaction>,
    key: Option<Arc<Key>>,
}

impl Redactor {
    pub(super) fn new(
        columns: Vec<(usize, Redaction)>,
        everything: Option<Redaction>,
        key: Option<Arc<Key>>,
    ) -> Self {
        Self { columns, everything, key }
    }

    /// Whether nothing is redacted.
    pub(super) fn is_idle(&self) -> bool {
        self.columns.is_empty() && self.everything.is_none()
    }

    /// What is done to the element at `position` of a row.
    fn of(&self, position: usize) -> Option<Redaction> {
        let column = self.columns.iter().find(|(column, _)| *column == position);
        column.map(|(_, redaction)| *redaction).or(self.everything)
    }

    /// Whether that column is missing in what is written.
    pub(super) fn drops(&self, column: usize) -> bool {
        self.of(column) == Some(Redaction::Drop)
    }

    /// The data with what is to be redacted, of rows of `width` elements each.
    pub(super) fn redact(&self, datatype: Datatype, width: usize, data: &[u8]) -> Vec<u8> {
        let width = width.max(1);
        let mut out = Vec::with_capacity(data.len());
        match datatype.size() {
            Some(size) => {
                out.extend_from_slice(data);
                for (index, element) in out.chunks_exact_mut(size).enumerate() {
                    if let Some(redaction) = self.of(index % width) {
                        self.number(redaction, datatype, element);
                    }
                }
            }
            None => {
                let elements = crate::tensor::Elements::of(data);
                for (index, element) in elements.enumerate() {
                    match self.of(index % width) {
                        None => push_element(&mut out, element),
                        // An empty text is missing already.
                        Some(Redaction::Hash) if !element.is_empty() => {
                            push_element(&mut out, &self.text(element));
                        }
                        Some(_) => push_element(&mut out, b""),
                    }
                }
            }
        }
        out
    }

    fn text(&self, element: &[u8]) -> Vec<u8> {
        let Some(key) = &self.key else { return Vec::new() };
        let hash = key.hash(element);
        hash[..SHOWN].iter().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes()
    }

    fn number(&self, redaction: Redaction, datatype: Datatype, element: &mut [u8]) {
        let old = value(datatype, element);
        let new = match redaction {
            Redaction::Drop => None,
            Redaction::Bucket(width) => old.map(|old| (old / width).floor() * width),
            Redaction::Hash => old.and(self.key.as_ref()).map(|key| {
                let hash = key.hash(element);
                let hash = u64::from_le_bytes(std::array::from_fn(|index| hash[index]));
                (hash >> (64 - bits(datatype))) as f64
            }),
        };
        set(datatype, new, element);
    }
}

/// Bits of whole numbers that the datatype holds exactly and that are not negative.
fn bits(datatype: Datatype) -> u32 {
    match datatype {
        Datatype::Bool => 1,
        Datatype::Int8 => 7,
        Datatype::Uint8 | Datatype::Bf16 => 8,
        Datatype::Fp16 => 11,
        Datatype::Int16 => 15,
        Datatype::Uint16 => 16,
        Datatype::Fp32 => 24,
        Datatype::Int32 => 31,
        Datatype::Uint32 => 32,
        _ => 53,
    }
}

/// An element as a number; nothing where it is missing.
pub(super) fn value(datatype: Datatype, element: &[u8]) -> Option<f64> {
    macro_rules! number {
        ($type:ty) => {
            <$type>::from_le_bytes(element.try_into().ok()?)
        };
    }
    let value = match datatype {
        Datatype::Bool | Datatype::Uint8 => f64::from(*element.first()?),
        Datatype::Uint16 => f64::from(number!(u16)),
        Datatype::Uint32 => f64::from(number!(u32)),
        Datatype::Uint64 => number!(u64) as f64,
        Datatype::Int8 => f64::from(number!(i8)),
        Datatype::Int16 => f64::from(number!(i16)),
        Datatype::Int32 => f64::from(number!(i32)),
        Datatype::Int64 => number!(i64) as f64,
        Datatype::Fp16 => f64::from(number!(f16)),
        Datatype::Bf16 => f64::from(number!(bf16)),
        Datatype::Fp32 => f64::from(number!(f32)),
        Datatype::Fp64 => number!(f64),
        Datatype::Bytes => return None,
    };
    (!value.is_nan()).then_some(value)
}

/// Writes a number over an element; where there is none, what stands for missing.
fn set(datatype: Datatype, value: Option<f64>, element: &mut [u8]) {
    let float = value.unwrap_or(f64::NAN);
    let whole = value.unwrap_or(0.0);
    macro_rules! write {
        ($number:expr) => {
            element.copy_from_slice(&($number).to_le_bytes())
        };
    }
    match datatype {
        Datatype::Bool => element.fill(u8::from(whole >= 1.0)),
        Datatype::Uint8 => write!(whole as u8),
        Datatype::Uint16 => write!(whole as u16),
        Datatype::Uint32 => write!(whole as u32),
        Datatype::Uint64 => write!(whole as u64),
        Datatype::Int8 => write!(whole as i8),
        Datatype::Int16 => write!(whole as i16),
        Datatype::Int32 => write!(whole as i32),
        Datatype::Int64 => write!(whole as i64),
        Datatype::Fp16 => write!(f16::from_f64(float)),
        Datatype::Bf16 => write!(bf16::from_f64(float)),
        Datatype::Fp32 => write!(float as f32),
        Datatype::Fp64 => write!(float),
        Datatype::Bytes => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_rfc_4231() {
        let hex =
            |hash: [u8; 32]| hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let key = Key::new(&[0x0b; 20]);
        let expected = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
        assert_eq!(hex(key.hash(b"Hi There")), expected);
        let key = Key::new(&[0xaa; 131]);
        let expected = "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54";
        let text = b"Test Using Larger Than Block-Size Key - Hash Key First";
        assert_eq!(hex(key.hash(text)), expected);
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn columns_are_redacted_in_every_row_and_others_stay() {
        let key = Arc::new(Key::new(&[7; 16]));
        let columns =
            vec![(0, Redaction::Drop), (1, Redaction::Bucket(10.0)), (2, Redaction::Hash)];
        let redactor = Redactor::new(columns, None, Some(key));
        let data = floats(&[1.0, 37.5, 5.0, 4.0, 2.0, -0.5, 5.0, 8.0]);
        let redacted = redactor.redact(Datatype::Fp32, 4, &data);
        let values: Vec<f32> =
            redacted.as_chunks::<4>().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect();
        assert!(values[0].is_nan() && values[4].is_nan());
        assert_eq!((values[1], values[5]), (30.0, -10.0));
        assert_eq!(values[2], values[6]);
        assert!(values[2] != 5.0 && values[2].fract() == 0.0);
        assert_eq!((values[3], values[7]), (4.0, 8.0));
    }

    #[test]
    fn texts_are_hashed_with_the_key_and_missing_ones_stay_missing() {
        let redactor = |key| {
            let key = Some(Arc::new(Key::new(&[key; 16])));
            Redactor::new(Vec::new(), Some(Redaction::Hash), key)
        };
        let mut data = Vec::new();
        ["ann", "", "ann"].iter().for_each(|text| push_element(&mut data, text.as_bytes()));
        let [one, other] = [1, 2].map(|key| redactor(key).redact(Datatype::Bytes, 1, &data));
        let texts: Vec<&[u8]> = crate::tensor::Elements::of(&one).collect();
        assert_eq!(texts[0], texts[2]);
        assert_eq!((texts[0].len(), texts[1].len()), (32, 0));
        assert_ne!(one, other);
        let gone = Redactor::new(Vec::new(), Some(Redaction::Drop), None);
        let gone = gone.redact(Datatype::Bytes, 1, &data);
        assert!(crate::tensor::Elements::of(&gone).all(<[u8]>::is_empty));
    }
}
