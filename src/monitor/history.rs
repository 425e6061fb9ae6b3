//! A statistic over time, in bounded memory: when the points are too many, the older ones are put
//! together in pairs, so that the past becomes coarser and never shorter.

use super::verdict::HistoryPoint;

/// Points kept.
const MOST: usize = 512;

/// Points of one feature, oldest first.
#[derive(Debug, Default)]
pub(super) struct Points(Vec<HistoryPoint>);

impl Points {
    /// Appends a point. Amortised O(1).
    pub(super) fn push(&mut self, point: HistoryPoint) {
        if self.0.len() == MOST {
            // The newer half stays as fine as it is.
            let older = self.0.drain(..MOST / 2).collect::<Vec<_>>();
            let merged = older.chunks(2).map(|pair| pair.iter().copied().reduce(merge));
            let merged: Vec<_> = merged.flatten().collect();
            self.0.splice(0..0, merged);
        }
        self.0.push(point);
    }

    pub(super) fn to_vec(&self) -> Vec<HistoryPoint> {
        self.0.clone()
    }
}

/// Two neighbours as one: the later end, the larger evidence, means by rows.
fn merge(a: HistoryPoint, b: HistoryPoint) -> HistoryPoint {
    let rows = a.rows + b.rows;
    let share = if rows == 0 { 0.5 } else { b.rows as f64 / rows as f64 };
    let mean = |a: f64, b: f64| a + (b - a) * share;
    HistoryPoint {
        at: b.at,
        rows,
        evidence: a.evidence.max(b.evidence),
        psi: mean(a.psi, b.psi),
        missing: mean(a.missing, b.missing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_past_becomes_coarser_and_no_row_is_lost() {
        let mut points = Points::default();
        for at in 0..100_000 {
            points.push(HistoryPoint { at, rows: 2, evidence: at as f64, psi: 0.5, missing: 0.0 });
        }
        let points = points.to_vec();
        assert!(points.len() <= MOST, "{}", points.len());
        assert_eq!(points.iter().map(|point| point.rows).sum::<u64>(), 200_000);
        assert!(points.is_sorted_by_key(|point| point.at));
        assert_eq!(points.last().unwrap().at, 99_999);
        assert!(points.iter().all(|point| (point.psi - 0.5).abs() < 1e-12));
    }
}
