//! The HTTP side of a target: its URL, its secrets, and what an answer means.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::config::{Address, AlertTarget, TargetKind, check_url};
use crate::error::causes;

/// Bytes of an answer that are read.
const LARGEST_ANSWER: usize = 16 << 10;

/// Characters of an answer that are shown.
const SHOWN: usize = 200;

/// Where Alertmanager takes alerts, below its own URL.
const ALERTS: &str = "/api/v2/alerts";

const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("tidegate/", env!("CARGO_PKG_VERSION")));

/// A connection to a target is closed when it was not used for so long.
const IDLE: Duration = Duration::from_secs(30);

/// A target that can be sent to.
pub(super) struct Endpoint {
    client: Pool,
    uri: Uri,
    headers: HeaderMap,
    timeout: Duration,
}

/// Without TLS where none is asked for: then the system's certificates need not be there.
enum Pool {
    Plain(Client<HttpConnector, Full<Bytes>>),
    Tls(Client<HttpsConnector<HttpConnector>, Full<Bytes>>),
}

/// What a target said to a message that it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The beginning of what it said.
    pub(super) text: String,
}

/// Why a message was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(super) struct SendError {
    pub(super) reason: String,
    /// Whether trying again may help.
    pub(super) is_passing: bool,
    /// How long the target wants to be left alone.
    pub(super) after: Option<Duration>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Reads the target's secrets from the environment and makes a client. Fails where one is not
    /// there, or cannot be sent.
    pub(super) fn new(target: &AlertTarget, timeout: Duration) -> Result<Self, String> {
        let uri = match &target.address {
            Address::Url(url) => check_url(url)?,
            Address::Variable(variable) => check_url(secret(variable)?.trim())
                .map_err(|expected| format!("environment variable {variable}: {expected}"))?,
        };
        let uri = match &target.kind {
            TargetKind::Webhook { .. } => uri,
            TargetKind::Alertmanager { .. } => below(&uri, ALERTS)?,
        };
        let mut headers = HeaderMap::from_iter([(USER_AGENT, AGENT)]);
        for (name, value) in &target.headers {
            insert(&mut headers, name, value, "its value in the configuration")?;
        }
        for (name, variable) in &target.headers_env {
            insert(&mut headers, name, secret(variable)?.trim(), variable)?;
        }
        if let Some(variable) = &target.bearer_env {
            let value = format!("Bearer {}", secret(variable)?.trim());
            insert(&mut headers, AUTHORIZATION.as_str(), &value, variable)?;
        }
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(timeout));
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).pool_max_idle_per_host(1);
        let client = if uri.scheme_str() == Some("https") {
            connector.enforce_http(false);
            let tls = match &target.ca_file {
                Some(path) => HttpsConnectorBuilder::new().with_tls_config(trusting(path)?),
                None => HttpsConnectorBuilder::new().with_native_roots().map_err(|error| {
                    format!("no certificates of authorities are found: {error}; install the package ca-certificates, or name a file as ca_file")
                })?,
            };
            Pool::Tls(builder.build(tls.https_only().enable_http1().wrap_connector(connector)))
        } else {
            Pool::Plain(builder.build(connector))
        };
        Ok(Self { client, uri, headers, timeout })
    }

    /// Posts a message once.
    pub(super) async fn send(&self, headers: HeaderMap, body: Bytes) -> Result<Answer, SendError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().extend(headers);
        let exchange = async {
            let response = match &self.client {
                Pool::Plain(client) => client.request(request).await,
                Pool::Tls(client) => client.request(request).await,
            };
            let (head, body) = response.map_err(|error| passing(causes(&error)))?.into_parts();
            // What the status says counts; the text is for people, and may be cut off.
            let body = Limited::new(body, LARGEST_ANSWER).collect().await;
            let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            let answer = Answer { status: head.status.as_u16(), text: shown(&body) };
            if head.status.is_success() { Ok(answer) } else { Err(refused(&answer, &head.headers)) }
        };
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(passing(format!("no answer within {:?}", self.timeout))),
        }
    }

    /// The target's URL without what may be secret in it.
    pub(super) fn shown(target: &AlertTarget) -> String {
        match &target.address {
            Address::Url(url) => url.split(['?', '#']).next().unwrap_or_default().to_owned(),
            Address::Variable(variable) => format!("${variable}"),
        }
    }
}

/// Trusts the authorities whose certificates are in a PEM file, and no others.
fn trusting(path: &Path) -> Result<ClientConfig, String> {
    let wrong = |error: &dyn fmt::Display| format!("ca_file {}: {error}", path.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))? {
        let certificate = certificate.map_err(|error| wrong(&error))?;
        roots.add(certificate).map_err(|error| wrong(&error))?;
    }
    if roots.is_empty() {
        return Err(wrong(&"has no certificate; expected PEM"));
    }
    Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

/// What an answer other than 2xx means. Too many, too slow and the server's own trouble pass;
/// everything else would be refused again.
fn refused(answer: &Answer, headers: &HeaderMap) -> SendError {
    let Answer { status, text } = answer;
    let colon = if text.is_empty() { "" } else { ": " };
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    SendError {
        reason: format!("status {status}{colon}{text}"),
        is_passing: matches!(status, 408 | 425 | 429 | 500..=599),
        after: seconds.map(Duration::from_secs),
    }
}

fn passing(reason: String) -> SendError {
    SendError { reason, is_passing: true, after: None }
}

fn secret(variable: &str) -> Result<String, String> {
    match std::env::var(variable) {
        Ok(value) if !value.trim().is_empty() => Ok(value),
        Ok(_) => Err(format!("environment variable {variable} is empty")),
        Err(_) => Err(format!("environment variable {variable} is not set, or is not text")),
    }
}

/// Sets a header whose value is never shown. `origin` says where the value came from.
fn insert(headers: &mut HeaderMap, name: &str, value: &str, origin: &str) -> Result<(), String> {
    let wrong = || format!("the header {name} cannot be sent; look at {origin}");
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
    let mut value = HeaderValue::from_str(value).map_err(|_| wrong())?;
    value.set_sensitive(true);
    headers.insert(name, value);
    Ok(())
}

/// `path` below what `uri` names, unless it is there already.
fn below(uri: &Uri, path: &str) -> Result<Uri, String> {
    let base = uri.path().trim_end_matches('/');
    let path = if base.ends_with(path) { base.to_owned() } else { format!("{base}{path}") };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = path.parse().ok();
    Uri::from_parts(parts).map_err(|_| "its URL has no place for a path".to_owned())
}

/// The beginning of an answer on one line.
fn shown(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let plain: String = words.chars().filter(|c| !c.is_control()).take(SHOWN + 1).collect();
    match plain.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &plain[..end]),
        None => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alertmanagers_are_named_by_their_base_or_by_the_call() {
        for (url, expected) in [
            ("http://a:9093", "http://a:9093/api/v2/alerts"),
            ("http://a:9093/", "http://a:9093/api/v2/alerts"),
            ("https://a/prefix/", "https://a/prefix/api/v2/alerts"),
            ("http://a/api/v2/alerts", "http://a/api/v2/alerts"),
        ] {
            assert_eq!(below(&url.parse().unwrap(), ALERTS).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn answers_are_shown_on_one_short_line() {
        assert_eq!(shown(b"{\n  \"a\": 1\n}\n\x1b[2J"), "{ \"a\": 1 } [2J");
        assert_eq!(shown("\u{e4}".repeat(500).as_bytes()).chars().count(), SHOWN + 3);
    }
}
