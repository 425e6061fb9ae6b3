//! How a model is watched: `[models.NAME.monitor]` and `[defaults.monitor]`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Report;
use super::units::HumanDuration;

/// Features of one version, at most: memory is bounded by models × features × cells.
const MOST_FEATURES: usize = 4096;

/// Rows that a baseline may be learned from: they are kept until then.
const MOST_LEARNED: u64 = 1_000_000;

/// Valid settings of a model's monitor.
#[derive(Debug, Clone, PartialEq)]
pub struct Monitor {
    /// Whether its versions are watched at all.
    pub enabled: bool,
    /// What is promised of alarms where nothing has changed.
    pub false_alarms: FalseAlarms,
    /// The shortest time between two ticks.
    pub tick: Duration,
    /// Rows that a tick waits for.
    pub tick_rows: u64,
    /// Relative change of a cell's share that is no drift.
    pub tolerance: f64,
    /// Share of requests that is watched, chosen by a hash of their ids.
    pub sample: f64,
    /// Rows of live traffic that make a baseline where the version has no `baseline.json`.
    pub learn: Option<u64>,
    /// Whether each hour of the week has a baseline of its own.
    pub season: Season,
    /// What splits the traffic into parts that are watched apart as well.
    pub segment: Option<Segment>,
    /// Names of the columns of an input, by input.
    pub names: BTreeMap<String, Vec<String>>,
    /// What is known of single features, by name.
    pub features: BTreeMap<String, FeatureSettings>,
    /// Features that are watched at most; the others are counted as left out.
    pub max_features: usize,
    /// The output that is the score: a probability, or one for each class.
    pub score: Option<String>,
    /// The output that is the prediction: a class or a value.
    pub prediction: Option<String>,
    /// Whether answers carry the outlier score of their rows.
    pub outlier_header: bool,
    /// What is done in the request, and when.
    pub rules: Vec<Rule>,
    /// Classical detectors that run beside ours.
    pub detectors: Vec<Classical>,
    /// Labels that come later.
    pub labels: Labels,
    /// Whether every cell is a Prometheus counter.
    pub cell_metrics: bool,
}

/// A promise: at most one false alarm in so much time, or in so many rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FalseAlarms {
    /// In so much time.
    Time(Duration),
    /// In so many rows.
    Rows(u64),
}

/// Whether the baseline depends on the time of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Season {
    /// It does not.
    #[serde(rename = "off")]
    Off,
    /// 168 of them, in UTC.
    #[serde(rename = "hour of week")]
    HourOfWeek,
}

/// What splits the traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Segment {
    /// A header's value.
    #[serde(rename = "header")]
    Header(String),
    /// A categorical feature's value.
    #[serde(rename = "feature")]
    Feature(String),
}

/// What is known of a feature.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FeatureSettings {
    /// `numeric` or `categorical`, where what is detected is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<FeatureKind>,
    /// Whether it is not watched.
    pub ignore: bool,
    /// Classical detectors on its values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub detectors: Vec<Classical>,
}

/// What a feature's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FeatureKind {
    /// Numbers.
    Numeric,
    /// Names.
    Categorical,
}

/// What is done in a request, and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What must be so.
    pub when: When,
    /// What is done then.
    pub then: Then,
    /// The margin below which `low_margin` holds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub margin: Option<f64>,
    /// The output that `override` replaces; by default the prediction.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub output: Option<String>,
    /// What `override` puts in its place.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub value: Option<toml::Value>,
}

/// When a rule holds for a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// Its outlier score is beyond the baseline's quantile.
    Outlier,
    /// A feature has a category that the baseline does not know.
    NewCategory,
    /// The likeliest class is hardly likelier than the next.
    LowMargin,
    /// A number is outside of the baseline's range.
    OutOfRange,
}

impl When {
    /// All of them, in their order.
    pub const ALL: [Self; 4] =
        [Self::Outlier, Self::NewCategory, Self::LowMargin, Self::OutOfRange];

    /// The name in the configuration, in headers and as a metric label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Outlier => "outlier",
            Self::NewCategory => "new_category",
            Self::LowMargin => "low_margin",
            Self::OutOfRange => "out_of_range",
        }
    }
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// Says so in a header.
    Flag,
    /// Refuses the request.
    Reject,
    /// Replaces the row's prediction.
    Override,
}

/// A classical detector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Classical {
    /// Bifet and Gavaldà 2007.
    Adwin,
    /// Page 1954.
    PageHinkley,
}

/// How labels that come later find their predictions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Labels {
    /// How long a prediction waits for its label.
    pub wait: Duration,
    /// Predictions that wait, at most.
    pub most: usize,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawMonitor {
    #[serde(skip_serializing_if = "Option::is_none")]
    enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    false_alarms: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tick: Option<HumanDuration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tick_rows: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tolerance: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sample: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    baseline: Option<RawBaseline>,
    #[serde(skip_serializing_if = "Option::is_none")]
    season: Option<Season>,
    #[serde(skip_serializing_if = "Option::is_none")]
    segment: Option<Segment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    names: Option<BTreeMap<String, Vec<String>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    features: Option<BTreeMap<String, FeatureSettings>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_features: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prediction: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outlier_header: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rules: Option<Vec<Rule>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detectors: Option<Vec<Classical>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<RawLabels>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cell_metrics: Option<bool>,
}

