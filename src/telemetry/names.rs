//! Every metric: its name, unit, help text and, for histograms, its buckets. Declared once, here.
//!
//! Labels take their values from the configuration (model names) or from closed enums, never
//! from a request, since a Prometheus series lives as long as the process.

mod capture;

pub use capture::*;

pub use super::rollout_names::*;

/// A counter or a gauge.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// The name, with its unit and, for counters, `_total` at the end.
    pub name: &'static str,
    /// What it counts, in one sentence.
    pub help: &'static str,
}

/// A histogram with fixed buckets.
#[derive(Debug, Clone, Copy)]
pub struct HistogramMetric {
    /// The name, with its unit at the end.
    pub name: &'static str,
    /// What it measures, in one sentence.
    pub help: &'static str,
    /// Upper bounds in the unit in which values are recorded, ascending.
    pub bounds: &'static [u64],
    /// Recorded units in one unit of the name: 1e9 where nanoseconds become seconds.
    pub divisor: f64,
}

pub(super) const fn metric(name: &'static str, help: &'static str) -> Metric {
    Metric { name, help }
}

const MICROS: u64 = 1_000;
const MILLIS: u64 = 1_000_000;
const SECONDS: u64 = 1_000_000_000;

/// From 10 µs, where a small model's answer lies, to 30 s; three a decade.
const LATENCY: &[u64] = &[
    10 * MICROS,
    25 * MICROS,
    50 * MICROS,
    100 * MICROS,
    250 * MICROS,
    500 * MICROS,
    MILLIS,
    2_500 * MICROS,
    5 * MILLIS,
    10 * MILLIS,
    25 * MILLIS,
    50 * MILLIS,
    100 * MILLIS,
    250 * MILLIS,
    500 * MILLIS,
    SECONDS,
    2_500 * MILLIS,
    5 * SECONDS,
    10 * SECONDS,
    30 * SECONDS,
];

const fn latency(name: &'static str, help: &'static str) -> HistogramMetric {
    HistogramMetric { name, help, bounds: LATENCY, divisor: 1e9 }
}

/// Requests whose head was read, by `plane`.
pub const RECEIVED: Metric = metric(
    "tidegate_http_requests_received_total",
    "HTTP requests whose head was read. Equals the sum of tidegate_http_requests_total and of those in flight.",
);
/// Requests ended, by `plane`, `route`, `code` and `outcome`.
pub const ENDED: Metric = metric(
    "tidegate_http_requests_total",
    "HTTP requests that ended, by outcome: answered, refused, failed or cancelled.",
);
/// Requests under way, by `plane`.
pub const IN_FLIGHT: Metric =
    metric("tidegate_http_requests_in_flight", "HTTP requests under way.");
/// Bytes of request bodies, as sent.
pub const REQUEST_BYTES: Metric =
    metric("tidegate_http_request_body_bytes_total", "Bytes of request bodies, as they came in.");
/// Bytes of answers.
pub const RESPONSE_BYTES: Metric =
    metric("tidegate_http_response_body_bytes_total", "Bytes of answers, as they went out.");
/// Open connections, by `plane`.
pub const CONNECTIONS: Metric = metric("tidegate_connections", "Open client connections.");
/// Connections accepted, by `plane`.
pub const CONNECTIONS_ACCEPTED: Metric =
    metric("tidegate_connections_accepted_total", "Client connections accepted.");
/// Connections closed at once since `limits.connections` was reached, by `plane`.
pub const CONNECTIONS_REFUSED: Metric = metric(
    "tidegate_connections_refused_total",
    "Client connections closed at once because limits.connections was reached.",
);
/// Predictions ended, by `model`, `slot`, `protocol`, `code`.
pub const PREDICTIONS: Metric =
    metric("tidegate_predictions_total", "Prediction requests that ended, for models that exist.");
/// Rows predicted, by `model`, `slot`.
pub const ROWS: Metric = metric("tidegate_prediction_rows_total", "Rows predicted.");
/// Predictions accepted and not answered.
pub const PREDICTIONS_IN_FLIGHT: Metric =
    metric("tidegate_predictions_in_flight", "Predictions accepted and not yet answered.");
/// Predictions waiting for a compute thread.
pub const QUEUED: Metric =
    metric("tidegate_predictions_queued", "Predictions waiting for a compute thread.");
/// Compute threads that run something.
pub const COMPUTE_BUSY: Metric =
    metric("tidegate_compute_threads_busy", "Compute threads that are running predictions.");
