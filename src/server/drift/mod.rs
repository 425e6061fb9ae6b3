//! What is watched, on the admin plane: verdicts, histories, histograms, events, and the commands
//! of whoever looks after them.

mod ask;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::account::Call;
use super::admin::{AdminPlane, BODY_TIME};
use super::body;
use super::order::{object, whole};
use super::reply::Reply;
use crate::monitor::verdict::{BaselineInfo, State, Verdict};
pub(super) use ask::Ask;
use ask::{Command, Query, Refusal, Target};

/// Larger bodies than this are no command.
const LARGEST_BODY: u64 = 64 << 10;

/// Names listed where one is not found, at most.
const MOST_LISTED: usize = 30;

/// Whom the log names where a command does not say who gave it.
const NOBODY: &str = "admin API";

/// The window of a histogram where none is named.
const WINDOW: &str = "1h";

/// The body of a command.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Order {
    feature: Option<String>,
    segment: Option<String>,
    who: Option<String>,
    #[serde(deserialize_with = "whole")]
    rows: Option<u64>,
}

/// A verdict without its features.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Summary<'a> {
    model: &'a str,
    version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    segment: Option<&'a str>,
    state: State,
    state_since: u64,
    acknowledged: bool,
    at: u64,
    rows: u64,
    ticks: u64,
    evidence: f64,
    threshold: f64,
    baseline: &'a BaselineInfo,
    features: usize,
    drifted: Vec<&'a str>,
    suspected: Vec<&'a str>,
    text: &'a [String],
}

/// A version that serves and is not watched.
#[derive(Debug, Serialize, PartialEq, Eq, utoipa::ToSchema)]
struct Unwatched {
    model: String,
    version: u64,
}

#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Overview<'a> {
    verdicts: Vec<Summary<'a>>,
    unwatched: Vec<Unwatched>,
}

impl<'a> Summary<'a> {
    fn of(verdict: &'a Verdict) -> Self {
        let in_state = |state| {
            let features = verdict.features.iter().filter(move |f| f.state == state);
            features.map(|feature| feature.name.as_str()).collect()
        };
        Self {
            model: &verdict.subject.model,
            version: verdict.subject.version,
            segment: verdict.subject.segment.as_deref(),
            state: verdict.state,
            state_since: verdict.state_since,
            acknowledged: verdict.acknowledged,
            at: verdict.at,
            rows: verdict.rows,
            ticks: verdict.ticks,
            evidence: verdict.evidence,
            threshold: verdict.threshold,
            baseline: &verdict.baseline,
            features: verdict.features.len(),
            drifted: in_state(State::Drifted),
            suspected: in_state(State::Suspected),
            text: &verdict.text,
        }
    }
}

/// Answers what is asked. The method is known to be right.
pub(super) async fn handle(plane: &AdminPlane, call: Call, ask: &Ask<'_>) -> Reply {
    let query = match Query::of(call.head.uri.query(), ask.parameters()) {
        Ok(query) => query,
        Err(refusal) => return Reply::fault(&refusal),
    };
    let outcome = match ask {
        Ask::All => Ok(overview(plane)),
        Ask::Events => events(plane, &query),
        Ask::Verdicts(target) => verdicts(plane, target, query.get("segment")),
        Ask::History(target) => history(plane, target, &query),
        Ask::Histogram(target) => histogram(plane, target, &query),
        Ask::Baseline(target) => baseline(plane, target),
        Ask::Do(command, target) => {
            let text = body::read(&call.head, call.body, LARGEST_BODY, BODY_TIME).await;
            match text {
                Ok(text) => order(plane, *command, target, &text),
                Err(error) => Err(Refusal::of(&error)),
            }
        }
    };
    outcome.unwrap_or_else(|refusal| Reply::fault(&refusal))
}

fn overview(plane: &AdminPlane) -> Reply {
    let verdicts = plane.monitors.verdicts();
    let mut summaries: Vec<Summary<'_>> = verdicts.iter().map(|v| Summary::of(v)).collect();
    summaries.sort_unstable_by_key(|summary| (summary.model, summary.version, summary.segment));
    let is_watched = |model: &str, version: u64| {
        summaries.iter().any(|summary| summary.model == model && summary.version == version)
    };
    let table = plane.registry.live();
    let serving = table
        .models
        .values()
        .flat_map(|model| model.versions.keys().map(|version| (model.name.to_string(), *version)));
    let unwatched = serving.filter(|(model, version)| !is_watched(model, *version));
    let mut unwatched: Vec<Unwatched> =
        unwatched.map(|(model, version)| Unwatched { model, version }).collect();
    unwatched.sort_unstable_by(|a, b| (&a.model, a.version).cmp(&(&b.model, b.version)));
    Reply::document(&Overview { verdicts: summaries, unwatched })
}

