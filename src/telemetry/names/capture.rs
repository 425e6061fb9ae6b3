//! What recording predictions does.

use super::{Metric, metric};

/// Rows recorded and on the disk, by `model`.
pub const CAPTURED_ROWS: Metric =
    metric("tidegate_capture_rows_total", "Rows that were recorded and are on the disk.");
/// Bytes that they take, by `model`.
pub const CAPTURED_BYTES: Metric =
    metric("tidegate_capture_bytes_total", "Bytes of recorded rows, compressed.");
/// Files completed, by `model`.
pub const CAPTURED_FILES: Metric =
    metric("tidegate_capture_files_total", "Files of recorded rows that were completed.");
/// Files removed since they were too old or too many, by `model`.
pub const CAPTURE_REMOVED: Metric = metric(
    "tidegate_capture_files_removed_total",
    "Files of recorded rows that were removed, as capture.keep_time and capture.keep_size ask.",
);
/// Rows that are not recorded although they should be, by `reason`.
pub const CAPTURE_DROPPED: Metric = metric(
    "tidegate_capture_dropped_total",
    "Rows that could not be recorded, by reason: queue (the thread was behind), disk (it failed or was full) or spool (files wait for an object store).",
);
/// Failures of disks.
pub const CAPTURE_ERRORS: Metric =
    metric("tidegate_capture_errors_total", "Failed attempts to write recorded rows.");
/// Files put into object stores, by `outcome`.
pub const CAPTURE_UPLOADS: Metric = metric(
    "tidegate_capture_uploads_total",
    "Files put into object stores, and attempts that failed, by outcome.",
);
/// Bytes of files that wait for an object store.
pub const CAPTURE_SPOOLED: Metric =
    metric("tidegate_capture_spool_bytes", "Bytes of files that wait for their object store.");
/// Requests that wait to be recorded.
pub const CAPTURE_WAITING: Metric =
    metric("tidegate_capture_waiting", "Requests that wait to be recorded.");
/// How far recording is behind.
pub const CAPTURE_LAG: Metric = metric(
    "tidegate_capture_lag_seconds",
    "Time between an answer and the reading of its record by the thread that writes.",
);
/// What recording costs.
pub const CAPTURE_CPU: Metric =
    metric("tidegate_capture_cpu_seconds_total", "CPU seconds of the thread that records.");
