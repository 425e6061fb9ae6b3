//! Histograms for the request path.
//!
//! `metrics-exporter-prometheus` keeps every recorded sample in a list until upkeep or a scrape
//! drains it: memory grows with traffic, and one thread pays for all of it. These have fixed
//! buckets, so recording is two atomic additions and memory is constant, however seldom anybody
//! scrapes. They are rendered behind what the exporter renders.

use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Sharded;
use super::names::HistogramMetric;

/// Buckets, the one above all bounds, and the sum.
const CELLS: usize = 24;
const SUM: usize = CELLS - 1;

/// One series of a histogram.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    cells: Sharded<CELLS>,
}

impl Histogram {
    fn new(metric: &HistogramMetric) -> Self {
        debug_assert!(metric.bounds.len() < SUM, "{} has too many buckets", metric.name);
        Self { bounds: metric.bounds, cells: Sharded::default() }
    }

    /// Counts `value`, in the unit of the bounds.
    pub fn record(&self, value: u64) {
        let bucket = self.bounds.partition_point(|&bound| bound < value);
        self.cells.add_all([(bucket, 1), (SUM, value)]);
    }

    /// Counts a duration in nanoseconds.
    pub fn record_duration(&self, duration: Duration) {
        self.record(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// All series of one histogram, by their labels as rendered.
#[derive(Debug)]
pub(super) struct Family {
    metric: HistogramMetric,
    series: Mutex<Vec<(String, Arc<Histogram>)>>,
}

impl Family {
    pub(super) fn new(metric: HistogramMetric) -> Self {
        Self { metric, series: Mutex::default() }
    }

    pub(super) fn name(&self) -> &'static str {
        self.metric.name
    }

    /// The series with these labels, made where there is none.
    pub(super) fn series(&self, labels: &[(&str, &str)]) -> Arc<Histogram> {
        let key = super::render_labels(labels);
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, histogram)) = series.iter().find(|(existing, _)| *existing == key) {
            return Arc::clone(histogram);
        }
        let histogram = Arc::new(Histogram::new(&self.metric));
        series.push((key, Arc::clone(&histogram)));
        histogram
    }

    /// Appends the family in Prometheus' text format.
    pub(super) fn render(&self, out: &mut String) {
        let HistogramMetric { name, help, bounds, divisor } = self.metric;
        let series = self.series.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if series.is_empty() {
            return;
        }
        // Writing to a String cannot fail.
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
        for (labels, histogram) in series {
            let cells = histogram.cells.sums();
            let comma = if labels.is_empty() { "" } else { "," };
            let mut count = 0;
            for (bound, cell) in bounds.iter().zip(cells) {
                count += cell;
                let bound = *bound as f64 / divisor;
                let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}");
            }
            count += cells[bounds.len()];
            let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}");
            let sum = cells[SUM] as f64 / divisor;
            let _ = writeln!(out, "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}");
        }
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::names;

    #[test]
    fn a_value_on_a_bound_belongs_to_its_bucket() {
        let family = Family::new(names::BATCH_ROWS);
        let rows = family.series(&[("model", "m")]);
        for value in [1, 2, 3, 20_000] {
            rows.record(value);
        }
        let mut out = String::new();
        family.render(&mut out);
        for line in [
            "tidegate_execution_rows_bucket{model=\"m\",le=\"1\"} 1",
            "tidegate_execution_rows_bucket{model=\"m\",le=\"2\"} 2",
            "tidegate_execution_rows_bucket{model=\"m\",le=\"4\"} 3",
            "tidegate_execution_rows_bucket{model=\"m\",le=\"16384\"} 3",
            "tidegate_execution_rows_bucket{model=\"m\",le=\"+Inf\"} 4",
            "tidegate_execution_rows_sum{model=\"m\"} 20006",
            "tidegate_execution_rows_count{model=\"m\"} 4",
        ] {
            assert!(out.contains(line), "{line} is missing in\n{out}");
        }
    }

    #[test]
    fn every_declared_histogram_has_room_for_its_buckets() {
        for metric in names::HISTOGRAMS {
            assert!(metric.bounds.len() < SUM, "{}", metric.name);
        }
    }
}
