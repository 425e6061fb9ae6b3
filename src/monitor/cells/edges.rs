//! Edges from a sample: cells of equal shares, and closed ones for frequent values.

/// Cells of equal shares that a numeric feature is divided into.
pub(crate) const BINS: usize = 16;

/// Edges of cells for `sorted`, finite values in ascending order: the number just below the least,
/// about `bins` quantiles, and the largest. A value with more than a `bins`-th of the sample gets
/// an edge just below it and one at it. With `is_single` the values are binary32, and so are the
/// edges. No values have no edges. O(n).
///
/// An edge other than those just below a value is a value of the sample, so `x <= e` is exact.
pub(crate) fn edges(sorted: &[f64], bins: usize, is_single: bool) -> Vec<f64> {
    let (Some(&least), n) = (sorted.first(), sorted.len()) else { return Vec::new() };
    let below = |value: f64| match is_single {
        true => f64::from(floor_single(value).next_down()),
        false => value.next_down(),
    };
    let is_atom = |count: usize| count * bins > n;
    let runs = || sorted.chunk_by(|a, b| a == b);
    let in_atoms: usize = runs().map(<[f64]>::len).filter(|&count| is_atom(count)).sum();
    // What is not in atoms is divided so that its cells are as large as those of all would be.
    let rest = n - in_atoms;
    let target = rest.div_ceil((rest * bins).div_ceil(n).max(1)).max(1);
    let mut edges = vec![below(least)];
    let push = |edges: &mut Vec<f64>, edge: f64| {
        if edges.last().is_none_or(|&last| last < edge) {
            edges.push(edge);
        }
    };
    let mut pending = 0;
    let mut is_after_quantile = false;
    for run in runs() {
        let (value, count) = (run[0], run.len());
        if is_atom(count) {
            // What is left before it, if only little, joins the cell before that. Between two
            // frequent values an empty cell stays, for what should not be there.
            if 2 * pending < target && is_after_quantile {
                edges.pop();
            }
            push(&mut edges, below(value));
            push(&mut edges, value);
            (pending, is_after_quantile) = (0, false);
            continue;
        }
        // Closed before it grows by more than it lacks.
        if pending > 0 && pending + count > target && pending + count - target > target - pending {
            let previous = sorted[sorted.partition_point(|&other| other < value) - 1];
            push(&mut edges, previous);
            (pending, is_after_quantile) = (0, true);
        }
        pending += count;
        if pending >= target {
            push(&mut edges, value);
            (pending, is_after_quantile) = (0, true);
        }
    }
    if pending > 0 {
        if 2 * pending < target && is_after_quantile {
            edges.pop();
        }
        push(&mut edges, sorted[n - 1]);
    }
    edges
}

/// The largest binary32 number that is not above `value`.
pub(crate) fn floor_single(value: f64) -> f32 {
    let single = value as f32;
    if f64::from(single) > value { single.next_down() } else { single }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Values of the sample in each cell.
    fn counts(sorted: &[f64], edges: &[f64]) -> Vec<usize> {
        let mut counts = vec![0; edges.len() + 1];
        for &value in sorted {
            counts[edges.partition_point(|&edge| edge < value)] += 1;
        }
        counts
    }

    fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        values
    }

    #[test]
    fn distinct_values_are_divided_into_equal_cells() {
        let values = sorted((0..1600).map(f64::from));
        let edges = edges(&values, 16, true);
        let counts = counts(&values, &edges);
        assert_eq!(counts, [[0].as_slice(), &[100; 16], &[0]].concat());
        assert_eq!(edges[1..3], [99.0, 199.0]);
        assert_eq!(edges[0], f64::from(0.0_f32.next_down()));
    }

    #[test]
    fn frequent_values_have_closed_cells_of_their_own() {
        let zeros = std::iter::repeat_n(0.0, 500);
        let values = sorted(zeros.chain((0..500).map(|n| f64::from(n) / 100.0 - 2.0)));
        let edges = edges(&values, 16, false);
        let at = edges.iter().position(|&edge| edge == 0.0).unwrap();
        assert_eq!(edges[at - 1], 0.0_f64.next_down());
        let counts = counts(&values, &edges);
        assert_eq!(counts[at], 501);
        let others = counts.iter().enumerate().filter(|&(cell, &n)| cell != at && n > 0);
        assert!(others.clone().all(|(_, &n)| (40..=100).contains(&n)), "{counts:?}");
    }

    #[test]
    fn between_two_frequent_values_an_empty_cell_stays() {
        let values = sorted((0..1000).map(|n| f64::from(n % 2)));
        let edges = edges(&values, 16, true);
        let (below, above) = (0.0_f32.next_down(), 1.0_f32.next_down());
        assert_eq!(edges, [f64::from(below), 0.0, f64::from(above), 1.0]);
        assert_eq!(counts(&values, &edges), [0, 500, 0, 500, 0]);
    }

    #[test]
    fn a_constant_and_nothing_at_all_have_cells() {
        assert_eq!(edges(&[], 16, true), [0.0; 0]);
        assert_eq!(edges(&[7.0; 9], 16, false), [7.0_f64.next_down(), 7.0]);
        assert_eq!(edges(&[7.0], 16, false), [7.0_f64.next_down(), 7.0]);
    }

    proptest! {
        #[test]
        fn edges_ascend_and_hold_everything(
            values in proptest::collection::vec(
                prop_oneof![
                    3 => -100.0_f32..100.0,
                    3 => (-4_i8..4).prop_map(f32::from),
                    1 => any::<f32>().prop_filter("finite", |value| value.is_finite()),
                ],
                1..600,
            ),
            is_single: bool,
        ) {
            let values = sorted(values.into_iter().map(|value| f64::from(value) + 0.0));
            let edges = edges(&values, BINS, is_single);
            prop_assert!(edges.is_sorted_by(|a, b| a < b), "{edges:?}");
            prop_assert!(edges.len() <= 3 * BINS + 2);
            let counts = counts(&values, &edges);
            prop_assert_eq!(counts[0], 0);
            prop_assert_eq!(counts[edges.len()], 0);
            prop_assert_eq!(edges.last(), values.last());
            if is_single {
                prop_assert!(edges.iter().all(|&edge| f64::from(edge as f32) == edge || edge < -3.4e38));
            }
            // No cell has much more than its share, unless it is one value's.
            let n = values.len();
            for (cell, &count) in counts.iter().enumerate().filter(|&(_, &count)| count > 0) {
                let within = values.iter().filter(|&&v| v > edges[cell - 1] && v <= edges[cell]);
                let first = within.clone().next().unwrap();
                let is_one_value = within.clone().all(|value| value == first);
                prop_assert!(is_one_value || count <= 3 * n.div_ceil(BINS), "{counts:?}");
            }
        }
    }
}
