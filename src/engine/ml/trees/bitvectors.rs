//! The compiled form for many rows and small trees: no walk, but leaves crossed out.
//!
//! Each tree has a bit for each leaf, from left to right. A test that a row fails crosses out the
//! leaves below its true branch; the first bit that is left is the row's leaf. Tests are sorted by
//! feature and threshold, so those that a row fails are the first of each feature, and no branch is
//! mispredicted but the last. [`LANES`] rows go side by side, as one vector. After Lucchese, Nardini,
//! Orlando, Perego, Tonellotto and Venturini, "QuickScorer" (SIGIR 2015), and its vectorised form
//! (the same, "Exploiting CPU SIMD Extensions to Speed-up Document Scoring with Tree Ensembles",
//! SIGIR 2016).
//!
//! A row's cost is the number of tests that it fails, where a walk's is the depth of the trees. So
//! it is taken ([`Bitvectors::compile`]) for trees of at most [`LEAVES`] leaves with at most
//! [`TESTS_A_STEP`] tests for each step of the deepest walk, and [`LANES`] rows or more; docs/models.md
//! has the figures behind this rule. O(tests · rows / lanes). The leaves are those of the walk, and
//! so are the sums.

use super::features::Features;
use super::forest::{Forest, Number, To};

/// Leaves of a tree, at most: bits of a word.
const LEAVES: usize = 32;

/// Rows side by side.
pub(super) const LANES: usize = 8;

/// Tests of a tree for each level that it has, at most.
const TESTS_A_STEP: usize = 4;

/// Trees, at most: their words for [`LANES`] rows are to stay in the second cache.
const MOST_TREES: usize = 1 << 14;

/// A split: what a row that fails it is left with.
#[derive(Debug, Clone, Copy)]
struct Test<T> {
    threshold: T,
    tree: u32,
    leaves_left: u32,
}

/// A forest as bit vectors.
#[derive(Debug)]
pub(super) struct Bitvectors<T> {
    /// Sorted by slot, then threshold.
    tests: Vec<Test<T>>,
    /// Where each slot's tests end.
    ends: Vec<usize>,
    /// The leaf of each bit of each tree.
    leaf_at: Vec<[u32; LEAVES]>,
    has_avx2: bool,
}

/// Words and values for some rows, kept between blocks.
#[derive(Debug)]
pub(super) struct Scratch<T> {
    words: Vec<[u32; LANES]>,
    columns: Vec<[T; LANES]>,
}

impl<T: Number> Bitvectors<T> {
    /// Compiles `forest`, whose tests are all of the walk's form; nothing where walks are faster.
    pub(super) fn compile(forest: &Forest<T>, features: &Features, deep: usize) -> Option<Self> {
        if forest.splits.len() > deep * TESTS_A_STEP || forest.roots.len() > MOST_TREES {
            return None;
        }
        let mut by_slot: Vec<Vec<Test<T>>> = vec![Vec::new(); features.n_slots()];
        let mut leaf_at = Vec::with_capacity(forest.roots.len());
        for (&root, tree) in forest.roots.iter().zip(0..) {
            let mut leaves = Vec::new();
            // Splits to leave are told by the number of leaves before them.
            let mut stack: Vec<(To, Option<usize>)> = vec![(root, None)];
            while let Some((end, first)) = stack.pop() {
                match (end, first) {
                    (To::Leaf(leaf), _) => leaves.push(leaf),
                    (To::Split(at), None) => {
                        let split = &forest.splits[at as usize];
                        stack.push((split.on_false, None));
                        stack.push((end, Some(leaves.len())));
                        stack.push((split.on_true, None));
                    }
                    (To::Split(at), Some(first)) => {
                        // All leaves of the true branch are there now, those of the other not yet.
                        let (slot, threshold) = features.place(&forest.splits[at as usize]);
                        let below = |n: usize| if n < LEAVES { (1_u32 << n) - 1 } else { u32::MAX };
                        let leaves_left = !(below(leaves.len()) & !below(first));
                        by_slot[slot].push(Test { threshold, tree, leaves_left });
                    }
                }
                if leaves.len() > LEAVES {
                    return None;
                }
            }
            let mut of_bits = [0; LEAVES];
            of_bits[..leaves.len()].copy_from_slice(&leaves);
            leaf_at.push(of_bits);
        }
        let mut tests = Vec::with_capacity(forest.splits.len());
        let mut ends = Vec::with_capacity(by_slot.len());
        for mut of_slot in by_slot {
            // A stable sort: no threshold is NaN.
            of_slot.sort_by(|a, b| {
                a.threshold.partial_cmp(&b.threshold).unwrap_or(std::cmp::Ordering::Equal)
            });
            tests.extend(of_slot);
            ends.push(tests.len());
        }
        Some(Self { tests, ends, leaf_at, has_avx2: has_avx2() })
    }

    pub(super) fn scratch(&self) -> Scratch<T> {
        let words = vec![[0; LANES]; self.leaf_at.len()];
        Scratch { words, columns: vec![[T::default(); LANES]; self.ends.len()] }
    }

    /// Finds the leaves of up to [`LANES`] rows, which begin `stride` apart and have all slots.
    pub(super) fn mark(&self, rows: &[T], stride: usize, scratch: &mut Scratch<T>) {
        for (lane, row) in rows.chunks_exact(stride).enumerate() {
            for (column, &value) in scratch.columns.iter_mut().zip(row) {
                column[lane] = value;
            }
        }
        #[cfg(target_arch = "x86_64")]
        if self.has_avx2 {
            #[expect(unsafe_code, reason = "a function for machines that have these instructions")]
            // SAFETY: `has_avx2` is set only where the running machine has AVX2.
            unsafe {
                cross_out_avx2(&self.tests, &self.ends, scratch);
            }
            return;
        }
        cross_out(&self.tests, &self.ends, scratch);
    }

    /// The leaves that `tree` leads the rows to that were marked.
    pub(super) fn leaves_of_tree(&self, tree: usize, scratch: &Scratch<T>) -> [u32; LANES] {
        let leaf_at = &self.leaf_at[tree];
        // One leaf is always left: what a row reaches is below no test that it fails on its true side.
        scratch.words[tree].map(|word| leaf_at[word.trailing_zeros() as usize % LEAVES])
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx2() -> bool {
    false
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn cross_out_avx2<T: Number>(tests: &[Test<T>], ends: &[usize], scratch: &mut Scratch<T>) {
    cross_out(tests, ends, scratch);
}

#[inline(always)]
fn cross_out<T: Number>(tests: &[Test<T>], ends: &[usize], scratch: &mut Scratch<T>) {
    let Scratch { words, columns } = scratch;
    words.fill([u32::MAX; LANES]);
    let mut start = 0;
    for (values, &end) in columns.iter().zip(ends) {
        for test in &tests[start..end] {
            let fails: [u32; LANES] =
                std::array::from_fn(
                    |lane| if values[lane] > test.threshold { u32::MAX } else { 0 },
                );
            if fails.iter().fold(0, |any, fails| any | fails) == 0 {
                break;
            }
            let words = &mut words[test.tree as usize];
            *words = std::array::from_fn(|lane| words[lane] & (test.leaves_left | !fails[lane]));
        }
        start = end;
    }
}
