//! The compiled form for any ensemble of `<=` tests: a flat walk without branches.
//!
//! The two children of a node lie side by side, so a step is an addition: the left child's
//! distance, and one more if the feature is greater than the threshold. A node is 8 bytes for
//! binary32. A leaf is a node that no feature passes and that leads to itself, so a walk may go on
//! for as long as the deepest tree beside it needs. A step waits for two loads one after the
//! other; therefore [`LANES`] walks run in step: several trees for one row, several rows for one
//! tree. The interleaving follows Asadi, Lin and de Vries, "Runtime Optimizations for Tree-Based
//! Machine Learning Models" (TKDE 2014, §3, "VPred").
//!
//! O(rows · trees · depth). Indices are not checked in a step: [`Walk::compile`] checks that every
//! step from a node leads to a node of the forest, and that every slot exists.

use super::features::Features;
use super::forest::{Forest, Number, Test, To};

/// Walks in flight: enough to hide the latency of two loads from the nearest cache.
const LANES: usize = 8;

/// A split, or a leaf with no offset.
#[derive(Debug, Clone, Copy)]
struct Node<T> {
    threshold: T,
    slot: u16,
    /// From here to the left child; 0 for a leaf.
    offset: u16,
}

/// A tree's place among the nodes.
#[derive(Debug, Clone, Copy)]
struct Tree {
    root: u32,
    /// Steps to the nearest leaf.
    shallow: u32,
    /// Steps to the farthest.
    deep: u32,
}

/// A compiled forest.
#[derive(Debug)]
pub(super) struct Walk<T> {
    nodes: Vec<Node<T>>,
    /// The leaf at a node; meaningless for others.
    leaf_at: Vec<u32>,
    trees: Vec<Tree>,
    /// The trees sorted by depth, so that those walked together end together.
    by_depth: Vec<u32>,
}

impl<T: Number> Walk<T> {
    /// Compiles `forest`; nothing where its form is not for this walk: tests for equality or with
    /// NaN, shared nodes, or a tree so large that a distance needs more than 16 bits.
    pub(super) fn compile(forest: &Forest<T>, features: &Features) -> Option<Self> {
        let is_plain = forest.splits.iter().all(|split| match split.test {
            Test::LessOrEqual => !split.threshold.is_missing(),
            // Nothing is below negative infinity, which has no number below it either.
            Test::Less => split.threshold.next_below() < split.threshold,
            Test::Equal => false,
        });
        if !forest.are_trees || !is_plain || forest.splits.is_empty() {
            return None;
        }
        u16::try_from(features.n_slots()).ok()?;
        let mut walk = Self {
            nodes: Vec::new(),
            leaf_at: Vec::new(),
            trees: Vec::new(),
            by_depth: Vec::new(),
        };
        for &root in &forest.roots {
            walk.push_tree(forest, features, root)?;
        }
        let mut by_depth: Vec<u32> = (0..u32::try_from(walk.trees.len()).ok()?).collect();
        by_depth.sort_by_key(|&tree| walk.trees[tree as usize].deep);
        walk.by_depth = by_depth;
        walk.check(features.n_slots());
        Some(walk)
    }

    /// Lays out one tree level by level.
    fn push_tree(&mut self, forest: &Forest<T>, features: &Features, root: To) -> Option<()> {
        let start = self.nodes.len();
        let mut level = vec![root];
        let mut depth = 0;
        let (mut shallow, mut deep) = (u32::MAX, 0);
        let mut next_level_at = start + 1;
        while !level.is_empty() {
            let mut next = Vec::new();
            for end in level {
                let at = self.nodes.len();
                match end {
                    To::Leaf(leaf) => {
                        self.nodes.push(Node { threshold: T::INFINITY, slot: 0, offset: 0 });
                        self.leaf_at.push(leaf);
                        shallow = shallow.min(depth);
                        deep = deep.max(depth);
                    }
                    To::Split(split) => {
                        let split = &forest.splits[split as usize];
                        let (slot, threshold) = features.place(split);
                        let offset = u16::try_from(next_level_at + next.len() - at).ok()?;
                        self.nodes.push(Node {
                            threshold,
                            slot: u16::try_from(slot).ok()?,
                            offset,
                        });
                        self.leaf_at.push(0);
                        next.push(split.on_true);
                        next.push(split.on_false);
                    }
                }
            }
            next_level_at += next.len();
            level = next;
            depth += 1;
        }
        self.trees.push(Tree { root: u32::try_from(start).ok()?, shallow, deep });
        Some(())
    }

