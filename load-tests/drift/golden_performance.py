"""Values of other libraries that src/stats and src/monitor/performance are tested against.

    python3 -m venv /tmp/golden && . /tmp/golden/bin/activate
    pip install nannyml==0.13.1 statsmodels river==0.26.1 scikit-learn==1.9.1
    python load-tests/drift/golden_performance.py                # the values in the unit tests
    python load-tests/drift/golden_performance.py --data FOLDER  # NannyML's data and estimates

The first prints what stands in the tests, of streams that are computed without a random number
generator, so that Rust makes the same ones. The second writes, for each of NannyML's data sets,
reference and analysis rows and NannyML's estimates by chunks of 5,000 rows; then

    TIDEGATE_NANNYML=FOLDER cargo test --lib nannyml_on_its_data -- --ignored --nocapture

compares this crate's estimates with them.
"""

import argparse
import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

warnings.filterwarnings("ignore")
os.environ.setdefault("NML_DISABLE_USAGE_LOGGING", "1")

METRICS = ["accuracy", "precision", "recall", "f1", "roc_auc"]


def uniform(n, factor, modulus):
    return (np.arange(n, dtype=np.int64) * factor % modulus) / modulus


def binary(n, shift):
    """Scores that are too sure of themselves, and labels; `shift` moves the scores."""
    u, v = uniform(n, 7919, 100_003), uniform(n, 104_729, 99_991)
    score = np.clip(u + shift * u * (1 - u), 0, 1).astype(np.float32)
    s = score.astype(np.float64)
    truth = 0.15 + 0.7 * s * s * (3 - 2 * s)
    return pd.DataFrame({"score": s, "label": (v < truth).astype(int), "pred": (s >= 0.5).astype(int)})


def multiclass(n, shift):
    """Three scores that sum to 1, and labels that are less sure."""
    a, b = uniform(n, 7919, 100_003), uniform(n, 15_485_863, 99_989)
    v = uniform(n, 104_729, 99_991)
    x = np.stack([a + shift * a * (1 - a), b, np.full(n, 0.5)], axis=1) ** 2 + 0.01
    s = (x / x.sum(axis=1, keepdims=True)).astype(np.float32).astype(np.float64)
    softer = np.sqrt(s)
    softer /= softer.sum(axis=1, keepdims=True)
    label = (v > softer[:, 0]).astype(int) + (v > softer[:, 0] + softer[:, 1])
    frame = pd.DataFrame(s, columns=["s0", "s1", "s2"])
    return frame.assign(label=label, pred=s.argmax(axis=1))


def estimates(problem, proba, reference, analysis, chunk, label="label", pred="pred"):
    import nannyml as nml

    estimator = nml.CBPE(
        y_pred_proba=proba, y_pred=pred, y_true=label, metrics=METRICS, chunk_size=chunk,
        problem_type=problem,
    )
    estimator.fit(reference)
    frame = estimator.estimate(analysis).filter(period="analysis").to_df()
    return {m: (frame[(m, "value")].to_numpy(), frame[(m, "sampling_error")].to_numpy()) for m in METRICS}


def show(name, found):
    print(f"// {name}: estimate, sampling error")
    for metric, (values, errors) in found.items():
        print(f"//   {metric}: {float(values[0])!r}, {float(errors[0])!r}")


def golden_cbpe():
    show("binary", estimates("classification_binary", "score", binary(20_000, 0.0), binary(4_000, -0.6), 4_000))
    proba = {0: "s0", 1: "s1", 2: "s2"}
    show("multiclass", estimates("classification_multiclass", proba, multiclass(20_000, 0.0), multiclass(4_000, -0.6), 4_000))


