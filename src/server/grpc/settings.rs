//! The settings of [`crate::server::settings`] as messages.

use super::DataPlane;
use super::status::Status;
use crate::protocol::grpc::proto::{
    LogSettingsRequest, LogSettingsResponse, TraceSettingRequest, TraceSettingResponse,
    log_settings_request, log_settings_response, trace_setting_response,
};
use crate::server::settings::{Setting, Settings};

/// The settings of the log.
pub(super) fn log(
    plane: &DataPlane,
    request: LogSettingsRequest,
) -> Result<LogSettingsResponse, Status> {
    use log_settings_request::setting_value::ParameterChoice as Wanted;
    use log_settings_response::SettingValue;
    use log_settings_response::setting_value::ParameterChoice;

    let settings = Settings::of_log(plane);
    for (name, wanted) in request.settings {
        let wanted = wanted.parameter_choice.map(|wanted| match wanted {
            Wanted::BoolParam(wanted) => Setting::Flag(wanted),
            Wanted::Uint32Param(wanted) => Setting::Count(wanted),
            Wanted::StringParam(wanted) => Setting::Text(wanted),
        });
        settings.check(&name, wanted.as_slice())?;
    }
    let settings = settings.values.into_iter().map(|(name, value)| {
        let value = match value {
            Setting::Flag(value) => ParameterChoice::BoolParam(value),
            Setting::Count(value) => ParameterChoice::Uint32Param(value),
            Setting::Text(value) => ParameterChoice::StringParam(value),
        };
        (name.to_owned(), SettingValue { parameter_choice: Some(value) })
    });
    Ok(LogSettingsResponse { settings: settings.collect() })
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
    let settings = Settings::of_trace(plane);
    for (name, wanted) in request.settings {
        let wanted: Vec<Setting> = wanted.value.into_iter().map(Setting::Text).collect();
        settings.check(&name, &wanted)?;
    }
    let settings = settings.values.into_iter().map(|(name, value)| {
        let value = match value {
            Setting::Text(value) => value,
            Setting::Flag(value) => value.to_string(),
            Setting::Count(value) => value.to_string(),
        };
        (name.to_owned(), SettingValue { value: vec![value] })
    });
    Ok(TraceSettingResponse { settings: settings.collect() })
}
