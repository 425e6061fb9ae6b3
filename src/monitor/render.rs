//! Verdicts as Prometheus series, made at each scrape: a version's series go with the version.
//!
//! Bounded, whatever the traffic. With F numeric features, C categorical ones and S segments a
//! version has 10 (1 + S) + 14 F + 10 C series: 7,178 for 512 numeric features without segments.
//! Segments have no series by feature; the admin plane shows them. Where `cell_metrics` is on,
//! 2 more for each cell of each feature (some 22 cells of a numeric one, 34 at most). Performance has
//! 45 at most.

use std::sync::Arc;

use super::feature::Side;
use super::performance::{Band, Estimated, Measures, PerformanceVerdict};
use super::verdict::{Event, FeatureVerdict, State, Verdict, WindowVerdict};
use crate::telemetry::names::{self, Metric};
use crate::telemetry::{Series, SeriesKind, Telemetry, render_family};

/// Windows that have series: what happened lately, and all.
const WINDOWS: [&str; 2] = ["1h", "all"];

/// What the monitor itself does.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Figures {
    /// Seconds between an answer and the counting of its observation, the newest.
    pub lag: f64,
    /// CPU seconds of the monitor's threads.
    pub cpu: f64,
    /// Observations counted.
    pub observed: u64,
    /// Observations that found no room.
    pub dropped: u64,
}

/// A feature's cells, whose counts add up over a fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellSnapshot {
    /// The model's name.
    pub model: String,
    /// The version's number.
    pub version: u64,
    /// The feature's name.
    pub feature: String,
    /// Values counted in each cell since the version went live.
    pub live: Vec<u64>,
    /// Values of the baseline in each cell.
    pub baseline: Vec<u64>,
}

/// Counts a change of state.
pub fn count_event(telemetry: &Telemetry, event: &Event) {
    let labels = [
        ("model", event.subject.model.as_str()),
        ("detector", event.detector.as_str()),
        ("state", event.to.name()),
    ];
    telemetry.counter(names::DRIFT_EVENTS, &labels).increment(1);
}

