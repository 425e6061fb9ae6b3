//! Settings of Triton that are configuration here: they are told, and changed in the file alone, so
//! that what runs is what the file says. And shared memory, which is refused.

use std::collections::BTreeMap;

use super::DataPlane;
use super::status::Status;
use crate::error::Code;
use crate::protocol::grpc::proto::{
    LogSettingsRequest, LogSettingsResponse, TraceSettingRequest, TraceSettingResponse,
    log_settings_request, log_settings_response, trace_setting_response,
};

/// The settings of the log in Triton's words. A request may set them to what they are.
pub(super) fn log(
    plane: &DataPlane,
    request: LogSettingsRequest,
) -> Result<LogSettingsResponse, Status> {
    use log_settings_request::setting_value::ParameterChoice as Wanted;
    use log_settings_response::SettingValue;
    use log_settings_response::setting_value::ParameterChoice;

    let level = plane.registry.live().config.log.level.clone();
    let level = level.split(',').next().unwrap_or_default().trim().to_ascii_lowercase();
    let rank = ["off", "error", "warn", "info", "debug", "trace"].iter().position(|l| *l == level);
    // Directives for single modules alone: the rest has the default, errors.
    let rank = rank.unwrap_or(1);
    let verbose = u32::try_from(rank.saturating_sub(3)).unwrap_or(0);
    let settings = [
        ("log_file", ParameterChoice::StringParam(String::new())),
        ("log_error", ParameterChoice::BoolParam(rank >= 1)),
        ("log_warning", ParameterChoice::BoolParam(rank >= 2)),
        ("log_info", ParameterChoice::BoolParam(rank >= 3)),
        ("log_verbose_level", ParameterChoice::Uint32Param(verbose)),
        ("log_format", ParameterChoice::StringParam("default".to_owned())),
    ];
    for (name, wanted) in &request.settings {
        let Some((_, value)) = settings.iter().find(|(known, _)| known == name) else {
            return Err(unknown("log", name, &settings.each_ref().map(|(known, _)| *known)));
        };
        let is_so = match (&wanted.parameter_choice, value) {
            (None, _) => true,
            (Some(Wanted::BoolParam(wanted)), ParameterChoice::BoolParam(value)) => wanted == value,
            (Some(Wanted::Uint32Param(wanted)), ParameterChoice::Uint32Param(value)) => {
                wanted == value
            }
            (Some(Wanted::StringParam(wanted)), ParameterChoice::StringParam(value)) => {
                wanted == value
            }
            _ => false,
        };
        if !is_so {
            let message = format!(
                "log setting '{name}' is not changed by calls: set log.level in the configuration, which is applied when it is saved"
            );
            return Err(Status::new(Code::Unimplemented, message));
        }
    }
    let settings = settings
        .map(|(name, value)| (name.to_owned(), SettingValue { parameter_choice: Some(value) }));
    Ok(LogSettingsResponse { settings: BTreeMap::from(settings) })
}

/// The settings of Triton's tracing, in whose words OpenTelemetry's are told: one request in
/// `trace_rate`.
pub(super) fn trace(
    plane: &DataPlane,
    request: TraceSettingRequest,
) -> Result<TraceSettingResponse, Status> {
    use trace_setting_response::SettingValue;

    if !request.model_name.is_empty() {
        plane.registry.live().model(&request.model_name)?;
    }
    let share = plane.tracer.share();
    let (level, rate) = match share > 0.0 {
        true => ("TIMESTAMPS", format!("{:.0}", 1.0 / share)),
        false => ("OFF", "0".to_owned()),
    };
    let settings = [
        ("trace_level", level),
        ("trace_rate", rate.as_str()),
        ("trace_count", "-1"),
        ("log_frequency", "0"),
        ("trace_file", ""),
        ("trace_mode", "opentelemetry"),
    ];
    for (name, wanted) in &request.settings {
        let Some((_, value)) = settings.iter().find(|(known, _)| known == name) else {
            return Err(unknown("trace", name, &settings.map(|(known, _)| known)));
        };
        // No value clears a setting, which leaves what is configured.
        if wanted.value.iter().any(|wanted| wanted != value) {
            let message = format!(
                "trace setting '{name}' is not changed by calls: traces are OpenTelemetry's, and are configured in the file, under [tracing]"
            );
            return Err(Status::new(Code::Unimplemented, message));
        }
    }
    let settings = settings.map(|(name, value)| {
        let value = vec![value.to_owned()];
        (name.to_owned(), SettingValue { value })
    });
    Ok(TraceSettingResponse { settings: BTreeMap::from(settings) })
}

fn unknown(what: &str, name: &str, known: &[&str]) -> Status {
    let known = known.join(", ");
    let message = format!("there is no {what} setting '{name}'; there are {known}");
    Status::new(Code::InvalidArgument, message)
}

/// Why there is no shared memory.
pub(super) fn no_shared_memory() -> Status {
    let message = "shared memory is not supported: send tensors as raw_input_contents, which are not copied once they are read";
    Status::new(Code::Unimplemented, message)
}
