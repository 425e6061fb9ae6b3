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
            // A quantile just before moves up: there is nothing between. Between two frequent
            // values an empty cell stays, for what should not be there.
            if pending == 0 && is_after_quantile {
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
    // What is left at the upper end joins the cell before it, unless that is an atom's or it is
    // large enough to stand alone.
    let largest = sorted[n - 1];
    if pending > 0 {
        let [.., before, last] = edges.as_slice() else { return [edges, vec![largest]].concat() };
        let is_closed = below(*last) <= *before;
        if 2 * pending < target && !is_closed && edges.len() > 2 {
            edges.pop();
        }
        push(&mut edges, largest);
    }
    edges
}

/// The largest binary32 number that is not above `value`.
pub(crate) fn floor_single(value: f64) -> f32 {
    let single = value as f32;
    if f64::from(single) > value { single.next_down() } else { single }
}
