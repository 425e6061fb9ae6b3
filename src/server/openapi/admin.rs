//! The admin plane's calls.

use serde_json::{Value, json};

use super::forms;
use super::{Needed, Operation, Schemas, document as written};
use crate::error::Code;
use crate::monitor::verdict::{Event, Histogram, History, Verdict};
use crate::server::{admin, compare, drift};

const SEGMENT: (&str, Needed, &str) =
    ("segment", Needed::Optional, "A part of the traffic, where it is split.");
const FEATURE: (&str, Needed, &str) = ("feature", Needed::Always, "The feature's name.");
const WINDOW: (&str, Needed, &str) = ("window", Needed::Optional, "5m, 1h, 24h, all or change.");
/// The largest whole number that JSON is read exactly to, in whatever way it is written.
const MOST_EXACT: u64 = 1 << 53;
/// Which pairs of versions.
const PAIR: &[(&str, Needed, &str)] = &[
    ("primary", Needed::Optional, "The version that answers."),
    ("candidate", Needed::Optional, "The version that gets copies, or a remote one's address."),
];

pub(super) fn document() -> Value {
    let mut schemas = Schemas::default();
    let mut operations = status(&mut schemas);
    operations.extend(monitoring(&mut schemas));
    operations.extend(rollouts(&mut schemas));
    written(
        "Tidegate: admin plane",
        "Metrics, status, configuration and monitoring.",
        &operations,
        schemas,
    )
}

fn status(schemas: &mut Schemas) -> Vec<Operation> {
    let flag = |name: &str| json!({ "type": "object", "required": [name], "properties": { name: { "type": "boolean" } } });
    let paths = json!({ "type": "array", "items": { "type": "string" } });
    let index = json!({ "type": "object", "properties": { "get": paths, "post": paths } });
    let changes = json!({
        "type": "object", "required": ["changes"],
        "properties": { "changes": { "type": "array", "items": { "type": "string" } } },
    });
    let metrics = Operation {
        answer: vec![("text/plain", json!({ "type": "string" }))],
        ..Operation::get("/metrics", "operations", "Metrics for Prometheus.", Value::Null)
    };
    vec![
        Operation::get("/", "about", "The calls of this listener.", index),
        Operation::get("/openapi.json", "about", "This document.", json!({ "type": "object" })),
        metrics,
        Operation::get("/health/live", "operations", "Whether the process answers.", flag("live")),
        Operation::get(
            "/health/ready",
            "operations",
            "Whether all configured models serve.",
            flag("ready"),
        ),
        Operation::get(
            "/api/v1/status",
            "operations",
            "Models, versions, configuration.",
            schemas.of::<admin::Status<'static>>(),
        ),
        Operation::post(
            "/api/v1/config/reload",
            "configuration",
            "Reads the configuration's file again and applies it.",
            changes.clone(),
        )
        .refuses(&[Code::Conflict]),
        Operation::post(
            "/api/v1/config/plan",
            "configuration",
            "What applying this text, or the file where there is none, would change.",
            changes,
        )
        .takes(false, &[("text/plain", json!({ "type": "string" }), None)])
        .refuses(&[Code::Conflict]),
    ]
}

fn rollouts(schemas: &mut Schemas) -> Vec<Operation> {
    let view = json!({ "type": "object" });
    let text = json!({ "type": ["string", "null"] });
    let number = json!({ "type": ["integer", "null"], "minimum": 1, "maximum": MOST_EXACT });
    let order = forms::order(schemas, "RolloutOrder", json!({ "version": number, "reason": text }));
    let history = json!({
        "type": "object", "required": ["history"],
        "properties": { "history": { "type": "array", "items": { "type": "object" } } },
    });
    let mut operations = vec![
        Operation::get("/api/v1/rollouts", "rollouts", "All rollouts.", view.clone()),
        Operation::get(
            "/api/v1/rollouts/{model}",
            "rollouts",
            "What is known of a model's rollout.",
            view.clone(),
        )
        .refuses(&[Code::NotFound]),
        Operation::get("/api/v1/history", "rollouts", "What was done, the last first.", history)
            .query(&[
                ("model", Needed::Optional, "Of this model only."),
                ("most", Needed::Optional, "Lines, at most."),
            ])
            .refuses(&[Code::InvalidArgument]),
    ];
    for (path, summary) in [
        ("/api/v1/rollouts/{model}/start", "Starts a rollout."),
        ("/api/v1/rollouts/{model}/pause", "It stays where it is."),
        ("/api/v1/rollouts/{model}/resume", "It goes on."),
        ("/api/v1/rollouts/{model}/abort", "It ends, and the version before serves."),
        ("/api/v1/rollouts/{model}/promote", "A version becomes the primary."),
        ("/api/v1/rollouts/{model}/rollback", "The version before becomes the primary."),
        ("/api/v1/rollouts/{model}/release", "What serves is the settings' choice again."),
    ] {
        let operation = Operation::post(path, "rollouts", summary, view.clone());
        operations
            .push(operation.may_take(order.clone()).refuses(&[Code::NotFound, Code::Conflict]));
    }
    operations
}

