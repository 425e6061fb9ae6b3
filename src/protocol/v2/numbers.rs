//! Lists of numbers to bytes, the short way: what most requests consist of.
//!
//! The text has been read over already, so it is JSON; what is here has to find the numbers only,
//! and gives up on all that is not a list of numbers in range that fills the shape exactly. The
//! long way ([`super::data`]) then reads the same text, and says what is wrong with it.

use super::data::RESERVE_AT_MOST;
use crate::tensor::Datatype;

/// Deeper shapes go the long way, which needs no stack for them.
const DEEPEST: usize = 16;

/// The elements of `text`, a JSON value, as binary data of `datatype`; nothing where the long way
/// has to be gone. O(length of `text`).
pub(super) fn read(
    text: &str,
    datatype: Datatype,
    shape: &[usize],
    count: usize,
) -> Option<Vec<u8>> {
    macro_rules! of {
        ($type:ty, $parse:expr) => {{
            let capacity = count.min(RESERVE_AT_MOST) * size_of::<$type>();
            let mut data = Vec::with_capacity(capacity);
            let mut cursor = Cursor { text, at: 0 };
            let mut element = |cursor: &mut Cursor<'_>| {
                let element: $type = $parse(cursor)?;
                data.extend_from_slice(&element.to_le_bytes());
                Some(())
            };
            cursor.lists(shape, count, &mut element)?;
            Some(data)
        }};
    }
    match datatype {
        Datatype::Fp32 => of!(f32, |cursor: &mut Cursor<'_>| {
            let narrow = cursor.float()? as f32;
            narrow.is_finite().then_some(narrow)
        }),
        Datatype::Fp64 => of!(f64, Cursor::float),
        Datatype::Int8 => of!(i8, narrow),
        Datatype::Int16 => of!(i16, narrow),
        Datatype::Int32 => of!(i32, narrow),
        Datatype::Int64 => of!(i64, narrow),
        Datatype::Uint8 => of!(u8, narrow),
        Datatype::Uint16 => of!(u16, narrow),
        Datatype::Uint32 => of!(u32, narrow),
        Datatype::Uint64 => of!(u64, narrow),
        Datatype::Bool | Datatype::Fp16 | Datatype::Bf16 | Datatype::Bytes => None,
    }
}

/// An integer that fits.
#[inline]
fn narrow<T: TryFrom<i64>>(cursor: &mut Cursor<'_>) -> Option<T> {
    integer(cursor.number())?.try_into().ok()
}

struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Elements in one flat list, or in lists as deep as the shape.
    fn lists(
        &mut self,
        shape: &[usize],
        count: usize,
        element: &mut impl FnMut(&mut Self) -> Option<()>,
    ) -> Option<()> {
        if shape.len() > DEEPEST {
            return None;
        }
        let start = self.at;
        self.expect(b'[')?;
        let is_nested = self.next() == Some(b'[');
        self.at = start;
        if is_nested {
            self.list(shape, element)?
        } else {
            self.list(&[count], element)?
        }
        self.next().is_none().then_some(())
    }

    fn list(
        &mut self,
        shape: &[usize],
        element: &mut impl FnMut(&mut Self) -> Option<()>,
    ) -> Option<()> {
        let (&length, inner) = shape.split_first()?;
        self.expect(b'[')?;
        for index in 0..length {
            if index > 0 {
                self.expect(b',')?;
            }
            if inner.is_empty() { element(self)? } else { self.list(inner, element)? }
        }
        self.expect(b']')
    }

    /// The next byte that is no space; stays before it.
    #[inline]
    fn next(&mut self) -> Option<u8> {
        loop {
            match self.text.as_bytes().get(self.at)? {
                b' ' | b'\n' | b'\t' | b'\r' => self.at += 1,
                byte => return Some(*byte),
            }
        }
    }

    #[inline]
    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then(|| self.at += 1)
    }

    /// What stands up to the next comma, bracket or space.
    #[inline]
    fn number(&mut self) -> &'a str {
        let Some(_) = self.next() else { return "" };
        let rest = &self.text[self.at..];
        let length = rest.bytes().position(is_end).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    /// A finite number, rounded to the nearest binary64.
    ///
    /// Most numbers have so few digits that they and the power of ten are binary64 numbers, of which
    /// one division makes the nearest (Clinger, "How to Read Floating Point Numbers Accurately",
    /// PLDI 1990, §3); the standard library does the rest.
    #[inline]
    fn float(&mut self) -> Option<f64> {
        self.next()?;
        let bytes = &self.text.as_bytes()[self.at..];
        let is_negative = bytes.first() == Some(&b'-');
        let start = usize::from(is_negative);
        let (mut digits, mut point, mut at) = (0_u64, None, start);
        let end = loop {
            match bytes.get(at) {
                // More digits than these are too many in any case.
                Some(digit @ b'0'..=b'9') if at < start + 18 => {
                    digits = digits * 10 + u64::from(digit - b'0');
                }
                Some(b'.') if point.is_none() => point = Some(at),
                end => break end,
            }
            at += 1;
        };
        let decimals = point.map_or(0, |point| at - point - 1);
        let is_short = at > start && digits <= MOST_DIGITS && decimals < POWERS.len();
        if !is_short || !end.is_none_or(|&end| is_end(end)) {
            return self.long_float();
        }
        self.at += at;
        let value = digits as f64 / POWERS[decimals];
        Some(if is_negative { -value } else { value })
    }

    fn long_float(&mut self) -> Option<f64> {
        let number = self.number();
        // JSON's numbers begin with a digit or a minus; what else Rust reads as a number does not.
        if !number.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
            return None;
        }
        number.parse().ok().filter(|value: &f64| value.is_finite())
    }
}

