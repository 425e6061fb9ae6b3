//! The parameters that mean something here; all others are passed over.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use super::proto::InferParameter;
use super::proto::infer_parameter::ParameterChoice;
use crate::protocol::region::{self, Place};
use crate::protocol::v2::ProtocolError;

pub(super) type Parameters = BTreeMap<String, InferParameter>;

/// A parameter as a number from 0 on, whichever of the number fields it came in.
pub(super) fn number(parameters: &Parameters, name: &str) -> Result<Option<u64>, ProtocolError> {
    let Some(parameter) = parameters.get(name) else { return Ok(None) };
    let number = match parameter.parameter_choice {
        Some(ParameterChoice::Uint64Param(number)) => Some(number),
        Some(ParameterChoice::Int64Param(number)) => u64::try_from(number).ok(),
        _ => None,
    };
    number.map(Some).ok_or_else(|| {
        ProtocolError::Tensors(format!(
            "parameter '{name}': expected a whole number from 0 on, got {}",
            shown(parameter)
        ))
    })
}

/// The number of classes that an output is asked for.
pub(super) fn classification(
    parameters: &Parameters,
    output: &str,
) -> Result<Option<NonZeroUsize>, ProtocolError> {
    let Some(parameter) = parameters.get("classification") else { return Ok(None) };
    let number = number(parameters, "classification").ok().flatten();
    let number = number.and_then(|k| usize::try_from(k).ok()).and_then(NonZeroUsize::new);
    number.map(Some).ok_or_else(|| {
        let got = shown(parameter);
        ProtocolError::tensor(
            output,
            format!("parameter 'classification': expected at least 1, got {got}"),
        )
    })
}

/// What a tensor's parameters say of shared memory; nothing where they say nothing.
pub(super) fn place(parameters: &Parameters, tensor: &str) -> Result<Option<Place>, ProtocolError> {
    let names = [region::REGION, region::OFFSET, region::BYTE_SIZE];
    if !names.iter().any(|name| parameters.contains_key(*name)) {
        return Ok(None);
    }
    let wrong = |name: &str, expected: &str, got: &InferParameter| {
        let reason = format!("parameter '{name}': expected {expected}, got {}", shown(got));
        ProtocolError::tensor(tensor, reason)
    };
    let region = parameters.get(region::REGION);
    let region = region.map(|parameter| match &parameter.parameter_choice {
        Some(ParameterChoice::StringParam(region)) => Ok(region.clone()),
        _ => Err(wrong(region::REGION, "a string", parameter)),
    });
    let whole = |name: &str| {
        let Some(parameter) = parameters.get(name) else { return Ok(None) };
        number(parameters, name).map_err(|_| wrong(name, "a whole number from 0 on", parameter))
    };
    let (offset, byte_size) = (whole(region::OFFSET)?, whole(region::BYTE_SIZE)?);
    Ok(Some(Place { region: region.transpose()?, offset, byte_size }))
}

/// Whether a parameter was given a value that asks for something: clients send `sequence_id` 0 for
/// none.
pub(super) fn asks(parameters: &Parameters, name: &str) -> bool {
    match parameters.get(name).and_then(|parameter| parameter.parameter_choice.as_ref()) {
        None => false,
        Some(ParameterChoice::BoolParam(value)) => *value,
        Some(ParameterChoice::Int64Param(value)) => *value != 0,
        Some(ParameterChoice::Uint64Param(value)) => *value != 0,
        Some(ParameterChoice::DoubleParam(value)) => *value != 0.0,
        Some(ParameterChoice::StringParam(value)) => !value.is_empty(),
    }
}

fn shown(parameter: &InferParameter) -> String {
    match &parameter.parameter_choice {
        None => "nothing".to_owned(),
        Some(ParameterChoice::BoolParam(value)) => value.to_string(),
        Some(ParameterChoice::Int64Param(value)) => value.to_string(),
        Some(ParameterChoice::Uint64Param(value)) => value.to_string(),
        Some(ParameterChoice::DoubleParam(value)) => format!("{value:?}"),
        Some(ParameterChoice::StringParam(value)) => format!("'{value}'"),
    }
}
