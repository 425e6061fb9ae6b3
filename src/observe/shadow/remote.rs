//! Candidates on other servers: copies as V2 requests over HTTP, and the tensors of their answers.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::copy::Copy;
use crate::config::{RemoteFormat, RemoteShadow};
use crate::error::causes;
use crate::protocol::v2::{self, Form};
use crate::registry::Remote;
use crate::tensor::{Signature, Tensor};

/// Bytes of an answer that are read.
const LARGEST_ANSWER: usize = 64 << 20;

/// Characters of an error that are kept.
const SHOWN: usize = 200;

/// A connection is closed when it was not used for so long.
const IDLE: Duration = Duration::from_secs(30);

const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("tidegate/", env!("CARGO_PKG_VERSION")));

/// A candidate that can be asked.
pub(super) struct Endpoint {
    client: Pool,
    uri: Uri,
    form: Form,
    timeout: Duration,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("uri", &self.uri).finish_non_exhaustive()
    }
}

/// Without TLS where none is asked for: then the system's certificates need not be there.
enum Pool {
    Plain(Client<HttpConnector, Full<Bytes>>),
    Tls(Client<HttpsConnector<HttpConnector>, Full<Bytes>>),
}

/// Why there is nothing to compare.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("no answer in time")]
    TimedOut,
    #[error("{0}")]
    Failed(String),
}

impl Endpoint {
    /// Fails where the system has no certificates, which `https` needs.
    pub(super) fn new(remote: &Remote, model: &str) -> Result<Self, String> {
        let RemoteShadow { timeout, format, concurrency, .. } = &*remote.settings;
        let uri = format!("{}/infer", remote.name(model));
        let uri: Uri = uri.parse().map_err(|error| format!("'{uri}': {error}"))?;
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(*timeout));
        connector.set_nodelay(true);
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(*concurrency);
        let client = if uri.scheme_str() == Some("https") {
            connector.enforce_http(false);
            let tls = HttpsConnectorBuilder::new()
                .with_native_roots()
                .map_err(|error| format!("no certificates of authorities are found: {error}"))?;
            Pool::Tls(builder.build(tls.https_only().enable_http1().wrap_connector(connector)))
        } else {
            Pool::Plain(builder.build(connector))
        };
        let form = match format {
            RemoteFormat::Json => Form::Json,
            RemoteFormat::Binary => Form::Binary,
        };
        Ok(Self { client, uri, form, timeout: *timeout })
    }

    /// What the candidate answers to a request, in the order of the primary's signature.
    pub(super) async fn ask(&self, copy: &Copy) -> Result<Vec<Tensor>, AskError> {
        let asked = self.exchange(copy);
        match tokio::time::timeout(self.timeout, asked).await {
            Ok(outcome) => outcome.map_err(AskError::Failed),
            Err(_) => Err(AskError::TimedOut),
        }
    }

    async fn exchange(&self, copy: &Copy) -> Result<Vec<Tensor>, String> {
        let Copy { id, inputs, trace, .. } = copy;
        let signature = copy.origin.primary.signature();
        let names = signature.inputs.iter().map(|spec| spec.name.as_str());
        let named: Vec<(&str, &Tensor)> = names.zip(inputs).collect();
        let mut body = Vec::new();
        let length = v2::encode_request(std::str::from_utf8(id).ok(), &named, self.form, &mut body);
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, AGENT);
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        headers.insert(CONTENT_TYPE, if length.is_some() { OCTETS } else { JSON });
        if let Some(length) = length {
            headers.insert(JSON_LENGTH, HeaderValue::from(length));
        }
        if let Ok(id) = HeaderValue::from_bytes(id) {
            headers.insert(REQUEST_ID, id);
        }
        if let Some(trace) = trace {
            trace.put(headers);
        }
        let response = match &self.client {
            Pool::Plain(client) => client.request(request).await,
            Pool::Tls(client) => client.request(request).await,
        };
        let (head, body) = response.map_err(|error| causes(&error))?.into_parts();
        let body = Limited::new(body, LARGEST_ANSWER).collect().await;
        let body = body.map_err(|error| causes(&*error))?.to_bytes();
        if !head.status.is_success() {
            return Err(format!("{}: {}", head.status.as_u16(), shown(&body)));
        }
        outputs(&body, json_length(&head.headers), signature)
    }
}

fn json_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(JSON_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The outputs of an answer, in the signature's order.
fn outputs(
    body: &Bytes,
    json_length: Option<usize>,
    signature: &Signature,
) -> Result<Vec<Tensor>, String> {
    let answer = v2::decode_answer(body, json_length).map_err(|error| error.to_string())?;
    let find = |name: &str| {
        let found = answer.outputs.iter().find(|(other, _)| other == name);
        found.map(|(_, tensor)| tensor.clone()).ok_or_else(|| {
            let names = answer.outputs.iter().map(|(name, _)| name.as_str());
            let names = names.collect::<Vec<_>>().join(", ");
            format!("the answer has no output '{name}'; it has: {names}")
        })
    };
    signature.outputs.iter().map(|spec| find(&spec.name)).collect()
}

fn shown(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().take(SHOWN).collect()
}
