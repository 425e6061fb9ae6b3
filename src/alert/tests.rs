//! Messages as a receiver on loopback gets them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use super::*;
use crate::config::Config;
use crate::monitor::verdict::{State, Subject};

const LIMIT: Duration = Duration::from_secs(30);

/// A request that came.
#[derive(Debug, Clone)]
struct Received {
    path: String,
    headers: HeaderMap,
    body: Value,
}

impl Received {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// Takes every request, and answers with the statuses that are planned, then with 200. A planned
/// 0 never answers.
#[derive(Debug, Clone, Default)]
struct Receiver {
    received: Arc<Mutex<Vec<Received>>>,
    planned: Arc<Mutex<VecDeque<u16>>>,
}

impl Receiver {
    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        self.received.lock().unwrap().push(Received {
            path: head.uri.path().to_owned(),
            headers: head.headers,
            body: serde_json::from_slice(&body).unwrap(),
        });
        let status = self.planned.lock().unwrap().pop_front().unwrap_or(200);
        if status == 0 {
            std::future::pending::<()>().await;
        }
        Ok(Response::builder().status(status).body(Full::new(Bytes::from("as planned"))).unwrap())
    }

    fn all(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

/// A sender, and somebody who is told.
struct Bench {
    runtime: Runtime,
    telemetry: Arc<Telemetry>,
    receiver: Receiver,
    sender: Sender,
    url: String,
}

/// `URL` in the settings is where the receiver is.
fn config(settings: &str, url: &str) -> config::Alerts {
    let text = settings.replace("URL", url);
    Config::parse(&text, Path::new("."), []).unwrap().alerts
}

impl Bench {
    fn new(settings: &str, planned: &[u16]) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let receiver = Receiver::default();
        receiver.planned.lock().unwrap().extend(planned);
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (served, handle) = (receiver.clone(), runtime.handle().clone());
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let served = served.clone();
                let service = service_fn(move |request| served.clone().answer(request));
                let http = hyper::server::conn::http1::Builder::new();
                handle.spawn(http.serve_connection(TokioIo::new(stream), service));
            }
        });
        let telemetry = Arc::new(Telemetry::default());
        let sender = start(&config(settings, &url), &telemetry, runtime.handle());
        Self { runtime, telemetry, receiver, sender, url }
    }

    /// The messages, once there are `count` of them.
    fn received(&self, count: usize) -> Vec<Received> {
        self.wait(|| (self.receiver.all().len() >= count).then(|| self.receiver.all()))
    }

    fn wait<T>(&self, mut condition: impl FnMut() -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(value) = condition() {
                return value;
            }
            assert!(
                start.elapsed() < LIMIT,
                "{:?}\n{}",
                self.receiver.all(),
                self.telemetry.render()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until a line of the metrics is there.
    fn wait_for(&self, line: &str) {
        self.wait(|| self.telemetry.render().contains(&format!("\n{line}\n")).then_some(()));
    }
}

fn event(model: &str, feature: Option<&str>, from: State, to: State) -> Event {
    Event {
        id: 1,
        at: 1_790_000_000_000,
        subject: Subject {
            model: model.to_owned(),
            version: 2,
            digest: "sha256:00".to_owned(),
            segment: None,
        },
        feature: feature.map(str::to_owned),
        detector: "drift".to_owned(),
        from,
        to,
        rows: 30_000,
        onset: Some(1_789_999_000_000),
        evidence: if feature.is_some() { 20.0 } else { 18.0 },
        threshold: 14.8,
        window: None,
        request_ids: vec!["abc".to_owned()],
        text: format!("{} moved", feature.unwrap_or("all of it")),
    }
}

fn drifted(model: &str, feature: Option<&str>) -> Event {
    event(model, feature, State::Ok, State::Drifted)
}

const FAST: &str = "[alerts]\ngroup_wait = \"50ms\"\nresend = \"100ms\"\n";

#[test]
fn events_of_a_model_are_one_cloud_event_and_models_are_apart() {
    let bench = Bench::new(
        "[alerts]\ngroup_wait = \"150ms\"\nexternal_url = \"https://gate\"\n[[alerts.webhooks]]\nurl = \"URL/hook?key=1\"\nheaders = { x-team = \"risk\" }\nmodels = [\"loan\"]",
        &[],
    );
    bench.sender.offer(drifted("loan", None));
    bench.sender.offer(event("loan", Some("age"), State::Ok, State::Suspected));
    bench.sender.offer(drifted("loan", Some("income")));
    bench.sender.offer(drifted("digits", None));
    let message = &bench.received(1)[0];
    bench.wait_for("tidegate_alert_messages_total{target=\"webhook-1\",outcome=\"sent\"} 1");
    assert_eq!(message.path, "/hook");
    assert_eq!(message.header("x-team"), "risk");
    assert_eq!(message.header("content-type"), "application/cloudevents+json; charset=utf-8");
    let body = &message.body;
    for (attribute, expected) in [
        ("specversion", "1.0"),
        ("type", "dev.tidegate.drift.detected"),
        ("source", "/tidegate"),
        ("subject", "loan"),
        ("datacontenttype", "application/json"),
    ] {
        assert_eq!(body[attribute], expected);
    }
    let data = &body["data"];
    assert_eq!(data["text"], "income moved\nall of it moved", "the most evidence first");
    assert_eq!(data["events"].as_array().unwrap().len(), 2, "nobody asked for suspicions");
    assert_eq!(data["events"][0]["feature"], "income");
    assert_eq!(
        (&data["url"], &data["severity"]),
        (&"https://gate/api/v1/drift/loan".into(), &"warning".into())
    );
    bench.sender.offer(event("loan", Some("income"), State::Drifted, State::Recovered));
    bench.sender.offer(event("loan", None, State::Drifted, State::Ok));
    let types: Vec<Value> =
        bench.received(3)[1..].iter().map(|message| message.body["type"].clone()).collect();
    assert_eq!(types, ["dev.tidegate.drift.recovered", "dev.tidegate.drift.closed"]);
    let ids: Vec<Value> = bench.receiver.all().iter().map(|m| m.body["id"].clone()).collect();
    assert!(ids[0] != ids[1] && ids[1] != ids[2], "{ids:?}");
}

#[test]
fn binary_mode_has_attributes_and_secrets_in_headers() {
    // The one variable that cargo sets for every test.
    let bench = Bench::new(
        &format!(
            "{FAST}source = \"/gate/\u{fc}\"\n[[alerts.webhooks]]\nurl = \"URL\"\nmode = \"binary\"\nbearer_env = \"CARGO_PKG_NAME\"\nheaders_env = {{ x-key = \"CARGO_PKG_NAME\" }}\nevents = [\"suspected\"]"
        ),
        &[],
    );
    bench.sender.offer(drifted("loan", None));
    let mut worse = event("loan", None, State::Ok, State::Suspected);
    worse.detector = "performance".to_owned();
    bench.sender.offer(worse);
    let message = &bench.received(1)[0];
    for (name, expected) in [
        ("ce-type", "dev.tidegate.performance.suspected"),
        ("ce-specversion", "1.0"),
        ("ce-source", "/gate/%C3%BC"),
        ("ce-subject", "loan"),
        ("content-type", "application/json"),
        ("authorization", "Bearer tidegate"),
        ("x-key", "tidegate"),
    ] {
        assert_eq!(message.header(name), expected, "{name}");
    }
    assert_eq!(message.body["model"], "loan");
}

#[test]
fn an_alertmanager_is_told_again_until_it_ends() {
    let bench = Bench::new(
        &format!(
            "{FAST}[[alerts.alertmanagers]]\nurl = \"URL/am/\"\nlabels = {{ team = \"risk\" }}"
        ),
        &[],
    );
    bench.sender.offer(drifted("loan", Some("income")));
    bench.sender.offer(drifted("loan", Some("age")));
    let messages = bench.received(3);
    let alert = |message: &Received| message.body[0].clone();
    assert_eq!(messages[0].path, "/am/api/v2/alerts");
    let first = alert(&messages[0]);
    let labels = serde_json::json!({
        "alertname": "TidegateDrift", "model": "loan", "version": "2", "severity": "warning", "team": "risk",
    });
    assert_eq!(first["labels"], labels);
    assert_eq!(first["annotations"]["summary"], "loan version 2 has drifted: age, income");
    assert_eq!(first["startsAt"], "2026-09-21T14:13:20.000Z");
    assert!(first["endsAt"].as_str() < alert(&messages[2])["endsAt"].as_str());
    bench.wait_for("tidegate_alerts_firing 1");
    // One of two features is well again: it goes on.
    bench.sender.offer(event("loan", Some("age"), State::Drifted, State::Recovered));
    bench.wait(|| {
        let last = alert(bench.receiver.all().last()?);
        (last["annotations"]["features"] == "income").then_some(())
    });
    bench.sender.resolve("loan", 2, None, Some("income"));
    let last = bench.wait(|| {
        let last = alert(bench.receiver.all().last()?);
        (last["endsAt"].as_str().unwrap() < rfc3339_now().as_str()).then_some(last)
    });
    assert_eq!(last["labels"], labels);
    bench.wait_for("tidegate_alerts_firing 0");
    let told = bench.receiver.all().len();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(bench.receiver.all().len(), told, "what ended is not told again");
}

#[test]
fn what_is_closed_and_what_is_a_moment() {
    let bench = Bench::new(
        &format!(
            "{FAST}[[alerts.webhooks]]\nurl = \"URL/hook\"\n[[alerts.alertmanagers]]\nurl = \"URL\"\nmodels = [\"digits\"]"
        ),
        &[],
    );
    bench.sender.offer(drifted("loan", None));
    bench.received(1);
    bench.sender.resolve("loan", 2, None, None);
    let closed = &bench.received(2)[1].body;
    assert_eq!(closed["type"], "dev.tidegate.drift.closed");
    assert_eq!(closed["data"]["events"][0]["evidence"], 18.0);
    bench.wait_for("tidegate_alerts_firing 0");
    // All features acknowledged one by one are all that there was.
    bench.sender.offer(drifted("loan", None));
    bench.sender.offer(drifted("loan", Some("age")));
    bench.wait_for("tidegate_alerts_firing 1");
    bench.sender.resolve("loan", 2, None, Some("age"));
    bench.wait_for("tidegate_alerts_firing 0");
    // A classical detector has no word for the end: its alert ends ten minutes later.
    let mut alarm = drifted("digits", None);
    alarm.detector = "adwin".to_owned();
    bench.sender.offer(alarm);
    let alert = bench.wait(|| {
        let all = bench.receiver.all();
        all.iter().find(|message| message.path.ends_with("alerts")).map(|m| m.body[0].clone())
    });
    assert_eq!(alert["labels"]["alertname"], "TidegateDetector");
    assert_eq!(alert["startsAt"], "2026-09-21T14:13:20.000Z");
    assert_eq!(alert["endsAt"], "2026-09-21T14:23:20.000Z");
    bench.wait_for("tidegate_alerts_firing 0");
}

fn rfc3339_now() -> String {
    crate::monitor::times::rfc3339(crate::monitor::times::now_ms())
}

#[test]
fn what_passes_is_tried_again_and_what_does_not_is_given_up() {
    let bench = Bench::new(
        &format!("{FAST}timeout = \"200ms\"\n[[alerts.webhooks]]\nname = \"hook\"\nurl = \"URL\""),
        &[503, 0, 429, 200, 400],
    );
    bench.sender.offer(drifted("loan", None));
    let messages = bench.received(4);
    let ids: Vec<&Value> = messages.iter().map(|message| &message.body["id"]).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "one message: {ids:?}");
    bench.wait_for("tidegate_alert_messages_total{target=\"hook\",outcome=\"sent\"} 1");
    bench.wait_for("tidegate_alert_retries_total{target=\"hook\"} 3");
    bench.sender.offer(drifted("loan", Some("age")));
    bench.wait_for("tidegate_alert_messages_total{target=\"hook\",outcome=\"failed\"} 1");
    assert_eq!(bench.receiver.all().len(), 5);
    bench.wait_for("tidegate_alert_messages_waiting{target=\"hook\"} 0");
}

