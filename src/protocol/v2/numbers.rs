//! Lists of numbers to bytes, the short way: what most requests consist of.
//!
//! What is here gives up on all that is not a list of JSON numbers in range that fills the shape
//! exactly. The long way ([`super::data`]) then reads the same text, and says what is wrong with it.

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
    let mut cursor = Cursor::new(text.as_bytes());
    let data = cursor.elements(datatype, shape, count)?;
    cursor.next().is_none().then_some(data)
}

/// A place in a JSON text.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// A list of elements, or lists of them as deep as the shape.
    pub(super) fn elements(
        &mut self,
        datatype: Datatype,
        shape: &[usize],
        count: usize,
    ) -> Option<Vec<u8>> {
        macro_rules! of {
            ($type:ty, $parse:expr) => {{
                let capacity = count.min(RESERVE_AT_MOST) * size_of::<$type>();
                let mut data = Vec::with_capacity(capacity);
                let mut element = |cursor: &mut Cursor<'_>| {
                    let element: $type = $parse(cursor)?;
                    data.extend_from_slice(&element.to_le_bytes());
                    Some(())
                };
                self.lists(shape, count, &mut element)?;
                Some(data)
            }};
        }
        match datatype {
            Datatype::Fp32 => of!(f32, |cursor: &mut Cursor<'_>| {
                let narrow = cursor.float()? as f32;
                narrow.is_finite().then_some(narrow)
            }),
            Datatype::Fp64 => of!(f64, Cursor::float),
            Datatype::Int8 => of!(i8, Cursor::narrow),
            Datatype::Int16 => of!(i16, Cursor::narrow),
            Datatype::Int32 => of!(i32, Cursor::narrow),
            Datatype::Int64 => of!(i64, Cursor::narrow),
            Datatype::Uint8 => of!(u8, Cursor::narrow),
            Datatype::Uint16 => of!(u16, Cursor::narrow),
            Datatype::Uint32 => of!(u32, Cursor::narrow),
            Datatype::Uint64 => of!(u64, Cursor::narrow),
            Datatype::Bool | Datatype::Fp16 | Datatype::Bf16 | Datatype::Bytes => None,
        }
    }

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
        Some(())
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
    pub(super) fn next(&mut self) -> Option<u8> {
        loop {
            match self.text.get(self.at)? {
                b' ' | b'\n' | b'\t' | b'\r' => self.at += 1,
                byte => return Some(*byte),
            }
        }
    }

    #[inline]
    pub(super) fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then(|| self.at += 1)
    }

    /// A string of printable ASCII without escapes, which is what names and ids consist of.
    pub(super) fn plain_string(&mut self) -> Option<&'a str> {
        self.expect(b'"')?;
        let rest = &self.text[self.at..];
        let length = rest.iter().position(|&byte| byte == b'"')?;
        self.at += length + 1;
        let is_plain = |&byte: &u8| matches!(byte, b' '..=b'~') && byte != b'\\';
        let string = &rest[..length];
        std::str::from_utf8(string).ok().filter(|_| string.iter().all(is_plain))
    }

    /// A number from 0 on.
    pub(super) fn natural(&mut self) -> Option<usize> {
        self.narrow()
    }

    /// A finite number, rounded to the nearest binary64.
    ///
    /// Most numbers have so few digits that they and the power of ten are binary64 numbers, of which
    /// one division makes the nearest (Clinger, "How to Read Floating Point Numbers Accurately",
    /// PLDI 1990, §3); with up to 19 digits it takes wider numbers ([`quotient`]); the standard
    /// library does the rest.
    #[inline]
    fn float(&mut self) -> Option<f64> {
        self.next()?;
        let rest = &self.text[self.at..];
        let is_negative = rest.first() == Some(&b'-');
        let start = usize::from(is_negative);
        let (mut digits, mut at) = leading_digits(rest, start, 0);
        let whole = at - start;
        // JSON has a digit before the point, and no zeros before that.
        if whole == 0 || (whole > 1 && rest[start] == b'0') {
            return None;
        }
        let mut decimals = 0;
        if rest.get(at) == Some(&b'.') {
            let point = at + 1;
            (digits, at) = leading_digits(rest, point, digits);
            decimals = at - point;
            if decimals == 0 {
                return None;
            }
        }
        let end = rest.get(at).copied();
        // More digits than these do not fit into 64 bits.
        if whole + decimals > 19 || matches!(end, Some(b'e' | b'E')) {
            return self.long_float(at);
        }
        self.at += at;
        let value = if digits <= MOST_DIGITS {
            digits as f64 / POWERS[decimals]
        } else {
            quotient(digits, decimals)
        };
        // The sign is put in rather than asked for: it is as good as random.
        let value = f64::from_bits(value.to_bits() | u64::from(is_negative) << 63);
        is_end(end).then_some(value)
    }

    /// A number whose first `seen` bytes are sign, digits and point as JSON has them.
    #[cold]
    fn long_float(&mut self, seen: usize) -> Option<f64> {
        let rest = &self.text[self.at..];
        let mut at = seen;
        if matches!(rest.get(at), Some(b'e' | b'E')) {
            at += 1;
            at += usize::from(matches!(rest.get(at), Some(b'+' | b'-')));
            let exponent = at;
            while rest.get(at).is_some_and(u8::is_ascii_digit) {
                at += 1;
            }
            if at == exponent {
                return None;
            }
        }
        self.at += at;
        let value: f64 = std::str::from_utf8(&rest[..at]).ok()?.parse().ok()?;
        (value.is_finite() && is_end(rest.get(at).copied())).then_some(value)
    }

    /// An integer of at most 18 digits, without fraction and exponent, that fits.
    #[inline]
    fn narrow<T: TryFrom<i64>>(&mut self) -> Option<T> {
        self.next()?;
        let rest = &self.text[self.at..];
        let is_negative = rest.first() == Some(&b'-');
        let start = usize::from(is_negative);
        let (digits, at) = leading_digits(rest, start, 0);
        let length = at - start;
        if length == 0 || length > 18 || (length > 1 && rest[start] == b'0') {
            return None;
        }
        self.at += at;
        let value = i64::try_from(digits).ok()?;
        let value = if is_negative { -value } else { value };
        if is_end(rest.get(at).copied()) { value.try_into().ok() } else { None }
    }
}

