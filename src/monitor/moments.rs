//! Classical detectors, by name, on the values of a feature or on losses: for those who know them
//! from elsewhere. They promise no rate of false alarms; each alarm is a moment, not a state.

use super::feature::FeaturePlan;
use super::rows::{Column, Rows};
use crate::config::{Classical, Monitor};
use crate::stats::classical::{Adwin, PageHinkley};

/// One running detector.
#[derive(Debug)]
pub(super) enum Detector {
    Adwin(Adwin),
    PageHinkley(PageHinkley),
}

impl Detector {
    pub(super) fn new(which: Classical) -> Self {
        match which {
            Classical::Adwin => Self::Adwin(Adwin::default()),
            Classical::PageHinkley => Self::PageHinkley(PageHinkley::default()),
        }
    }

    /// The name in settings and events.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Adwin(_) => "adwin",
            Self::PageHinkley(_) => "page-hinkley",
        }
    }

    /// Takes a value; says whether it raises an alarm.
    pub(super) fn update(&mut self, value: f64) -> bool {
        match self {
            Self::Adwin(detector) => detector.update(value),
            Self::PageHinkley(detector) => detector.update(value),
        }
    }
}

/// Detectors on the values of single features.
#[derive(Debug, Default)]
pub(super) struct OnFeatures(Vec<OnFeature>);

#[derive(Debug)]
struct OnFeature {
    name: String,
    /// The feature's column.
    column: usize,
    detector: Detector,
}

/// An alarm of one of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) feature: String,
    pub(super) detector: &'static str,
}

impl OnFeatures {
    /// Those that the settings ask for, on features of numbers.
    pub(super) fn new(plan: &FeaturePlan, settings: &Monitor) -> Self {
        let features = plan.features().iter().enumerate();
        let asked = features.flat_map(|(column, feature)| {
            let of = settings.features.get(&feature.name);
            let detectors = of.map(|of| of.detectors.as_slice()).unwrap_or_default();
            detectors.iter().map(move |&which| OnFeature {
                name: feature.name.clone(),
                column,
                detector: Detector::new(which),
            })
        });
        Self(asked.collect())
    }

    /// Takes the values of `rows`, in their order; values that are no finite numbers are passed
    /// over. O(values) of the features that are asked for.
    pub(super) fn take(&mut self, rows: &Rows) -> Vec<Moment> {
        let mut moments = Vec::new();
        for OnFeature { name, column, detector } in &mut self.0 {
            let mut take = |value: f64| {
                if value.is_finite() && detector.update(value) {
                    moments.push(Moment { feature: name.clone(), detector: detector.name() });
                }
            };
            match rows.column(*column) {
                Some(Column::Single(values)) => values.iter().for_each(|&v| take(f64::from(v))),
                Some(Column::Double(values)) => values.iter().for_each(|&v| take(v)),
                Some(Column::Text(_)) | None => {}
            }
        }
        moments
    }
}