fn monitoring(schemas: &mut Schemas) -> Vec<Operation> {
    const FOUND: &[Code] = &[Code::InvalidArgument, Code::NotFound];
    let verdict = schemas.of::<Verdict>();
    let of_model = json!({
        "type": "object", "required": ["verdicts"],
        "properties": { "verdicts": { "type": "array", "items": verdict } },
    });
    let event = schemas.of::<Event>();
    let events = json!({
        "type": "object", "required": ["events"],
        "properties": { "events": { "type": "array", "items": event } },
    });
    let text = json!({ "type": ["string", "null"] });
    let rows = json!({ "type": ["integer", "null"], "minimum": 1, "maximum": MOST_EXACT });
    let acknowledge =
        forms::order(schemas, "Acknowledge", json!({ "feature": text, "segment": text }));
    let freeze = forms::order(schemas, "Freeze", json!({}));
    let rebase = forms::order(schemas, "Rebase", json!({ "rows": rows }));
    let told = json!({
        "type": "object", "required": ["model", "version"],
        "properties": {
            "model": { "type": "string" }, "version": { "type": "integer" },
            "acknowledged": { "type": "integer" },
        },
    });
    let command = |path, summary, order: Value| {
        Operation::post(path, "monitoring", summary, told.clone())
            .may_take(order)
            .refuses(&[Code::NotFound, Code::Conflict])
    };
    vec![
        Operation::get(
            "/api/v1/compare",
            "traffic",
            "All pairs of versions that are compared, in short.",
            schemas.of::<compare::Comparisons<'static>>(),
        )
        .query(PAIR)
        .refuses(&[Code::InvalidArgument]),
        Operation::get(
            "/api/v1/compare/{model}",
            "traffic",
            "How the answers of a model's candidates compare with the primary's.",
            schemas.of::<compare::OfModel<'static>>(),
        )
        .query(PAIR)
        .refuses(&[Code::InvalidArgument, Code::NotFound]),
        Operation::get(
            "/api/v1/drift",
            "monitoring",
            "All that is watched, in short.",
            schemas.of::<drift::Overview<'static>>(),
        )
        .refuses(&[Code::InvalidArgument]),
        Operation::get(
            "/api/v1/events",
            "monitoring",
            "Changes of state, after the event of that number.",
            events,
        )
        .query(&[
            ("after", Needed::Optional, "The number of an event."),
            ("model", Needed::Optional, "Of this model only."),
        ])
        .refuses(&[Code::InvalidArgument]),
        Operation::get(
            "/api/v1/drift/{model}",
            "monitoring",
            "Verdicts of all versions of a model.",
            of_model,
        )
        .query(&[SEGMENT])
        .refuses(FOUND),
        Operation::get(
            "/api/v1/drift/{model}/{version}",
            "monitoring",
            "The verdict of a version.",
            schemas.of::<Verdict>(),
        )
        .query(&[SEGMENT])
        .refuses(FOUND),
        Operation::get(
            "/api/v1/drift/{model}[/{version}]/history",
            "monitoring",
            "One feature's statistics over time.",
            schemas.of::<History>(),
        )
        .query(&[FEATURE, SEGMENT])
        .refuses(FOUND),
        Operation::get(
            "/api/v1/drift/{model}[/{version}]/histogram",
            "monitoring",
            "One feature's cells in the baseline and now.",
            schemas.of::<Histogram>(),
        )
        .query(&[FEATURE, SEGMENT, WINDOW])
        .refuses(FOUND),
        Operation::get(
            "/api/v1/drift/{model}[/{version}]/baseline",
            "monitoring",
            "The baseline, as baseline.json holds it.",
            json!({ "type": "object" }),
        )
        .refuses(FOUND)
        .refuses(&[Code::Conflict]),
        command(
            "/api/v1/drift/{model}[/{version}]/acknowledge",
            "Somebody has seen the drift.",
            acknowledge,
        ),
        command(
            "/api/v1/drift/{model}[/{version}]/freeze",
            "What is being learned becomes the baseline.",
            freeze,
        ),
        command(
            "/api/v1/drift/{model}[/{version}]/rebase",
            "The next rows become the baseline.",
            rebase,
        ),
    ]
}
