//! Parts of the rows: segments, and hours of the week.

use std::collections::BTreeMap;

use super::Slice;
use super::builder::Marks;
use crate::config::Season;
use crate::monitor::reader::RowCells;

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
    /// Of the segments, of the others, then of the hours.
    parts: Vec<Option<Part>>,
    n_cells: Vec<usize>,
}

/// Rows, and counts by feature and cell.
#[derive(Debug, Clone)]
struct Part {
    rows: u64,
    counts: Vec<Vec<u64>>,
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

    /// Counts one row in a part. O(features).
    pub(super) fn count(&mut self, part: usize, cells: &RowCells, row: usize) {
        let counts = &mut self.part(part).counts;
        for (feature, counts) in counts.iter_mut().enumerate() {
            counts[usize::from(cells.column(feature)[row])] += 1;
        }
        self.part(part).rows += 1;
    }

    /// Counts rows in the cells of one more feature.
    pub(super) fn add_feature(
        &mut self,
        n_cells: usize,
        marks: Marks<'_>,
        season: Season,
        cell: impl Fn(usize) -> usize,
    ) {
        let feature = self.n_cells.len();
        self.n_cells.push(n_cells);
        for part in self.parts.iter_mut().flatten() {
            part.counts.push(vec![0; n_cells]);
        }
        for (row, segment) in marks.segments.unwrap_or_default().iter().enumerate() {
            let part = self.segment(segment);
            self.part(part).counts[feature][cell(row)] += 1;
        }
        let times = marks.times.filter(|_| season == Season::HourOfWeek).unwrap_or_default();
        for (row, &time) in times.iter().enumerate() {
            let part = self.hour(time);
            self.part(part).counts[feature][cell(row)] += 1;
        }
    }

    fn part(&mut self, part: usize) -> &mut Part {
        let n_cells = &self.n_cells;
        self.parts[part].get_or_insert_with(|| Part {
            rows: 0,
            counts: n_cells.iter().map(|&n_cells| vec![0; n_cells]).collect(),
        })
    }

    /// The slices that have rows.
    pub(super) fn finish(self) -> Vec<Slice> {
        let n_segments = self.segments.len();
        let parts = self.parts.into_iter().enumerate();
        let slices = parts.filter_map(|(part, counted)| {
            let Part { rows, counts } = counted?;
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
