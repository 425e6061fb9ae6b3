//! The documents of the protocol and of Triton's extensions, as they are written.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::tensor::{Datatype, Signature, TensorSpec};

/// What runs models, as Triton's tools name it.
pub(in crate::protocol) const BACKEND: &str = "tract";

/// `GET /v2`
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ServerMetadata<'a> {
    /// The server's name.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
    /// The extensions that work.
    pub extensions: &'a [&'a str],
}

/// `GET /v2/models/M`
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ModelMetadata<'a> {
    name: &'a str,
    versions: Vec<&'a str>,
    platform: &'a str,
    inputs: Vec<TensorMetadata<'a>>,
    outputs: Vec<TensorMetadata<'a>>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct TensorMetadata<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: Vec<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<TensorParameters<'a>>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct TensorParameters<'a> {
    labels: &'a [String],
}

impl<'a> ModelMetadata<'a> {
    /// The metadata of a model with these versions. `labels` names the classes of each output in
    /// the signature's order, where they are known.
    #[must_use]
    pub fn new(
        name: &'a str,
        versions: Vec<&'a str>,
        platform: &'a str,
        signature: &'a Signature,
        labels: &'a [Option<Vec<String>>],
    ) -> Self {
        let tensors = |specs: &'a [TensorSpec], labels: &'a [Option<Vec<String>>]| {
            let labels = labels.iter().map(Option::as_deref).chain(std::iter::repeat(None));
            let metadata = specs.iter().zip(labels).map(|(spec, labels)| TensorMetadata {
                parameters: labels.map(|labels| TensorParameters { labels }),
                name: &spec.name,
                datatype: spec.datatype.name(),
                shape: spec.wire_shape().collect(),
            });
            metadata.collect()
        };
        let (inputs, outputs) =
            (tensors(&signature.inputs, &[]), tensors(&signature.outputs, labels));
        Self { name, versions, platform, inputs, outputs }
    }
}

/// Model metadata as a client reads it.
#[derive(Debug, Clone, Deserialize)]
pub struct ModelInputs {
    /// The model's versions.
    #[serde(default)]
    pub versions: Vec<String>,
    inputs: Vec<InputMetadata>,
}

#[derive(Debug, Clone, Deserialize)]
struct InputMetadata {
    name: String,
    datatype: String,
    shape: Vec<i64>,
}

impl ModelInputs {
    /// The inputs as declarations; nothing where a datatype is unknown.
    #[must_use]
    pub fn specs(&self) -> Option<Vec<TensorSpec>> {
        let specs = self.inputs.iter().map(|input| {
            let datatype = Datatype::from_name(&input.datatype)?;
            let shape = input.shape.iter().map(|&dim| usize::try_from(dim).ok()).collect();
            Some(TensorSpec { name: input.name.clone(), datatype, shape })
        });
        specs.collect()
    }
}

/// `GET /v2/models/M/ready`
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ModelReady<'a> {
    /// The model's name.
    pub name: &'a str,
    /// Whether it is ready.
    pub ready: bool,
}

/// One entry of `POST /v2/repository/index`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct IndexEntry<'a> {
    /// The model's name.
    pub name: &'a str,
    /// The version, where the entry is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// `READY`, `LOADING` or `UNAVAILABLE`.
    pub state: &'a str,
    /// Why.
    pub reason: &'a str,
}

