//! How a model's versions share its traffic: `[models.NAME.traffic]` and `[defaults.traffic]`; and
//! `[shadowing]`, what copies may take of the machine.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Report;
use super::alerts::check_url;
use super::model::is_alias;
use super::units::{ByteSize, HumanDuration};

/// Copies that may wait: their places are taken when the server starts.
const MOST_COPIES: usize = 1 << 20;

/// Runs of shadows at the same time.
const MOST_AT_ONCE: usize = 64;

/// Disagreements that are kept of a pair of versions.
const MOST_KEPT: usize = 256;

/// Valid settings of a model's traffic.
#[derive(Debug, Clone, PartialEq)]
pub struct Traffic {
    /// Versions that answer a share of the requests that name none.
    pub canaries: Vec<(Target, f64)>,
    /// Versions that get copies of a share of the requests.
    pub shadows: Vec<(Target, f64)>,
    /// What of a request decides which version answers it.
    pub sticky: Sticky,
    /// Candidates on other servers, that get copies as well.
    pub remote_shadows: Vec<RemoteShadow>,
    /// How answers are compared.
    pub comparison: Comparison,
}

/// A version by number or alias.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// By its number.
    Version(u64),
    /// By an alias.
    Alias(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(f, "{version}"),
            Self::Alias(alias) => write!(f, "'{alias}'"),
        }
    }
}

/// What of a request decides which version answers it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Sticky {
    /// Its id: each request by itself, and a retry with the same id like the first try.
    #[default]
    #[serde(rename = "request-id")]
    RequestId,
    /// A header's value; the id where the request does not have it.
    #[serde(rename = "header")]
    Header(String),
    /// The first row of an input; the id where the request does not have it.
    #[serde(rename = "input")]
    Input(String),
}

impl fmt::Display for Sticky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RequestId => f.write_str("request id"),
            Self::Header(name) => write!(f, "header '{name}'"),
            Self::Input(name) => write!(f, "input '{name}'"),
        }
    }
}

/// A candidate behind a V2 endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteShadow {
    /// The server, such as `http://10.0.0.7:8000`.
    pub url: String,
    /// The model's name there; by default the same as here.
    pub model: Option<String>,
    /// The version there; by default whichever answers.
    pub version: Option<String>,
    /// Share of the requests.
    pub share: f64,
    /// The longest that an answer is waited for.
    pub timeout: Duration,
    /// Requests under way at the same time.
    pub concurrency: usize,
    /// How tensors are sent.
    pub format: RemoteFormat,
}

/// How tensors are sent to a remote shadow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RemoteFormat {
    /// As numbers in JSON, which every V2 server reads.
    Json,
    /// As bytes behind the JSON: the binary tensor data extension, which keeps every bit.
    #[default]
    Binary,
}

/// How answers of two versions are compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// What may differ.
    pub tolerance: Tolerance,
    /// The same of single outputs, by name.
    pub tolerances: BTreeMap<String, Tolerance>,
    /// A candidate that takes more than this many times the primary's time for a request is slower.
    pub latency_ratio: f64,
    /// Disagreements that are kept, with their inputs.
    pub worst: usize,
}

/// A number agrees where `|candidate - primary| <= absolute + relative * |primary|`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tolerance {
    /// In the output's own unit.
    pub absolute: f64,
    /// Of the primary's value.
    pub relative: f64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { absolute: 0.01, relative: 0.01 }
    }
}

impl Comparison {
    /// What of that output may differ.
    #[must_use]
    pub fn tolerance_of(&self, output: &str) -> Tolerance {
        self.tolerances.get(output).copied().unwrap_or(self.tolerance)
    }
}

/// `[shadowing]`: what all shadows together may take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shadowing {
    /// Copies that wait, at most.
    pub queue: usize,
    /// Bytes of the tensors that they keep alive, at most.
    pub queue_size: usize,
    /// Runs of one candidate at the same time.
    pub concurrency: usize,
    /// The longest that a copy's run is waited for, from its start.
    pub timeout: Duration,
}

