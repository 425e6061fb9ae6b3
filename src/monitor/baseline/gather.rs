//! What is gathered of each column while rows go by: moments, and how often values occur.

use super::Summary;
use crate::monitor::feature::{Feature, FeaturePlan, Kind, Values};
use crate::monitor::lookup;
use crate::monitor::rows::{Column, Rows};
use crate::monitor::text::{self, ByHash};

/// Distinct values of a column that is numeric if it has more.
pub(super) const FEW: usize = 32;

/// What is known of a column.
#[derive(Debug, Clone)]
pub(super) struct Gathered {
    pub(super) moments: Moments,
    /// Nothing once there are too many distinct values for categories.
    pub(super) tally: Option<Tally>,
    /// Values that are told apart.
    most: usize,
}

/// How often each value occurs.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) values: ByHash<Counted>,
    /// Occurrences of values for which there was no room.
    pub(super) n_unlisted: u64,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Counted {
    pub(super) count: u64,
    /// Nothing for texts that no name can be made of.
    pub(super) name: Option<Box<str>>,
}

/// Mean, deviation and extremes of finite values (Welford 1962).
#[derive(Debug, Clone, Copy)]
pub(super) struct Moments {
    n: u64,
    mean: f64,
    spread: f64,
    min: f64,
    max: f64,
    /// Whether all of them are whole numbers.
    pub(super) is_whole: bool,
}

impl Gathered {
    pub(super) fn all(plan: &FeaturePlan) -> Vec<Self> {
        let gathered = plan.features().iter().map(|feature| Self {
            moments: Moments::default(),
            tally: (feature.kind != Some(Kind::Numeric)).then(Tally::default),
            most: match feature.kind == Some(Kind::Categorical) || feature.values == Values::Text {
                true => text::most_texts(plan.features().len()),
                false => FEW,
            },
        });
        gathered.collect()
    }

    /// Takes in the values of one column. O(rows).
    pub(super) fn add(&mut self, feature: &Feature, index: usize, rows: &Rows) {
        let is_open = feature.kind == Some(Kind::Categorical) || feature.values == Values::Text;
        let most = self.most;
        match rows.column(index) {
            Some(Column::Single(values)) => {
                let values = values.iter().map(|&value| f64::from(value));
                self.numbers(values, feature.values, most, is_open);
            }
            Some(Column::Double(values)) => {
                self.numbers(values.iter().copied(), feature.values, most, is_open);
            }
            Some(Column::Text(texts)) => {
                for (&hash, &length) in texts.hashes.iter().zip(&texts.lengths) {
                    if hash == text::MISSING {
                        continue;
                    }
                    self.moments.add(f64::from(length));
                    if let Some(tally) = &mut self.tally {
                        tally.add(hash, most, || {
                            texts.names.as_ref().and_then(|names| names.name(hash)).map(Into::into)
                        });
                    }
                }
            }
            None => {}
        }
    }

    fn numbers(
        &mut self,
        values: impl Iterator<Item = f64>,
        kept: Values,
        most: usize,
        is_open: bool,
    ) {
        for value in values {
            if value.is_nan() {
                continue;
            }
            self.moments.add(value);
            if let Some(tally) = &mut self.tally {
                tally.add((value + 0.0).to_bits(), most, || Some(lookup::name(value, kept).into()));
                if !is_open && tally.n_unlisted > 0 {
                    self.tally = None;
                }
            }
        }
    }
}

impl Tally {
    fn add(&mut self, key: u64, most: usize, name: impl FnOnce() -> Option<Box<str>>) {
        if let Some(counted) = self.values.get_mut(&key) {
            counted.count += 1;
        } else if self.values.len() < most {
            self.values.insert(key, Counted { count: 1, name: name() });
        } else {
            self.n_unlisted += 1;
        }
    }
}

impl Default for Moments {
    fn default() -> Self {
        Self {
            n: 0,
            mean: 0.0,
            spread: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            is_whole: true,
        }
    }
}

impl Moments {
    pub(super) fn add(&mut self, value: f64) {
        if !value.is_finite() {
            self.is_whole = false;
            return;
        }
        self.n += 1;
        let distance = value - self.mean;
        self.mean += distance / self.n as f64;
        self.spread += distance * (value - self.mean);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.is_whole &= value.fract() == 0.0;
    }

    /// Finite values seen.
    pub(super) fn n(&self) -> u64 {
        self.n
    }

    /// The figures; nothing where there was no finite value.
    pub(super) fn summary(&self) -> Option<Summary> {
        // Values near the largest that there are make sums that are beyond it.
        let finite = |figure: f64| match figure {
            figure if figure.is_nan() => 0.0,
            figure => figure.clamp(f64::MIN, f64::MAX),
        };
        (self.n > 0).then(|| Summary {
            mean: finite(self.mean),
            deviation: finite((self.spread / self.n as f64).max(0.0).sqrt()),
            min: self.min,
            max: self.max,
        })
    }
}
