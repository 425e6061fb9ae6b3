//! The messages that describe models and the repository.

use std::time::Duration;

use super::proto::model_config::SchedulingChoice;
use super::proto::model_metadata_response::TensorMetadata;
use super::proto::{
    DataType, InferStatistics, ModelConfig, ModelDynamicBatching, ModelInput, ModelInstanceGroup,
    ModelMetadataResponse, ModelOutput, ModelResponseCache, ModelStatistics,
    ModelTransactionPolicy, StatisticDuration, model_instance_group,
};
use crate::protocol::v2::documents::{self, Counted};
use crate::tensor::{Datatype, Signature, TensorSpec};

/// The metadata of a model with these versions.
#[must_use]
pub fn model_metadata(
    name: &str,
    versions: &[&str],
    platform: &str,
    signature: &Signature,
) -> ModelMetadataResponse {
    let tensors = |specs: &[TensorSpec]| {
        let tensors = specs.iter().map(|spec| TensorMetadata {
            name: spec.name.clone(),
            datatype: spec.datatype.name().to_owned(),
            shape: spec.wire_shape().collect(),
        });
        tensors.collect()
    };
    ModelMetadataResponse {
        name: name.to_owned(),
        versions: versions.iter().map(|&version| version.to_owned()).collect(),
        platform: platform.to_owned(),
        inputs: tensors(&signature.inputs),
        outputs: tensors(&signature.outputs),
    }
}

/// The configuration of a model that is given batches of `batching` rows, after that delay.
#[must_use]
pub fn model_config(
    name: &str,
    platform: &str,
    signature: &Signature,
    batching: Option<(usize, Duration)>,
) -> ModelConfig {
    let batched = batching.filter(|_| signature.is_batchable());
    // With a batch size, Triton's dims leave the rows out.
    let rows = usize::from(batched.is_some());
    let dims = |spec: &TensorSpec| spec.wire_shape().skip(rows).collect::<Vec<i64>>();
    let inputs = signature.inputs.iter().map(|spec| ModelInput {
        name: spec.name.clone(),
        data_type: data_type(spec.datatype).into(),
        dims: dims(spec),
        ..ModelInput::default()
    });
    let outputs = signature.outputs.iter().map(|spec| ModelOutput {
        name: spec.name.clone(),
        data_type: data_type(spec.datatype).into(),
        dims: dims(spec),
        ..ModelOutput::default()
    });
    ModelConfig {
        name: name.to_owned(),
        platform: platform.to_owned(),
        backend: documents::BACKEND.to_owned(),
        max_batch_size: batched.map_or(0, |(rows, _)| i32::try_from(rows).unwrap_or(i32::MAX)),
        input: inputs.collect(),
        output: outputs.collect(),
        instance_group: vec![ModelInstanceGroup {
            name: name.to_owned(),
            kind: model_instance_group::Kind::Cpu.into(),
            count: 1,
        }],
        default_model_filename: String::new(),
        model_transaction_policy: Some(ModelTransactionPolicy { decoupled: false }),
        response_cache: Some(ModelResponseCache { enable: false }),
        scheduling_choice: batched.map(|(_, delay)| {
            SchedulingChoice::DynamicBatching(ModelDynamicBatching {
                preferred_batch_size: Vec::new(),
                max_queue_delay_microseconds: u64::try_from(delay.as_micros()).unwrap_or(u64::MAX),
            })
        }),
    }
}

fn data_type(datatype: Datatype) -> DataType {
    match datatype {
        Datatype::Bool => DataType::TypeBool,
        Datatype::Uint8 => DataType::TypeUint8,
        Datatype::Uint16 => DataType::TypeUint16,
        Datatype::Uint32 => DataType::TypeUint32,
        Datatype::Uint64 => DataType::TypeUint64,
        Datatype::Int8 => DataType::TypeInt8,
        Datatype::Int16 => DataType::TypeInt16,
        Datatype::Int32 => DataType::TypeInt32,
        Datatype::Int64 => DataType::TypeInt64,
        Datatype::Fp16 => DataType::TypeFp16,
        Datatype::Bf16 => DataType::TypeBf16,
        Datatype::Fp32 => DataType::TypeFp32,
        Datatype::Fp64 => DataType::TypeFp64,
        Datatype::Bytes => DataType::TypeString,
    }
}

/// The statistics of a version, as the protocol over HTTP has them.
#[must_use]
pub fn model_statistics(statistics: &documents::ModelStatistics<'_>) -> ModelStatistics {
    let duration = |Counted { count, ns }| Some(StatisticDuration { count, ns });
    let times = &statistics.inference_stats;
    ModelStatistics {
        name: statistics.name.to_owned(),
        version: statistics.version.to_owned(),
        last_inference: statistics.last_inference,
        inference_count: statistics.inference_count,
        execution_count: statistics.execution_count,
        inference_stats: Some(InferStatistics {
            success: duration(times.success),
            fail: duration(times.fail),
            queue: duration(times.queue),
            compute_input: duration(times.compute_input),
            compute_infer: duration(times.compute_infer),
            compute_output: duration(times.compute_output),
            cache_hit: duration(times.cache_hit),
            cache_miss: duration(times.cache_miss),
        }),
        ..ModelStatistics::default()
    }
}
