//! What files hold, before their tensors are read.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, TimestampMillisecondType};
use arrow_schema::{DataType, TimeUnit};

use super::ReadError;
use super::requests::{column, open};
use crate::capture::names;
use crate::stats::hash::hash;

/// Names a batch of all processes: the hash of the process' id, and the number.
pub type BatchKey = (u64, u64);

/// What files hold of one model.
#[derive(Debug, Default)]
pub struct Summary {
    /// Rows, whatever became of them.
    pub rows: u64,
    /// Rows by the version that answered, without those of shadows.
    pub versions: BTreeMap<u64, u64>,
    /// Rows of answered requests of each batch of several, and how many it had.
    pub batches: HashMap<BatchKey, (usize, usize)>,
    /// The first and the last time, in milliseconds since 1970.
    pub times: Option<(u64, u64)>,
}

/// The key of a batch of the process of that id.
#[must_use]
pub fn batch_key(run_id: &str, batch: u64) -> BatchKey {
    (hash(run_id.as_bytes()), batch)
}

impl Summary {
    /// Whether all members of a batch are there.
    #[must_use]
    pub fn is_complete(&self, run_id: &str, batch: u64) -> bool {
        self.batches.get(&batch_key(run_id, batch)).is_some_and(|(found, all)| found == all)
    }
}

/// What `files` hold of `model`. Reads no tensors.
pub fn summarize(files: &[PathBuf], model: &str) -> Result<Summary, ReadError> {
    let mut summary = Summary::default();
    let wanted = [
        names::MODEL_NAME,
        names::MODEL_VERSION,
        names::SLOT,
        names::CODE,
        names::RUN_ID,
        names::BATCH,
        names::BATCH_ROWS,
        names::REQUEST_ROW,
        names::REQUEST_ROWS,
        names::TIME,
    ];
    for path in files {
        let invalid = |reason: String| ReadError::Invalid { path: path.clone(), reason };
        let (reader, _) = open(path, |name| wanted.contains(&name))?;
        for batch in reader {
            let batch = batch.map_err(|error| invalid(error.to_string()))?;
            let get = |name: &str, kind: DataType| column(&batch, name, &kind).map_err(invalid);
            let text = |name: &str| get(name, DataType::Utf8);
            let (models, slots, codes, runs) = (
                text(names::MODEL_NAME)?,
                text(names::SLOT)?,
                text(names::CODE)?,
                text(names::RUN_ID)?,
            );
            let versions = get(names::MODEL_VERSION, DataType::Int64)?;
            let batches = get(names::BATCH, DataType::Int64)?;
            let batch_rows = get(names::BATCH_ROWS, DataType::Int32)?;
            let times = get(names::TIME, DataType::Timestamp(TimeUnit::Millisecond, None))?;
            for row in 0..batch.num_rows() {
                if models.as_string::<i32>().value(row) != model {
                    continue;
                }
                summary.rows += 1;
                let time = times.as_primitive::<TimestampMillisecondType>().value(row);
                let time = u64::try_from(time).unwrap_or(0);
                let (first, last) = summary.times.get_or_insert((time, time));
                (*first, *last) = ((*first).min(time), (*last).max(time));
                if slots.as_string::<i32>().value(row) != "shadow" {
                    let version = versions.as_primitive::<Int64Type>().value(row);
                    *summary.versions.entry(u64::try_from(version).unwrap_or(0)).or_default() += 1;
                }
                if batches.is_null(row) || codes.as_string::<i32>().value(row) != "ok" {
                    continue;
                }
                let number = batches.as_primitive::<Int64Type>().value(row);
                let key = batch_key(
                    runs.as_string::<i32>().value(row),
                    u64::try_from(number).unwrap_or(0),
                );
                let all = batch_rows.as_primitive::<Int32Type>().value(row);
                let all = usize::try_from(all).unwrap_or(0);
                summary.batches.entry(key).or_insert((0, all)).0 += 1;
            }
        }
    }
    Ok(summary)
}
