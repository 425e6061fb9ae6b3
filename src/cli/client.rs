//! The commands' HTTP client: small requests to a server, over a pool of connections.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Runtime};

use crate::error::causes;

/// The length of the JSON part where binary tensors follow it.
const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// A server to ask.
pub(super) struct Client {
    runtime: Runtime,
    pool: Pool<HttpConnector, Full<Bytes>>,
    base: String,
}

/// What came back with status 200.
pub(super) struct Answer {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("'{0}' is not a URL such as http://127.0.0.1:8000")]
    Url(String),
    #[error("cannot reach {base}: {reason}; is the server running? (tidegate serve)")]
    Unreachable { base: String, reason: String },
    #[error("{url} answered {status}: {message}")]
    Status { url: String, status: u16, message: String },
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl Client {
    /// A client of the server at `base`, such as `http://127.0.0.1:8000`.
    pub(super) fn new(base: &str) -> Result<Self, ClientError> {
        let base = base.trim_end_matches('/');
        let base = if base.contains("://") { base.to_owned() } else { format!("http://{base}") };
        let uri: Uri = base.parse().map_err(|_| ClientError::Url(base.clone()))?;
        if uri.scheme_str() != Some("http") || uri.authority().is_none() {
            return Err(ClientError::Url(base));
        }
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        let pool = Pool::builder(TokioExecutor::new()).build_http();
        Ok(Self { runtime, pool, base })
    }

    pub(super) fn get(&self, path: &str) -> Result<Answer, ClientError> {
        self.send(Method::GET, path, Bytes::new(), None)
    }

    /// The JSON document at `path`.
    pub(super) fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        serde_json::from_slice(&self.get(path)?.body).map_err(|error| unexpected(&error))
    }

    /// Posts `body`, of which the first `json_length` bytes are JSON where binary tensors follow.
    pub(super) fn post(
        &self,
        path: &str,
        body: Bytes,
        json_length: Option<usize>,
    ) -> Result<Answer, ClientError> {
        self.send(Method::POST, path, body, json_length)
    }

    fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        json_length: Option<usize>,
    ) -> Result<Answer, ClientError> {
        let url = format!("{}{path}", self.base);
        let content_type =
            if json_length.is_some() { "application/octet-stream" } else { "application/json" };
        let mut request =
            Request::builder().method(method).uri(&url).header(CONTENT_TYPE, content_type);
        if let Some(length) = json_length {
            request = request.header(JSON_LENGTH, length);
        }
        let request = request.body(Full::new(body)).map_err(|_| ClientError::Url(url.clone()))?;
        let unreachable =
            |reason: String| ClientError::Unreachable { base: self.base.clone(), reason };
        self.runtime.block_on(async {
            let response =
                self.pool.request(request).await.map_err(|error| unreachable(causes(&error)))?;
            let (head, body) = response.into_parts();
            let body =
                body.collect().await.map_err(|error| unreachable(causes(&error)))?.to_bytes();
            if head.status.is_success() {
                return Ok(Answer { headers: head.headers, body });
            }
            let status = head.status.as_u16();
            Err(ClientError::Status { url: url.clone(), status, message: message(&body) })
        })
    }
}

impl Answer {
    /// The length of the JSON part where binary tensors follow it.
    pub(super) fn json_length(&self) -> Option<usize> {
        self.headers.get(JSON_LENGTH)?.to_str().ok()?.parse().ok()
    }

    /// A header's value as text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// The `error` member of an error's body, or the body.
fn message(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Error {
        error: String,
    }
    match serde_json::from_slice::<Error>(body) {
        Ok(Error { error }) => error,
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    }
}

/// That an answer is none that this version of the command knows.
pub(super) fn unexpected(error: &serde_json::Error) -> ClientError {
    let message = format!("the answer is not what this version of the command reads: {error}");
    ClientError::Io(std::io::Error::other(message))
}