/// Queued predictions dropped unrun, by `reason`.
pub const QUEUE_DROPPED: Metric = metric(
    "tidegate_queue_dropped_total",
    "Queued predictions that were not run, since their deadline passed or their client went away.",
);
/// Engine panics, by `model`.
pub const PANICS: Metric =
    metric("tidegate_panics_total", "Panics caught, each one failed request.");
/// Versions that the engine panicked on time after time, by `model`.
pub const QUARANTINES: Metric = metric(
    "tidegate_quarantines_total",
    "Versions that refuse requests since the engine panicked on them time after time.",
);
/// Versions that held up I/O threads, by `model`.
pub const DEMOTIONS: Metric = metric(
    "tidegate_inline_demotions_total",
    "Versions sent to the compute pool since they held up I/O threads for longer than expected.",
);
/// Copies of requests for shadows, by `model` and `outcome`.
pub const COPIES: Metric = metric(
    "tidegate_shadow_copies_total",
    "Copies of requests for shadows that ended: compared, failed, timed_out, or dropped since there was no room.",
);
/// Copies that wait for their shadow, or are being run.
pub const COPIES_WAITING: Metric =
    metric("tidegate_shadow_copies_waiting", "Copies of requests that wait for shadows or run.");
/// Shares of the traffic, by `model`, `version` and `slot`. Made at each scrape; so is all that follows
/// about comparisons, by `model`, `primary` and `candidate`.
pub const TRAFFIC_SHARE: Metric = metric(
    "tidegate_traffic_share",
    "Share of the requests that a version answers (primary, canary) or gets copies of (shadow).",
);
/// Requests compared.
pub const COMPARED: Metric = metric(
    "tidegate_comparison_requests_total",
    "Copied requests that came to an end on both sides.",
);
/// Rows compared.
pub const COMPARED_ROWS: Metric =
    metric("tidegate_comparison_rows_total", "Rows compared between primary and candidate.");
/// Rows that agree.
pub const COMPARED_AGREED: Metric = metric(
    "tidegate_comparison_rows_agreed_total",
    "Rows on which primary and candidate name the same class, or are within the tolerance where there are no classes.",
);
/// Rows within the tolerance.
pub const COMPARED_WITHIN: Metric = metric(
    "tidegate_comparison_rows_within_total",
    "Rows of which all outputs are within the tolerance.",
);
/// Requests that failed, by `side` as well.
pub const COMPARED_ERRORS: Metric = metric(
    "tidegate_comparison_errors_total",
    "Copied requests that the candidate, the primary or both failed on.",
);
/// Requests that took the candidate longer than allowed.
pub const COMPARED_SLOWER: Metric = metric(
    "tidegate_comparison_slower_total",
    "Copied requests that took the candidate more than latency_ratio times the primary's time.",
);
/// The ratio of both times.
pub const COMPARED_LATENCY: Metric = metric(
    "tidegate_comparison_latency_ratio",
    "Geometric mean of the candidate's time over the primary's, request by request.",
);
/// The largest difference, by `output` as well.
pub const COMPARED_MAX: Metric = metric(
    "tidegate_comparison_difference_max",
    "Largest absolute difference of an output between primary and candidate.",
);
/// The mean difference, by `output` as well.
pub const COMPARED_MEAN: Metric = metric(
    "tidegate_comparison_difference_mean",
    "Mean absolute difference of an output between primary and candidate.",
);
/// How far outputs are apart as a whole, by `output` as well.
pub const COMPARED_PSI: Metric = metric(
    "tidegate_comparison_psi",
    "Population stability index of the candidate's output against the primary's, in nats.",
);
/// Attempts to load a version, by `model` and `outcome`.
pub const LOADS: Metric = metric("tidegate_model_loads_total", "Attempts to load a model version.");
/// Commits that changed what serves, by `trigger`.
pub const SWAPS: Metric = metric("tidegate_swaps_total", "Atomic changes of what serves.");
/// Versions retired and not yet dropped.
pub const RETIRING: Metric = metric(
    "tidegate_versions_retiring",
    "Versions taken out of service that still answer requests accepted before.",
);
/// Versions that serve.
pub const LIVE: Metric = metric("tidegate_versions_live", "Versions that serve.");
/// Configuration reloads, by `outcome`.
pub const RELOADS: Metric =
    metric("tidegate_config_reloads_total", "Attempts to reload the configuration.");