/// Puts the digits from `at` on behind those of `digits`, which wraps where they are too many; and
/// where they end. One by one: eight at once were no faster for numbers of any length.
#[inline]
fn leading_digits(text: &[u8], mut at: usize, mut digits: u64) -> (u64, usize) {
    while let Some(digit @ b'0'..=b'9') = text.get(at) {
        digits = digits.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
        at += 1;
    }
    (digits, at)
}

/// All whole numbers up to here are binary64 numbers.
const MOST_DIGITS: u64 = 1 << 53;

/// Powers of ten as far as 19 digits need them: they are binary64 numbers.
const POWERS: [f64; 19] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18,
];

/// A number's reciprocal, as `(high · 2⁶⁴ + low) / 2^scale` rounded up, with the high bit set.
#[derive(Clone, Copy)]
struct Reciprocal {
    high: u64,
    low: u64,
    scale: u32,
}

/// Of the powers of five.
const RECIPROCALS: [Reciprocal; 19] = reciprocals();

const fn reciprocals() -> [Reciprocal; 19] {
    let mut all = [Reciprocal { high: 0, low: 0, scale: 0 }; 19];
    let mut power = 1_u64;
    let mut n = 0;
    while n < all.len() {
        // Long division of 2^scale, bit by bit: the quotient has 128 bits.
        let scale = 127 + power.next_power_of_two().trailing_zeros();
        let (mut quotient, mut rest, mut bit) = (0_u128, 1_u64, 0);
        while bit <= scale {
            if bit > 0 {
                quotient <<= 1;
                rest <<= 1;
            }
            if rest >= power {
                quotient |= 1;
                rest -= power;
            }
            bit += 1;
        }
        if rest > 0 {
            quotient += 1;
        }
        all[n] = Reciprocal { high: (quotient >> 64) as u64, low: quotient as u64, scale };
        power = power.wrapping_mul(5);
        n += 1;
    }
    all
}

