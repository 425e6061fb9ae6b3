//! Paths to routes, without allocation.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Where a request on the data plane goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route<'a> {
    ServerMetadata,
    Live,
    Ready,
    Models,
    AllStatistics,
    Model(Target<'a>),
    ModelReady(Target<'a>),
    ModelConfig(Target<'a>),
    ModelStatistics(Target<'a>),
    Infer(Target<'a>),
    /// Rows by name.
    Predict(Target<'a>),
    Feedback(Target<'a>),
    RepositoryIndex,
    RepositoryLoad(Cow<'a, str>),
    RepositoryUnload(Cow<'a, str>),
    LogSettings,
    /// Of all models, or of one.
    TraceSettings(Option<Cow<'a, str>>),
    SystemMemory(MemoryCall<'a>),
    CudaMemory,
    /// The root: V1 asks there whether the server lives.
    V1Live,
    /// The description of all this.
    OpenApi,
    V1Models,
    V1Model(Target<'a>),
    V1Predict(Target<'a>),
    /// `:explain` and the like.
    V1Other(&'a str),
    Unknown,
}

/// What is to be done with regions of shared memory: one, or all where none is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MemoryCall<'a> {
    Status(Option<Cow<'a, str>>),
    Register(Cow<'a, str>),
    Unregister(Option<Cow<'a, str>>),
}

/// A model, and the version or alias where the path names one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target<'a> {
    pub(super) model: Cow<'a, str>,
    pub(super) version: Option<Cow<'a, str>>,
}

/// The methods that a route takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Methods {
    Get,
    Post,
    Both,
}

impl Methods {
    /// The one that it is made for.
    pub(super) fn main(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Both => "GET, POST",
        }
    }

    /// As the header `allow` lists them. `HEAD` comes with `GET`, `OPTIONS` with everything.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET, HEAD, OPTIONS",
            Self::Post => "POST, OPTIONS",
            Self::Both => "GET, HEAD, POST, OPTIONS",
        }
    }

    /// Whether the route's handler takes the method. `OPTIONS` is answered without it.
    pub(super) fn allow(self, method: &http::Method) -> bool {
        match self {
            Self::Get => method == http::Method::GET || method == http::Method::HEAD,
            Self::Post => method == http::Method::POST,
            Self::Both => Self::Get.allow(method) || Self::Post.allow(method),
        }
    }
}

impl<'a> Route<'a> {
    /// The route of a path. A slash at the end changes nothing.
    pub(super) fn of(path: &'a str) -> Self {
        let path = path.strip_prefix('/').unwrap_or(path);
        let path = path.strip_suffix('/').unwrap_or(path);
        if path.is_empty() {
            return Self::V1Live;
        }
        if path == "openapi.json" {
            return Self::OpenApi;
        }
        if let Some(rest) = path.strip_prefix("v1/") {
            return Self::of_v1(rest);
        }
        let Some(rest) = path.strip_prefix("v2") else { return Self::Unknown };
        if rest.is_empty() {
            return Self::ServerMetadata;
        }
        let Some(rest) = rest.strip_prefix('/') else { return Self::Unknown };
        let mut segments = rest.split('/');
        match segments.next() {
            Some("health") => match (segments.next(), segments.next()) {
                (Some("live"), None) => Self::Live,
                (Some("ready"), None) => Self::Ready,
                _ => Self::Unknown,
            },
            Some("models") => Self::of_model(segments),
            Some("repository") => Self::of_repository(segments),
            Some("logging") if segments.next().is_none() => Self::LogSettings,
            Some("trace") if segments.clone().eq(["setting"]) => Self::TraceSettings(None),
            Some("systemsharedmemory") => Self::of_memory(segments),
            Some("cudasharedmemory") => Self::CudaMemory,
            _ => Self::Unknown,
        }
    }

    fn of_model(mut segments: std::str::Split<'a, char>) -> Self {
        let Some(model) = segments.next() else { return Self::Models };
        let mut action = segments.next();
        if model == "stats" && action.is_none() {
            return Self::AllStatistics;
        }
        let mut version = None;
        if action == Some("versions") {
            let Some(segment) = segments.next() else { return Self::Unknown };
            version = Some(decoded(segment));
            action = segments.next();
        }
        match (action, segments.next(), segments.next()) {
            (_, None, _) => {}
            (Some("trace"), Some("setting"), None) if version.is_none() => {
                return Self::TraceSettings(Some(decoded(model)));
            }
            _ => return Self::Unknown,
        }
        let target = Target { model: decoded(model), version };
        match action {
            None => Self::Model(target),
            Some("infer") => Self::Infer(target),
            Some("predict") => Self::Predict(target),
            Some("feedback") => Self::Feedback(target),
            Some("ready") => Self::ModelReady(target),
            Some("config") => Self::ModelConfig(target),
            Some("stats") => Self::ModelStatistics(target),
            Some(_) => Self::Unknown,
        }
    }

    /// `models`, `models/M`, `models/M/versions/V`, `models/M/labels/L`, and a verb behind a colon.
    fn of_v1(path: &'a str) -> Self {
        let (path, verb) = match path.rsplit_once(':') {
            Some((path, verb)) => (path, Some(verb)),
            None => (path, None),
        };
        let mut segments = path.split('/');
        let segments =
            (segments.next(), segments.next(), segments.next(), segments.next(), segments.next());
        let target = match segments {
            (Some("models"), None, ..) if verb.is_none() => return Self::V1Models,
            (Some("models"), Some(model), None, ..) => {
                Target { model: decoded(model), version: None }
            }
            (Some("models"), Some(model), Some("versions" | "labels"), Some(version), None) => {
                Target { model: decoded(model), version: Some(decoded(version)) }
            }
            _ => return Self::Unknown,
        };
        match verb {
            None => Self::V1Model(target),
            Some("predict") => Self::V1Predict(target),
            Some(verb @ ("explain" | "classify" | "regress")) => Self::V1Other(verb),
            Some(_) => Self::Unknown,
        }
    }

    /// `index`, `models/M/load` and `models/M/unload`, or the same behind a repository's name,
    /// which Triton allows and which means nothing where there is one repository.
    fn of_repository(segments: std::str::Split<'a, char>) -> Self {
        let mut rest = segments.clone();
        let named = !matches!(rest.next(), Some("index" | "models"));
        let mut segments = segments;
        if named {
            segments.next();
        }
        let segments = (segments.next(), segments.next(), segments.next(), segments.next());
        match segments {
            (Some("index"), None, ..) => Self::RepositoryIndex,
            (Some("models"), Some(model), Some("load"), None) => {
                Self::RepositoryLoad(decoded(model))
            }
            (Some("models"), Some(model), Some("unload"), None) => {
                Self::RepositoryUnload(decoded(model))
            }
            _ => Self::Unknown,
        }
    }

    /// `status` and `unregister`, and behind `region/R` these and `register`.
    fn of_memory(mut segments: std::str::Split<'a, char>) -> Self {
        let mut verb = segments.next();
        let mut region = None;
        if verb == Some("region") {
            region = segments.next().map(decoded);
            verb = segments.next();
        }
        let call = match (verb, region, segments.next()) {
            (Some("status"), region, None) => MemoryCall::Status(region),
            (Some("register"), Some(region), None) => MemoryCall::Register(region),
            (Some("unregister"), region, None) => MemoryCall::Unregister(region),
            _ => return Self::Unknown,
        };
        Self::SystemMemory(call)
    }

    /// The method that the route takes.
    pub(super) fn methods(&self) -> Methods {
        match self {
            Self::Infer(_)
            | Self::Predict(_)
            | Self::V1Predict(_)
            | Self::V1Other(_)
            | Self::Feedback(_)
            | Self::RepositoryIndex
            | Self::RepositoryLoad(_)
            | Self::RepositoryUnload(_)
            | Self::SystemMemory(MemoryCall::Register(_) | MemoryCall::Unregister(_)) => {
                Methods::Post
            }
            Self::LogSettings | Self::TraceSettings(_) | Self::CudaMemory => Methods::Both,
            _ => Methods::Get,
        }
    }

    /// The pattern of its path, for spans of predictions.
    pub(super) fn pattern(&self) -> &'static str {
        match self {
            Self::Infer(Target { version: None, .. }) => "/v2/models/{model}/infer",
            Self::Infer(_) => "/v2/models/{model}/versions/{version}/infer",
            Self::Predict(Target { version: None, .. }) => "/v2/models/{model}/predict",
            Self::Predict(_) => "/v2/models/{model}/versions/{version}/predict",
            Self::V1Predict(_) => "/v1/models/{model}:predict",
            Self::V1Other(_) => "/v1/models/{model}:{verb}",
            _ => "",
        }
    }

    /// The metric label `route`.
    pub(super) fn label(&self) -> Label {
        match self {
            Self::ServerMetadata
            | Self::OpenApi
            | Self::LogSettings
            | Self::TraceSettings(_)
            | Self::SystemMemory(_)
            | Self::CudaMemory => Label::ServerMetadata,
            Self::Live | Self::Ready | Self::V1Live => Label::Health,
            Self::Models
            | Self::Model(_)
            | Self::ModelReady(_)
            | Self::ModelConfig(_)
            | Self::V1Models
            | Self::V1Model(_) => Label::Metadata,
            Self::AllStatistics | Self::ModelStatistics(_) => Label::Statistics,
            Self::Infer(_) | Self::Predict(_) | Self::V1Predict(_) | Self::V1Other(_) => {
                Label::Infer
            }
            Self::Feedback(_) => Label::Feedback,
            Self::RepositoryIndex | Self::RepositoryLoad(_) | Self::RepositoryUnload(_) => {
                Label::Repository
            }
            Self::Unknown => Label::Other,
        }
    }
}

/// The values of the metric label `route`: closed, whatever clients ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Label {
    Infer,
    InferStream,
    Feedback,
    Metadata,
    ServerMetadata,
    Health,
    Statistics,
    Repository,
    Admin,
    Metrics,
    Other,
}

impl Label {
    pub(super) const ALL: [Self; 11] = [
        Self::Infer,
        Self::InferStream,
        Self::Feedback,
        Self::Metadata,
        Self::ServerMetadata,
        Self::Health,
        Self::Statistics,
        Self::Repository,
        Self::Admin,
        Self::Metrics,
        Self::Other,
    ];

    /// Whether requests with it are predictions: those are traced.
    pub(super) fn is_prediction(self) -> bool {
        matches!(self, Self::Infer | Self::InferStream)
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Infer => "infer",
            Self::InferStream => "infer_stream",
            Self::Feedback => "feedback",
            Self::Metadata => "metadata",
            Self::ServerMetadata => "server_metadata",
            Self::Health => "health",
            Self::Statistics => "statistics",
            Self::Repository => "repository",
            Self::Admin => "admin",
            Self::Metrics => "metrics",
            Self::Other => "other",
        }
    }
}

/// A percent-encoded segment as text; what is not UTF-8 becomes a name that no model has.
fn decoded(segment: &str) -> Cow<'_, str> {
    percent_decode_str(segment).decode_utf8_lossy()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(model: &str, version: Option<&str>) -> Target<'static> {
        Target {
            model: Cow::Owned(model.to_owned()),
            version: version.map(|version| Cow::Owned(version.to_owned())),
        }
    }

    #[test]
    fn paths_to_routes() {
        for (path, expected) in [
            ("/v2", Route::ServerMetadata),
            ("/v2/", Route::ServerMetadata),
            ("/v2/health/live", Route::Live),
            ("/v2/health/ready", Route::Ready),
            ("/v2/models", Route::Models),
            ("/v2/models/stats", Route::AllStatistics),
            ("/v2/models/m", Route::Model(target("m", None))),
            ("/v2/models/car%2Dloan/infer", Route::Infer(target("car-loan", None))),
            ("/v2/models/m/versions/stable", Route::Model(target("m", Some("stable")))),
            ("/v2/models/m/versions/2/infer", Route::Infer(target("m", Some("2")))),
            ("/v2/models/m/versions/2/ready", Route::ModelReady(target("m", Some("2")))),
            ("/v2/models/m/feedback", Route::Feedback(target("m", None))),
            ("/v2/models/m/config", Route::ModelConfig(target("m", None))),
            ("/v2/models/m/stats", Route::ModelStatistics(target("m", None))),
            ("/v2/repository/index", Route::RepositoryIndex),
            ("/v2/logging", Route::LogSettings),
            ("/v2/logging/x", Route::Unknown),
            ("/v2/trace/setting", Route::TraceSettings(None)),
            ("/v2/trace", Route::Unknown),
            ("/v2/models/m/trace/setting", Route::TraceSettings(Some("m".into()))),
            ("/v2/models/m/trace/setting/x", Route::Unknown),
            ("/v2/models/m/versions/1/trace/setting", Route::Unknown),
            ("/v2/systemsharedmemory/status", Route::SystemMemory(MemoryCall::Status(None))),
            (
                "/v2/systemsharedmemory/region/r/status",
                Route::SystemMemory(MemoryCall::Status(Some("r".into()))),
            ),
            (
                "/v2/systemsharedmemory/region/a%2Fb/register",
                Route::SystemMemory(MemoryCall::Register("a/b".into())),
            ),
            (
                "/v2/systemsharedmemory/region/r/unregister",
                Route::SystemMemory(MemoryCall::Unregister(Some("r".into()))),
            ),
            (
                "/v2/systemsharedmemory/unregister",
                Route::SystemMemory(MemoryCall::Unregister(None)),
            ),
            ("/v2/systemsharedmemory/register", Route::Unknown),
            ("/v2/systemsharedmemory/region/r", Route::Unknown),
            ("/v2/systemsharedmemory/region/r/status/x", Route::Unknown),
            ("/v2/systemsharedmemory", Route::Unknown),
            ("/v2/cudasharedmemory/status", Route::CudaMemory),
            ("/v2/repository/main/index", Route::RepositoryIndex),
            ("/v2/repository/models/m/load", Route::RepositoryLoad("m".into())),
            ("/v2/repository/main/models/m/unload", Route::RepositoryUnload("m".into())),
            ("/", Route::V1Live),
            ("", Route::V1Live),
            ("/v2x", Route::Unknown),
            ("/v3/models", Route::Unknown),
            ("/v2/models/m/versions", Route::Unknown),
            ("/v2/models/m/infer/more", Route::Unknown),
            ("/v2/models/m/explain", Route::Unknown),
            ("/v2/repository/models/m", Route::Unknown),
            ("/v2/models/m/predict", Route::Predict(target("m", None))),
            ("/v2/models/m/versions/2/predict", Route::Predict(target("m", Some("2")))),
            ("/v1/models", Route::V1Models),
            ("/v1/models/m", Route::V1Model(target("m", None))),
            ("/v1/models/m:predict", Route::V1Predict(target("m", None))),
            ("/v1/models/a%3Ab:predict", Route::V1Predict(target("a:b", None))),
            ("/v1/models/m/versions/2:predict", Route::V1Predict(target("m", Some("2")))),
            ("/v1/models/m/labels/stable:predict", Route::V1Predict(target("m", Some("stable")))),
            ("/v1/models/m/versions/2", Route::V1Model(target("m", Some("2")))),
            ("/v1/models/m:explain", Route::V1Other("explain")),
            ("/v1/models/m:dance", Route::Unknown),
            ("/v1/models:predict", Route::Unknown),
            ("/v1", Route::Unknown),
        ] {
            assert_eq!(Route::of(path), expected, "{path}");
        }
    }
}
