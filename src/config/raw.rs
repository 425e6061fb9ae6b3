//! The configuration as written: what serde reads, with every default filled in. Unknown keys are
//! refused. Only [`super::validate`] makes sense of it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::alerts::RawAlerts;
use super::capture::{RawCapture, RawCaptures};
use super::cors::RawCors;
use super::monitor::RawMonitor;
use super::rollout::RawRollout;
use super::shared_memory::RawSharedMemory;
use super::tracing::RawTracing;
use super::traffic::{RawShadowing, RawTraffic};
use super::units::{ByteSize, HumanDuration};

const fn seconds(seconds: u64) -> HumanDuration {
    HumanDuration(Duration::from_secs(seconds))
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawConfig {
    pub(super) server: RawServer,
    pub(super) limits: RawLimits,
    pub(super) shutdown: RawShutdown,
    pub(super) repository: RawRepository,
    pub(super) log: RawLog,
    pub(super) reload: RawReload,
    pub(super) observe: RawObserve,
    pub(super) capture: RawCaptures,
    pub(super) shadowing: RawShadowing,
    pub(super) tracing: RawTracing,
    pub(super) alerts: RawAlerts,
    pub(super) store: RawStore,
    pub(super) defaults: RawModel,
    pub(super) models: BTreeMap<String, RawModel>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawServer {
    pub(super) http: String,
    pub(super) grpc: String,
    pub(super) admin: String,
    pub(super) shards: RawThreads,
    pub(super) io_threads: RawThreads,
    pub(super) compute_threads: RawThreads,
    pub(super) timing: bool,
    pub(super) cors: RawCors,
    pub(super) shared_memory: RawSharedMemory,
}

impl Default for RawServer {
    fn default() -> Self {
        Self {
            http: "127.0.0.1:8000".to_owned(),
            grpc: "127.0.0.1:8001".to_owned(),
            admin: "127.0.0.1:8002".to_owned(),
            shards: RawThreads::default(),
            io_threads: RawThreads::default(),
            compute_threads: RawThreads::default(),
            timing: false,
            cors: RawCors::default(),
            shared_memory: RawSharedMemory::default(),
        }
    }
}

/// `"auto"` or a number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected \"auto\" or a number of threads from 1 to 512")]
pub(super) enum RawThreads {
    Count(u16),
    Word(String),
}

impl Default for RawThreads {
    fn default() -> Self {
        Self::Word("auto".to_owned())
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawLimits {
    pub(super) body: ByteSize,
    pub(super) header_time: HumanDuration,
    pub(super) body_time: HumanDuration,
    pub(super) idle_time: HumanDuration,
    pub(super) connections: usize,
    pub(super) in_flight: usize,
    pub(super) deadline: HumanDuration,
}

impl Default for RawLimits {
    fn default() -> Self {
        Self {
            body: ByteSize(64 << 20),
            header_time: seconds(10),
            body_time: seconds(30),
            idle_time: seconds(120),
            connections: 4096,
            in_flight: 1024,
            deadline: seconds(60),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawShutdown {
    pub(super) delay: HumanDuration,
    pub(super) drain: HumanDuration,
}

impl Default for RawShutdown {
    fn default() -> Self {
        Self { delay: seconds(0), drain: seconds(30) }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawRepository {
    pub(super) path: String,
    pub(super) watch: bool,
    pub(super) poll: HumanDuration,
    pub(super) settle: HumanDuration,
    pub(super) model_size: ByteSize,
    pub(super) api: bool,
}

impl Default for RawRepository {
    fn default() -> Self {
        Self {
            path: "../models".to_owned(),
            watch: true,
            poll: seconds(5),
            settle: HumanDuration(Duration::from_millis(500)),
            model_size: ByteSize(2 << 30),
            api: true,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawLog {
    pub(super) level: String,
    pub(super) format: LogFormat,
    pub(super) access: Access,
}

impl Default for RawLog {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Auto, access: Access::Errors }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// Which requests leave a line in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Every request.
    All,
    /// Requests that were refused, failed or cancelled.
    Errors,
    /// None.
    Off,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawReload {
    pub(super) watch: bool,
}

impl Default for RawReload {
    fn default() -> Self {
        Self { watch: true }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawObserve {
    pub(super) queue: usize,
    pub(super) queue_size: ByteSize,
}

impl Default for RawObserve {
    fn default() -> Self {
        Self { queue: 16_384, queue_size: ByteSize(64 << 20) }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawStore {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<String>,
}

/// Settings of a model: of `[models.NAME]`, of `[defaults]`, and of `model.toml`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawModel {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) owner: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) versions: Option<RawVersions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) primary: Option<RawPrimary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) aliases: Option<BTreeMap<String, u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) digests: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) deadline: Option<HumanDuration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_in_flight: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) labels: Option<BTreeMap<String, Vec<String>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) shapes: Option<Vec<BTreeMap<String, Vec<usize>>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) signature: Option<RawSignature>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) batching: Option<RawBatching>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) monitor: Option<RawMonitor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rollout: Option<RawRollout>,
    pub(super) capture: Option<RawCapture>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) traffic: Option<RawTraffic>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected \"latest\", \"all\", { latest = 2 } or a list of version numbers"
)]
pub(super) enum RawVersions {
    Word(String),
    // Before the struct, which serde reads from a list as well.
    Listed(Vec<u64>),
    Latest(RawLatest),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLatest {
    pub(super) latest: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a version number or the name of an alias")]
pub(super) enum RawPrimary {
    Version(u64),
    Alias(String),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSignature {
    pub(super) inputs: Vec<RawTensor>,
    pub(super) outputs: Vec<RawTensor>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTensor {
    pub(super) name: String,
    pub(super) datatype: String,
    pub(super) shape: Vec<i64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawBatching {
    pub(super) max_batch: Option<usize>,
    pub(super) max_delay: HumanDuration,
    pub(super) preferred: Vec<usize>,
}

impl Default for RawBatching {
    fn default() -> Self {
        Self { max_batch: None, max_delay: seconds(0), preferred: Vec::new() }
    }
}

impl RawModel {
    /// These settings where they are given, else those of `base`, key by key.
    pub(super) fn over(self, base: Self) -> Self {
        Self {
            description: self.description.or(base.description),
            owner: self.owner.or(base.owner),
            versions: self.versions.or(base.versions),
            primary: self.primary.or(base.primary),
            aliases: self.aliases.or(base.aliases),
            digests: self.digests.or(base.digests),
            deadline: self.deadline.or(base.deadline),
            max_in_flight: self.max_in_flight.or(base.max_in_flight),
            labels: self.labels.or(base.labels),
            shapes: self.shapes.or(base.shapes),
            signature: self.signature.or(base.signature),
            batching: self.batching.or(base.batching),
            // Its keys one by one as well: a model that sets one keeps the others' defaults.
            monitor: match (self.monitor, base.monitor) {
                (Some(own), Some(base)) => Some(own.over(base)),
                (own, base) => own.or(base),
            },
            rollout: match (self.rollout, base.rollout) {
                (Some(own), Some(base)) => Some(own.over(base)),
                (own, base) => own.or(base),
            },
            capture: match (self.capture, base.capture) {
                (Some(own), Some(base)) => Some(own.over(base)),
                (own, base) => own.or(base),
            },
            traffic: match (self.traffic, base.traffic) {
                (Some(own), Some(base)) => Some(own.over(base)),
                (own, base) => own.or(base),
            },
        }
    }
}