/// When the running configuration was applied.
pub const RELOADED_AT: Metric = metric(
    "tidegate_config_applied_timestamp_seconds",
    "When the running configuration was applied, in seconds since 1970.",
);
/// 1 where the last reload succeeded, else 0.
pub const RELOAD_OK: Metric =
    metric("tidegate_config_last_reload_successful", "1 if the last reload was applied, else 0.");
/// Access lines that the log's queue had no room for.
pub const LOG_DROPPED: Metric =
    metric("tidegate_log_lines_dropped_total", "Log lines that the log's queue had no room for.");
/// Spans of traced requests, by `outcome`.
pub const TRACE_SPANS: Metric = metric(
    "tidegate_trace_spans_total",
    "Spans of traced requests, by outcome: exported, failed since the receiver did not take them, or dropped since the queue was full.",
);
/// Traced requests that wait to be exported.
pub const TRACES_WAITING: Metric =
    metric("tidegate_traces_waiting", "Traced requests that wait to be exported.");
/// Rows that a rule of the monitor held for, by `model`, `slot`, `rule`.
pub const RULES_HELD: Metric = metric(
    "tidegate_monitor_rules_held_total",
    "Rows for which a rule of the model's monitor held: outlier, new_category, low_margin, out_of_range.",
);
/// Answers that wait to be observed.
pub const OBSERVATIONS_WAITING: Metric =
    metric("tidegate_observations_waiting", "Answers that wait to be observed.");
/// Always 1, with build facts as labels.
pub const BUILD_INFO: Metric = metric("tidegate_build_info", "Always 1; the labels say what runs.");
/// Always 1 for a live version, with `model`, `version`, `digest`, `slot`.
pub const MODEL_INFO: Metric = metric(
    "tidegate_model_info",
    "Always 1 for each version that serves; gone when it is retired.",
);
/// Always 1, with the running configuration's `digest`.
pub const CONFIG_INFO: Metric = metric(
    "tidegate_config_info",
    "Always 1; the label is the digest of the running configuration.",
);

/// Changes of state that were not told, since their queue was full.
pub const ALERT_EVENTS_DROPPED: Metric = metric(
    "tidegate_alert_events_dropped_total",
    "Changes of state that nobody was told of, since the queue for them was full.",
);
/// Messages to a target, by `target` and `outcome`.
pub const ALERT_MESSAGES: Metric = metric(
    "tidegate_alert_messages_total",
    "Messages to a target of alerts, by outcome: sent, failed (given up) or dropped (no room).",
);
/// Attempts after the first, by `target`.
pub const ALERT_RETRIES: Metric =
    metric("tidegate_alert_retries_total", "Messages tried again, each attempt after the first.");
/// Messages that wait or are being sent, by `target`.
pub const ALERT_WAITING: Metric = metric(
    "tidegate_alert_messages_waiting",
    "Messages that wait for a target of alerts, or are being sent.",
);
/// Alerts that fire.
pub const ALERTS_FIRING: Metric =
    metric("tidegate_alerts_firing", "Watched streams that drift or perform worse.");

/// A watched stream's state, by `model`, `version` and, of a part of the traffic, `segment`.
pub const DRIFT_STATE: Metric = metric(
    "tidegate_drift_state",
    "State of what is watched: 0 learning, 1 ok, 2 suspected, 3 drifted, 4 recovered.",
);
/// Evidence of all features together, labels as above.
pub const DRIFT_EVIDENCE: Metric = metric(
    "tidegate_drift_evidence",
    "Evidence against the baseline, of all features together: the logarithm of the detector's sum.",
);
/// Evidence that means drift, labels as above.
pub const DRIFT_THRESHOLD: Metric = metric(
    "tidegate_drift_threshold",
    "Evidence that means drift: the logarithm of the promised ticks between false alarms.",
);
/// Whether somebody has seen the drift, labels as above.
pub const DRIFT_ACKNOWLEDGED: Metric =
    metric("tidegate_drift_acknowledged", "1 if somebody has acknowledged the drift, else 0.");
/// The baseline's size, labels as above.
pub const DRIFT_BASELINE_ROWS: Metric =
    metric("tidegate_drift_baseline_rows", "Rows that the baseline was made of.");
