//! Parts of the rows: segments, and hours of the week.

use std::collections::BTreeMap;

use super::Slice;

/// Segments that are counted apart; the rest are one.
const MOST_SEGMENTS: usize = 16;

/// Distinct segments that are kept while it is not known which are frequent.
const MOST_KEPT: usize = 4096;

/// The name of the segments that are not counted apart.
pub const OTHER_SEGMENTS: &str = "(other)";

const HOUR_MS: i64 = 3_600_000;

/// The hour of the week of a time in milliseconds since 1970, from 0 (Monday 00:00 UTC).
#[must_use]
pub fn hour_of_week(time_ms: i64) -> usize {
    // 1970 began on a Thursday, 72 hours after Monday 00:00.
    (time_ms.div_euclid(HOUR_MS) + 72).rem_euclid(168) as usize
}

/// How frequent segments are.
#[derive(Debug, Default)]
pub(super) struct Segments {
    counts: BTreeMap<Box<str>, u64>,
}

impl Segments {
    pub(super) fn add<'a>(&mut self, segments: impl IntoIterator<Item = &'a str>) {
        for segment in segments {
            if let Some(count) = self.counts.get_mut(segment) {
                *count += 1;
            } else if self.counts.len() < MOST_KEPT {
                self.counts.insert(segment.into(), 1);
            }
        }
    }

    /// The most frequent ones.
    pub(super) fn most_frequent(self) -> Vec<Box<str>> {
        let mut counts: Vec<_> = self.counts.into_iter().collect();
        counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        counts.truncate(MOST_SEGMENTS);
        counts.into_iter().map(|(segment, _)| segment).collect()
    }
}

/// Counts by segment and by hour.
#[derive(Debug)]
pub(super) struct Slices {
    segments: Vec<Box<str>>,
    /// Rows and counts: of the segments, of the others, then of the hours.
    parts: Vec<Option<(u64, Vec<Vec<u64>>)>>,
    n_cells: Vec<usize>,
}

impl Slices {
    pub(super) fn new(segments: Vec<Box<str>>, n_cells: Vec<usize>) -> Self {
        let parts = vec![None; segments.len() + 1 + 168];
        Self { segments, parts, n_cells }
    }

    /// The part that a segment is.
    pub(super) fn segment(&self, segment: &str) -> usize {
        let position = self.segments.iter().position(|known| **known == *segment);
        position.unwrap_or(self.segments.len())
    }

    /// The part that an hour of the week is.
    pub(super) fn hour(&self, time_ms: i64) -> usize {
        self.segments.len() + 1 + hour_of_week(time_ms)
    }

    /// Counts one row, whose cells are given by feature, in a part. O(features).
    pub(super) fn count(&mut self, part: usize, cells: impl Iterator<Item = u8>) {
        let n_cells = &self.n_cells;
        let Some(part) = self.parts.get_mut(part) else { return };
        let (rows, counts) = part
            .get_or_insert_with(|| (0, n_cells.iter().map(|&n_cells| vec![0; n_cells]).collect()));
        *rows += 1;
        for (counts, cell) in counts.iter_mut().zip(cells) {
            counts[usize::from(cell)] += 1;
        }
    }

    /// Counts of one more feature, all rows of which are in its `cell`s by part.
    pub(super) fn finish(self) -> Vec<Slice> {
        let n_segments = self.segments.len();
        let parts = self.parts.into_iter().enumerate();
        let slices = parts.filter_map(|(part, counted)| {
            let (rows, counts) = counted?;
            let (by, value) = match part {
                part if part < n_segments => ("segment", self.segments[part].to_string()),
                part if part == n_segments => ("segment", OTHER_SEGMENTS.to_owned()),
                part => ("season", (part - n_segments - 1).to_string()),
            };
            Some(Slice { by: by.to_owned(), value, rows, counts })
        });
        slices.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weeks_begin_on_monday() {
        assert_eq!(hour_of_week(0), 72);
        // Monday, 5 January 1970, 00:00 UTC, and the hour before.
        assert_eq!(hour_of_week(4 * 24 * HOUR_MS), 0);
        assert_eq!(hour_of_week(4 * 24 * HOUR_MS - 1), 167);
        assert_eq!(hour_of_week(-1), 71);
    }
}
