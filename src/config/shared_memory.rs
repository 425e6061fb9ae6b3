//! Whether clients on this machine may leave tensors in shared memory: `[server.shared_memory]`.

use serde::{Deserialize, Serialize};

use super::Report;
use super::units::ByteSize;

/// Regions that can be allowed: each holds a file open.
const MOST_REGIONS: usize = 4096;

/// Valid settings of shared memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedMemory {
    /// Whether it is on.
    pub enabled: bool,
    /// How the names of files must begin; empty where every name will do.
    pub prefix: String,
    /// Registered regions, at most.
    pub regions: usize,
    /// Bytes of a region, at most.
    pub region_size: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawSharedMemory {
    enabled: bool,
    prefix: String,
    regions: usize,
    region_size: ByteSize,
}

impl Default for RawSharedMemory {
    fn default() -> Self {
        Self { enabled: false, prefix: String::new(), regions: 64, region_size: ByteSize(64 << 20) }
    }
}

/// Makes sense of `raw`.
pub(super) fn validate(raw: RawSharedMemory, report: &mut Report<'_>) -> SharedMemory {
    let RawSharedMemory { enabled, prefix, regions, region_size } = raw;
    if prefix.contains(['/', '\0']) || prefix.len() > 200 {
        let message = format!(
            "expected the beginning of names in /dev/shm, at most 200 bytes without '/', got {prefix:?}"
        );
        report.add("server.shared_memory.prefix", message);
    }
    if !(1..=MOST_REGIONS).contains(&regions) {
        let message = format!("expected 1 to {MOST_REGIONS}, got {regions}");
        report.add("server.shared_memory.regions", message);
    }
    report.at_least("server.shared_memory.region_size", region_size, ByteSize(1));
    SharedMemory { enabled, prefix, regions, region_size: region_size.0 }
}
