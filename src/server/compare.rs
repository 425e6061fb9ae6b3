//! Comparisons of primaries and candidates, on the admin plane.

use std::borrow::Cow;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use serde::Serialize;

use super::admin::AdminPlane;
use super::reply::Reply;
use crate::error::{Code, Fault};
use crate::traffic::Report;
use crate::traffic::comparison::{Counts, Pair};

/// A report without its outputs and rows.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = ComparisonSummary)]
pub(super) struct Summary<'a> {
    #[serde(flatten)]
    pair: &'a Pair,
    since: u64,
    last: u64,
    dropped: u64,
    counts: Counts,
    agreement: Option<f64>,
    beyond: Option<f64>,
    latency_ratio: Option<f64>,
}

/// All pairs, in short.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Comparisons<'a> {
    comparisons: Vec<Summary<'a>>,
}

/// The pairs of a model.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = ComparisonsOfModel)]
pub(super) struct OfModel<'a> {
    model: &'a str,
    comparisons: Vec<&'a Report>,
}

/// The model that a path asks about; an empty one for all. Nothing where the path is not of this
/// part of the plane.
pub(super) fn model_of(path: &str) -> Option<Cow<'_, str>> {
    let rest = path.strip_prefix("/api/v1/compare")?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.is_empty() {
        return Some(Cow::Borrowed(""));
    }
    let model = rest.strip_prefix('/').filter(|model| !model.is_empty() && !model.contains('/'))?;
    Some(percent_decode_str(model).decode_utf8_lossy())
}

/// What a query narrows the answer to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    primary: Option<u64>,
    candidate: Option<String>,
}

impl Wanted {
    fn of(query: Option<&str>) -> Result<Self, String> {
        let mut wanted = Self::default();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode_str(value).decode_utf8_lossy().into_owned();
            match name {
                "primary" => {
                    let number = value.parse().map_err(|_| {
                        format!("parameter 'primary': expected a version number, got '{value}'")
                    })?;
                    wanted.primary = Some(number);
                }
                "candidate" if value.is_empty() => {
                    return Err(
                        "parameter 'candidate': expected a version or an address, got none".into(),
                    );
                }
                "candidate" => wanted.candidate = Some(value),
                _ => {
                    return Err(format!(
                        "parameter '{name}' is not known; expected 'primary' or 'candidate'"
                    ));
                }
            }
        }
        Ok(wanted)
    }

    fn takes(&self, pair: &Pair) -> bool {
        self.primary.is_none_or(|primary| primary == pair.primary)
            && self.candidate.as_ref().is_none_or(|candidate| *candidate == pair.candidate)
    }
}

pub(super) fn handle(plane: &AdminPlane, query: Option<&str>, model: Cow<'_, str>) -> Reply {
    let wanted = match Wanted::of(query) {
        Ok(wanted) => wanted,
        Err(message) => return Reply::error(Code::InvalidArgument, &message),
    };
    let mut reports = plane.shadows.comparisons().reports();
    reports.retain(|report| wanted.takes(&report.pair));
    if model.is_empty() {
        let comparisons = reports.iter().map(|report| summary(report)).collect();
        return Reply::document(&Comparisons { comparisons });
    }
    reports.retain(|report| report.pair.model == *model);
    if reports.is_empty()
        && let Err(error) = plane.registry.live().model(&model)
    {
        return Reply::error(error.code(), &error.to_string());
    }
    let comparisons = reports.iter().map(Arc::as_ref).collect();
    Reply::document(&OfModel { model: &model, comparisons })
}

fn summary(report: &Report) -> Summary<'_> {
    Summary {
        pair: &report.pair,
        since: report.since,
        last: report.last,
        dropped: report.dropped,
        counts: report.counts,
        agreement: report.agreement,
        beyond: report.beyond,
        latency_ratio: report.latency.mean_ratio,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_queries() {
        assert_eq!(model_of("/api/v1/compare").as_deref(), Some(""));
        assert_eq!(model_of("/api/v1/compare/car%2Dloan/").as_deref(), Some("car-loan"));
        assert_eq!(model_of("/api/v1/compare/a/b"), None);
        assert_eq!(model_of("/api/v1/status"), None);
        let wanted = Wanted::of(Some("primary=1&candidate=http%3A%2F%2Fa")).unwrap();
        assert_eq!((wanted.primary, wanted.candidate.as_deref()), (Some(1), Some("http://a")));
        assert!(Wanted::of(Some("primary=one")).unwrap_err().contains("got 'one'"));
        assert!(Wanted::of(Some("candidate=")).unwrap_err().contains("got none"));
        assert!(Wanted::of(Some("digest=1")).unwrap_err().contains("'digest' is not known"));
    }
}
