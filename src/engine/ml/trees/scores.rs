//! What the leaves of a row add up to.
//!
//! Contributions are summed tree by tree in the file's order, in the width of the features, which
//! is ONNX Runtime's order on one thread: sums agree to the last bit where the transformation
//! after them does.

use tract_onnx::tract_core::internal::{TractResult, bail};

use super::super::rows::zeros;
use super::forest::{Forest, Number, To};

/// How the trees' contributions become one score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aggregate {
    Sum,
    Average,
    Min,
    Max,
}

impl Aggregate {
    /// Of `aggregate_function`, which is a sum where it is not given.
    pub(super) fn parse(name: Option<&str>) -> TractResult<Self> {
        Ok(match name {
            None | Some("SUM") => Self::Sum,
            Some("AVERAGE") => Self::Average,
            Some("MIN") => Self::Min,
            Some("MAX") => Self::Max,
            Some(other) => bail!("aggregate_function '{other}' is unknown"),
        })
    }

    /// Of `TreeEnsemble`'s number.
    pub(super) fn from_number(number: i64) -> TractResult<Self> {
        Ok(match number {
            0 => Self::Average,
            1 => Self::Sum,
            2 => Self::Min,
            3 => Self::Max,
            other => bail!("aggregate_function {other} is unknown"),
        })
    }

    fn is_sum(self) -> bool {
        matches!(self, Self::Sum | Self::Average)
    }

    fn add<T: Number>(self, score: &mut T, is_first: bool, value: T) {
        match self {
            Self::Sum | Self::Average => *score += value,
            Self::Min if is_first || value < *score => *score = value,
            Self::Max if is_first || value > *score => *score = value,
            Self::Min | Self::Max => {}
        }
    }
}

/// The leaves' contributions, by what they have in common.
#[derive(Debug)]
pub(super) enum Contributions<T> {
    /// Each leaf gives one value, and all leaves of a tree to the same target.
    OneTarget { target_of_tree: Vec<u32>, values: Vec<T> },
    /// Each leaf gives a value to each target: rows of them.
    AllTargets { values: Vec<T> },
    /// Any targets.
    Some { leaves: Vec<Vec<(u32, T)>> },
}

impl<T: Number> Contributions<T> {
    pub(super) fn new(forest: &Forest<T>) -> Self {
        if let Some(target_of_tree) = one_target(forest) {
            let values = forest.leaves.iter().map(|leaf| leaf[0].1).collect();
            return Self::OneTarget { target_of_tree, values };
        }
        let n = forest.n_targets;
        let is_full = |leaf: &Vec<(u32, T)>| {
            leaf.len() == n && leaf.iter().zip(0..).all(|((target, _), at)| *target == at)
        };
        if forest.leaves.iter().all(is_full) {
            let values = forest.leaves.iter().flatten().map(|(_, value)| *value).collect();
            return Self::AllTargets { values };
        }
        Self::Some { leaves: forest.leaves.clone() }
    }
}

/// The target of each tree, if each leaf has one contribution and no tree has two targets.
fn one_target<T: Number>(forest: &Forest<T>) -> Option<Vec<u32>> {
    if forest.leaves.iter().any(|leaf| leaf.len() != 1) {
        return None;
    }
    if forest.n_targets == 1 {
        return Some(vec![0; forest.roots.len()]);
    }
    if !forest.are_trees {
        return None;
    }
    forest
        .roots
        .iter()
        .map(|&root| {
            let mut target = None;
            let mut ends = vec![root];
            while let Some(end) = ends.pop() {
                match end {
                    To::Split(split) => {
                        let split = &forest.splits[split as usize];
                        ends.extend([split.on_true, split.on_false]);
                    }
                    To::Leaf(leaf) => {
                        let of_leaf = forest.leaves[leaf as usize][0].0;
                        if *target.get_or_insert(of_leaf) != of_leaf {
                            return None;
                        }
                    }
                }
            }
            target
        })
        .collect()
}

