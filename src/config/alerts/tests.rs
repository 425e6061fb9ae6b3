//! What is read and what is refused.

use std::path::Path;

use super::*;
use crate::config::{Config, ConfigErrors};

fn parse(alerts: &str) -> Result<Alerts, ConfigErrors> {
    Config::parse(alerts, Path::new("."), []).map(|config| config.alerts)
}

#[test]
fn targets_are_read_with_their_defaults() {
    let alerts = parse(
        "[alerts]\nexternal_url = \"https://gate.example.org/\"\n\
         [[alerts.webhooks]]\nurl = \"https://example.org/hook?a=b\"\n\
         [[alerts.webhooks]]\nname = \"pager\"\nurl_env = \"PAGER_URL\"\nmode = \"binary\"\nevents = [\"suspected\"]\n\
         [[alerts.alertmanagers]]\nurl = \"http://127.0.0.1:9093\"\nlabels = { team = \"risk\" }\n",
    )
    .unwrap();
    let names: Vec<_> = alerts.targets.iter().map(|target| target.name.as_str()).collect();
    assert_eq!(names, ["webhook-1", "pager", "alertmanager-1"]);
    assert_eq!(alerts.external_url.as_deref(), Some("https://gate.example.org"));
    let TargetKind::Webhook { mode, events } = &alerts.targets[0].kind else { panic!() };
    assert_eq!(*mode, EventMode::Structured);
    assert_eq!(*events, [AlertEvent::Detected, AlertEvent::Recovered]);
    assert_eq!(alerts.targets[1].address, Address::Variable("PAGER_URL".to_owned()));
    assert_eq!(Alerts::default().targets, []);
}

#[test]
fn what_cannot_work_is_refused_with_its_place() {
    for (text, expected) in [
        ("[[alerts.webhooks]]\nmode = \"binary\"", "alerts.webhooks.url: webhook-1: needs url"),
        (
            "[[alerts.webhooks]]\nurl = \"example.org\"",
            "line 2: alerts.webhooks.url: webhook-1: expected a URL",
        ),
        ("[[alerts.webhooks]]\nurl = \"ftp://example.org\"", "expected a URL such as"),
        (
            "[[alerts.webhooks]]\nurl = \"http://me:pass@example.org\"",
            "put secrets into the environment",
        ),
        ("[[alerts.webhooks]]\nurl = \"http://a\"\nurl_env = \"B\"", "has both url and url_env"),
        ("[[alerts.webhooks]]\nurl = \"http://a\"\nurls = 1", "unknown field `urls`"),
        (
            "[[alerts.webhooks]]\nurl = \"http://a\"\nevents = [\"drift\"]",
            "unknown variant `drift`",
        ),
        ("[[alerts.webhooks]]\nurl = \"http://a\"\nevents = []", "is told of nothing"),
        (
            "[[alerts.webhooks]]\nurl = \"http://a\"\nbearer_env = \"a b\"",
            "expected the name of an environment variable",
        ),
        (
            "[[alerts.webhooks]]\nurl = \"http://a\"\nheaders = { Authorization = \"x\" }",
            "authorization is a secret",
        ),
        (
            "[[alerts.webhooks]]\nurl = \"http://a\"\nheaders = { \"a b\" = \"x\" }",
            "cannot be a header's name",
        ),
        (
            "[[alerts.alertmanagers]]\nurl = \"http://a\"\nlabels = { model = \"x\" }",
            "the label model is set by Tidegate",
        ),
        (
            "[[alerts.alertmanagers]]\nurl = \"http://a\"\nlabels = { \"a-b\" = \"x\" }",
            "expected a label's name",
        ),
        (
            "[[alerts.webhooks]]\nname = \"a\"\nurl = \"http://a\"\n[[alerts.alertmanagers]]\nname = \"a\"\nurl = \"http://a\"",
            "two targets are named \"a\"",
        ),
        ("[alerts]\nqueue = 0", "line 2: alerts.queue: expected 1 to 100000 messages, got 0"),
        ("[alerts]\nrate = 0", "alerts.rate: must be at least 1, got 0"),
        ("[alerts]\nresend = \"1ms\"", "alerts.resend: must be at least 100ms, got 1ms"),
        ("[alerts]\nsource = \"a b\"", "alerts.source: expected a URI"),
        ("[alerts]\nexternal_url = \"gate\"", "alerts.external_url: expected a URL"),
    ] {
        let problems = parse(text).unwrap_err().to_string();
        assert!(problems.contains(expected), "{text}\n{problems}");
    }
}
