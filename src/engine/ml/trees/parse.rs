//! The attributes of the three tree operators, as a [`Forest`].

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::{NodeProto, TensorProto};
use tract_onnx::tract_core::internal::{DatumType, TractResult, anyhow, bail, ensure};

use super::super::rows::values;
use super::forest::{Forest, Mode, Split, To, positions};

/// The nodes of `TreeEnsembleClassifier` and `TreeEnsembleRegressor` (1, 3, 5). `leaf` is what
/// their attributes of leaves begin with: `class` or `target`.
pub(super) fn by_node(
    context: &ParsingContext<'_>,
    node: &NodeProto,
    leaf: &str,
    n_targets: usize,
) -> TractResult<Forest<f64>> {
    let tree_ids: &[i64] = node.get_attr_slice("nodes_treeids")?;
    let n = tree_ids.len();
    let ints = |name: &str| -> TractResult<&[i64]> {
        let list: &[i64] = node.get_attr_slice(name)?;
        ensure!(list.len() == n, "{name} has {} entries, where there are {n} nodes", list.len());
        Ok(list)
    };
    let node_ids = ints("nodes_nodeids")?;
    let (true_ids, false_ids) = (ints("nodes_truenodeids")?, ints("nodes_falsenodeids")?);
    let features = ints("nodes_featureids")?;
    let modes: Vec<&str> = node.get_attr_vec("nodes_modes")?;
    let thresholds = numbers(context, node, "nodes_values")?;
    ensure!(modes.len() == n && thresholds.len() == n, "nodes_modes or nodes_values are not {n}");
    let missing: &[i64] =
        node.get_attr_opt_slice("nodes_missing_value_tracks_true")?.unwrap_or_default();

    // Each node becomes a split or a leaf, numbered among its kind.
    let mut ends = Vec::with_capacity(n);
    let (mut n_splits, mut n_leaves) = (0_u32, 0_u32);
    for mode in &modes {
        let counter = if *mode == "LEAF" { &mut n_leaves } else { &mut n_splits };
        ends.push(if *mode == "LEAF" { To::Leaf(*counter) } else { To::Split(*counter) });
        *counter += 1;
    }
    let positions = positions(tree_ids, node_ids)?;
    let end = |tree: i64, id: i64| {
        let at = positions.get(&(tree, id)).map(|&at| ends[at]);
        at.ok_or_else(|| anyhow!("tree {tree} has no node {id}"))
    };
    let mut splits = Vec::with_capacity(n_splits as usize);
    for at in (0..n).filter(|&at| modes[at] != "LEAF") {
        let feature = u32::try_from(features[at])?;
        let branches = (end(tree_ids[at], true_ids[at])?, end(tree_ids[at], false_ids[at])?);
        let is_missing_true = missing.get(at) == Some(&1);
        splits.push(Split::new(
            feature,
            (mode(modes[at])?, thresholds[at]),
            is_missing_true,
            branches,
        ));
    }
    // A tree's root is its first node.
    let mut roots = Vec::new();
    for at in 0..n {
        if at == 0 || tree_ids[at] != tree_ids[at - 1] {
            roots.push(ends[at]);
        }
    }

    let leaf_trees: &[i64] = node.get_attr_slice(&format!("{leaf}_treeids"))?;
    let leaf_nodes: &[i64] = node.get_attr_slice(&format!("{leaf}_nodeids"))?;
    let targets = unsigned(node, &format!("{leaf}_ids"))?;
    let weights = numbers(context, node, &format!("{leaf}_weights"))?;
    let n_weights = weights.len();
    let lengths = [leaf_trees.len(), leaf_nodes.len(), targets.len()];
    ensure!(lengths == [n_weights; 3], "the attributes {leaf}_* differ in length");
    let mut leaves = vec![Vec::new(); n_leaves as usize];
    for at in 0..n_weights {
        // Weights of inner nodes are never reached.
        if let To::Leaf(leaf) = end(leaf_trees[at], leaf_nodes[at])? {
            leaves[leaf as usize].push((targets[at], weights[at]));
        }
    }
    Forest::new(splits, leaves, roots, n_targets)
}

fn mode(name: &str) -> TractResult<Mode> {
    Ok(match name {
        "BRANCH_LEQ" => Mode::LessOrEqual,
        "BRANCH_LT" => Mode::Less,
        "BRANCH_GTE" => Mode::GreaterOrEqual,
        "BRANCH_GT" => Mode::Greater,
        "BRANCH_EQ" => Mode::Equal,
        "BRANCH_NEQ" => Mode::NotEqual,
        other => bail!("node mode '{other}' is unknown"),
    })
}

