//! What is recorded of predictions: `[capture]` for the machine, `[models.NAME.capture]` and
//! `[defaults.capture]` for models.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Report;
use super::units::{ByteSize, HumanDuration};

/// Requests that may wait: their places are taken when the server starts.
const MOST_WAITING: usize = 1 << 20;

/// Object stores that can be written to, by the beginning of their URLs.
const STORES: [&str; 3] = ["s3://", "gs://", "az://"];

/// `[capture]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captures {
    /// Requests that wait to be written, at most.
    pub queue: usize,
    /// Bytes of tensors that are shared and not copied, and of rows that are gathered, at most.
    pub queue_size: usize,
    /// The folder of files that wait for an object store.
    pub spool: String,
    /// Bytes of these files, at most.
    pub spool_size: u64,
    /// The environment variable that holds the key of hashes.
    pub hash_key_env: Option<String>,
}

/// Valid settings of a model's capture.
#[derive(Debug, Clone, PartialEq)]
pub struct Capture {
    /// Whether anything is recorded.
    pub enabled: bool,
    /// The folder or URL that files are written below.
    pub to: String,
    /// Share of requests that is recorded, chosen by a hash of their ids.
    pub sample: f64,
    /// What is recorded in any case.
    pub always: Vec<Always>,
    /// Whether features are columns of their own as well.
    pub decoded: bool,
    /// Bytes after which a file is closed.
    pub roll_size: u64,
    /// Time after which a file is closed.
    pub roll_time: Duration,
    /// Time after which rows are on the disk.
    pub flush: Duration,
    /// Age at which files are removed.
    pub keep_time: Option<Duration>,
    /// Bytes of a model's files beyond which the oldest are removed.
    pub keep_size: Option<u64>,
    /// What is done to features before they are written, by name.
    pub redact: BTreeMap<String, Redaction>,
}

/// What is recorded whether it is in the sample or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Always {
    /// Rows beyond the baseline's outlier score.
    Outliers,
    /// Predictions without an answer.
    Errors,
    /// Predictions that a shadow answers otherwise.
    Disagreements,
}

/// What is done to a feature before it is written, in the raw tensors as well.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Redaction {
    /// It is missing: NaN, 0, false or the empty text.
    Drop,
    /// A hash with the key of `capture.hash_key_env` stands in its place.
    Hash,
    /// Numbers are rounded down to a multiple of this.
    Bucket(f64),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawCaptures {
    queue: usize,
    queue_size: ByteSize,
    spool: String,
    spool_size: ByteSize,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash_key_env: Option<String>,
}

