//! The documents of the protocol.

use serde::Serialize;

/// `GET /v1/models`
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = V1ModelList)]
pub struct ModelList<'a> {
    /// Names of the models that serve.
    pub models: Vec<&'a str>,
}

/// `GET /v1/models/M`: KServe's members, then TensorFlow Serving's.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = V1ModelStatus)]
pub struct ModelStatus<'a> {
    /// The model's name.
    pub name: &'a str,
    /// Whether it answers.
    pub ready: bool,
    /// Its versions.
    pub model_version_status: Vec<VersionStatus<'a>>,
}

/// A version that serves.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = V1VersionStatus)]
pub struct VersionStatus<'a> {
    version: &'a str,
    state: &'static str,
    status: StatusDetail,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = V1StatusDetail)]
struct StatusDetail {
    error_code: &'static str,
    error_message: &'static str,
}

impl<'a> VersionStatus<'a> {
    /// A version that answers.
    #[must_use]
    pub fn available(version: &'a str) -> Self {
        let status = StatusDetail { error_code: "OK", error_message: "" };
        Self { version, state: "AVAILABLE", status }
    }
}
