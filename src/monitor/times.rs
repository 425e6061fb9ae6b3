//! Times of milliseconds since 1970, as other programs read them (RFC 3339) and as people do.

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;

/// Milliseconds since 1970, now.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// `2026-11-26T13:25:00.123Z`
#[must_use]
pub fn rfc3339(at: u64) -> String {
    match moment(at) {
        Some(t) => format!("{}T{}.{:03}Z", date(t), clock(t), at % 1000),
        None => format!("{at} ms after 1970"),
    }
}

/// `2026-11-26 13:25:00 UTC`
#[must_use]
pub fn plain(at: u64) -> String {
    match moment(at) {
        Some(t) => format!("{} {} UTC", date(t), clock(t)),
        None => format!("{at} ms after 1970"),
    }
}

fn moment(at: u64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(i64::try_from(at / 1000).ok()?).ok()
}

fn date(t: OffsetDateTime) -> String {
    format!("{:04}-{:02}-{:02}", t.year(), u8::from(t.month()), t.day())
}

fn clock(t: OffsetDateTime) -> String {
    format!("{:02}:{:02}:{:02}", t.hour(), t.minute(), t.second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times() {
        // Checked with `date -u -d @SECONDS`.
        for (milliseconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_799_999, "2000-02-29T23:59:59.999Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_735_689_599_001, "2024-12-31T23:59:59.001Z"),
            (1_790_000_000_123, "2026-09-21T14:13:20.123Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(milliseconds), expected);
        }
        assert_eq!(plain(951_782_400_000), "2000-02-29 00:00:00 UTC");
        assert_eq!(plain(u64::MAX), "18446744073709551615 ms after 1970");
    }
}