/// The last tick, labels as above.
pub const DRIFT_TICKED_AT: Metric = metric(
    "tidegate_drift_last_tick_timestamp_seconds",
    "When the last tick was, in seconds since 1970.",
);
/// Features watched, labels as above.
pub const DRIFT_FEATURES: Metric = metric("tidegate_drift_features", "Features that are watched.");
/// Rows counted, labels as above.
pub const DRIFT_ROWS: Metric =
    metric("tidegate_drift_rows_total", "Rows counted since the version went live.");
/// Rows beyond the baseline's outlier score, labels as above.
pub const DRIFT_OUTLIERS: Metric = metric(
    "tidegate_drift_outlier_rows_total",
    "Rows whose outlier score was beyond that of 999 in 1000 rows of the baseline.",
);
/// Ticks made, labels as above.
pub const DRIFT_TICKS: Metric =
    metric("tidegate_drift_ticks_total", "Ticks made since the version went live.");
/// A feature's state, by `model`, `version`, `feature`, `side`.
pub const DRIFT_FEATURE_STATE: Metric = metric(
    "tidegate_drift_feature_state",
    "State of a feature: 0 learning, 1 ok, 2 suspected, 3 drifted, 4 recovered.",
);
/// A feature's evidence, labels as above.
pub const DRIFT_FEATURE_EVIDENCE: Metric =
    metric("tidegate_drift_feature_evidence", "Evidence against the baseline, of one feature.");
/// Population stability index, by the labels of a feature and `window`.
pub const DRIFT_PSI: Metric = metric(
    "tidegate_drift_psi",
    "Population stability index in nats, less what chance alone gives; shares are (c+1/2)/(n+K/2).",
);
/// Jensen–Shannon distance, labels as above.
pub const DRIFT_JENSEN_SHANNON: Metric =
    metric("tidegate_drift_jensen_shannon", "Jensen-Shannon distance, base 2: from 0 to 1.");
/// Kolmogorov–Smirnov statistic, of numbers, labels as above.
pub const DRIFT_KS: Metric = metric(
    "tidegate_drift_kolmogorov_smirnov",
    "Largest difference between the distribution functions, of numeric features.",
);
/// Wasserstein distance, of numbers, labels as above.
pub const DRIFT_WASSERSTEIN: Metric = metric(
    "tidegate_drift_wasserstein",
    "Wasserstein distance over the baseline's standard deviation, of numeric features.",
);
/// Share of missing values, labels as above.
pub const DRIFT_MISSING: Metric =
    metric("tidegate_drift_missing_share", "Share of values that are missing.");
/// Share of new categories, of categorical features, labels as above.
pub const DRIFT_NEW: Metric =
    metric("tidegate_drift_new_share", "Share of values in no category of the baseline.");
/// Share outside of the range, of numeric features, labels as above.
pub const DRIFT_OUT_OF_RANGE: Metric = metric(
    "tidegate_drift_out_of_range_share",
    "Share of values below the baseline's least or above its greatest.",
);
/// Performance's state, by `model`, `version`.
pub const PERFORMANCE_STATE: Metric = metric(
    "tidegate_performance_state",
    "State of the loss by labels: 0 learning, 1 ok, 2 suspected, 3 drifted, 4 recovered.",
);
/// The loss's evidence, labels as above.
pub const PERFORMANCE_EVIDENCE: Metric = metric(
    "tidegate_performance_evidence",
    "Evidence that the loss is beyond its limit: the logarithm of the detector's sum.",
);
/// Evidence that means worse performance, labels as above.
pub const PERFORMANCE_THRESHOLD: Metric = metric(
    "tidegate_performance_threshold",
    "Evidence that means worse performance: the logarithm of the promised ticks between false alarms.",
);
/// A measure, by the labels above, `measure`, `source` and `window`.
pub const PERFORMANCE_MEASURE: Metric = metric(
    "tidegate_performance_measure",
    "Performance: of the baseline, by labels, or estimated from scores, which does not see concept drift.",
);
/// Labels, by `model`, `version`, `outcome`.
pub const PERFORMANCE_LABELS: Metric = metric(
    "tidegate_performance_labels_total",
    "Labels that came, by outcome: joined, late, unknown, duplicate or invalid.",
);
/// Changes of state, by `model`, `detector`, `state`.
pub const DRIFT_EVENTS: Metric =
    metric("tidegate_drift_events_total", "Changes of state, by the state after.");