impl Default for RawCaptures {
    fn default() -> Self {
        Self {
            queue: 65_536,
            queue_size: ByteSize(64 << 20),
            spool: "../capture-spool".to_owned(),
            spool_size: ByteSize(1 << 30),
            hash_key_env: None,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawCapture {
    #[serde(skip_serializing_if = "Option::is_none")]
    enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sample: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    always: Option<Vec<Always>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decoded: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    roll_size: Option<ByteSize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    roll_time: Option<HumanDuration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flush: Option<HumanDuration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_time: Option<HumanDuration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_size: Option<ByteSize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redact: Option<BTreeMap<String, RawRedaction>>,
}

/// `"drop"`, `"hash"`, or `{ bucket = 10 }`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected \"drop\", \"hash\" or { bucket = WIDTH }")]
enum RawRedaction {
    Word(String),
    Bucket(RawBucket),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBucket {
    bucket: f64,
}

impl RawCapture {
    /// These settings where they are given, else those of `base`, key by key.
    pub(super) fn over(self, base: Self) -> Self {
        Self {
            enabled: self.enabled.or(base.enabled),
            to: self.to.or(base.to),
            sample: self.sample.or(base.sample),
            always: self.always.or(base.always),
            decoded: self.decoded.or(base.decoded),
            roll_size: self.roll_size.or(base.roll_size),
            roll_time: self.roll_time.or(base.roll_time),
            flush: self.flush.or(base.flush),
            keep_time: self.keep_time.or(base.keep_time),
            keep_size: self.keep_size.or(base.keep_size),
            redact: self.redact.or(base.redact),
        }
    }
}

impl Capture {
    /// Whether files go to an object store.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        self.to.contains("://")
    }
}

/// Makes sense of `[capture]`.
pub(super) fn validate_machine(raw: RawCaptures, report: &mut Report<'_>) -> Captures {
    let RawCaptures { queue, queue_size, spool, spool_size, hash_key_env } = raw;
    if !(1..=MOST_WAITING).contains(&queue) {
        report.add("capture.queue", format!("expected 1 to {MOST_WAITING}, got {queue}"));
    }
    report.at_least("capture.queue_size", queue_size, ByteSize(1));
    report.at_least("capture.spool_size", spool_size, ByteSize(1));
    if spool.is_empty() {
        report.add("capture.spool", "must name a folder");
    }
    if hash_key_env.as_ref().is_some_and(String::is_empty) {
        report.add("capture.hash_key_env", "must name an environment variable");
    }
    let queue_size = usize::try_from(queue_size.0).unwrap_or(usize::MAX);
    Captures { queue, queue_size, spool, spool_size: spool_size.0, hash_key_env }
}

/// Makes sense of a model's `raw`, whose keys stand below `key`.
pub(super) fn validate(raw: RawCapture, key: &str, report: &mut Report<'_>) -> Capture {
    let at = |name: &str| format!("{key}.{name}");
    let to = raw.to.unwrap_or_else(|| "../captures".to_owned());
    let is_known = !to.contains("://") || STORES.iter().any(|store| to.starts_with(store));
    if to.is_empty() || !is_known {
        let message = format!("expected a folder, or a URL of s3://, gs:// or az://, got \"{to}\"");
        report.add(&at("to"), message);
    }
    let sample = raw.sample.unwrap_or(1.0);
    if !(0.0..=1.0).contains(&sample) {
        report.add(&at("sample"), format!("expected a number from 0 to 1, got {sample}"));
    }
    let second = HumanDuration(Duration::from_secs(1));
    let roll_time = raw.roll_time.unwrap_or(HumanDuration(Duration::from_secs(300)));
    report.at_least(&at("roll_time"), roll_time, second);
    let flush = raw.flush.unwrap_or(HumanDuration(Duration::from_secs(10)));
    report.at_least(&at("flush"), flush, HumanDuration(Duration::from_millis(10)));
    let roll_size = raw.roll_size.unwrap_or(ByteSize(128 << 20));
    report.at_least(&at("roll_size"), roll_size, ByteSize(1 << 10));
    if let Some(keep_time) = raw.keep_time {
        report.at_least(&at("keep_time"), keep_time, second);
    }
    let mut redact = BTreeMap::new();
    for (feature, raw) in raw.redact.unwrap_or_default() {
        let redaction = match raw {
            RawRedaction::Word(word) if word == "drop" => Some(Redaction::Drop),
            RawRedaction::Word(word) if word == "hash" => Some(Redaction::Hash),
            RawRedaction::Bucket(RawBucket { bucket }) if bucket > 0.0 && bucket.is_finite() => {
                Some(Redaction::Bucket(bucket))
            }
            RawRedaction::Word(word) => {
                let message =
                    format!("expected \"drop\", \"hash\" or {{ bucket = WIDTH }}, got \"{word}\"");
                report.add(&at(&format!("redact.{feature}")), message);
                None
            }
            RawRedaction::Bucket(RawBucket { bucket }) => {
                let message = format!("expected a width of more than 0, got {bucket}");
                report.add(&at(&format!("redact.{feature}")), message);
                None
            }
        };
        redact.extend(redaction.map(|redaction| (feature, redaction)));
    }
    Capture {
        enabled: raw.enabled.unwrap_or(false),
        to,
        sample,
        always: raw
            .always
            .unwrap_or_else(|| vec![Always::Outliers, Always::Errors, Always::Disagreements]),
        decoded: raw.decoded.unwrap_or(false),
        roll_size: roll_size.0,
        roll_time: roll_time.0,
        flush: flush.0,
        keep_time: raw.keep_time.map(|time| time.0),
        keep_size: raw.keep_size.map(|size| size.0),
        redact,
    }
}