/// Scores of several rows: one a target.
#[derive(Debug)]
pub(super) struct Scores<T> {
    pub(super) n_targets: usize,
    pub(super) values: Vec<T>,
    /// Whether any leaf has given the score something. One flag a target where that is the same
    /// for all rows, else one a score.
    is_given: Vec<bool>,
}

impl<T: Number> Scores<T> {
    pub(super) fn new(
        n_rows: usize,
        n_targets: usize,
        contributions: &Contributions<T>,
    ) -> TractResult<Self> {
        let is_given = match contributions {
            Contributions::OneTarget { target_of_tree, .. } => {
                let mut is_given = vec![false; n_targets];
                target_of_tree.iter().for_each(|&target| is_given[target as usize] = true);
                is_given
            }
            Contributions::AllTargets { .. } => vec![true; n_targets],
            Contributions::Some { .. } => zeros(n_rows, n_targets)?,
        };
        Ok(Self { n_targets, values: zeros(n_rows, n_targets)?, is_given })
    }

    /// The scores of one row, and whether each was given anything.
    pub(super) fn row(&mut self, row: usize) -> (&mut [T], &[bool]) {
        let n = self.n_targets;
        let at = if self.is_given.len() == n { 0 } else { row * n };
        (&mut self.values[row * n..][..n], &self.is_given[at..][..n])
    }

    /// Adds what the leaves of one tree give to the rows from `row` on.
    pub(super) fn add_tree(
        &mut self,
        contributions: &Contributions<T>,
        aggregate: Aggregate,
        (tree, row): (usize, usize),
        leaves: &[u32],
    ) {
        let n = self.n_targets;
        let scores = &mut self.values[row * n..][..leaves.len() * n];
        let is_first = tree == 0;
        match contributions {
            Contributions::OneTarget { target_of_tree, values } => {
                let target = target_of_tree[tree] as usize;
                let is_first =
                    !aggregate.is_sum() && !target_of_tree[..tree].contains(&target_of_tree[tree]);
                for (scores, &leaf) in scores.chunks_exact_mut(n).zip(leaves) {
                    aggregate.add(&mut scores[target], is_first, values[leaf as usize]);
                }
            }
            Contributions::AllTargets { values } => {
                for (scores, &leaf) in scores.chunks_exact_mut(n).zip(leaves) {
                    let values = &values[leaf as usize * n..][..n];
                    for (score, &value) in scores.iter_mut().zip(values) {
                        aggregate.add(score, is_first, value);
                    }
                }
            }
            Contributions::Some { leaves: given } => {
                let is_given = &mut self.is_given[row * n..];
                let is_given = is_given.chunks_exact_mut(n);
                for ((scores, is_given), &leaf) in
                    scores.chunks_exact_mut(n).zip(is_given).zip(leaves)
                {
                    for &(target, value) in &given[leaf as usize] {
                        let target = target as usize;
                        let is_first = !std::mem::replace(&mut is_given[target], true);
                        aggregate.add(&mut scores[target], is_first, value);
                    }
                }
            }
        }
    }

    /// Adds what the leaves of all trees, in their order, give to one row.
    pub(super) fn add_row(
        &mut self,
        contributions: &Contributions<T>,
        aggregate: Aggregate,
        row: usize,
        leaves: &[u32],
    ) {
        if let Contributions::OneTarget { target_of_tree, values } = contributions
            && aggregate.is_sum()
        {
            let scores = &mut self.values[row * self.n_targets..][..self.n_targets];
            if let [score] = scores {
                leaves.iter().for_each(|&leaf| *score += values[leaf as usize]);
            } else {
                for (&leaf, &target) in leaves.iter().zip(target_of_tree) {
                    scores[target as usize] += values[leaf as usize];
                }
            }
            return;
        }
        for (tree, leaf) in leaves.iter().enumerate() {
            self.add_tree(contributions, aggregate, (tree, row), std::slice::from_ref(leaf));
        }
    }
}