#[test]
fn a_message_is_given_up_after_its_time_and_a_full_queue_drops() {
    let bench = Bench::new(
        &format!(
            "{FAST}queue = 1\nretry_for = \"2s\"\n[[alerts.webhooks]]\nname = \"hook\"\nurl = \"URL\""
        ),
        &[500; 20],
    );
    // One is being tried, one waits, the others have no room.
    for model in ["a", "b", "c", "d"] {
        bench.sender.offer(drifted(model, None));
        std::thread::sleep(Duration::from_millis(100));
    }
    bench.wait_for("tidegate_alert_messages_total{target=\"hook\",outcome=\"dropped\"} 2");
    bench.wait_for("tidegate_alert_messages_total{target=\"hook\",outcome=\"failed\"} 2");
    bench.wait_for("tidegate_alert_messages_waiting{target=\"hook\"} 0");
}

#[test]
fn a_new_configuration_keeps_what_fires_and_tells_new_targets() {
    let bench = Bench::new(FAST, &[]);
    bench.sender.offer(drifted("loan", None));
    bench.wait_for("tidegate_alerts_firing 1");
    let with = |lines: &str| config(&format!("{FAST}{lines}"), &bench.url);
    bench.sender.configure(&with("[[alerts.alertmanagers]]\nurl = \"URL\""));
    assert_eq!(bench.received(1)[0].body[0]["labels"]["model"], "loan");
    bench
        .sender
        .configure(&with("[[alerts.webhooks]]\nurl = \"URL\"\nbearer_env = \"NOT_SET_ANYWHERE\""));
    bench.sender.offer(drifted("loan", Some("age")));
    bench.wait_for("tidegate_alert_messages_total{target=\"webhook-1\",outcome=\"failed\"} 1");
}