fn events(plane: &AdminPlane, query: &Query<'_>) -> Result<Reply, Refusal> {
    let after = query.get("after").unwrap_or("0");
    let after: u64 = after.parse().map_err(|_| {
        Refusal::wrong(format!("after: expected the number of an event, got '{after}'"))
    })?;
    let mut events = plane.monitors.events(after);
    if let Some(model) = query.get("model") {
        events.retain(|event| event.subject.model == model);
    }
    Ok(Reply::document(&serde_json::json!({ "events": events })))
}

/// One verdict where the path names a version, else those of all versions of the model.
fn verdicts(
    plane: &AdminPlane,
    target: &Target<'_>,
    segment: Option<&str>,
) -> Result<Reply, Refusal> {
    let all = plane.monitors.verdicts();
    if target.version.is_some() {
        let verdict = find(plane, &all, target, segment)?;
        return Ok(Reply::document(verdict.as_ref()));
    }
    let of_model = all.iter().filter(|verdict| verdict.subject.model == target.model);
    let is_meant = |verdict: &&Arc<Verdict>| verdict.subject.segment.as_deref() == segment;
    let mut found: Vec<&Verdict> = of_model.filter(is_meant).map(AsRef::as_ref).collect();
    if found.is_empty() {
        // Says what there is.
        find(plane, &all, target, segment)?;
    }
    found.sort_unstable_by_key(|verdict| verdict.subject.version);
    Ok(Reply::document(&serde_json::json!({ "verdicts": found })))
}

fn history(plane: &AdminPlane, target: &Target<'_>, query: &Query<'_>) -> Result<Reply, Refusal> {
    let (feature, segment) = (query.needed("feature")?, query.get("segment"));
    let all = plane.monitors.verdicts();
    let verdict = find(plane, &all, target, segment)?;
    let subject = &verdict.subject;
    let history = plane.monitors.history(&subject.model, subject.version, segment, feature);
    history.map(|history| Reply::document(&history)).ok_or_else(|| no_feature(verdict, feature))
}

fn histogram(plane: &AdminPlane, target: &Target<'_>, query: &Query<'_>) -> Result<Reply, Refusal> {
    let (feature, segment) = (query.needed("feature")?, query.get("segment"));
    let window = query.get("window").unwrap_or(WINDOW);
    let all = plane.monitors.verdicts();
    let verdict = find(plane, &all, target, segment)?;
    let subject = &verdict.subject;
    let monitors = &plane.monitors;
    let histogram = monitors.histogram(&subject.model, subject.version, segment, feature, window);
    histogram.map(|histogram| Reply::document(&histogram)).ok_or_else(|| {
        let Some(known) = verdict.features.iter().find(|known| known.name == feature) else {
            return no_feature(verdict, feature);
        };
        let windows = listed(known.windows.iter().map(|window| window.window.as_str()));
        Refusal::missing(format!("'{feature}' has no window '{window}'; there are: {windows}"))
    })
}

/// The baseline: put beside the model file as `baseline.json`, one that was learned outlives a
/// restart.
fn baseline(plane: &AdminPlane, target: &Target<'_>) -> Result<Reply, Refusal> {
    let all = plane.monitors.verdicts();
    let subject = &find(plane, &all, target, None)?.subject;
    let baseline = plane.monitors.baseline(&subject.model, subject.version);
    let baseline = baseline.map_err(|error| Refusal::of(&error))?;
    Ok(Reply::document(baseline.as_ref()))
}

fn order(
    plane: &AdminPlane,
    command: Command,
    target: &Target<'_>,
    text: &[u8],
) -> Result<Reply, Refusal> {
    let Order { feature, segment, who, rows } = object(text).map_err(Refusal::wrong)?;
    if command != Command::Acknowledge && (feature.is_some() || segment.is_some()) {
        return Err(Refusal::wrong("a baseline is a version's: leave out feature and segment"));
    }
    if command != Command::Rebase && rows.is_some() {
        return Err(Refusal::wrong("rows belongs to rebase"));
    }
    let all = plane.monitors.verdicts();
    let verdict = find(plane, &all, target, segment.as_deref())?;
    let (model, version) = (verdict.subject.model.as_str(), verdict.subject.version);
    if let Some(feature) = &feature
        && verdict.features.iter().all(|known| known.name != *feature)
    {
        return Err(no_feature(verdict, feature));
    }
    let who = who.as_deref().unwrap_or(NOBODY);
    let (segment, feature) = (segment.as_deref(), feature.as_deref());
    let monitors = &plane.monitors;
    let done = match command {
        Command::Acknowledge => monitors.acknowledge(model, version, segment, feature, who),
        Command::Freeze => monitors.freeze(model, version).map(|()| 1),
        Command::Rebase => monitors.rebase(model, version, rows).map(|()| 1),
    };
    let count = done.map_err(|error| Refusal::of(&error))?;
    if command != Command::Acknowledge {
        tracing::info!(model, version, ?command, who, "a monitor is told");
    }
    let mut document = serde_json::json!({ "model": model, "version": version });
    if command == Command::Acknowledge {
        document["acknowledged"] = count.into();
    }
    Ok(Reply::document(&document))
}