def golden_measures():
    from sklearn import metrics

    frame = binary(2_000, 0.0)
    y, s, p = frame.label, frame.score, frame.pred
    print("// scikit-learn, binary(2000, 0)")
    print("//   accuracy", repr(metrics.accuracy_score(y, p)), "precision", repr(metrics.precision_score(y, p)),
          "recall", repr(metrics.recall_score(y, p)), "f1", repr(metrics.f1_score(y, p)))
    print("//   log_loss", repr(metrics.log_loss(y, np.clip(s, 1e-7, 1 - 1e-7))), "roc_auc", repr(metrics.roc_auc_score(y, s)))
    tied = np.round(s * 20)
    print("//   roc_auc of round(20 s)", repr(metrics.roc_auc_score(y, tied)))
    frame = multiclass(2_000, 0.0)
    scores = frame[["s0", "s1", "s2"]].to_numpy()
    print("// scikit-learn, multiclass(2000, 0)")
    print("//   accuracy", repr(metrics.accuracy_score(frame.label, frame.pred)),
          "macro", [repr(float(f(frame.label, frame.pred, average="macro"))) for f in
                    (metrics.precision_score, metrics.recall_score, metrics.f1_score)],
          "log_loss", repr(float(metrics.log_loss(frame.label, scores / scores.sum(axis=1, keepdims=True)))))
    u, v = uniform(2_000, 7919, 100_003), uniform(2_000, 104_729, 99_991)
    y, p = 10 * u + np.sin(37 * u), 10.2 * u + np.sin(37 * v) / 3
    print("// scikit-learn, regression: mae", repr(metrics.mean_absolute_error(y, p)),
          "rmse", repr(metrics.root_mean_squared_error(y, p)), "bias", repr(float(np.mean(p - y))))


def golden_calibration():
    from sklearn.isotonic import IsotonicRegression

    frame = binary(2_000, 0.0)
    x = np.round(frame.score * 500) / 500
    model = IsotonicRegression(out_of_bounds="clip").fit(x, frame.label)
    at = [-0.1, 0.0, 0.05, 0.1234, 0.333, 0.5, 0.7501, 0.9, 1.0, 1.2]
    print("// isotonic of round(500 s)/500 at", at)
    print("//  ", [float(y) for y in model.predict(at)], "sum at x:", repr(float(model.predict(x).sum())))
    from nannyml.calibration import _calculate_expected_calibration_error, _get_bin_index_edges

    edges = _get_bin_index_edges(len(frame), 10)
    print("// ece", repr(float(_calculate_expected_calibration_error(frame.label, frame.score, edges))))


def golden_river():
    from river import drift

    def alarms(detector, stream):
        found = []
        for index, x in enumerate(stream):
            detector.update(float(x))
            if detector.drift_detected:
                found.append(index)
        return found

    n = 20_000
    u = uniform(n, 7919, 100_003)
    steps = np.select([np.arange(n) < 5_000, np.arange(n) < 9_000, np.arange(n) < 14_000], [0.1, 0.3, 0.15], 0.5)
    bits = (u < steps).astype(float)
    waves = np.sin(np.arange(n) / 900.0) * 3 + 4 * u + np.floor(np.arange(n) / 6_000) * 2
    for name, stream in [("bits", bits), ("waves", waves)]:
        print(f"// adwin on {name}:", alarms(drift.ADWIN(), stream))
        print(f"// page-hinkley on {name}:", alarms(drift.PageHinkley(), stream))


def write_data(folder):
    import nannyml as nml

    folder.mkdir(parents=True, exist_ok=True)

    def write(name, problem, proba, label, pred, reference, analysis):
        columns = list(proba.values()) if isinstance(proba, dict) else [proba]
        for part, frame in [("reference", reference), ("analysis", analysis)]:
            wanted = columns + [pred] + ([label] if label in frame else [])
            frame[wanted].rename(columns={pred: "pred", label: "label"}).to_csv(folder / f"{name}_{part}.csv", index=False)
        found = estimates(problem, proba, reference, analysis, 5_000, label, pred)
        table = {}
        for metric, (values, errors) in found.items():
            table[metric], table[f"{metric}_error"] = values, errors
        pd.DataFrame(table).to_csv(folder / f"{name}_estimates.csv", index=False)
        print(name, "written")

    reference, analysis, labels = nml.load_synthetic_car_loan_dataset()
    write("car_loan", "classification_binary", "y_pred_proba", "repaid", "y_pred", reference,
          analysis.merge(labels, on="id"))
    reference, analysis, labels = nml.load_synthetic_binary_classification_dataset()
    write("work_home", "classification_binary", "y_pred_proba", "work_home_actual", "y_pred", reference,
          analysis.merge(labels, on="id"))
    reference, analysis, labels = nml.load_synthetic_multiclass_classification_dataset()
    proba = {c: f"y_pred_proba_{c}" for c in ("highstreet_card", "prepaid_card", "upmarket_card")}
    write("credit", "classification_multiclass", proba, "y_true", "y_pred", reference,
          analysis.merge(labels, on="id"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    if options.data:
        write_data(options.data)
    else:
        golden_cbpe()
        golden_measures()
        golden_calibration()
        golden_river()