/// `GET /v2/models/M/config`: what of Triton's model configuration has a meaning here, in the
/// form that Triton's tools read.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ModelConfig<'a> {
    name: &'a str,
    platform: &'a str,
    backend: &'a str,
    /// 0 where the model takes no batches; then the shapes below are whole.
    max_batch_size: usize,
    input: Vec<ConfigTensor<'a>>,
    output: Vec<ConfigTensor<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dynamic_batching: Option<DynamicBatching>,
    model_transaction_policy: TransactionPolicy,
    response_cache: ResponseCache,
    instance_group: Vec<InstanceGroup<'a>>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct ConfigTensor<'a> {
    name: &'a str,
    data_type: String,
    format: &'a str,
    dims: Vec<i64>,
    is_shape_tensor: bool,
    optional: bool,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct DynamicBatching {
    preferred_batch_size: Vec<usize>,
    max_queue_delay_microseconds: u128,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct TransactionPolicy {
    decoupled: bool,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct ResponseCache {
    enable: bool,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct InstanceGroup<'a> {
    name: &'a str,
    kind: &'a str,
    count: u32,
}

impl<'a> ModelConfig<'a> {
    /// The configuration of a model that is given batches of `batching` rows, after that delay.
    #[must_use]
    pub fn new(
        name: &'a str,
        platform: &'a str,
        signature: &'a Signature,
        batching: Option<(usize, Duration)>,
    ) -> Self {
        let batched = batching.filter(|_| signature.is_batchable());
        // With a batch size, Triton's dims leave the rows out.
        let rows = usize::from(batched.is_some());
        let tensors = |specs: &'a [TensorSpec]| -> Vec<ConfigTensor<'a>> {
            let tensors = specs.iter().map(|spec| ConfigTensor {
                name: &spec.name,
                data_type: match spec.datatype {
                    Datatype::Bytes => "TYPE_STRING".to_owned(),
                    datatype => format!("TYPE_{datatype}"),
                },
                format: "FORMAT_NONE",
                dims: spec.wire_shape().skip(rows).collect(),
                is_shape_tensor: false,
                optional: false,
            });
            tensors.collect()
        };
        Self {
            name,
            platform,
            backend: BACKEND,
            max_batch_size: batched.map_or(0, |(max_batch, _)| max_batch),
            input: tensors(&signature.inputs),
            output: tensors(&signature.outputs),
            dynamic_batching: batched.map(|(_, delay)| DynamicBatching {
                preferred_batch_size: Vec::new(),
                max_queue_delay_microseconds: delay.as_micros(),
            }),
            model_transaction_policy: TransactionPolicy { decoupled: false },
            response_cache: ResponseCache { enable: false },
            instance_group: vec![InstanceGroup { name, kind: "KIND_CPU", count: 1 }],
        }
    }
}

/// `GET /v2/models/stats`
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct StatisticsDocument<'a> {
    /// One entry for each version.
    pub model_stats: Vec<ModelStatistics<'a>>,
}

/// The statistics of a version.
#[derive(Debug, Default, Serialize, utoipa::ToSchema)]
pub struct ModelStatistics<'a> {
    /// The model's name.
    pub name: &'a str,
    /// The version.
    pub version: &'a str,
    /// Milliseconds since 1970.
    pub last_inference: u64,
    /// Rows.
    pub inference_count: u64,
    /// Executions: a batch is one.
    pub execution_count: u64,
    /// Where the time went.
    pub inference_stats: InferenceStatistics,
    /// Of streaming models, which there are none of.
    #[schema(value_type = Object)]
    pub response_stats: serde_json::Map<String, serde_json::Value>,
    /// By batch size: not kept; the metric tidegate_execution_rows has it.
    pub batch_stats: Vec<serde_json::Value>,
    /// By device: not kept.
    pub memory_usage: Vec<serde_json::Value>,
}

/// Where the time of all predictions went.
#[derive(Debug, Default, Clone, Copy, Serialize, utoipa::ToSchema)]
pub struct InferenceStatistics {
    /// Answered requests.
    pub success: Counted,
    /// Failed requests.
    pub fail: Counted,
    /// Waiting for a compute thread.
    pub queue: Counted,
    /// Reading requests.
    pub compute_input: Counted,
    /// Inside the engine.
    pub compute_infer: Counted,
    /// Writing answers.
    pub compute_output: Counted,
    /// There is no cache.
    pub cache_hit: Counted,
    /// There is no cache.
    pub cache_miss: Counted,
}

/// How often, and how long altogether.
#[derive(Debug, Default, Clone, Copy, Serialize, utoipa::ToSchema)]
pub struct Counted {
    /// How often.
    pub count: u64,
    /// Nanoseconds altogether.
    pub ns: u64,
}