/// The verdict that is meant: of the version named, else of the primary one, else of the highest
/// that is watched.
fn find<'a>(
    plane: &AdminPlane,
    all: &'a [Arc<Verdict>],
    target: &Target<'_>,
    segment: Option<&str>,
) -> Result<&'a Arc<Verdict>, Refusal> {
    let table = plane.registry.live();
    let model = target.model.as_ref();
    let serving = table.models.get(model);
    let of_model: Vec<&Arc<Verdict>> = all.iter().filter(|v| v.subject.model == model).collect();
    let is_watched = |version: &u64| of_model.iter().any(|v| v.subject.version == *version);
    let version = match target.version.as_deref() {
        Some(text) => {
            let alias = || serving?.policy.aliases.get(text).copied();
            text.parse().ok().or_else(alias)
        }
        None => {
            let primary = serving.map(|serving| serving.policy.primary).filter(is_watched);
            primary.or_else(|| of_model.iter().map(|v| v.subject.version).max())
        }
    };
    let of_version = |v: &&&Arc<Verdict>| Some(v.subject.version) == version;
    let of_version: Vec<&Arc<Verdict>> = of_model.iter().filter(of_version).copied().collect();
    if let Some(found) = of_version.iter().find(|v| v.subject.segment.as_deref() == segment) {
        return Ok(found);
    }
    let message = if !of_version.is_empty() {
        let segments = listed(of_version.iter().filter_map(|v| v.subject.segment.as_deref()));
        let segment = segment.unwrap_or_default();
        match segments.as_str() {
            "" => format!("{model} is not watched by segments (monitor.segment)"),
            segments => format!("there is no segment '{segment}'; there are: {segments}"),
        }
    } else if let Some(serving) = serving {
        let version = version.unwrap_or(serving.policy.primary);
        match serving.versions.contains_key(&version) {
            true => unwatched(model, version),
            false => {
                let versions: Vec<String> = serving.versions.keys().map(u64::to_string).collect();
                let named = target.version.as_deref().unwrap_or_default();
                let serving = versions.join(", ");
                format!("{model} has no version '{named}' that serves; there are: {serving}")
            }
        }
    } else {
        let models = listed(table.models.keys().map(AsRef::as_ref));
        format!("no model is named '{model}'; there are: {models}")
    };
    Err(Refusal::missing(message))
}

/// Why a version that serves has no verdict, and what to do.
fn unwatched(model: &str, version: u64) -> String {
    format!(
        "{model} {version} is not watched, since it has no baseline: make one with `tidegate baseline --model {model} --version {version} --data reference.csv`, or let it learn from live rows with [models.{model}.monitor] baseline = {{ learn = 20000 }}"
    )
}

fn no_feature(verdict: &Verdict, feature: &str) -> Refusal {
    let names = listed(verdict.features.iter().map(|known| known.name.as_str()));
    Refusal::missing(format!("there is no feature '{feature}'; there are: {names}"))
}

/// Names in order, and how many more there are.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    let more = names.len().saturating_sub(MOST_LISTED);
    names.truncate(MOST_LISTED);
    let names = names.join(", ");
    if more > 0 { format!("{names} and {more} more") } else { names }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::sample::verdict;

    #[test]
    fn a_summary_names_what_drifted() {
        let verdict = verdict("loan", 2, Some("north"));
        let summary = serde_json::to_value(Summary::of(&verdict)).unwrap();
        assert_eq!(summary["drifted"], serde_json::json!(["income"]));
        assert_eq!(summary["suspected"], serde_json::json!([]));
        assert_eq!((&summary["features"], &summary["segment"]), (&3.into(), &"north".into()));
        assert_eq!(summary["state"], "drifted");
    }

    #[test]
    fn long_lists_are_cut() {
        let names: Vec<String> = (10..50).map(|number| number.to_string()).collect();
        let text = listed(names.iter().map(String::as_str));
        assert!(text.starts_with("10, 11,") && text.ends_with("39 and 10 more"), "{text}");
    }
}
