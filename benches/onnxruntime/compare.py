"""Runs of the same models by Tidegate's engine and by ONNX Runtime, one thread each.

Rounds of both alternate, and medians over the rounds are compared. ONNX Runtime is called from
Python, whose share is measured with a model that does nothing and subtracted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from lightgbm import LGBMClassifier
from onnxmltools import convert_lightgbm, convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType as SklearnFloats
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from xgboost import XGBClassifier

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "target" / "onnxruntime"
FEATURES = 30
TREES = {1: 0.7, 128: 0.5, 1024: 0.5}
DENSE = {1: 0.7, 128: 1.2}


def data(n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = make_classification(
        20_000, FEATURES, n_informative=20, n_classes=n_classes, random_state=n_classes
    )
    return x.astype(np.float32), y


def sklearn_export(model: object, n_classes: int = 2) -> onnx.ModelProto:
    x, y = data(n_classes)
    model.fit(x, y)
    last = model[-1] if hasattr(model, "steps") else model
    return to_onnx(
        model,
        initial_types=[("X", SklearnFloats([None, FEATURES]))],
        options={id(last): {"zipmap": False}},
        target_opset={"": 17, "ai.onnx.ml": 3},
    )


def lightgbm_export() -> onnx.ModelProto:
    x, y = data(2)
    model = LGBMClassifier(n_estimators=500, num_leaves=31, verbose=-1, random_state=0).fit(x, y)
    types = [("X", FloatTensorType([None, FEATURES]))]
    return convert_lightgbm(model, initial_types=types, target_opset=15, zipmap=False)


def xgboost_export() -> onnx.ModelProto:
    x, y = data(10)
    model = XGBClassifier(n_estimators=20, max_depth=6, random_state=0).fit(x, y)
    types = [("X", FloatTensorType([None, FEATURES]))]
    return convert_xgboost(model, initial_types=types, target_opset=15)


def forest(n_trees: int, depth: int) -> RandomForestClassifier:
    return RandomForestClassifier(n_trees, max_depth=depth, random_state=0, n_jobs=2)


MODELS = {
    "forest, 100 trees of depth 8": (lambda: sklearn_export(forest(100, 8)), TREES),
    "LightGBM, 500 trees of 31 leaves": (lightgbm_export, TREES),
    "XGBoost, 200 trees of depth 6, 10 classes": (xgboost_export, TREES),
    "forest, 1000 trees of depth 12": (lambda: sklearn_export(forest(1000, 12)), TREES),
    "MLP 512-512": (
        lambda: sklearn_export(MLPClassifier((512, 512), max_iter=2, random_state=0)), DENSE),
    "MLP 64-32": (
        lambda: sklearn_export(MLPClassifier((64, 32), max_iter=2, random_state=0)), DENSE),
    "logistic regression with scaler": (
        lambda: sklearn_export(make_pipeline(StandardScaler(), LogisticRegression())), DENSE),
}


def session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options)


def null_model(n_outputs: int) -> bytes:
    """As many outputs as the model has, each of its input's first columns."""
    names = [f"y{at}" for at in range(n_outputs)]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["X"], [name]) for name in names],
        "null",
        [onnx.helper.make_tensor_value_info("X", onnx.TensorProto.FLOAT, [None, 1])],
        [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [None, 1]) for n in names],
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def cached(name: str, make) -> Path:
    path = CACHE / (name.replace(" ", "-").replace(",", "") + ".onnx")
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path.write_bytes(make().SerializeToString())
    return path


def time_onnxruntime(running: onnxruntime.InferenceSession, inputs: list, n_runs: int) -> float:
    feeds = [{"X": rows} for rows in inputs]
    start = time.perf_counter_ns()
    for at in range(n_runs):
        running.run(None, feeds[at % len(feeds)])
    return (time.perf_counter_ns() - start) / n_runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("worker", type=Path, help="the built bench `onnxruntime`")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="models whose name contains this")
    parser.add_argument("--rows", type=int, nargs="*")
    parser.add_argument("--seconds", type=float, default=0.05, help="of each side of a round")
    arguments = parser.parse_args()
    rows = data(2)[0][:8192]
    CACHE.mkdir(parents=True, exist_ok=True)
    (CACHE / "rows.bin").write_bytes(rows.tobytes())
    results = []
    print(f"{'model':42} {'rows':>5} {'Tidegate µs':>12} {'ONNX R. µs':>12} {'ratio':>6} {'target':>6}")
    for name, (make, targets) in MODELS.items():
        if arguments.only not in name:
            continue
        path = cached(name, make)
        peer = session(path.read_bytes())
        null = session(null_model(len(peer.get_outputs())))
        worker = subprocess.Popen(
            [arguments.worker, path, CACHE / "rows.bin"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

        def time_tidegate(n_rows: int, n_runs: int, worker=worker) -> float:
            worker.stdin.write(f"{n_rows} {n_runs}\n")
            worker.stdin.flush()
            return float(worker.stdout.readline())

        for n_rows in arguments.rows or targets:
            inputs = [rows[at : at + n_rows] for at in range(0, len(rows) - n_rows + 1, n_rows)]
            narrow = [np.zeros((n_rows, 1), np.float32)]
            once = time_onnxruntime(peer, inputs, 3)
            n_runs = max(3, int(arguments.seconds * 1e9 / once))
            measured = {"tidegate": [], "peer": [], "null": []}
            for _ in range(arguments.rounds):
                measured["tidegate"].append(time_tidegate(n_rows, n_runs))
                measured["peer"].append(time_onnxruntime(peer, inputs, n_runs))
                measured["null"].append(time_onnxruntime(null, narrow, n_runs))
            medians = {side: statistics.median(times) for side, times in measured.items()}
            net = medians["peer"] - medians["null"]
            ratio = medians["tidegate"] / net
            target = targets.get(n_rows)
            print(f"{name:42} {n_rows:5} {medians['tidegate'] / 1e3:12.2f} {net / 1e3:12.2f} "
                  f"{ratio:6.2f} {target if target else '':>6}", flush=True)
            results.append({"model": name, "rows": n_rows, "ratio": ratio, "target": target,
                            "medians_ns": medians})
        worker.stdin.close()
        worker.wait()
    (CACHE / "results.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    sys.exit(main())
