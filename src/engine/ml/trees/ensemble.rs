//! A forest ready to run: its compiled form, and the scores of rows.

use tract_onnx::tract_core::internal::TractResult;

use super::bitvectors::{Bitvectors, LANES};
use super::features::Features;
use super::forest::{Forest, Number};
use super::scores::{Aggregate, Contributions, Scores};
use super::walk::Walk;

/// Rows walked together: their slots and leaves stay in the nearest caches while each tree's
/// nodes are read once for all of them.
const BLOCK: usize = 256;

/// A compiled ensemble with features and sums in `T`.
#[derive(Debug)]
pub(super) struct Ensemble<T> {
    pub(super) n_features: usize,
    n_targets: usize,
    n_trees: usize,
    contributions: Contributions<T>,
    form: Form<T>,
}

#[derive(Debug)]
enum Form<T> {
    Walk {
        walk: Walk<T>,
        /// Where these are faster for many rows.
        bitvectors: Option<Bitvectors<T>>,
        features: Features,
    },
    /// Node by node, where the compiled form does not do.
    Plain(Forest<T>),
}

impl<T: Number> Ensemble<T> {
    pub(super) fn compile(forest: Forest<T>) -> Self {
        let features = Features::new(&forest);
        let contributions = Contributions::new(&forest);
        let (n_features, n_targets) = (forest.n_features, forest.n_targets);
        let n_trees = forest.roots.len();
        let form = match Walk::compile(&forest, &features) {
            Some(walk) => {
                let bitvectors = Bitvectors::compile(&forest, &features, walk.steps());
                Form::Walk { walk, bitvectors, features }
            }
            None => Form::Plain(forest),
        };
        Self { n_features, n_targets, n_trees, contributions, form }
    }

    pub(super) fn n_trees(&self) -> usize {
        self.n_trees
    }

    /// The scores of each of `rows`, which have `n_columns` values each: at least `n_features`.
    pub(super) fn scores(
        &self,
        rows: &[T],
        n_columns: usize,
        aggregate: Aggregate,
    ) -> TractResult<Scores<T>> {
        assert!(n_columns > 0 && n_columns >= self.n_features, "rows are too short");
        let n_rows = rows.len() / n_columns;
        let mut scores = Scores::new(n_rows, self.n_targets, &self.contributions)?;
        match &self.form {
            Form::Walk { walk, features, .. } if n_rows == 1 => {
                let mut slots = Vec::new();
                let row = if features.is_in_place(rows) {
                    rows
                } else {
                    features.gather(rows, &mut slots);
                    &slots
                };
                let mut leaves = vec![0; self.n_trees];
                walk.leaves_of_row(row, &mut leaves);
                scores.add_row(&self.contributions, aggregate, 0, &leaves);
            }
            Form::Walk { bitvectors: Some(bitvectors), features, .. } if n_rows >= LANES => {
                self.mark_blocks(bitvectors, features, (rows, n_columns), aggregate, &mut scores);
            }
            Form::Walk { walk, features, .. } => {
                self.walk_blocks(walk, features, (rows, n_columns), aggregate, &mut scores);
            }
            Form::Plain(forest) => {
                let mut leaves = vec![0; self.n_trees];
                for (at, row) in rows.chunks_exact(n_columns).enumerate() {
                    for (leaf, &root) in leaves.iter_mut().zip(&forest.roots) {
                        *leaf = forest.leaf_of(root, row);
                    }
                    scores.add_row(&self.contributions, aggregate, at, &leaves);
                }
            }
        }
        Ok(scores)
    }

    fn mark_blocks(
        &self,
        bitvectors: &Bitvectors<T>,
        features: &Features,
        (rows, n_columns): (&[T], usize),
        aggregate: Aggregate,
        scores: &mut Scores<T>,
    ) {
        let mut slots = Vec::new();
        let mut scratch = bitvectors.scratch();
        for (block, rows) in rows.chunks(LANES * n_columns).enumerate() {
            let n_rows = rows.len() / n_columns;
            let (block_rows, stride) = if features.is_in_place(rows) {
                (rows, n_columns)
            } else {
                slots.clear();
                rows.chunks_exact(n_columns).for_each(|row| features.gather(row, &mut slots));
                (&slots[..], features.n_slots())
            };
            bitvectors.mark(block_rows, stride, &mut scratch);
            for tree in 0..self.n_trees {
                let leaves = bitvectors.leaves_of_tree(tree, &scratch);
                let place = (tree, block * LANES);
                scores.add_tree(&self.contributions, aggregate, place, &leaves[..n_rows]);
            }
        }
    }

