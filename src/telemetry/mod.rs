//! Metrics, logs and traces.
//!
//! [`names`] declares every metric; [`Telemetry`] hands out handles, which their users hold: no
//! name is looked up while a request is served. There is no global recorder, so that several
//! servers can live in one process (the tests do).
//!
//! Invariants:
//! - memory does not grow with traffic: histograms of the request path have fixed buckets (see
//!   [`Histogram`]) and the exporter's own are never used on it;
//! - no series is made from anything that a client can choose.

mod histogram;
pub mod logging;
pub mod names;
mod rollout_names;
mod sharded;
pub mod trace;

use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

pub use histogram::Histogram;
pub use metrics::{Counter, Gauge};
pub use sharded::{Sharded, n_shards, shard};

use histogram::Family;
use metrics::{Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use names::{HistogramMetric, Metric};

/// Appends series that come and go with what they describe, such as one for each live version.
type Collector = Box<dyn Fn(&mut String) + Send + Sync>;

/// Brings handles of the exporter up to date with what is counted elsewhere.
type Refresher = Box<dyn Fn() + Send + Sync>;

/// The process' metrics.
pub struct Telemetry {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    families: Vec<Family>,
    process: metrics_process::Collector,
    collectors: Mutex<Vec<Collector>>,
    refreshers: Mutex<Vec<Refresher>>,
}

impl std::fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        for Metric { name, help } in names::COUNTERS {
            recorder.describe_counter((*name).into(), None, (*help).into());
        }
        for Metric { name, help } in names::GAUGES {
            recorder.describe_gauge((*name).into(), None, (*help).into());
        }
        let process = metrics_process::Collector::default();
        metrics::with_local_recorder(&recorder, || process.describe());
        Self {
            handle: recorder.handle(),
            recorder,
            families: names::HISTOGRAMS.iter().copied().map(Family::new).collect(),
            process,
            collectors: Mutex::default(),
            refreshers: Mutex::default(),
        }
    }
}

