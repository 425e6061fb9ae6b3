//! An ensemble as every operator declares it, checked: the common form that is compiled.
//!
//! Three tests are left of six: those for greater and for not equal swap the branches. Where a
//! missing value goes is a flag of the node, also for tests that are true for NaN. Thresholds are
//! binary64 until the type of the features is known, so nothing is lost on the way.

use std::collections::HashMap;

use tract_onnx::tract_core::internal::{Datum, TractResult, bail, ensure};

/// Binary32 or binary64: what thresholds, features and sums are.
pub(super) trait Number:
    Copy
    + PartialOrd
    + Default
    + std::fmt::Debug
    + std::ops::AddAssign
    + std::ops::Neg<Output = Self>
    + Datum
{
    const INFINITY: Self;
    fn from_f64(value: f64) -> Self;
    fn to_f64(self) -> f64;
    fn to_f32(self) -> f32;
    fn divided_by(self, count: usize) -> Self;
    fn next_below(self) -> Self;
    fn is_missing(self) -> bool;
}

macro_rules! number {
    ($t:ty) => {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::unnecessary_cast,
            reason = "conversions between the two widths, which round"
        )]
        impl Number for $t {
            const INFINITY: Self = <$t>::INFINITY;
            fn from_f64(value: f64) -> Self {
                value as $t
            }
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            fn to_f32(self) -> f32 {
                self as f32
            }
            fn divided_by(self, count: usize) -> Self {
                self / count as $t
            }
            fn next_below(self) -> Self {
                self.next_down()
            }
            fn is_missing(self) -> bool {
                self.is_nan()
            }
        }
    };
}
number!(f32);
number!(f64);

/// More targets or classes than any model has.
const MOST_TARGETS: usize = 1 << 20;

/// A comparison as the file names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    LessOrEqual,
    Less,
    GreaterOrEqual,
    Greater,
    Equal,
    NotEqual,
}

/// Where a branch leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum To {
    /// A position in [`Forest::splits`].
    Split(u32),
    /// A position in [`Forest::leaves`].
    Leaf(u32),
}

/// What is left of [`Mode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Test {
    LessOrEqual,
    Less,
    Equal,
}

/// A test on one feature.
#[derive(Debug, Clone, Copy)]
pub(super) struct Split<T> {
    pub(super) threshold: T,
    pub(super) feature: u32,
    pub(super) test: Test,
    /// A missing value goes where the test is true.
    pub(super) missing_is_true: bool,
    pub(super) on_true: To,
    pub(super) on_false: To,
}

impl<T: Number> Split<T> {
    /// The test `x mode threshold`, where `missing_is_true` adds missing values.
    pub(super) fn new(
        feature: u32,
        (mode, threshold): (Mode, T),
        missing_is_true: bool,
        (on_true, on_false): (To, To),
    ) -> Self {
        let (test, is_swapped) = match mode {
            Mode::LessOrEqual => (Test::LessOrEqual, false),
            Mode::Less => (Test::Less, false),
            Mode::Greater => (Test::LessOrEqual, true),
            Mode::GreaterOrEqual => (Test::Less, true),
            Mode::Equal => (Test::Equal, false),
            Mode::NotEqual => (Test::Equal, true),
        };
        // A comparison with a threshold of NaN is never true, whichever it is, but `!=`.
        let never = threshold.is_missing();
        let test = if never { Test::LessOrEqual } else { test };
        let is_swapped = if never { mode == Mode::NotEqual } else { is_swapped };
        let missing_is_true = missing_is_true || mode == Mode::NotEqual;
        let (on_true, on_false) =
            if is_swapped { (on_false, on_true) } else { (on_true, on_false) };
        let missing_is_true = missing_is_true != is_swapped;
        Self { threshold, feature, test, missing_is_true, on_true, on_false }
    }

    /// The branch that `value` takes, as the specification words it.
    pub(super) fn branch(&self, value: T) -> To {
        let is_true = if value.is_missing() {
            self.missing_is_true
        } else {
            match self.test {
                Test::LessOrEqual => value <= self.threshold,
                Test::Less => value < self.threshold,
                Test::Equal => value == self.threshold,
            }
        };
        if is_true { self.on_true } else { self.on_false }
    }
}

/// An ensemble of trees.
#[derive(Debug, Clone)]
pub(super) struct Forest<T> {
    pub(super) splits: Vec<Split<T>>,
    /// Target and weight of each contribution of each leaf.
    pub(super) leaves: Vec<Vec<(u32, T)>>,
    pub(super) roots: Vec<To>,
    pub(super) n_targets: usize,
    /// One more than the largest feature that is tested.
    pub(super) n_features: usize,
    /// No split or leaf is reached on two ways.
    pub(super) are_trees: bool,
}

impl<T: Number> Forest<T> {
    /// Checks that all ends are there and that no branch leads back. O(nodes).
    pub(super) fn new(
        splits: Vec<Split<T>>,
        leaves: Vec<Vec<(u32, T)>>,
        roots: Vec<To>,
        n_targets: usize,
    ) -> TractResult<Self> {
        ensure!(!roots.is_empty(), "there are no trees");
        ensure!(
            (1..=MOST_TARGETS).contains(&n_targets),
            "{n_targets} targets, of 1 to {MOST_TARGETS}"
        );
        let ends = splits.iter().flat_map(|split| [&split.on_true, &split.on_false]).chain(&roots);
        for end in ends {
            let is_there = match *end {
                To::Split(at) => (at as usize) < splits.len(),
                To::Leaf(at) => (at as usize) < leaves.len(),
            };
            ensure!(is_there, "a branch leads to a node that is not there");
        }
        for &(target, _) in leaves.iter().flatten() {
            ensure!((target as usize) < n_targets, "a leaf is for target {target} of {n_targets}");
        }
        let features = splits.iter().map(|split| split.feature as usize + 1);
        let n_features = features.max().unwrap_or(0);
        let are_trees = check_ways(&splits, leaves.len(), &roots)?;
        Ok(Self { splits, leaves, roots, n_targets, n_features, are_trees })
    }

