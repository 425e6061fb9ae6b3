//! Replay against a running server, over the protocol's binary form.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use super::compare::Comparison;
use super::report::{Report, Subject};
use super::{Failure, Pacer, Replay, Selection};
use crate::capture::Timing;
use crate::capture::read::{Recorded, Requests, Summary};
use crate::protocol::v2::{Form, decode_answer, encode_request};
use crate::tensor::Tensor;

const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// The longest that an answer is waited for.
const LIMIT: Duration = Duration::from_secs(120);

/// What came back: outputs, digest, duration.
struct Replayed {
    outputs: HashMap<String, Tensor>,
    digest: Option<String>,
    version: String,
    took: Duration,
}

type Outcome = (Recorded, Result<Replayed, String>);

pub(super) fn run(
    replay: &Replay,
    url: &str,
    requests: Requests,
    mut selection: Selection,
    summary: &Summary,
) -> Result<(), Failure> {
    let base = url.trim_end_matches('/');
    let base = if base.contains("://") { base.to_owned() } else { format!("http://{base}") };
    let version = replay.version.as_ref().map(|v| format!("/versions/{v}")).unwrap_or_default();
    let address = format!("{base}/v2/models/{}{version}/infer", replay.model);
    let uri: Uri = address.parse().map_err(|_| Failure::usage(format!("'{url}' is not a URL")))?;
    if uri.scheme_str() != Some("http") {
        return Err(Failure::usage(format!("'{url}': expected a URL of http://")));
    }
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    let client: Pool = Client::builder(TokioExecutor::new()).build_http();
    let bar = replay.progress(summary.rows);
    let mut pacer = Pacer::new(replay.rate);
    let mut comparison = Comparison::new();
    let mut answered = (None, String::new());
    let mut note = |comparison: &mut Comparison, (recorded, outcome): Outcome| match outcome {
        Ok(Replayed { outputs, digest, version, took }) => {
            comparison.took(recorded.timings[Timing::Total as usize], took);
            let (id, rows) = (&recorded.id, recorded.rows);
            let replayed = |name: &str| outputs.get(name).cloned();
            comparison.push(id, rows, &recorded.outputs, replayed, false);
            answered = (digest, version);
        }
        Err(reason) => comparison.fail(&recorded.id, reason),
    };
    runtime.block_on(async {
        let mut under_way: JoinSet<Outcome> = JoinSet::new();
        for recorded in requests {
            let recorded = recorded?;
            bar.inc(recorded.rows.max(1) as u64);
            if !selection.takes(&recorded) {
                continue;
            }
            let wait = pacer.wait(recorded.at);
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            while under_way.len() >= usize::from(replay.concurrency) {
                if let Some(Ok(outcome)) = under_way.join_next().await {
                    note(&mut comparison, outcome);
                }
            }
            let (client, uri) = (client.clone(), uri.clone());
            under_way.spawn(async move {
                let outcome = ask(&client, uri, &recorded).await;
                (recorded, outcome)
            });
        }
        while let Some(ended) = under_way.join_next().await {
            if let Ok(outcome) = ended {
                note(&mut comparison, outcome);
            }
        }
        Ok::<(), Failure>(())
    })?;
    bar.finish_and_clear();
    let subject = Subject {
        model: replay.model.clone(),
        version: answered.1,
        digest: answered.0,
        engine: None,
        cpu_features: None,
        against: Some(base),
    };
    Report::new(replay, subject, comparison, selection.skipped, (0, 0)).finish(replay)
}

type Pool = Client<HttpConnector, Full<Bytes>>;

async fn ask(client: &Pool, uri: Uri, recorded: &Recorded) -> Result<Replayed, String> {
    let inputs: Vec<(&str, &Tensor)> =
        recorded.inputs.iter().map(|(name, tensor)| (&**name, tensor)).collect();
    let mut body = Vec::new();
    let json_length = encode_request(Some(&recorded.id), &inputs, Form::Binary, &mut body);
    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, http::HeaderValue::from_static("application/octet-stream"));
    if let Some(length) = json_length {
        headers.insert(JSON_LENGTH, http::HeaderValue::from(length));
    }
    let started = Instant::now();
    let exchange = async {
        let response = client.request(request).await.map_err(|error| error.to_string())?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
        Ok::<_, String>((head, body))
    };
    let (head, body) = tokio::time::timeout(LIMIT, exchange)
        .await
        .map_err(|_| format!("no answer within {LIMIT:?}"))??;
    let took = started.elapsed();
    if !head.status.is_success() {
        return Err(format!("{}: {}", head.status.as_u16(), String::from_utf8_lossy(&body)));
    }
    let text = |name: &str| Some(head.headers.get(name)?.to_str().ok()?.to_owned());
    let json_length = text("inference-header-content-length").and_then(|text| text.parse().ok());
    let answer = decode_answer(&body, json_length).map_err(|error| error.to_string())?;
    let digest = text("tidegate-model-digest");
    let outputs = answer.outputs.into_iter().collect();
    Ok(Replayed { outputs, digest, version: answer.model_version, took })
}

// The outcome goes from one task to another.
const _: fn() = || {
    fn is_send<T: Send>() {}
    is_send::<Arc<Outcome>>();
};