impl Telemetry {
    /// The counter with these labels.
    pub fn counter(&self, metric: Metric, labels: &[(&'static str, &str)]) -> Counter {
        self.recorder.register_counter(&key(metric, labels), &METADATA)
    }

    /// The gauge with these labels.
    pub fn gauge(&self, metric: Metric, labels: &[(&'static str, &str)]) -> Gauge {
        self.recorder.register_gauge(&key(metric, labels), &METADATA)
    }

    /// The histogram with these labels. `metric` is one of [`names::HISTOGRAMS`].
    pub fn histogram(&self, metric: HistogramMetric, labels: &[(&str, &str)]) -> Arc<Histogram> {
        let family = self.families.iter().find(|family| family.name() == metric.name);
        family.expect("every histogram is listed in names::HISTOGRAMS").series(labels)
    }

    /// Counters that all I/O threads bump for each request: threads count by themselves, and what they
    /// have counted goes into `counters` with every scrape.
    pub fn sharded<const N: usize>(&self, counters: [Counter; N]) -> Arc<Sharded<N>> {
        let cells = Arc::new(Sharded::default());
        let counted = Arc::clone(&cells);
        self.add_refresher(move || {
            counters.iter().zip(counted.sums()).for_each(|(counter, sum)| counter.absolute(sum));
        });
        cells
    }

    /// Has `refresh` called before every scrape.
    pub fn add_refresher(&self, refresh: impl Fn() + Send + Sync + 'static) {
        let mut refreshers = self.refreshers.lock().unwrap_or_else(PoisonError::into_inner);
        refreshers.push(Box::new(refresh));
    }

    /// Has `collect` append its series to every scrape.
    pub fn add_collector(&self, collect: impl Fn(&mut String) + Send + Sync + 'static) {
        let mut collectors = self.collectors.lock().unwrap_or_else(PoisonError::into_inner);
        collectors.push(Box::new(collect));
    }

    /// All metrics in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        metrics::with_local_recorder(&self.recorder, || self.process.collect());
        let refreshers = self.refreshers.lock().unwrap_or_else(PoisonError::into_inner);
        refreshers.iter().for_each(|refresh| refresh());
        drop(refreshers);
        let mut out = self.handle.render();
        self.families.iter().for_each(|family| family.render(&mut out));
        let collectors = self.collectors.lock().unwrap_or_else(PoisonError::into_inner);
        collectors.iter().for_each(|collect| collect(&mut out));
        out
    }

    /// Housekeeping of the exporter, to be called every second or so: it keeps what a library
    /// may record into the exporter's own histograms from piling up.
    pub fn run_upkeep(&self) {
        self.handle.run_upkeep();
    }
}

/// Appends one gauge family whose series are made at each scrape.
pub fn render_info<'a>(
    out: &mut String,
    metric: Metric,
    series: impl IntoIterator<Item = Vec<(&'a str, &'a str)>>,
) {
    let Metric { name, help } = metric;
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge");
    for labels in series {
        let _ = writeln!(out, "{name}{{{}}} 1", render_labels(&labels));
    }
    out.push('\n');
}

/// The labels of one series.
pub type Series<'a> = Vec<(&'a str, &'a str)>;

/// What a family's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeriesKind {
    /// They only grow.
    Counter,
    /// They go up and down.
    Gauge,
}

/// Appends one family whose series are made at each scrape; nothing where there is none.
pub fn render_family<'a>(
    out: &mut String,
    metric: Metric,
    kind: SeriesKind,
    series: impl IntoIterator<Item = (Series<'a>, f64)>,
) {
    let Metric { name, help } = metric;
    let mut series = series.into_iter().peekable();
    if series.peek().is_none() {
        return;
    }
    let kind = match kind {
        SeriesKind::Counter => "counter",
        SeriesKind::Gauge => "gauge",
    };
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (labels, value) in series {
        let labels = render_labels(&labels);
        let (open, close) = if labels.is_empty() { ("", "") } else { ("{", "}") };
        let _ = match value {
            f64::INFINITY => writeln!(out, "{name}{open}{labels}{close} +Inf"),
            f64::NEG_INFINITY => writeln!(out, "{name}{open}{labels}{close} -Inf"),
            value => writeln!(out, "{name}{open}{labels}{close} {value}"),
        };
    }
    out.push('\n');
}

const METADATA: Metadata<'static> = Metadata::new("tidegate", Level::INFO, None);

fn key(metric: Metric, labels: &[(&'static str, &str)]) -> Key {
    let labels = labels.iter().map(|&(name, value)| Label::new(name, value.to_owned()));
    Key::from_parts(metric.name, labels.collect::<Vec<_>>())
}

/// `model="digits",slot="primary"`, escaped as Prometheus' text format asks.
fn render_labels(labels: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (position, (name, value)) in labels.iter().enumerate() {
        let comma = if position == 0 { "" } else { "," };
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        // Writing to a String cannot fail.
        let _ = write!(out, "{comma}{name}=\"{value}\"");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_has_counters_histograms_collected_series_and_the_process() {
        let telemetry = Telemetry::default();
        telemetry.counter(names::LOADS, &[("model", "m\"\\"), ("outcome", "ok")]).increment(3);
        telemetry.histogram(names::BATCH_ROWS, &[]).record(1);
        let sharded = telemetry.sharded([telemetry.counter(names::ROWS, &[])]);
        sharded.add(0, 2);
        assert!(telemetry.render().contains("tidegate_prediction_rows_total 2"));
        sharded.add(0, 3);
        telemetry.add_collector(|out| {
            render_info(out, names::MODEL_INFO, [vec![("model", "a"), ("version", "1")]]);
        });
        let out = telemetry.render();
        for line in [
            "tidegate_model_loads_total{model=\"m\\\"\\\\\",outcome=\"ok\"} 3",
            "tidegate_execution_rows_bucket{le=\"1\"} 1",
            "tidegate_prediction_rows_total 5",
            "tidegate_model_info{model=\"a\",version=\"1\"} 1",
            "process_resident_memory_bytes ",
        ] {
            assert!(out.contains(line), "{line} is missing in\n{out}");
        }
    }
}