    /// The invariant that [`step`] relies on.
    fn check(&self, n_slots: usize) {
        let n_nodes = self.nodes.len();
        assert!(u32::try_from(n_nodes).is_ok() && self.leaf_at.len() == n_nodes);
        for (at, node) in self.nodes.iter().enumerate() {
            let farthest = at + usize::from(node.offset) + usize::from(node.offset > 0);
            assert!(farthest < n_nodes, "a step leads out of the forest");
            assert!(usize::from(node.slot) < n_slots.max(1), "a slot is beyond the row");
            assert!(node.offset > 0 || node.threshold == T::INFINITY, "a leaf leads on");
        }
        assert!(self.trees.iter().all(|tree| (tree.root as usize) < n_nodes));
    }

    /// Steps to the farthest leaf of each tree, together.
    pub(super) fn steps(&self) -> usize {
        self.trees.iter().map(|tree| tree.deep as usize).sum()
    }

    /// The leaf that each tree leads `row` to, in the order of the trees. `row` has all slots.
    pub(super) fn leaves_of_row(&self, row: &[T], leaves: &mut [u32]) {
        let mut groups = self.by_depth.chunks_exact(LANES);
        for group in &mut groups {
            let trees: [u32; LANES] = std::array::from_fn(|lane| group[lane]);
            let places = trees.map(|tree| self.trees[tree as usize]);
            let mut at = places.map(|tree| tree.root);
            let shallow = places.iter().fold(u32::MAX, |least, tree| least.min(tree.shallow));
            // They are sorted by depth.
            let deep = places[LANES - 1].deep;
            // The steps stand here and in `leaves_of_tree`: one loop for both, with a row for each
            // lane, keeps eight pointers instead of one and took a tenth longer here.
            for _ in 0..shallow {
                for at in &mut at {
                    *at = step(&self.nodes, row, *at).0;
                }
            }
            for _ in shallow..deep {
                let mut moved = 0;
                for at in &mut at {
                    let (next, offset) = step(&self.nodes, row, *at);
                    *at = next;
                    moved |= offset;
                }
                if moved == 0 {
                    break;
                }
            }
            for (tree, at) in trees.into_iter().zip(at) {
                leaves[tree as usize] = self.leaf_at[at as usize];
            }
        }
        for &tree in groups.remainder() {
            leaves[tree as usize] = self.leaf_of(tree as usize, row);
        }
    }

    fn leaf_of(&self, tree: usize, row: &[T]) -> u32 {
        let Tree { root, deep, .. } = self.trees[tree];
        let mut at = root;
        for _ in 0..deep {
            let (next, offset) = step(&self.nodes, row, at);
            at = next;
            if offset == 0 {
                break;
            }
        }
        self.leaf_at[at as usize]
    }

    /// The leaf that `tree` leads each of `rows` to. Rows begin `stride` apart.
    pub(super) fn leaves_of_tree(
        &self,
        tree: usize,
        rows: &[T],
        stride: usize,
        leaves: &mut [u32],
    ) {
        let Tree { root, shallow, deep } = self.trees[tree];
        let mut row_groups = rows.chunks_exact(stride * LANES);
        let mut leaf_groups = leaves.chunks_exact_mut(LANES);
        for (rows, leaves) in (&mut row_groups).zip(&mut leaf_groups) {
            let rows: [&[T]; LANES] = std::array::from_fn(|lane| &rows[lane * stride..][..stride]);
            let mut at = [root; LANES];
            for _ in 0..shallow {
                for (at, row) in at.iter_mut().zip(rows) {
                    *at = step(&self.nodes, row, *at).0;
                }
            }
            for _ in shallow..deep {
                let mut moved = 0;
                for (at, row) in at.iter_mut().zip(rows) {
                    let (next, offset) = step(&self.nodes, row, *at);
                    *at = next;
                    moved |= offset;
                }
                if moved == 0 {
                    break;
                }
            }
            for (leaf, at) in leaves.iter_mut().zip(at) {
                *leaf = self.leaf_at[at as usize];
            }
        }
        let rows = row_groups.remainder().chunks_exact(stride);
        for (row, leaf) in rows.zip(leaf_groups.into_remainder()) {
            *leaf = self.leaf_of(tree, row);
        }
    }
}

/// One step from node `at`: the next node, and the offset, which is 0 at a leaf.
#[inline(always)]
#[expect(unsafe_code, reason = "two bounds checks would double the cost of a step")]
fn step<T: Number>(nodes: &[Node<T>], row: &[T], at: u32) -> (u32, u16) {
    debug_assert!((at as usize) < nodes.len());
    // SAFETY: `at` is a root or what a former step gave, and `Walk::check` has made sure that
    // both, and each slot, are within bounds; the callers pass rows with all slots (a row without
    // any is not walked: it has no splits). Tested against the plain walk in `super::tests`.
    let (node, value) = unsafe {
        let node = nodes.get_unchecked(at as usize);
        debug_assert!(usize::from(node.slot) < row.len());
        (node, *row.get_unchecked(usize::from(node.slot)))
    };
    (at + u32::from(node.offset) + u32::from(value > node.threshold), node.offset)
}
