//! Times as they stand in files.

use arrow_cast::parse::string_to_timestamp_nanos;

/// What can be read.
pub(super) const EXPECTED: &str =
    "a time such as 2026-01-31T12:00:00Z, 2026-01-31, or seconds or milliseconds since 1970";

/// Milliseconds since 1970. A time without a zone is UTC; a number is seconds, milliseconds,
/// microseconds or nanoseconds, whichever puts it between 1973 and 5138.
pub(super) fn parse(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Ok(number) = text.parse::<f64>() {
        return from_number(number);
    }
    string_to_timestamp_nanos(text).ok().map(|nanos| nanos.div_euclid(1_000_000))
}

/// See [`parse`].
pub(super) fn from_number(number: f64) -> Option<i64> {
    let millis = match number.abs() {
        size if size < 1e11 => number * 1e3,
        size if size < 1e14 => number,
        size if size < 1e17 => number / 1e3,
        size if size < 9.3e18 => number / 1e6,
        _ => return None,
    };
    Some(millis.floor() as i64)
}
