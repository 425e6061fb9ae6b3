//! What is decided once the rows were seen: kinds, cells, products.

use super::gather::{FEW, Gathered, Tally};
use super::{FeatureBaseline, Source};
use crate::monitor::cells::{BINS, Cells, MOST_CATEGORIES, MOST_OTHERS, edges};
use crate::monitor::feature::{Feature, FeaturePlan, Kind, Side, Values};
use crate::monitor::lookup;
use crate::monitor::rows::{Column, Rows};
use crate::monitor::text::LONGEST_NAME;

/// Distinct whole numbers of a floating-point column that is taken for categorical, at most: flags
/// and codes. More than that look like a measure.
const FEW_CODES: usize = 8;

/// Rows that such a column must have: of few rows, few values say nothing.
const ENOUGH_ROWS: u64 = 500;

/// Distinct texts of a column that may be names whatever their share is.
const FEW_TEXTS: usize = 100;

/// Products of two numeric inputs.
const PRODUCTS: usize = 8;

/// Chooses the products; a constant, so that every baseline of a model has the same.
const PRODUCT_SEED: u64 = 0x7469_6465_6761_7465;

/// What a column is: as the settings say; else text with nearly as many values as rows is
/// measured by its length, other text is categorical; integers with at most 32 distinct values
/// are categorical; floating point is, where there are at most 8 values, all whole, in at least
/// 500 rows.
pub(super) fn kind(feature: &Feature, gathered: &Gathered) -> Kind {
    if let Some(kind) = feature.kind {
        return kind;
    }
    let Some(tally) = &gathered.tally else { return Kind::Numeric };
    let n = gathered.moments.n();
    let n_distinct = tally.values.len();
    let is_categorical = match feature.values {
        Values::Boolean => true,
        Values::Text => n_distinct <= FEW_TEXTS || 2 * (n_distinct as u64 + tally.n_unlisted) <= n,
        Values::Short | Values::Long => n_distinct <= FEW,
        Values::Single | Values::Double => {
            gathered.moments.is_whole && n_distinct <= FEW_CODES && n >= ENOUGH_ROWS
        }
    };
    if is_categorical { Kind::Categorical } else { Kind::Numeric }
}

/// A feature with cells and without counts. `sample` holds some or all of the rows.
pub(super) fn feature(
    feature: &Feature,
    index: usize,
    gathered: &Gathered,
    sample: &Rows,
) -> FeatureBaseline {
    let kind = kind(feature, gathered);
    let cells = match (kind, &gathered.tally) {
        (Kind::Categorical, Some(tally)) => categories(tally),
        (Kind::Categorical, None) => categories(&Tally::default()),
        (Kind::Numeric, _) => {
            let mut edges = edges(&sorted(sample, index), BINS, !feature.values.is_double());
            // The extremes are known of all rows, not only of the sample's.
            if let (Some(summary), [first, .., last]) =
                (gathered.moments.summary(), edges.as_mut_slice())
            {
                let below = match feature.values.is_double() {
                    true => summary.min.next_down(),
                    false => f64::from((summary.min as f32).next_down()),
                };
                *first = first.min(below);
                *last = last.max(summary.max);
            }
            edges.retain(|edge| edge.is_finite());
            Cells::Numeric { edges }
        }
    };
    FeatureBaseline {
        name: feature.name.clone(),
        side: feature.side,
        source: Source::Column(feature.source.clone()),
        kind,
        counts: vec![0; cells.len()],
        cells,
        variance_factor: None,
        summary: gathered.moments.summary().filter(|_| kind == Kind::Numeric),
    }
}

/// The most frequent categories by name, and the others by hash.
fn categories(tally: &Tally) -> Cells {
    let mut named: Vec<(&str, u64, u64)> = Vec::new();
    let mut others: Vec<u64> = Vec::new();
    for (&key, counted) in &tally.values {
        match &counted.name {
            Some(name) if name.len() <= LONGEST_NAME => named.push((name, counted.count, key)),
            _ => others.push(key),
        }
    }
    named.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let rare = named.split_off(named.len().min(MOST_CATEGORIES));
    others.extend(rare.iter().map(|&(_, _, key)| key));
    let is_open = tally.n_unlisted > 0 || others.len() > MOST_OTHERS;
    if is_open {
        // What is in no list counts as one of the others then.
        others.clear();
    }
    others.sort_unstable();
    let categories = named.into_iter().map(|(name, _, _)| name.to_owned()).collect();
    Cells::Categorical { categories, others: lookup::write_hashes(&others), is_open }
}

/// The finite values of a column, ascending.
fn sorted(sample: &Rows, index: usize) -> Vec<f64> {
    let mut values: Vec<f64> = match sample.column(index) {
        Some(Column::Single(values)) => values.iter().map(|&value| f64::from(value)).collect(),
        Some(Column::Double(values)) => values.clone(),
        Some(Column::Text(texts)) => texts.lengths.iter().map(|&n| f64::from(n)).collect(),
        None => Vec::new(),
    };
    sort_finite(&mut values);
    values
}

/// Drops what is not finite and sorts the rest.
pub(super) fn sort_finite(values: &mut Vec<f64>) {
    values.retain(|value| value.is_finite());
    // One zero: edges are compared by value.
    values.iter_mut().for_each(|value| *value += 0.0);
    values.sort_unstable_by(f64::total_cmp);
}

/// Pairs of numeric inputs that vary: up to 8 of them, at random and always the same.
pub(super) fn products(plan: &FeaturePlan, features: &[FeatureBaseline]) -> Vec<FeatureBaseline> {
    let planned = plan.features().iter().zip(features);
    let varies =
        |feature: &FeatureBaseline| feature.summary.is_some_and(|summary| summary.deviation > 0.0);
    let factors: Vec<&FeatureBaseline> = planned
        .filter(|(planned, feature)| {
            feature.side == Side::Input
                && feature.kind == Kind::Numeric
                && planned.values != Values::Text
                && varies(feature)
        })
        .map(|(_, feature)| feature)
        .collect();
    let n = factors.len();
    let n_pairs = n * n.saturating_sub(1) / 2;
    let mut random = fastrand::Rng::with_seed(PRODUCT_SEED);
    let mut products: Vec<FeatureBaseline> = Vec::new();
    while products.len() < PRODUCTS.min(n_pairs) {
        let (i, j) = (random.usize(..n), random.usize(..n));
        let (first, second) = (factors[i.min(j)], factors[i.max(j)]);
        let (Source::Column(a), Source::Column(b)) = (&first.source, &second.source) else { break };
        let source = Source::Product([a.clone(), b.clone()]);
        if i == j || products.iter().any(|product| product.source == source) {
            continue;
        }
        let cells = Cells::Numeric { edges: Vec::new() };
        products.push(FeatureBaseline {
            name: format!("{} × {}", first.name, second.name),
            side: Side::Derived,
            source,
            kind: Kind::Numeric,
            counts: vec![0; cells.len()],
            cells,
            variance_factor: None,
            summary: None,
        });
    }
    products
}
