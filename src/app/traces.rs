//! Where spans go: what the configuration says, and where it is silent, OpenTelemetry's own
//! environment variables.

use std::collections::HashMap;

use tokio::runtime::Handle;

use crate::config::{TraceProtocol, Tracing, check_url};
use crate::telemetry::Telemetry;
use crate::telemetry::trace::{self, Exporting, Protocol, Settings, Tracer};

/// Where OTLP over HTTP takes spans, below the receiver's URL.
const TRACES: &str = "/v1/traces";

/// Starts the exporter where a receiver is named; otherwise tracing is off.
pub(super) fn start(
    tracing: &Tracing,
    telemetry: &Telemetry,
    runtime: &Handle,
) -> Result<(Tracer, Option<Exporting>), String> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    let Some(settings) = settings(tracing, variable)? else { return Ok((Tracer::off(), None)) };
    let (tracer, exporting) = trace::start(&settings, telemetry, runtime)
        .map_err(|error| format!("tracing cannot be started: {error}"))?;
    configure(&tracer, tracing);
    ::tracing::info!(
        endpoint = settings.endpoint,
        protocol = ?settings.protocol,
        share = tracing.share,
        "tracing"
    );
    Ok((tracer, Some(exporting)))
}

/// Takes what can change without a restart.
pub(super) fn configure(tracer: &Tracer, tracing: &Tracing) {
    tracer.set_share(tracing.share);
    tracer.set_parent(tracing.parent);
}

/// The exporter's settings; nothing where no receiver is named.
fn settings(
    tracing: &Tracing,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<Settings>, String> {
    if variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    let wrong = |name: &'static str, expected: String| format!("{name}: {expected}");
    let protocol = match tracing.protocol {
        Some(TraceProtocol::Grpc) => Protocol::Grpc,
        Some(TraceProtocol::Http) => Protocol::Http,
        None => {
            let names = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
            let said = names.iter().find_map(|name| Some((*name, variable(name)?)));
            match said.as_ref().map(|(name, value)| (*name, value.trim())) {
                None | Some((_, "grpc")) => Protocol::Grpc,
                Some((_, "http/protobuf")) => Protocol::Http,
                Some((name, other)) => {
                    let expected = format!("expected grpc or http/protobuf, got \"{other}\"");
                    return Err(wrong(name, expected));
                }
            }
        }
    };
    // The variable for traces alone is the whole URL, the others are where paths begin.
    let whole = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    let base = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let (name, endpoint, is_whole) = match (&tracing.endpoint, variable(whole), variable(base)) {
        (Some(url), ..) => ("tracing.endpoint", url.clone(), false),
        (None, Some(url), _) => (whole, url, true),
        (None, None, Some(url)) => (base, url, false),
        (None, None, None) => return Ok(None),
    };
    let endpoint = endpoint.trim();
    let uri = check_url(endpoint).map_err(|expected| wrong(name, expected))?;
    let has_path = uri.path().trim_end_matches('/').ends_with(TRACES);
    let endpoint = match protocol {
        Protocol::Http if !is_whole && !has_path => {
            format!("{}{TRACES}", endpoint.trim_end_matches('/'))
        }
        _ => endpoint.to_owned(),
    };
    let secret = |(header, name): (&String, &String)| {
        let value = variable(name).ok_or_else(|| {
            format!("tracing.headers_env: environment variable {name} is not set, or is empty")
        })?;
        Ok::<_, String>((header.clone(), value.trim().to_owned()))
    };
    Ok(Some(Settings {
        endpoint,
        protocol,
        timeout: tracing.timeout,
        headers: tracing.headers_env.iter().map(secret).collect::<Result<HashMap<_, _>, _>>()?,
        service: tracing.service.clone(),
        attributes: tracing.attributes.clone(),
        queue: tracing.queue,
    }))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn read(text: &str, variables: &[(&str, &str)]) -> Result<Option<Settings>, String> {
        let config = Config::parse(&format!("[tracing]\n{text}"), Path::new(""), []).unwrap();
        let value = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        settings(&config.tracing, value)
    }

    #[test]
    fn the_file_goes_before_the_environment() {
        let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:1/own");
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://b:2/");
        let http = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
        let file = "endpoint = \"http://f:3\"";
        for (text, variables, expected) in [
            ("", &[][..], None),
            ("", &[base], Some("http://b:2/")),
            ("", &[base, http], Some("http://b:2/v1/traces")),
            ("", &[base, traces, http], Some("http://t:1/own")),
            (file, &[base, traces], Some("http://f:3")),
            (file, &[base, http], Some("http://f:3/v1/traces")),
            (
                "endpoint = \"http://f:3/v1/traces\"\nprotocol = \"http\"",
                &[],
                Some("http://f:3/v1/traces"),
            ),
            (file, &[("OTEL_SDK_DISABLED", "true")], None),
        ] {
            let settings = read(text, variables).unwrap();
            let endpoint = settings.map(|settings| settings.endpoint);
            assert_eq!(endpoint.as_deref(), expected, "{text} {variables:?}");
        }
    }

    #[test]
    fn what_the_environment_gets_wrong_is_named() {
        for (text, variables, expected) in [
            (
                "",
                &[("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317")][..],
                "OTEL_EXPORTER_OTLP_ENDPOINT: expected a URL",
            ),
            (
                "",
                &[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")],
                "OTEL_EXPORTER_OTLP_PROTOCOL: expected grpc or http/protobuf, got \"http/json\"",
            ),
            (
                "endpoint = \"http://f:3\"\nheaders_env = { x-key = \"KEY\" }",
                &[],
                "tracing.headers_env: environment variable KEY is not set",
            ),
        ] {
            let error = read(text, variables).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