#[test]
fn a_trial_says_what_came_back_and_what_may_help() {
    let bench = Bench::new(FAST, &[200, 200, 401]);
    let config = config(
        &format!(
            "{FAST}[[alerts.webhooks]]\nurl = \"URL/a?secret\"\n[[alerts.alertmanagers]]\nurl = \"URL\"\n[[alerts.webhooks]]\nurl = \"URL\"\n[[alerts.webhooks]]\nurl = \"http://127.0.0.1:1/\"\n[[alerts.webhooks]]\nurl_env = \"NOT_SET_ANYWHERE\""
        ),
        &bench.url,
    );
    let trial = |index: usize| bench.runtime.block_on(probe(&config, &config.targets[index]));
    let hook = trial(0);
    assert_eq!(hook.outcome.unwrap(), "status 200: as planned");
    assert_eq!(hook.url, format!("{}/a", bench.url));
    assert_eq!(trial(4).outcome.unwrap(), "status 200: as planned");
    let refused = trial(1);
    assert_eq!(refused.outcome.unwrap_err(), "status 401: as planned");
    assert!(refused.hint.unwrap().contains("bearer_env"));
    let nobody = trial(2);
    assert!(nobody.outcome.unwrap_err().contains("Connection refused"));
    assert!(nobody.hint.unwrap().contains("nothing listens"));
    assert!(trial(3).outcome.unwrap_err().contains("NOT_SET_ANYWHERE is not set"));
    let messages = bench.receiver.all();
    assert_eq!(messages[0].body["type"], "dev.tidegate.alert.test");
    assert_eq!(messages[1].body[0]["labels"]["alertname"], "TidegateTest");
}
