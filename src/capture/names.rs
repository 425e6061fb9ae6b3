//! The columns that every file has, by name. Files are read by others: names do not change.

/// Columns of what is known of a request beside its tensors.
pub const BASE: [&str; 28] = [
    REQUEST_ID,
    TIME,
    PROTOCOL,
    MODEL_NAME,
    MODEL_VERSION,
    DIGEST,
    CONFIG_DIGEST,
    ENGINE,
    CPU_FEATURES,
    RUN_ID,
    SLOT,
    BATCH,
    BATCH_ROW,
    BATCH_ROWS,
    REQUEST_ROW,
    REQUEST_ROWS,
    SAMPLE,
    REASON,
    CODE,
    ERROR,
    OUTLIER_SCORE,
    SEGMENT,
    REDACTED,
    Timing::Total.column(),
    Timing::Queue.column(),
    Timing::Decode.column(),
    Timing::Compute.column(),
    Timing::Encode.column(),
];

pub(super) const REQUEST_ID: &str = "request_id";
pub(super) const TIME: &str = "time";
pub(super) const PROTOCOL: &str = "protocol";
pub(super) const MODEL_NAME: &str = "model_name";
pub(super) const MODEL_VERSION: &str = "model_version";
pub(super) const DIGEST: &str = "digest";
pub(super) const CONFIG_DIGEST: &str = "config_digest";
pub(super) const ENGINE: &str = "engine";
pub(super) const CPU_FEATURES: &str = "cpu_features";
pub(super) const RUN_ID: &str = "run_id";
pub(super) const SLOT: &str = "slot";
pub(super) const BATCH: &str = "batch";
pub(super) const BATCH_ROW: &str = "batch_row";
pub(super) const BATCH_ROWS: &str = "batch_rows";
pub(super) const REQUEST_ROW: &str = "request_row";
pub(super) const REQUEST_ROWS: &str = "request_rows";
pub(super) const SAMPLE: &str = "sample";
pub(super) const REASON: &str = "reason";
pub(super) const CODE: &str = "code";
pub(super) const ERROR: &str = "error";
pub(super) const OUTLIER_SCORE: &str = "outlier_score";
pub(super) const SEGMENT: &str = "segment";
pub(super) const REDACTED: &str = "redacted";

/// A part of a request's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    /// From head read to answer ready.
    Total,
    /// Waiting for a compute thread.
    Queue,
    /// Reading the request.
    Decode,
    /// Inside the engine.
    Compute,
    /// Writing the answer.
    Encode,
}

impl Timing {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Total, Self::Queue, Self::Decode, Self::Compute, Self::Encode];

    /// The column of its nanoseconds.
    #[must_use]
    pub const fn column(self) -> &'static str {
        match self {
            Self::Total => "total_ns",
            Self::Queue => "queue_ns",
            Self::Decode => "decode_ns",
            Self::Compute => "compute_ns",
            Self::Encode => "encode_ns",
        }
    }
}

/// The column of a tensor's bytes: `input.image`.
pub(super) fn data(side: &str, name: &str) -> String {
    format!("{side}.{name}")
}

/// The column of a tensor's datatype and shape: `input.image.tensor`.
pub(super) fn shape(side: &str, name: &str) -> String {
    format!("{side}.{name}.tensor")
}

pub(super) const INPUT: &str = "input";
pub(super) const OUTPUT: &str = "output";
