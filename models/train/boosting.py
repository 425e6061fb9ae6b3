"""Gradient boosting on the car-loan columns: categories as text, one-hot in the graph."""

from __future__ import annotations

from pathlib import Path

import loan
import numpy as np
from artifacts import Feeds, constant, rounded
from loan import CATEGORICAL, NUMERIC
from onnx import helper
from sklearn.ensemble import GradientBoostingClassifier

SEED = 13


def train(path: Path, columns: Feeds, repaid: np.ndarray) -> None:
    """Trains 150 trees of depth 4 and writes them as a graph."""
    known = {name: sorted(set(columns[name][:, 0])) for name in CATEGORICAL}
    features = [columns[name] for name in NUMERIC]
    for name in CATEGORICAL:
        features.append((columns[name] == np.array(known[name], dtype=object)).astype(np.float32))
    model = GradientBoostingClassifier(
        n_estimators=150, max_depth=4, learning_rate=0.1, subsample=0.5, random_state=SEED
    )
    model.fit(np.hstack(features), repaid)
    save(path, model, known)


def save(path: Path, model: GradientBoostingClassifier, known: dict[str, list[str]]) -> None:
    nodes = []
    for name in CATEGORICAL:
        nodes += [
            helper.make_node(
                "OneHotEncoder", [name], [f"{name}_deep"], f"{name}_one_hot",
                domain="ai.onnx.ml", cats_strings=known[name], zeros=1),
            helper.make_node("Squeeze", [f"{name}_deep", "axes"], [f"{name}_part"], f"{name}_flat"),
        ]
    parts = [*NUMERIC, *(f"{name}_part" for name in CATEGORICAL)]
    nodes += [
        helper.make_node("Concat", parts, ["features"], "features", axis=1),
        helper.make_node(
            "TreeEnsembleRegressor", ["features"], ["score"], "trees",
            domain="ai.onnx.ml", n_targets=1, **trees(model)),
    ]
    description = "Whether a car loan is repaid: gradient boosting over numbers and categories."
    constants = [constant("axes", np.array([1], np.int64))]
    loan.save(path, nodes, constants, description, {"": 17, "ai.onnx.ml": 3})


def trees(model: GradientBoostingClassifier) -> dict[str, list]:
    """The attributes of TreeEnsembleRegressor; leaves are scaled and rounded."""
    nodes: dict[str, list] = {
        key: [] for key in (
            "nodes_treeids", "nodes_nodeids", "nodes_featureids", "nodes_modes", "nodes_values",
            "nodes_truenodeids", "nodes_falsenodeids",
            "target_treeids", "target_nodeids", "target_ids", "target_weights")
    }
    for index, estimator in enumerate(model.estimators_[:, 0]):
        tree = estimator.tree_
        leaves = rounded(tree.value[:, 0, 0] * model.learning_rate)
        for node in range(tree.node_count):
            is_leaf = tree.children_left[node] < 0
            nodes["nodes_treeids"].append(index)
            nodes["nodes_nodeids"].append(node)
            nodes["nodes_featureids"].append(0 if is_leaf else int(tree.feature[node]))
            nodes["nodes_modes"].append("LEAF" if is_leaf else "BRANCH_LEQ")
            threshold = rounded(np.array([tree.threshold[node]]), 6)[0]
            nodes["nodes_values"].append(0.0 if is_leaf else float(threshold))
            nodes["nodes_truenodeids"].append(0 if is_leaf else int(tree.children_left[node]))
            nodes["nodes_falsenodeids"].append(0 if is_leaf else int(tree.children_right[node]))
            if is_leaf:
                nodes["target_treeids"].append(index)
                nodes["target_nodeids"].append(node)
                nodes["target_ids"].append(0)
                nodes["target_weights"].append(float(leaves[node]))
    share = model.init_.class_prior_[1]
    nodes["base_values"] = [float(rounded(np.array([np.log(share / (1 - share))]))[0])]
    return nodes