    /// The same with numbers of another width, to which they are rounded.
    pub(super) fn convert<U: Number>(&self) -> Forest<U> {
        let splits = self.splits.iter().map(|split| Split {
            threshold: U::from_f64(split.threshold.to_f64()),
            feature: split.feature,
            test: split.test,
            missing_is_true: split.missing_is_true,
            on_true: split.on_true,
            on_false: split.on_false,
        });
        let leaf = |leaf: &Vec<(u32, T)>| {
            leaf.iter().map(|&(target, weight)| (target, U::from_f64(weight.to_f64()))).collect()
        };
        Forest {
            splits: splits.collect(),
            leaves: self.leaves.iter().map(leaf).collect(),
            roots: self.roots.clone(),
            n_targets: self.n_targets,
            n_features: self.n_features,
            are_trees: self.are_trees,
        }
    }

    /// The leaf that the tree at `root` leads `row` to: node by node, for the ensembles that the
    /// compiled form does not do, and for testing it. O(depth).
    pub(super) fn leaf_of(&self, root: To, row: &[T]) -> u32 {
        let mut end = root;
        loop {
            match end {
                To::Leaf(leaf) => return leaf,
                To::Split(split) => {
                    let split = &self.splits[split as usize];
                    end = split.branch(row[split.feature as usize]);
                }
            }
        }
    }
}

/// Refuses circles; tells whether each node is reached on one way only.
fn check_ways<T>(splits: &[Split<T>], n_leaves: usize, roots: &[To]) -> TractResult<bool> {
    #[derive(Clone, Copy, PartialEq)]
    enum Seen {
        Never,
        OnTheWay,
        Done,
    }
    let mut seen = vec![Seen::Never; splits.len()];
    let mut leaf_seen = vec![false; n_leaves];
    let mut are_trees = true;
    // A stack of ends to enter, and of splits to leave after them.
    let mut stack: Vec<(To, bool)> = Vec::new();
    for &root in roots {
        stack.push((root, false));
        while let Some((end, is_leaving)) = stack.pop() {
            match end {
                To::Leaf(at) => are_trees &= !std::mem::replace(&mut leaf_seen[at as usize], true),
                To::Split(at) if is_leaving => seen[at as usize] = Seen::Done,
                To::Split(at) => match seen[at as usize] {
                    Seen::OnTheWay => bail!("a tree leads back to one of its own nodes"),
                    Seen::Done => are_trees = false,
                    Seen::Never => {
                        seen[at as usize] = Seen::OnTheWay;
                        stack.push((end, true));
                        stack.push((splits[at as usize].on_true, false));
                        stack.push((splits[at as usize].on_false, false));
                    }
                },
            }
        }
    }
    Ok(are_trees)
}

/// Positions of nodes by tree and node id, as `TreeEnsembleClassifier` and `-Regressor` name them.
pub(super) fn positions(
    tree_ids: &[i64],
    node_ids: &[i64],
) -> TractResult<HashMap<(i64, i64), usize>> {
    let mut positions = HashMap::with_capacity(tree_ids.len());
    for (at, key) in tree_ids.iter().copied().zip(node_ids.iter().copied()).enumerate() {
        if positions.insert(key, at).is_some() {
            bail!("tree {} has two nodes {}", key.0, key.1);
        }
    }
    Ok(positions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_is_the_comparison_that_it_names() {
        type Compare = fn(&f32, &f32) -> bool;
        let modes: [(Mode, Compare); 6] = [
            (Mode::LessOrEqual, f32::le),
            (Mode::Less, f32::lt),
            (Mode::GreaterOrEqual, f32::ge),
            (Mode::Greater, f32::gt),
            (Mode::Equal, f32::eq),
            (Mode::NotEqual, f32::ne),
        ];
        let (yes, no) = (To::Leaf(1), To::Leaf(0));
        let values = [
            f32::NEG_INFINITY,
            f32::MIN,
            -1.0,
            -f32::MIN_POSITIVE,
            -0.0,
            0.0,
            1e-45,
            1.0,
            f32::MAX,
            f32::INFINITY,
            f32::NAN,
        ];
        for (mode, compare) in modes {
            for (threshold, missing) in values.into_iter().flat_map(|t| [(t, false), (t, true)]) {
                let split = Split::new(0, (mode, threshold), missing, (yes, no));
                for x in values {
                    let expected = compare(&x, &threshold) || (missing && x.is_nan());
                    let expected = if expected { yes } else { no };
                    assert_eq!(split.branch(x), expected, "{x} {mode:?} {threshold} {missing}");
                }
            }
        }
    }

    #[test]
    fn circles_are_refused_and_shared_nodes_seen() {
        let split =
            |on_true, on_false| Split::new(0, (Mode::Less, 1.0_f32), false, (on_true, on_false));
        let circle = vec![split(To::Split(1), To::Leaf(0)), split(To::Split(0), To::Leaf(0))];
        assert!(Forest::new(circle, vec![vec![]], vec![To::Split(0)], 1).is_err());
        let shared = vec![split(To::Leaf(0), To::Leaf(0))];
        assert!(!Forest::new(shared, vec![vec![]], vec![To::Split(0)], 1).unwrap().are_trees);
        let beyond = vec![split(To::Split(7), To::Leaf(0))];
        assert!(Forest::new(beyond, vec![vec![]], vec![To::Split(0)], 1).is_err());
    }
}