/// `TreeEnsemble` (5): splits and leaves are apart, and a test may be for membership in a set.
pub(super) fn by_split(context: &ParsingContext<'_>, node: &NodeProto) -> TractResult<Forest<f64>> {
    let features = unsigned(node, "nodes_featureids")?;
    let n = features.len();
    let ints = |name: &str| -> TractResult<&[i64]> {
        let list: &[i64] = node.get_attr_slice(name)?;
        ensure!(list.len() == n, "{name} has {} entries, where there are {n} nodes", list.len());
        Ok(list)
    };
    let (true_ids, true_leaves) = (ints("nodes_truenodeids")?, ints("nodes_trueleafs")?);
    let (false_ids, false_leaves) = (ints("nodes_falsenodeids")?, ints("nodes_falseleafs")?);
    let missing: &[i64] =
        node.get_attr_opt_slice("nodes_missing_value_tracks_true")?.unwrap_or_default();
    let thresholds = tensor_numbers(context, node, "nodes_splits")?;
    let modes = context.load_tensor(node.get_attr::<&TensorProto>("nodes_modes")?)?;
    let modes = modes.cast_to::<i64>()?;
    let modes = values::<i64>(&modes)?;
    ensure!(modes.len() == n && thresholds.len() == n, "nodes_modes or nodes_splits are not {n}");
    let members = match node.get_attr_opt::<&TensorProto>("membership_values")? {
        Some(_) => tensor_numbers(context, node, "membership_values")?,
        None => Vec::new(),
    };
    // One set for each test of membership, in their order, ended by NaN.
    let mut sets = members.split(|value| value.is_nan());

    let end = |id: i64, is_leaf: i64| -> TractResult<To> {
        let at = u32::try_from(id)?;
        Ok(if is_leaf == 0 { To::Split(at) } else { To::Leaf(at) })
    };
    let mut splits = Vec::with_capacity(n);
    // Tests of membership after the first value of their set come after all nodes.
    let mut chained = Vec::new();
    for at in 0..n {
        let branches = (end(true_ids[at], true_leaves[at])?, end(false_ids[at], false_leaves[at])?);
        let is_missing_true = missing.get(at) == Some(&1);
        let compare =
            |mode| Split::new(features[at], (mode, thresholds[at]), is_missing_true, branches);
        splits.push(match modes[at] {
            0 => compare(Mode::LessOrEqual),
            1 => compare(Mode::Less),
            2 => compare(Mode::GreaterOrEqual),
            3 => compare(Mode::Greater),
            4 => compare(Mode::Equal),
            5 => compare(Mode::NotEqual),
            6 => {
                let set = sets.next().unwrap_or_default();
                let equals = |value: f64, on_false: To| {
                    let branches = (branches.0, on_false);
                    Split::new(features[at], (Mode::Equal, value), is_missing_true, branches)
                };
                let (&first, rest) = set.split_first().unwrap_or((&f64::NAN, &[]));
                let mut on_false = branches.1;
                for &value in rest {
                    chained.push(equals(value, on_false));
                    on_false = To::Split(u32::try_from(n + chained.len() - 1)?);
                }
                equals(first, on_false)
            }
            other => bail!("node mode {other} is unknown"),
        });
    }
    splits.extend(chained);

    let n_targets: usize = node.get_attr_opt("n_targets")?.unwrap_or(1);
    let targets = unsigned(node, "leaf_targetids")?;
    let weights = tensor_numbers(context, node, "leaf_weights")?;
    ensure!(targets.len() == weights.len(), "leaf_targetids and leaf_weights differ in length");
    let leaves = targets.into_iter().zip(weights).map(|leaf| vec![leaf]).collect();
    let roots: &[i64] = node.get_attr_slice("tree_roots")?;
    // A tree that is one leaf is a test whose branches both are that leaf.
    let roots = roots.iter().map(|&root| end(root, 0)).collect::<TractResult<Vec<_>>>()?;
    Forest::new(splits, leaves, roots, n_targets)
}

/// The list of positions `name`.
fn unsigned(node: &NodeProto, name: &str) -> TractResult<Vec<u32>> {
    let list = node.get_attr_slice::<i64>(name)?;
    let position = |&value: &i64| u32::try_from(value);
    let positions = list.iter().map(position).collect::<Result<_, _>>();
    positions.map_err(|_| anyhow!("{name} holds a number that is no position"))
}

/// The attribute `name`, or `{name}_as_tensor`.
pub(super) fn numbers(
    context: &ParsingContext<'_>,
    node: &NodeProto,
    name: &str,
) -> TractResult<Vec<f64>> {
    let as_tensor = format!("{name}_as_tensor");
    if node.get_attr_opt::<&TensorProto>(&as_tensor)?.is_some() {
        return tensor_numbers(context, node, &as_tensor);
    }
    let list: &[f32] = node.get_attr_opt_slice(name)?.unwrap_or_default();
    Ok(list.iter().map(|&value| f64::from(value)).collect())
}

fn tensor_numbers(
    context: &ParsingContext<'_>,
    node: &NodeProto,
    name: &str,
) -> TractResult<Vec<f64>> {
    let tensor = context.load_tensor(node.get_attr::<&TensorProto>(name)?)?;
    let is_float = matches!(tensor.datum_type(), DatumType::F16 | DatumType::F32 | DatumType::F64);
    ensure!(is_float, "{name} is {:?}, not floating point", tensor.datum_type());
    let tensor = tensor.cast_to::<f64>()?;
    Ok(values::<f64>(&tensor)?.to_vec())
}
