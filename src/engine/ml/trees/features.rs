//! Rows as the compiled walks read them: the tested features only, and no missing values.
//!
//! A walk compares with `x > threshold` and must not ask about NaN at each step. So each feature
//! that is tested gets a slot, or two where some nodes send missing values to their true branch
//! and some to the other: in the one NaN becomes negative infinity, in the other infinity. A test
//! against infinity itself, which a number always passes and a missing value may not, reads a slot
//! of its own that holds 1 for a missing value and 0 otherwise.

use super::forest::{Forest, Number, Split, Test};

/// What stands in a slot for a missing value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Missing {
    /// Passes every `<=`.
    Lowest,
    /// Passes none.
    Highest,
    /// The slot says only whether the value is missing.
    Itself,
}

/// The features of a forest's tests, by slot.
#[derive(Debug)]
pub(super) struct Features {
    slots: Vec<(usize, Missing)>,
    /// The slots are the first features in their order: rows without NaN can be read in place.
    is_identity: bool,
}

impl Features {
    /// The slots that the splits of `forest` need, sorted by feature.
    pub(super) fn new<T: Number>(forest: &Forest<T>) -> Self {
        let mut slots: Vec<_> = forest.splits.iter().map(|split| slot(split).0).collect();
        slots.sort_unstable();
        slots.dedup();
        let is_identity =
            slots.iter().enumerate().all(|(at, slot)| slot.0 == at && slot.1 != Missing::Itself);
        Self { slots, is_identity }
    }

    pub(super) fn n_slots(&self) -> usize {
        self.slots.len()
    }

    /// The slot that `split` reads, and the threshold there.
    pub(super) fn place<T: Number>(&self, split: &Split<T>) -> (usize, T) {
        let (slot, threshold) = slot(split);
        let at = self.slots.binary_search(&slot);
        (at.expect("every split of the forest has its slot"), threshold)
    }

    /// Whether rows can be read in place, `columns` apart.
    pub(super) fn is_in_place<T: Number>(&self, rows: &[T]) -> bool {
        self.is_identity && !has_missing(rows)
    }

    /// Appends the slots of one row.
    pub(super) fn gather<T: Number>(&self, row: &[T], slots: &mut Vec<T>) {
        slots.extend(self.slots.iter().map(|&(feature, missing)| {
            let value = row[feature];
            match (missing, value.is_missing()) {
                (Missing::Itself, is_missing) => T::from_f64(f64::from(u8::from(is_missing))),
                (_, false) => value,
                (Missing::Lowest, true) => -T::INFINITY,
                (Missing::Highest, true) => T::INFINITY,
            }
        }));
    }
}

/// Slot and threshold of a split by `<` or `<=`. `x < t` is `x <= t'` with the number below t.
fn slot<T: Number>(split: &Split<T>) -> ((usize, Missing), T) {
    let threshold = match split.test {
        Test::Less => split.threshold.next_below(),
        Test::LessOrEqual | Test::Equal => split.threshold,
    };
    let feature = split.feature as usize;
    if split.missing_is_true {
        ((feature, Missing::Lowest), threshold)
    } else if threshold == T::INFINITY {
        ((feature, Missing::Itself), T::from_f64(0.5))
    } else {
        ((feature, Missing::Highest), threshold)
    }
}

/// Whether any value is NaN.
fn has_missing<T: Number>(rows: &[T]) -> bool {
    // Without a way out of the loop it runs several values at once.
    rows.iter().fold(false, |any, value| any | value.is_missing())
}
