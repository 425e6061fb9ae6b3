"""Single nodes of `ai.onnx.ml` with attributes that no exporter here writes, against ONNX Runtime.

They go through what the specification leaves to the implementation: one column of scores for two
classes, base values, transformations, modes of tests, missing values, types of inputs and labels.
"""

from __future__ import annotations

import itertools

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .case import ROWS, Case, case

RANDOM = np.random.default_rng(11)
X = RANDOM.normal(0, 1.5, (ROWS, 6)).astype(np.float32)
GAPS = np.where(RANDOM.random(X.shape) < 0.15, np.nan, X).astype(np.float32)
# Whole numbers meet thresholds exactly.
STEPS = np.round(X)
TRANSFORMS = ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"]
ELEMENTS = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "object": TensorProto.STRING,
}


def node_case(
    operator: str, x: np.ndarray, outputs: dict[str, tuple[int, list]], opset: int = 3, **attributes
) -> Case:
    """A model of the one node."""
    graph = helper.make_graph(
        [helper.make_node(operator, ["X"], list(outputs), domain="ai.onnx.ml", **attributes)],
        operator,
        [helper.make_tensor_value_info("X", ELEMENTS[x.dtype.name], [None, *x.shape[1:]])],
        [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in outputs.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return Case(model, {"X": x}, {}, rounding=5e-6)


def register(name: str, *arguments, **attributes) -> None:
    case(f"node_{name}")(lambda: node_case(*arguments, **attributes))


def classifier_outputs(strings: bool) -> dict[str, tuple[int, list]]:
    label = TensorProto.STRING if strings else TensorProto.INT64
    return {"label": (label, [None]), "scores": (TensorProto.FLOAT, [None, None])}


SCORES = {"Y": (TensorProto.FLOAT, [None, None])}

for transform, n in itertools.product(TRANSFORMS, (1, 2, 3)):
    weights = RANDOM.normal(0, 1, (n, 6)).ravel().tolist()
    for strings in (False, True):
        labels = {"classlabels_strings": ["no", "yes", "maybe"][: max(n, 2)]}
        if not strings:
            labels = {"classlabels_ints": [5, 9, -1][: max(n, 2)]}
        register(
            f"linear_{transform.lower()}_{n}_{'strings' if strings else 'ints'}",
            "LinearClassifier", X, classifier_outputs(strings), opset=1,
            coefficients=weights, intercepts=[0.1] * n, post_transform=transform, **labels)

for kind in ("float64", "int64", "int32"):
    register(f"linear_of_{kind}", "LinearClassifier", STEPS.astype(kind), classifier_outputs(False),
             opset=1, coefficients=[0.5] * 12, intercepts=[0.0, 0.2], classlabels_ints=[0, 1])
    register(f"scaler_of_{kind}", "Scaler", STEPS.astype(kind), SCORES, opset=1,
             offset=[0.5, 1, 1.5, 2, 2.5, 3], scale=[2.0, 1, 1, 1, 1, 0.1])
    register(f"normalizer_of_{kind}", "Normalizer", STEPS.astype(kind), SCORES, opset=1, norm="L2")

for norm in ("MAX", "L1", "L2"):
    register(f"normalizer_{norm.lower()}", "Normalizer", STEPS, SCORES, opset=1, norm=norm)


def tree_attributes(
    prefix: str,
    n_trees: int,
    targets: list[int],
    *,
    modes: list[str],
    negative: bool = True,
    missing: bool = False,
) -> dict:
    """Random full trees of depth three whose leaves speak for `targets` in turn."""
    random = np.random.default_rng(n_trees * 100 + len(targets))
    nodes = {key: [] for key in (
        "treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids",
        "missing_value_tracks_true")}
    leaves = {key: [] for key in ("treeids", "nodeids", "ids", "weights")}
    for tree in range(n_trees):
        for node in range(15):
            is_leaf = node >= 7
            nodes["treeids"].append(tree)
            nodes["nodeids"].append(node)
            nodes["featureids"].append(0 if is_leaf else int(random.integers(0, 6)))
            nodes["modes"].append("LEAF" if is_leaf else modes[node % len(modes)])
            nodes["values"].append(0.0 if is_leaf else float(random.integers(-2, 3)))
            nodes["truenodeids"].append(0 if is_leaf else 2 * node + 1)
            nodes["falsenodeids"].append(0 if is_leaf else 2 * node + 2)
            nodes["missing_value_tracks_true"].append(int(missing and node % 2))
            if is_leaf:
                for target in [targets[node % len(targets)]] if len(targets) < 4 else targets:
                    weight = float(random.normal(0, 0.4))
                    leaves["treeids"].append(tree)
                    leaves["nodeids"].append(node)
                    leaves["ids"].append(target)
                    leaves["weights"].append(weight if negative else abs(weight) / n_trees)
    found = {f"nodes_{key}": values for key, values in nodes.items()}
    return found | {f"{prefix}_{key}": values for key, values in leaves.items()}


LEQ = ["BRANCH_LEQ"]
MODES = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]

# Which of two classes the leaves speak for, and how.
for transform, targets, negative, base in itertools.product(
    TRANSFORMS, ([0], [1], [0, 1]), (False, True), ([], [0.25], [0.25, -0.5])
):
    register(
        f"trees_two_{transform.lower()}_{''.join(map(str, targets))}"
        f"_{'mixed' if negative else 'positive'}_{len(base)}",
        "TreeEnsembleClassifier", STEPS, classifier_outputs(False), opset=1,
        classlabels_int64s=[0, 1] if len(targets) == 2 else [3, 8], post_transform=transform, **({"base_values": base} if base else {}),
        **tree_attributes("class", 5, targets, modes=LEQ, negative=negative))

for transform, base in itertools.product(TRANSFORMS, ([], [0.1, -0.1, 0.3])):
    register(
        f"trees_three_{transform.lower()}_{len(base)}",
        "TreeEnsembleClassifier", STEPS, classifier_outputs(True), opset=1,
        classlabels_strings=["a", "b", "c"], post_transform=transform,
        **({"base_values": base} if base else {}),
        **tree_attributes("class", 5, [0, 1, 2], modes=LEQ))

for mode in MODES:
    for missing in (False, True):
        register(
            f"trees_{mode.lower()}_{'missing' if missing else 'plain'}",
            "TreeEnsembleRegressor", np.where(np.isnan(GAPS), np.nan, STEPS).astype(np.float32),
            SCORES, opset=1, n_targets=1,
            **tree_attributes("target", 9, [0], modes=[mode], missing=missing))

for aggregate, targets, base in itertools.product(
    ("SUM", "AVERAGE", "MIN", "MAX"), ([0], [0, 1], [0, 1, 2, 3]), (False, True)
):
    register(
        f"trees_{aggregate.lower()}_{len(targets)}_{'base' if base else 'plain'}",
        "TreeEnsembleRegressor", STEPS, SCORES, opset=1, n_targets=len(targets),
        aggregate_function=aggregate, **({"base_values": [0.5] * len(targets)} if base else {}),
        **tree_attributes("target", 7, targets, modes=MODES))

register("trees_of_int64", "TreeEnsembleClassifier", STEPS.astype(np.int64), classifier_outputs(False),
         opset=1, classlabels_int64s=[0, 1, 2], **tree_attributes("class", 9, [0, 1, 2], modes=LEQ))
register("trees_of_doubles", "TreeEnsembleRegressor", X.astype(np.float64), SCORES, opset=1,
         n_targets=1, **tree_attributes("target", 9, [0], modes=MODES))

for kernel, one_class in itertools.product(("LINEAR", "POLY", "RBF", "SIGMOID"), (0, 1)):
    register(
        f"svm_regressor_{kernel.lower()}_{one_class}", "SVMRegressor", X, SCORES, opset=1,
        kernel_type=kernel, kernel_params=[0.2, 0.5, 2.0], n_supports=5, rho=[0.3],
        coefficients=[0.5, -0.4, 0.3, 0.2, -0.1], one_class=one_class,
        support_vectors=RANDOM.normal(0, 1, 30).tolist())


@case("node_tree_ensemble_5")
def tree_ensemble_5() -> Case:
    """Tests of each mode and of membership, a leaf for each end."""
    modes = np.array([0, 1, 2, 3, 4, 5, 6], np.uint8)
    splits = np.array([0.5, 1, -1, 0, 1, -2, 0], np.float32)
    members = np.array([-1, 2, 3, np.nan], np.float32)
    return node_case(
        "TreeEnsemble", STEPS, SCORES, opset=5, n_targets=2, aggregate_function=1, post_transform=0,
        tree_roots=[0], nodes_modes=numpy_helper.from_array(modes),
        nodes_splits=numpy_helper.from_array(splits),
        membership_values=numpy_helper.from_array(members),
        nodes_featureids=[0, 1, 2, 3, 4, 5, 0],
        nodes_truenodeids=[1, 3, 5, 0, 1, 2, 3], nodes_trueleafs=[0, 0, 0, 1, 1, 1, 1],
        nodes_falsenodeids=[2, 4, 6, 4, 5, 6, 7], nodes_falseleafs=[0, 0, 0, 1, 1, 1, 1],
        leaf_targetids=[0, 1, 0, 1, 0, 1, 0, 1],
        leaf_weights=numpy_helper.from_array(np.arange(1, 9, dtype=np.float32)))


WORDS = np.array(["a", "b", "c", ""], dtype=object)[RANDOM.integers(0, 4, (ROWS, 2))]
NUMBERS = RANDOM.integers(0, 4, (ROWS, 2)).astype(np.int64)
KEYS = {
    "strings": (WORDS, ["a", "b", "c"]),
    "int64s": (NUMBERS, [1, 2, 3]),
    "floats": (NUMBERS.astype(np.float32), [1.0, 2.0, 3.0]),
}
VALUES = {
    "strings": (TensorProto.STRING, ["x", "y", "z"]),
    "int64s": (TensorProto.INT64, [10, 20, 30]),
    "floats": (TensorProto.FLOAT, [0.1, 0.2, 0.3]),
}
for (key, (x, keys)), (value, (element, values)) in itertools.product(KEYS.items(), VALUES.items()):
    register(
        f"label_encoder_{key}_{value}", "LabelEncoder", x, {"Y": (element, [None, 2])}, opset=2,
        **{f"keys_{key}": keys, f"values_{value}": values})

register("category_mapper_strings", "CategoryMapper", WORDS, {"Y": (TensorProto.INT64, [None, 2])},
         opset=1, cats_strings=["a", "b"], cats_int64s=[4, 5])
register("category_mapper_numbers", "CategoryMapper", NUMBERS, {"Y": (TensorProto.STRING, [None, 2])},
         opset=1, cats_strings=["one", "two"], cats_int64s=[1, 2])
register("binarizer_threshold", "Binarizer", X, {"Y": (TensorProto.FLOAT, [None, 6])}, opset=1,
         threshold=0.3)
register("imputer_value", "Imputer", STEPS, {"Y": (TensorProto.FLOAT, [None, 6])}, opset=1,
         imputed_value_floats=[1.0, 2, 3, 4, 5, 6], replaced_value_float=-1.0)
register("imputer_integers", "Imputer", NUMBERS, {"Y": (TensorProto.INT64, [None, 2])}, opset=1,
         imputed_value_int64s=[7], replaced_value_int64=2)
register("one_hot_floats", "OneHotEncoder", NUMBERS.astype(np.float32),
         {"Y": (TensorProto.FLOAT, [None, 2, 3])}, opset=1, cats_int64s=[0, 1, 2], zeros=1)