/// `[models.NAME.traffic]` as written.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawTraffic {
    #[serde(skip_serializing_if = "Option::is_none")]
    canaries: Option<BTreeMap<String, f64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shadows: Option<BTreeMap<String, f64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sticky: Option<Sticky>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_shadows: Option<Vec<RawRemote>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comparison: Option<RawComparison>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRemote {
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(default = "whole")]
    share: f64,
    #[serde(default = "second")]
    timeout: HumanDuration,
    #[serde(default = "few")]
    concurrency: usize,
    #[serde(default)]
    format: RemoteFormat,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawComparison {
    tolerance: Tolerance,
    tolerances: BTreeMap<String, Tolerance>,
    latency_ratio: f64,
    worst: usize,
}

impl Default for RawComparison {
    fn default() -> Self {
        let tolerance = Tolerance::default();
        Self { tolerance, tolerances: BTreeMap::new(), latency_ratio: 1.5, worst: 16 }
    }
}

/// `[shadowing]` as written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawShadowing {
    queue: usize,
    queue_size: ByteSize,
    concurrency: usize,
    timeout: HumanDuration,
}

impl Default for RawShadowing {
    fn default() -> Self {
        Self { queue: 4096, queue_size: ByteSize(64 << 20), concurrency: 1, timeout: seconds(10) }
    }
}

fn seconds(seconds: u64) -> HumanDuration {
    HumanDuration(Duration::from_secs(seconds))
}

fn second() -> HumanDuration {
    seconds(1)
}

fn few() -> usize {
    4
}

fn whole() -> f64 {
    1.0
}

impl RawTraffic {
    /// These settings where they are given, else those of `base`, key by key.
    pub(super) fn over(self, base: Self) -> Self {
        Self {
            canaries: self.canaries.or(base.canaries),
            shadows: self.shadows.or(base.shadows),
            sticky: self.sticky.or(base.sticky),
            remote_shadows: self.remote_shadows.or(base.remote_shadows),
            comparison: self.comparison.or(base.comparison),
        }
    }
}

/// Makes sense of `raw`, whose keys stand below `key`. Aliases are those that are known so far.
pub(super) fn validate(
    raw: RawTraffic,
    key: &str,
    aliases: &BTreeMap<String, u64>,
    report: &mut Report<'_>,
) -> Traffic {
    let RawTraffic { canaries, shadows, sticky, remote_shadows, comparison } = raw;
    let canaries = shares(canaries, &format!("{key}.canaries"), aliases, report);
    let total: f64 = canaries.iter().map(|(_, share)| share).sum();
    if total > 1.0 + 1e-9 {
        let message = format!("the shares of all canaries must be at most 1, they are {total}");
        report.add(&format!("{key}.canaries"), message);
    }
    let shadows = shares(shadows, &format!("{key}.shadows"), aliases, report);
    let sticky = sticky.unwrap_or_default();
    let is_named = match &sticky {
        Sticky::RequestId => true,
        Sticky::Header(name) => name.parse::<http::HeaderName>().is_ok(),
        Sticky::Input(name) => !name.is_empty(),
    };
    if !is_named {
        let message =
            "expected \"request-id\", { header = \"x-user\" } or { input = \"customer\" }";
        report.add(&format!("{key}.sticky"), message);
    }
    let mut remotes = Vec::new();
    for remote in remote_shadows.unwrap_or_default() {
        let key = format!("{key}.remote_shadows");
        let RawRemote { url, model, version, share, timeout, concurrency, format } = remote;
        if check_url(&url).is_err() {
            let message = "expected a URL without a user, such as \"http://10.0.0.7:8000\"";
            report.add(&key, format!("{message}, got \"{url}\""));
        }
        check_share(&key, share, report);
        if timeout.0.is_zero() {
            report.add(&key, "timeout must be more than 0");
        }
        if !(1..=MOST_AT_ONCE).contains(&concurrency) {
            report
                .add(&key, format!("concurrency: expected 1 to {MOST_AT_ONCE}, got {concurrency}"));
        }
        for name in model.iter().chain(&version) {
            if name.is_empty() || name.contains('/') {
                report.add(&key, format!("expected a name without '/', got \"{name}\""));
            }
        }
        let url = url.trim_end_matches('/').to_owned();
        let is_same = |other: &RemoteShadow| {
            (&other.url, &other.model, &other.version) == (&url, &model, &version)
        };
        if remotes.iter().any(is_same) {
            report.add(&key, format!("{url} stands there twice with the same model and version"));
        }
        let timeout = timeout.0;
        remotes.push(RemoteShadow { url, model, version, share, timeout, concurrency, format });
    }
    let comparison = self::comparison(comparison, &format!("{key}.comparison"), report);
    Traffic { canaries, shadows, sticky, remote_shadows: remotes, comparison }
}