    fn walk_blocks(
        &self,
        walk: &Walk<T>,
        features: &Features,
        (rows, n_columns): (&[T], usize),
        aggregate: Aggregate,
        scores: &mut Scores<T>,
    ) {
        let mut slots = Vec::new();
        let mut leaves = [0; BLOCK];
        for (block, rows) in rows.chunks(BLOCK * n_columns).enumerate() {
            let n_rows = rows.len() / n_columns;
            let (block_rows, stride) = if features.is_in_place(rows) {
                (rows, n_columns)
            } else {
                slots.clear();
                rows.chunks_exact(n_columns).for_each(|row| features.gather(row, &mut slots));
                (&slots[..], features.n_slots())
            };
            let leaves = &mut leaves[..n_rows];
            for tree in 0..self.n_trees {
                walk.leaves_of_tree(tree, block_rows, stride, leaves);
                scores.add_tree(&self.contributions, aggregate, (tree, block * BLOCK), leaves);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::forest::{Mode, Split, To};
    use super::*;

    /// Values that meet each other, and those that comparisons treat specially.
    fn value() -> impl Strategy<Value = f32> {
        prop_oneof![
            6 => (-4_i8..4).prop_map(f32::from),
            1 => Just(-0.0),
            1 => Just(f32::NAN),
            1 => Just(f32::INFINITY),
            1 => Just(f32::NEG_INFINITY),
        ]
    }

    fn mode() -> impl Strategy<Value = Mode> {
        prop_oneof![
            4 => Just(Mode::LessOrEqual),
            4 => Just(Mode::Less),
            1 => Just(Mode::Greater),
            1 => Just(Mode::GreaterOrEqual),
        ]
    }

    type Node = (u32, Mode, f32, bool, bool);

    /// Grows a tree from a list of nodes: each takes the place of the leaf that its flag points at.
    fn grow(nodes: &[Node], splits: &mut Vec<Split<f32>>, leaves: &mut Vec<Vec<(u32, f32)>>) -> To {
        fn leaf(leaves: &mut Vec<Vec<(u32, f32)>>) -> To {
            let at = u32::try_from(leaves.len()).unwrap();
            leaves.push(vec![(0, 2.0_f32.powi(i32::try_from(at % 20).unwrap()))]);
            To::Leaf(at)
        }
        let Some(((feature, mode, threshold, missing, side), rest)) = nodes.split_first() else {
            return leaf(leaves);
        };
        let cut = if *side { rest.len() / 4 } else { rest.len() / 2 };
        let on_true = grow(&rest[..cut], splits, leaves);
        let on_false = grow(&rest[cut..], splits, leaves);
        splits.push(Split::new(*feature, (*mode, *threshold), *missing, (on_true, on_false)));
        To::Split(u32::try_from(splits.len() - 1).unwrap())
    }

    proptest! {
        /// The compiled form leads every row to the leaf that the specification's words lead to,
        /// for any number of trees and rows.
        #[test]
        fn the_compiled_form_is_the_plain_one(
            trees in prop::collection::vec(
                prop::collection::vec(
                    (0_u32..5, mode(), value(), any::<bool>(), any::<bool>()), 0..24), 1..20),
            rows in prop::collection::vec(prop::array::uniform5(value()), 1..40),
        ) {
            let (mut splits, mut leaves) = (Vec::new(), Vec::new());
            let roots = trees.iter().map(|t| grow(t, &mut splits, &mut leaves)).collect();
            let forest = Forest::new(splits, leaves, roots, 1).unwrap();
            let ensemble = Ensemble::compile(forest.clone());
            let flat: Vec<f32> = rows.iter().flatten().copied().collect();
            let many = ensemble.scores(&flat, 5, Aggregate::Sum).unwrap().values;
            for (row, many) in rows.iter().zip(many) {
                let expected = forest.roots.iter().fold(0.0, |sum, &root| {
                    sum + forest.leaves[forest.leaf_of(root, row) as usize][0].1
                });
                let one = ensemble.scores(row, 5, Aggregate::Sum).unwrap().values[0];
                prop_assert_eq!(one, expected);
                prop_assert_eq!(many, expected);
            }
        }
    }
}