/// Appends the series of what is watched.
pub fn render(verdicts: &[Arc<Verdict>], out: &mut String) {
    let versions: Vec<Labels<'_>> = verdicts.iter().map(|verdict| Labels::of(verdict)).collect();
    let mut version_gauge = |metric: Metric, value: &dyn Fn(&Verdict) -> f64| {
        let series = verdicts.iter().zip(&versions);
        let series = series.map(|(verdict, labels)| (labels.version(), value(verdict)));
        render_family(out, metric, SeriesKind::Gauge, series);
    };
    version_gauge(names::DRIFT_STATE, &|verdict| state(verdict.state));
    version_gauge(names::DRIFT_EVIDENCE, &|verdict| verdict.evidence);
    version_gauge(names::DRIFT_THRESHOLD, &|verdict| verdict.threshold);
    version_gauge(names::DRIFT_ACKNOWLEDGED, &|verdict| f64::from(u8::from(verdict.acknowledged)));
    version_gauge(names::DRIFT_BASELINE_ROWS, &|verdict| verdict.baseline.rows as f64);
    version_gauge(names::DRIFT_TICKED_AT, &|verdict| verdict.at as f64 / 1e3);
    version_gauge(names::DRIFT_FEATURES, &|verdict| verdict.features.len() as f64);
    for (metric, value) in [
        (names::DRIFT_ROWS, (|verdict| verdict.rows) as fn(&Verdict) -> u64),
        (names::DRIFT_TICKS, |verdict| verdict.ticks),
        (names::DRIFT_OUTLIERS, |verdict| verdict.outliers),
    ] {
        let series = verdicts.iter().zip(&versions);
        let series = series.map(|(verdict, labels)| (labels.version(), value(verdict) as f64));
        render_family(out, metric, SeriesKind::Counter, series);
    }
    let features: Vec<(&Labels<'_>, &FeatureVerdict)> = verdicts
        .iter()
        .zip(&versions)
        .filter(|(verdict, _)| verdict.subject.segment.is_none())
        .flat_map(|(verdict, labels)| verdict.features.iter().map(move |f| (labels, f)))
        .collect();
    let mut feature_gauge = |metric: Metric, value: &dyn Fn(&FeatureVerdict) -> f64| {
        let series = features.iter().map(|(labels, f)| (labels.feature(f), value(f)));
        render_family(out, metric, SeriesKind::Gauge, series);
    };
    feature_gauge(names::DRIFT_FEATURE_STATE, &|feature| state(feature.state));
    feature_gauge(names::DRIFT_FEATURE_EVIDENCE, &|feature| feature.evidence);
    let mut window_gauge = |metric: Metric, value: WindowValue| {
        let windows = features.iter().flat_map(|(labels, feature)| {
            let windows = feature.windows.iter().filter(|w| WINDOWS.contains(&w.window.as_str()));
            windows.map(move |window| (*labels, *feature, window))
        });
        let series = windows.filter_map(|(labels, feature, window)| {
            let mut series = labels.feature(feature);
            series.push(("window", &window.window));
            Some((series, value(feature, window)?))
        });
        render_family(out, metric, SeriesKind::Gauge, series);
    };
    window_gauge(names::DRIFT_PSI, |_, window| Some(window.effects.psi_debiased));
    window_gauge(names::DRIFT_JENSEN_SHANNON, |_, window| Some(window.effects.jensen_shannon));
    window_gauge(names::DRIFT_KS, |_, window| window.effects.ks);
    window_gauge(names::DRIFT_WASSERSTEIN, |_, window| window.effects.wasserstein);
    window_gauge(names::DRIFT_MISSING, |_, window| Some(window.missing));
    window_gauge(names::DRIFT_NEW, |f, window| is_categorical(f).then_some(window.new));
    window_gauge(names::DRIFT_OUT_OF_RANGE, |f, window| {
        (!is_categorical(f)).then_some(window.out_of_range)
    });
    render_performance(verdicts, out);
}

/// Appends the performance of what has a baseline or labels: 3 series a version and 5 of its
/// labels; 9 measures, of the baseline and, over each window, by labels; 5 of them estimated.
fn render_performance(verdicts: &[Arc<Verdict>], out: &mut String) {
    let versions: Vec<(Labels<'_>, &PerformanceVerdict)> = verdicts
        .iter()
        .filter_map(|verdict| Some((Labels::of(verdict), verdict.performance.as_ref()?)))
        .collect();
    for (metric, value) in [
        (
            names::PERFORMANCE_STATE,
            (|performance| state(performance.state)) as fn(&PerformanceVerdict) -> f64,
        ),
        (names::PERFORMANCE_EVIDENCE, |performance| performance.loss.evidence),
        (names::PERFORMANCE_THRESHOLD, |performance| performance.loss.threshold),
    ] {
        let series = versions.iter().map(|(labels, of)| (labels.version(), value(of)));
        render_family(out, metric, SeriesKind::Gauge, series);
    }
    let labels = versions.iter().flat_map(|(labels, performance)| {
        let counts = &performance.labels;
        [
            ("joined", counts.joined),
            ("late", counts.late),
            ("unknown", counts.unknown),
            ("duplicate", counts.duplicate),
            ("invalid", counts.invalid),
        ]
        .map(|(outcome, count)| {
            let mut series = labels.version();
            series.push(("outcome", outcome));
            (series, count as f64)
        })
    });
    render_family(out, names::PERFORMANCE_LABELS, SeriesKind::Counter, labels);
    let mut measures = Vec::new();
    for (labels, performance) in &versions {
        let mut push = |source, window, rows: u64, values: &[(&'static str, Option<f64>)]| {
            for (measure, value) in values.iter().filter(|_| rows > 0) {
                let Some(value) = value else { continue };
                let mut series = labels.version();
                series.extend([("measure", *measure), ("source", source), ("window", window)]);
                measures.push((series, *value));
            }
        };
        if let Some(baseline) = &performance.baseline {
            push("baseline", "all", 1, &by_name(baseline));
        }
        let is_shown = |window: &str| WINDOWS.contains(&window);
        for of in performance.realised.iter().filter(|of| is_shown(&of.window)) {
            push("labels", &of.window, of.rows, &by_name(&of.measures));
        }
        for of in performance.estimated.iter().filter(|of| is_shown(&of.window)) {
            let Estimated { accuracy, precision, recall, f1, roc_auc } = of.measures;
            let value = |band: Option<Band>| band.map(|band| band.value);
            let values = [
                ("accuracy", value(accuracy)),
                ("precision", value(precision)),
                ("recall", value(recall)),
                ("f1", value(f1)),
                ("roc_auc", value(roc_auc)),
            ];
            push("estimated", &of.window, of.rows, &values);
        }
    }
    render_family(out, names::PERFORMANCE_MEASURE, SeriesKind::Gauge, measures);
}

/// Measures with the names that their label has.
pub fn by_name(measures: &Measures) -> [(&'static str, Option<f64>); 9] {
    let Measures { accuracy, precision, recall, f1, log_loss, roc_auc, mae, rmse, bias } =
        *measures;
    [
        ("accuracy", accuracy),
        ("precision", precision),
        ("recall", recall),
        ("f1", f1),
        ("log_loss", log_loss),
        ("roc_auc", roc_auc),
        ("mae", mae),
        ("rmse", rmse),
        ("bias", bias),
    ]
}

/// A value of one window; nothing where the feature has none.
type WindowValue = fn(&FeatureVerdict, &WindowVerdict) -> Option<f64>;

/// Appends what the monitor itself does.
pub fn render_figures(figures: &Figures, out: &mut String) {
    let alone = |value| [(Series::new(), value)];
    render_family(out, names::MONITOR_LAG, SeriesKind::Gauge, alone(figures.lag));
    render_family(out, names::MONITOR_CPU, SeriesKind::Counter, alone(figures.cpu));
    let outcomes = [("observed", figures.observed), ("dropped", figures.dropped)];
    let series = outcomes.map(|(outcome, count)| (vec![("outcome", outcome)], count as f64));
    render_family(out, names::MONITOR_OBSERVATIONS, SeriesKind::Counter, series);
}

/// Appends cell counters, for the drift of a fleet: they add up over its gateways.
pub fn render_cells(snapshots: &[CellSnapshot], out: &mut String) {
    let most = snapshots.iter().map(|cells| cells.live.len().max(cells.baseline.len())).max();
    // Two digits, so that cells sort as text.
    let indices: Vec<String> = (0..most.unwrap_or(0)).map(|index| format!("{index:02}")).collect();
    let versions: Vec<String> = snapshots.iter().map(|cells| cells.version.to_string()).collect();
    for (metric, kind, counts) in [
        (
            names::DRIFT_CELL_VALUES,
            SeriesKind::Counter,
            (|cells| &cells.live) as fn(&CellSnapshot) -> &[u64],
        ),
        (names::DRIFT_CELL_BASELINE, SeriesKind::Gauge, |cells| &cells.baseline),
    ] {
        let snapshots = snapshots.iter().zip(&versions);
        let series = snapshots.flat_map(|(cells, version)| {
            counts(cells).iter().zip(&indices).map(move |(count, index)| {
                let labels = vec![
                    ("model", cells.model.as_str()),
                    ("version", version.as_str()),
                    ("feature", cells.feature.as_str()),
                    ("cell", index.as_str()),
                ];
                (labels, *count as f64)
            })
        });
        render_family(out, metric, kind, series);
    }
}

/// The labels that the series of a verdict share.
struct Labels<'a> {
    model: &'a str,
    version: String,
    segment: Option<&'a str>,
}

impl<'a> Labels<'a> {
    fn of(verdict: &'a Verdict) -> Self {
        let subject = &verdict.subject;
        Self {
            model: &subject.model,
            version: subject.version.to_string(),
            segment: subject.segment.as_deref(),
        }
    }

    fn version(&self) -> Series<'_> {
        let segment = self.segment.map(|segment| ("segment", segment));
        [("model", self.model), ("version", self.version.as_str())]
            .into_iter()
            .chain(segment)
            .collect()
    }

    fn feature<'b>(&'b self, feature: &'b FeatureVerdict) -> Series<'b> {
        let side = match feature.side {
            Side::Input => "input",
            Side::Output => "output",
            Side::Derived => "derived",
        };
        let mut labels = self.version();
        labels.extend([("feature", feature.name.as_str()), ("side", side)]);
        labels
    }
}

/// A state's number: its place in [`State::ALL`].
fn state(state: State) -> f64 {
    State::ALL.iter().position(|other| *other == state).map_or(f64::NAN, |place| place as f64)
}

fn is_categorical(feature: &FeatureVerdict) -> bool {
    feature.kind == super::feature::Kind::Categorical
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::sample::verdict;

    #[test]
    fn series_are_as_many_as_promised() {
        let count = |verdicts: &[Arc<Verdict>]| {
            let mut out = String::new();
            render(verdicts, &mut out);
            out.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).count()
        };
        let whole = Arc::new(verdict("loan", 2, None));
        let segment = Arc::new(verdict("loan", 2, Some("north")));
        let n_numeric = whole.features.iter().filter(|f| !is_categorical(f)).count();
        let n_categorical = whole.features.len() - n_numeric;
        assert!(n_numeric > 0 && n_categorical > 0);
        let of_features = 14 * n_numeric + 10 * n_categorical;
        assert_eq!(count(std::slice::from_ref(&whole)), 10 + of_features);
        assert_eq!(count(&[whole, segment]), 10 * 2 + of_features);
        assert_eq!(count(&[]), 0);
    }

    #[test]
    fn a_verdict_is_gauges_by_version_and_feature() {
        let mut out = String::new();
        render(&[Arc::new(verdict("loan", 2, None))], &mut out);
        render_figures(&Figures { lag: 0.5, cpu: 1.25, observed: 7, dropped: 1 }, &mut out);
        let cells = CellSnapshot {
            model: "loan".to_owned(),
            version: 2,
            feature: "a\"b".to_owned(),
            live: vec![5, 6],
            baseline: vec![50, 60],
        };
        render_cells(&[cells], &mut out);
        for line in [
            "# TYPE tidegate_drift_state gauge",
            "tidegate_drift_state{model=\"loan\",version=\"2\"} 3",
            "# TYPE tidegate_drift_rows_total counter",
            "tidegate_drift_rows_total{model=\"loan\",version=\"2\"} 50000",
            "tidegate_drift_feature_state{model=\"loan\",version=\"2\",feature=\"income\",side=\"input\"} 3",
            "tidegate_drift_psi{model=\"loan\",version=\"2\",feature=\"income\",side=\"input\",window=\"1h\"} 0.25",
            "tidegate_drift_new_share{model=\"loan\",version=\"2\",feature=\"region\",side=\"input\",window=\"all\"} 0.01",
            "tidegate_monitor_cpu_seconds_total 1.25",
            "tidegate_monitor_observations_total{outcome=\"dropped\"} 1",
            "tidegate_drift_cell_values_total{model=\"loan\",version=\"2\",feature=\"a\\\"b\",cell=\"01\"} 6",
            "tidegate_drift_cell_baseline_values{model=\"loan\",version=\"2\",feature=\"a\\\"b\",cell=\"00\"} 50",
        ] {
            assert!(out.contains(&format!("{line}\n")), "{line} is missing in\n{out}");
        }
        assert!(!out.contains("window=\"5m\""));
    }
}