/// All whole numbers up to here are binary64 numbers.
const MOST_DIGITS: u64 = 1 << 53;

/// Powers of ten that are binary64 numbers.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

#[inline]
fn is_end(byte: u8) -> bool {
    matches!(byte, b',' | b']' | b' ' | b'\n' | b'\t' | b'\r')
}

/// A number of at most 18 digits without fraction and exponent.
#[inline]
fn integer(number: &str) -> Option<i64> {
    let number = number.as_bytes();
    let (is_negative, digits) = match number.split_first()? {
        (b'-', digits) => (true, digits),
        _ => (false, number),
    };
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    let mut value = 0_i64;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    Some(if is_negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::DeserializeSeed;

    use super::super::data::DataSeed;
    use super::*;

    const NUMBERS: [Datatype; 10] = [
        Datatype::Fp32,
        Datatype::Fp64,
        Datatype::Int8,
        Datatype::Int16,
        Datatype::Int32,
        Datatype::Int64,
        Datatype::Uint8,
        Datatype::Uint16,
        Datatype::Uint32,
        Datatype::Uint64,
    ];

    fn the_long_way(text: &str, datatype: Datatype, shape: &[usize]) -> Option<Vec<u8>> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let count = shape.iter().product();
        DataSeed { datatype, shape, count }.deserialize(&mut deserializer).ok()
    }

    fn check(text: &str, shape: &[usize]) -> Result<(), TestCaseError> {
        for datatype in NUMBERS {
            let count = shape.iter().product();
            if let Some(data) = read(text, datatype, shape, count) {
                prop_assert_eq!(
                    Some(data),
                    the_long_way(text, datatype, shape),
                    "{} {}",
                    text,
                    datatype
                );
            }
        }
        Ok(())
    }

    fn number() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<i64>().prop_map(|n| n.to_string()),
            (-300..300_i32).prop_map(|n| n.to_string()),
            any::<f64>().prop_filter("JSON", |x| x.is_finite()).prop_map(|x| format!("{x:e}")),
            any::<f32>().prop_filter("JSON", |x| x.is_finite()).prop_map(|x| format!("{x}")),
            (-99_999..99_999_i32, 0..99_999_u32).prop_map(|(a, b)| format!("{a}.{b}")),
            Just("-0".to_owned()),
            Just("1e400".to_owned()),
            Just("-0.0E+2".to_owned()),
        ]
    }

    proptest! {
        /// What the short way takes is what the long way takes.
        #[test]
        fn both_ways_agree(
            rows in prop::collection::vec(prop::collection::vec(number(), 3..4), 1..4),
            space in "[ \n\t]{0,2}",
        ) {
            let flat: Vec<&str> = rows.iter().flatten().map(String::as_str).collect();
            let shape = [rows.len(), 3];
            check(&format!("[{space}{}{space}]", flat.join(&format!("{space},"))), &shape)?;
            let lists: Vec<String> = rows.iter().map(|row| format!("[{}]", row.join(", "))).collect();
            check(&format!("[{}{space}]", lists.join(",")), &shape)?;
            check(&format!("[{}]", lists.join(",")), &[rows.len(), 1, 3])?;
        }
    }

    #[test]
    fn plain_numbers_go_the_short_way_and_nothing_else_does() {
        let read =
            |text, datatype, shape: &[usize]| read(text, datatype, shape, shape.iter().product());
        assert_eq!(read("[1, 2.5]", Datatype::Fp32, &[2]).unwrap(), [0, 0, 128, 63, 0, 0, 32, 64]);
        assert_eq!(read("[[1],[-2]]", Datatype::Int8, &[2, 1]).unwrap(), [1, 254]);
        assert!(read("[]", Datatype::Int8, &[0]).unwrap().is_empty());
        for (text, datatype) in [
            ("[1, 300]", Datatype::Uint8),
            ("[1, -1]", Datatype::Uint8),
            ("[1, 1.0]", Datatype::Int32),
            ("[1, 1e39]", Datatype::Fp32),
            ("[1, 1e400]", Datatype::Fp64),
            ("[1, \"NaN\"]", Datatype::Fp32),
            ("[1, null]", Datatype::Fp32),
            ("[1]", Datatype::Fp32),
            ("[1, 2, 3]", Datatype::Fp32),
            ("[[1, 2]]", Datatype::Fp32),
            ("[1, [2]]", Datatype::Fp32),
            ("[true, 2]", Datatype::Fp32),
            ("7", Datatype::Fp32),
            ("{}", Datatype::Fp32),
            ("[1, 2]", Datatype::Bool),
        ] {
            assert_eq!(read(text, datatype, &[2]), None, "{text}");
        }
    }
}