/// A cell's count, by `model`, `version`, `feature`, `cell`; where `cell_metrics` is on.
pub const DRIFT_CELL_VALUES: Metric = metric(
    "tidegate_drift_cell_values_total",
    "Values counted in a cell since the version went live; they add up over gateways.",
);
/// A cell's count in the baseline, labels as above.
pub const DRIFT_CELL_BASELINE: Metric =
    metric("tidegate_drift_cell_baseline_values", "Values of the baseline in a cell.");
/// How far the monitor is behind.
pub const MONITOR_LAG: Metric = metric(
    "tidegate_monitor_lag_seconds",
    "Time between an answer and the counting of its observation.",
);
/// What the monitor costs.
pub const MONITOR_CPU: Metric =
    metric("tidegate_monitor_cpu_seconds_total", "CPU seconds of the monitor's threads.");
/// Observations, by `outcome`: observed or dropped.
pub const MONITOR_OBSERVATIONS: Metric = metric(
    "tidegate_monitor_observations_total",
    "Answers offered to the monitor, by outcome: observed, or dropped since its queue was full.",
);

/// From head read to answer ready, by `model`, `slot`.
pub const DURATION: HistogramMetric =
    latency("tidegate_prediction_duration_seconds", "Time from the request's head to its answer.");
/// Waiting for a compute thread, by `model`, `slot`.
pub const QUEUE_DURATION: HistogramMetric = latency(
    "tidegate_prediction_queue_seconds",
    "Time that predictions waited for a compute thread.",
);
/// Inside the engine, by `model`, `slot`.
pub const COMPUTE_DURATION: HistogramMetric =
    latency("tidegate_prediction_compute_seconds", "Time that predictions took inside the engine.");
/// Rows of one execution, by `model`, `slot`.
pub const BATCH_ROWS: HistogramMetric = HistogramMetric {
    name: "tidegate_execution_rows",
    help: "Rows that the engine ran at once.",
    bounds: &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384],
    divisor: 1.0,
};
/// Loading a version, by `model`.
pub const LOAD_DURATION: HistogramMetric =
    latency("tidegate_model_load_seconds", "Time to read, compile and warm up a model version.");

/// All counters.
pub const COUNTERS: &[Metric] = &[
    COPIES,
    RECEIVED,
    ENDED,
    REQUEST_BYTES,
    RESPONSE_BYTES,
    CONNECTIONS_ACCEPTED,
    CONNECTIONS_REFUSED,
    PREDICTIONS,
    ROWS,
    QUEUE_DROPPED,
    PANICS,
    QUARANTINES,
    DEMOTIONS,
    LOADS,
    SWAPS,
    RELOADS,
    LOG_DROPPED,
    TRACE_SPANS,
    RULES_HELD,
    ALERT_EVENTS_DROPPED,
    ALERT_MESSAGES,
    ALERT_RETRIES,
    DRIFT_EVENTS,
    CAPTURED_ROWS,
    CAPTURED_BYTES,
    CAPTURED_FILES,
    CAPTURE_REMOVED,
    CAPTURE_DROPPED,
    CAPTURE_ERRORS,
    CAPTURE_UPLOADS,
];

/// All gauges.
pub const GAUGES: &[Metric] = &[
    COPIES_WAITING,
    IN_FLIGHT,
    CONNECTIONS,
    PREDICTIONS_IN_FLIGHT,
    QUEUED,
    COMPUTE_BUSY,
    RETIRING,
    LIVE,
    RELOADED_AT,
    RELOAD_OK,
    OBSERVATIONS_WAITING,
    TRACES_WAITING,
    BUILD_INFO,
    ALERT_WAITING,
    ALERTS_FIRING,
    CAPTURE_SPOOLED,
    CAPTURE_WAITING,
    CAPTURE_LAG,
];

/// All histograms.
pub const HISTOGRAMS: &[HistogramMetric] =
    &[DURATION, QUEUE_DURATION, COMPUTE_DURATION, BATCH_ROWS, LOAD_DURATION];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_prometheus_conventions() {
        for counter in COUNTERS {
            assert!(counter.name.ends_with("_total"), "{}", counter.name);
        }
        let names = COUNTERS.iter().chain(GAUGES).map(|m| m.name);
        let names: Vec<_> = names.chain(HISTOGRAMS.iter().map(|m| m.name)).collect();
        for (position, name) in names.iter().enumerate() {
            assert!(name.starts_with("tidegate_"), "{name}");
            assert!(!names[..position].contains(name), "{name} is declared twice");
        }
        for histogram in HISTOGRAMS {
            assert!(histogram.bounds.is_sorted(), "{}", histogram.name);
        }
    }
}