fn shares(
    raw: Option<BTreeMap<String, f64>>,
    key: &str,
    aliases: &BTreeMap<String, u64>,
    report: &mut Report<'_>,
) -> Vec<(Target, f64)> {
    let mut shares: Vec<(Target, f64)> = Vec::new();
    for (name, share) in raw.unwrap_or_default() {
        let key = format!("{key}.{name}");
        check_share(&key, share, report);
        let target = match name.parse::<u64>() {
            Ok(0) => {
                report.add(&key, "version numbers begin with 1");
                continue;
            }
            Ok(number) => Target::Version(number),
            Err(_) => {
                if !is_alias(&name) {
                    report.add(&key, "expected a version number or the name of an alias");
                } else if report.is_merged && !aliases.contains_key(&name) {
                    let known: Vec<_> = aliases.keys().map(String::as_str).collect();
                    let known = known.join(", ");
                    report.add(&key, format!("there is no alias '{name}'; aliases: {known}"));
                }
                Target::Alias(name)
            }
        };
        shares.push((target, share));
    }
    shares
}

fn check_share(key: &str, share: f64, report: &mut Report<'_>) {
    if !(0.0..=1.0).contains(&share) {
        report.add(key, format!("expected a share from 0 to 1, such as 0.05, got {share}"));
    }
}

fn comparison(raw: Option<RawComparison>, key: &str, report: &mut Report<'_>) -> Comparison {
    let RawComparison { tolerance, tolerances, latency_ratio, worst } = raw.unwrap_or_default();
    for tolerance in tolerances.values().chain([&tolerance]) {
        let is_fine = |number: f64| number.is_finite() && number >= 0.0;
        if !is_fine(tolerance.absolute) || !is_fine(tolerance.relative) {
            let message = "expected { absolute = 0.01, relative = 0.01 } with numbers from 0 on";
            report.add(&format!("{key}.tolerance"), message);
        }
    }
    if !latency_ratio.is_finite() || latency_ratio <= 0.0 {
        let message = format!("expected a number above 0, got {latency_ratio}");
        report.add(&format!("{key}.latency_ratio"), message);
    }
    if worst > MOST_KEPT {
        report.add(&format!("{key}.worst"), format!("must be at most {MOST_KEPT}, got {worst}"));
    }
    Comparison { tolerance, tolerances, latency_ratio, worst: worst.min(MOST_KEPT) }
}

/// Makes sense of `[shadowing]`.
pub(super) fn shadowing(raw: &RawShadowing, report: &mut Report<'_>) -> Shadowing {
    for (key, value, most) in [
        ("shadowing.queue", raw.queue, MOST_COPIES),
        ("shadowing.concurrency", raw.concurrency, MOST_AT_ONCE),
    ] {
        if !(1..=most).contains(&value) {
            report.add(key, format!("expected 1 to {most}, got {value}"));
        }
    }
    report.at_least("shadowing.queue_size", raw.queue_size, ByteSize(1));
    report.at_least("shadowing.timeout", raw.timeout, HumanDuration(Duration::from_millis(1)));
    Shadowing {
        queue: raw.queue.clamp(1, MOST_COPIES),
        queue_size: usize::try_from(raw.queue_size.0).unwrap_or(usize::MAX),
        concurrency: raw.concurrency.clamp(1, MOST_AT_ONCE),
        timeout: raw.timeout.0,
    }
}