/// `digits / 10^decimals`, rounded to the nearest binary64, to even between two; `digits` is above 0
/// and `decimals` below 19. One or two multiplications by the reciprocal (Lemire, "Number Parsing at a
/// Gigabyte per Second", Software: Practice and Experience 2021; that no further digits are ever
/// needed: Mushtak and Lemire, "Fast Number Parsing Without Fallback", 2023).
fn quotient(digits: u64, decimals: usize) -> f64 {
    let Reciprocal { high: factor, low: factor_low, scale } = RECIPROCALS[decimals];
    let leading = digits.leading_zeros();
    let digits = u128::from(digits << leading);
    let product = digits * u128::from(factor);
    let (mut high, mut low) = ((product >> 64) as u64, product as u64);
    // The bits below the result's are all ones: what comes after them may carry into it.
    if high & 0x1ff == 0x1ff {
        let (sum, carries) = low.overflowing_add(((digits * u128::from(factor_low)) >> 64) as u64);
        low = sum;
        high += u64::from(carries);
    }
    // 53 bits and one to round by.
    let shift = 9 + (high >> 63) as u32;
    let mut mantissa = high >> shift;
    // Halfway between two, which takes a power of five that 64 bits have room for beside the result.
    if low <= 1 && decimals <= 4 && mantissa & 3 == 1 && mantissa << shift == high {
        mantissa &= !1;
    }
    mantissa += mantissa & 1;
    let exponent = (shift + 129) as i32 - (leading + scale) as i32 - decimals as i32;
    (mantissa >> 1) as f64 * f64::from_bits(((1023 + exponent) as u64) << 52)
}

/// Whether a number ends before `next`.
#[inline]
fn is_end(next: Option<u8>) -> bool {
    matches!(next, None | Some(b',' | b']' | b'}' | b' ' | b'\n' | b'\t' | b'\r'))
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
            Just("1E+".to_owned()),
            "-?[0-9]{0,20}[.]?[0-9]{0,20}([eE][+-]?[0-9]{0,3})?",
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
    fn quotients_are_rounded_as_they_should_be() {
        let check = |digits: u64, decimals: usize| {
            let expected: f64 = format!("{digits}e-{decimals}").parse().unwrap();
            assert_eq!(quotient(digits, decimals), expected, "{digits}e-{decimals}");
        };
        for decimals in 0..19 {
            for digits in [1, 2, 3, 10, MOST_DIGITS, MOST_DIGITS + 1, u64::MAX, u64::MAX - 1] {
                check(digits, decimals);
            }
            for _ in 0..100_000 {
                check(fastrand::u64(1..) >> fastrand::u32(0..64).min(62) | 1, decimals);
            }
        }
        // Halfway between two binary64 numbers, and beside it.
        for odd in [MOST_DIGITS + 1, MOST_DIGITS + 3, 2 * MOST_DIGITS - 1] {
            for decimals in 0..5 {
                let five = 5_u64.pow(decimals as u32);
                let Some(half) = odd.checked_mul(five) else { continue };
                for digits in [half - 1, half, half + 1] {
                    check(digits, decimals);
                }
            }
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
            ("[01, 2]", Datatype::Int8),
            ("[1, 00.5]", Datatype::Fp32),
            ("[1, .5]", Datatype::Fp32),
            ("[1, 5.]", Datatype::Fp32),
            ("[1, -]", Datatype::Fp32),
            ("[1, 5e]", Datatype::Fp32),
            ("[1, 5e+]", Datatype::Fp64),
            ("[1, +5]", Datatype::Fp64),
            ("[1, 0x5]", Datatype::Int8),
            ("[1, inf]", Datatype::Fp64),
        ] {
            assert_eq!(read(text, datatype, &[2]), None, "{text}");
        }
    }
}