/// `"file"`, or `{ learn = 20000 }`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected \"file\" or { learn = ROWS }")]
enum RawBaseline {
    Word(String),
    Learn(RawLearn),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLearn {
    learn: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawLabels {
    wait: HumanDuration,
    most: usize,
}

impl Default for RawLabels {
    fn default() -> Self {
        Self { wait: HumanDuration(Duration::from_secs(24 * 3600)), most: 100_000 }
    }
}

impl RawMonitor {
    /// These settings where they are given, else those of `base`, key by key.
    pub(super) fn over(self, base: Self) -> Self {
        Self {
            enabled: self.enabled.or(base.enabled),
            false_alarms: self.false_alarms.or(base.false_alarms),
            tick: self.tick.or(base.tick),
            tick_rows: self.tick_rows.or(base.tick_rows),
            tolerance: self.tolerance.or(base.tolerance),
            sample: self.sample.or(base.sample),
            baseline: self.baseline.or(base.baseline),
            season: self.season.or(base.season),
            segment: self.segment.or(base.segment),
            names: self.names.or(base.names),
            features: self.features.or(base.features),
            max_features: self.max_features.or(base.max_features),
            score: self.score.or(base.score),
            prediction: self.prediction.or(base.prediction),
            outlier_header: self.outlier_header.or(base.outlier_header),
            rules: self.rules.or(base.rules),
            detectors: self.detectors.or(base.detectors),
            labels: self.labels.or(base.labels),
            cell_metrics: self.cell_metrics.or(base.cell_metrics),
        }
    }
}

impl Default for Monitor {
    /// What a model without settings gets.
    fn default() -> Self {
        let mut problems = Vec::new();
        let mut report = Report { text: "", problems: &mut problems, is_merged: false };
        validate(RawMonitor::default(), "monitor", &mut report)
    }
}

/// Makes sense of `raw`, whose keys stand below `key`.
pub(super) fn validate(raw: RawMonitor, key: &str, report: &mut Report<'_>) -> Monitor {
    let at = |name: &str| format!("{key}.{name}");
    let share = |report: &mut Report<'_>, name: &str, value: f64, most: f64| {
        if !(0.0..=most).contains(&value) {
            report.add(&at(name), format!("expected a number from 0 to {most}, got {value}"));
        }
        value
    };
    let false_alarms = raw.false_alarms.as_deref().unwrap_or("1 per 30 days");
    let false_alarms = FalseAlarms::parse(false_alarms).unwrap_or_else(|| {
        let message = format!(
            "expected a promise such as \"1 per 30 days\" or \"1 per 1000000 rows\", got \"{false_alarms}\""
        );
        report.add(&at("false_alarms"), message);
        FalseAlarms::Time(Duration::from_secs(30 * 24 * 3600))
    });
    let tick = raw.tick.unwrap_or(HumanDuration(Duration::from_secs(1)));
    report.at_least(&at("tick"), tick, HumanDuration(Duration::from_millis(10)));
    let tick_rows = raw.tick_rows.unwrap_or(50);
    report.at_least(&at("tick_rows"), tick_rows, 1);
    let tolerance = share(report, "tolerance", raw.tolerance.unwrap_or(0.1), 1.0);
    let sample = share(report, "sample", raw.sample.unwrap_or(1.0), 1.0);
    let learn = match raw.baseline {
        None => None,
        Some(RawBaseline::Word(word)) if word == "file" => None,
        Some(RawBaseline::Word(word)) => {
            let message = format!("expected \"file\" or {{ learn = ROWS }}, got \"{word}\"");
            report.add(&at("baseline"), message);
            None
        }
        Some(RawBaseline::Learn(RawLearn { learn })) => {
            if !(100..=MOST_LEARNED).contains(&learn) {
                let message = format!("expected 100 to {MOST_LEARNED} rows, got {learn}");
                report.add(&at("baseline.learn"), message);
            }
            Some(learn)
        }
    };
    let max_features = raw.max_features.unwrap_or(512);
    if !(1..=MOST_FEATURES).contains(&max_features) {
        let message = format!("expected 1 to {MOST_FEATURES}, got {max_features}");
        report.add(&at("max_features"), message);
    }
    let rules = raw.rules.unwrap_or_default();
    for rule in &rules {
        check_rule(rule, &at("rules"), report);
    }
    let labels = raw.labels.unwrap_or_default();
    report.at_least(&at("labels.wait"), labels.wait, HumanDuration(Duration::from_millis(1)));
    if let Some(Segment::Header(name)) = &raw.segment
        && (name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
    {
        report.add(&at("segment.header"), format!("expected a header's name, got \"{name}\""));
    }
    Monitor {
        enabled: raw.enabled.unwrap_or(true),
        false_alarms,
        tick: tick.0,
        tick_rows,
        tolerance,
        sample,
        learn,
        season: raw.season.unwrap_or(Season::Off),
        segment: raw.segment,
        names: raw.names.unwrap_or_default(),
        features: raw.features.unwrap_or_default(),
        max_features,
        score: raw.score,
        prediction: raw.prediction,
        outlier_header: raw.outlier_header.unwrap_or(false),
        rules,
        detectors: raw.detectors.unwrap_or_default(),
        labels: Labels { wait: labels.wait.0, most: labels.most },
        cell_metrics: raw.cell_metrics.unwrap_or(false),
    }
}

fn check_rule(rule: &Rule, key: &str, report: &mut Report<'_>) {
    let is_low_margin = rule.when == When::LowMargin;
    match rule.margin {
        None if is_low_margin => {
            report.add(key, "when = \"low_margin\" needs margin, such as margin = 0.1");
        }
        Some(margin) if is_low_margin && !(0.0..=1.0).contains(&margin) => {
            report.add(key, format!("expected a margin from 0 to 1, got {margin}"));
        }
        Some(_) if !is_low_margin => report.add(key, "margin belongs to when = \"low_margin\""),
        _ => {}
    }
    let is_override = rule.then == Then::Override;
    if is_override && rule.value.is_none() {
        report.add(key, "then = \"override\" needs value, what the prediction becomes");
    }
    if !is_override && (rule.value.is_some() || rule.output.is_some()) {
        report.add(key, "value and output belong to then = \"override\"");
    }
}

impl FalseAlarms {
    /// Reads `1 per 30 days`, `2 per week`, `1 per 1000000 rows`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (count, period) = text.trim().split_once(" per ")?;
        let count: f64 = count.trim().parse().ok().filter(|&count: &f64| count > 0.0)?;
        let period = period.trim();
        let (number, unit) = period.split_once(' ').unwrap_or(("1", period));
        let number: f64 = number.trim().parse().ok().filter(|&number: &f64| number > 0.0)?;
        let amount = number / count;
        let seconds = match unit.trim().trim_end_matches('s') {
            "row" => {
                let is_sane = (1.0..1e15).contains(&amount);
                return is_sane.then_some(Self::Rows(amount as u64));
            }
            "minute" => 60.0,
            "hour" => 3600.0,
            "day" => 86_400.0,
            "week" => 7.0 * 86_400.0,
            "month" => 30.0 * 86_400.0,
            "year" => 365.0 * 86_400.0,
            _ => return None,
        };
        let seconds = amount * seconds;
        (1.0..1e11).contains(&seconds).then(|| Self::Time(Duration::from_secs_f64(seconds)))
    }

    /// Ticks that lie between two false alarms, on average and at least.
    #[must_use]
    pub fn ticks(self, tick: Duration, tick_rows: u64) -> f64 {
        match self {
            Self::Time(time) => (time.as_secs_f64() / tick.as_secs_f64()).max(1.0),
            Self::Rows(rows) => (rows as f64 / tick_rows as f64).max(1.0),
        }
    }
}

impl fmt::Display for FalseAlarms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rows(rows) => write!(f, "1 per {rows} rows"),
            Self::Time(time) => {
                let seconds = time.as_secs_f64();
                let units = [(86_400.0, "days"), (3600.0, "hours"), (60.0, "minutes")];
                let whole = |unit: f64| (seconds / unit).fract() == 0.0;
                let (unit, name) =
                    units.into_iter().find(|&(unit, _)| whole(unit)).unwrap_or((3600.0, "hours"));
                write!(f, "1 per {} {name}", seconds / unit)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promises_are_read_and_written() {
        let day = 86_400;
        for (text, expected, shown) in [
            ("1 per 30 days", FalseAlarms::Time(Duration::from_secs(30 * day)), "1 per 30 days"),
            ("1 per month", FalseAlarms::Time(Duration::from_secs(30 * day)), "1 per 30 days"),
            ("2 per week", FalseAlarms::Time(Duration::from_secs(7 * day / 2)), "1 per 84 hours"),
            ("1 per 500000 rows", FalseAlarms::Rows(500_000), "1 per 500000 rows"),
        ] {
            let promise = FalseAlarms::parse(text).unwrap();
            assert_eq!(promise, expected, "{text}");
            assert_eq!(promise.to_string(), shown);
        }
        for text in ["", "never", "0 per day", "1 per 0 days", "1 per fortnight", "-1 per day"] {
            assert_eq!(FalseAlarms::parse(text), None, "{text}");
        }
        let promise = FalseAlarms::parse("1 per 30 days").unwrap();
        assert_eq!(promise.ticks(Duration::from_secs(1), 50), 2_592_000.0);
    }
}
