//! Settings of Triton that are configuration here: they are told, and changed in the file alone, so
//! that what runs is what the file says. A call may set them to what they are.

use std::collections::BTreeMap;

use serde_json::Value;

use super::account::Call;
use super::reply::Reply;
use super::{DataPlane, control};
use crate::error::{Code, Fault};

/// What a setting is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Setting {
    Flag(bool),
    Count(u32),
    Text(String),
}

/// Settings of one kind, in Triton's words.
pub(super) struct Settings {
    kind: &'static str,
    /// How they are changed instead.
    change: &'static str,
    pub(super) values: [(&'static str, Setting); 6],
}

/// Why a setting stays as it is.
#[derive(Debug, thiserror::Error)]
pub(super) enum SettingError {
    #[error("there is no {kind} setting '{name}'; there are {known}")]
    Unknown { kind: &'static str, name: String, known: String },
    #[error("{kind} setting '{name}' is not changed by calls: {change}")]
    Fixed { kind: &'static str, name: String, change: &'static str },
    #[error("{kind} setting '{name}': expected true, false, a number or text, got {got}")]
    Form { kind: &'static str, name: String, got: String },
}

impl Fault for SettingError {
    fn code(&self) -> Code {
        match self {
            Self::Unknown { .. } | Self::Form { .. } => Code::InvalidArgument,
            Self::Fixed { .. } => Code::Unimplemented,
        }
    }
}

impl Settings {
    /// Those of the log.
    pub(super) fn of_log(plane: &DataPlane) -> Self {
        let level = plane.registry.live().config.log.level.clone();
        let level = level.split(',').next().unwrap_or_default().trim().to_ascii_lowercase();
        let rank =
            ["off", "error", "warn", "info", "debug", "trace"].iter().position(|l| *l == level);
        // Directives for single modules alone: the rest has the default, errors.
        let rank = rank.unwrap_or(1);
        let verbose = u32::try_from(rank.saturating_sub(3)).unwrap_or(0);
        Self {
            kind: "log",
            change: "set log.level in the configuration, which is applied when it is saved",
            values: [
                ("log_file", Setting::Text(String::new())),
                ("log_error", Setting::Flag(rank >= 1)),
                ("log_warning", Setting::Flag(rank >= 2)),
                ("log_info", Setting::Flag(rank >= 3)),
                ("log_verbose_level", Setting::Count(verbose)),
                ("log_format", Setting::Text("default".to_owned())),
            ],
        }
    }

    /// Those of Triton's tracing, in whose words OpenTelemetry's are told: one request in
    /// `trace_rate`.
    pub(super) fn of_trace(plane: &DataPlane) -> Self {
        let text = |value: &str| Setting::Text(value.to_owned());
        let share = plane.tracer.share();
        let (level, rate) = match share > 0.0 {
            true => ("TIMESTAMPS", format!("{:.0}", 1.0 / share)),
            false => ("OFF", "0".to_owned()),
        };
        Self {
            kind: "trace",
            change: "traces are OpenTelemetry's, and are configured in the file, under [tracing]",
            values: [
                ("trace_level", text(level)),
                ("trace_rate", Setting::Text(rate)),
                ("trace_count", text("-1")),
                ("log_frequency", text("0")),
                ("trace_file", text("")),
                ("trace_mode", text("opentelemetry")),
            ],
        }
    }

    /// Checks that a call sets nothing to anything but what it is. No value clears a setting, which
    /// leaves what is configured.
    pub(super) fn check(&self, name: &str, wanted: &[Setting]) -> Result<(), SettingError> {
        let Some((_, value)) = self.values.iter().find(|(known, _)| *known == name) else {
            let known = self.values.each_ref().map(|(known, _)| *known).join(", ");
            return Err(SettingError::Unknown { kind: self.kind, name: name.to_owned(), known });
        };
        if wanted.iter().all(|wanted| wanted == value) {
            return Ok(());
        }
        Err(SettingError::Fixed { kind: self.kind, name: name.to_owned(), change: self.change })
    }

    fn check_body(&self, wanted: &BTreeMap<String, Value>) -> Result<(), SettingError> {
        for (name, value) in wanted {
            let values = match value {
                Value::Null => &[],
                Value::Array(values) => values.as_slice(),
                value => std::slice::from_ref(value),
            };
            let values: Option<Vec<Setting>> = values.iter().map(setting).collect();
            let form = || SettingError::Form {
                kind: self.kind,
                name: name.clone(),
                got: value.to_string(),
            };
            self.check(name, &values.ok_or_else(form)?)?;
        }
        Ok(())
    }

    fn document(self) -> Reply {
        let values = self.values.map(|(name, value)| {
            let value = match value {
                // The one setting that is a list.
                Setting::Text(value) if name == "trace_level" => Value::from(vec![value]),
                Setting::Text(value) => Value::from(value),
                Setting::Flag(value) => Value::from(value),
                Setting::Count(value) => Value::from(value),
            };
            (name, value)
        });
        Reply::document(&BTreeMap::from(values))
    }
}

fn setting(value: &Value) -> Option<Setting> {
    match value {
        Value::Bool(value) => Some(Setting::Flag(*value)),
        Value::Number(value) => Some(Setting::Count(u32::try_from(value.as_u64()?).ok()?)),
        Value::String(value) => Some(Setting::Text(value.clone())),
        _ => None,
    }
}

/// `GET` and `POST /v2/logging`
pub(super) async fn log(plane: &DataPlane, call: &mut Call) -> Reply {
    answer(Settings::of_log(plane), call).await
}

/// `GET` and `POST /v2[/models/M]/trace/setting`
pub(super) async fn trace(plane: &DataPlane, call: &mut Call, model: Option<&str>) -> Reply {
    if let Some(model) = model
        && let Err(error) = plane.registry.live().model(model)
    {
        return Reply::fault(&error);
    }
    answer(Settings::of_trace(plane), call).await
}

async fn answer(settings: Settings, call: &mut Call) -> Reply {
    if call.head.method == http::Method::POST {
        let wanted = match control::read_json(call).await {
            Ok(wanted) => wanted,
            Err(reply) => return *reply,
        };
        if let Err(error) = settings.check_body(&wanted) {
            return Reply::fault(&error);
        }
    }
    settings.document()
}
