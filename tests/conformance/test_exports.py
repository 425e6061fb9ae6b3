"""Every export answers as ONNX Runtime does, and as the library that trained it.

Each model is made by its library, exported, served by the gateway and asked 1, 7 and 300 rows.
`target/conformance/exports.md` lists what was compared.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from exports import boosting, classifiers, nodes, pipelines, regressors  # noqa: F401
from exports.case import CASES, Case
from served import Served, run_onnxruntime

#: Cases that are refused, with the words of the refusal. One that works is a failure too.
REFUSED: dict[str, str] = {}

REPORT = ROOT / "target" / "conformance" / "exports.md"


class Exports:
    """All cases, served, and what became of them."""

    def __init__(self, folder: Path) -> None:
        self.report: dict[str, str] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.cases: dict[str, Case] = {name: build() for name, build in CASES.items()}
        self.models = {name: case.model.SerializeToString() for name, case in self.cases.items()}
        self.served = Served(folder, self.models)

    def write_report(self) -> None:
        REPORT.parent.mkdir(parents=True, exist_ok=True)
        lines = ["| case | operators | result |", "|---|---|---|"]
        for name, result in self.report.items():
            nodes = self.cases[name].model.graph.node
            operators = " ".join(sorted({node.op_type for node in nodes}))
            lines.append(f"| {name} | {operators} | {result} |")
        n_refused = sum(name in REFUSED for name in self.report)
        equal = sum(result == "equal" for result in self.report.values())
        lines.append(f"\n{len(self.report)} cases, {equal} equal, {n_refused} refused")
        REPORT.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exports]:
    running = Exports(tmp_path_factory.mktemp("exports"))
    yield running
    running.served.stop()
    running.write_report()


def flatten(output: object) -> np.ndarray:
    """A ZipMap's maps as the matrix under them."""
    if isinstance(output, list):
        return np.array([list(row.values()) for row in output], dtype=np.float32)
    return np.asarray(output)


def texts(array: np.ndarray) -> np.ndarray:
    """Strings of whatever kind as `str`."""
    if array.dtype.kind in "OSU":
        decode = np.vectorize(lambda x: x.decode() if isinstance(x, bytes) else str(x), otypes=[str])
        return decode(array) if array.size else array.astype(str)
    return array


def assert_equal(got: np.ndarray, expected: np.ndarray, rounding: float, what: str) -> None:
    got, expected = texts(got), texts(expected)
    assert got.shape == expected.shape, what
    assert got.dtype.kind == expected.dtype.kind, what
    if expected.dtype.kind == "f":
        assert got.dtype == expected.dtype, what
        # Sums round by their terms, which are larger than what is left where they cancel out.
        size = np.nanmax(np.abs(expected[np.isfinite(expected)]), initial=0.0)
        atol = rounding * max(1.0, float(size))
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=atol, err_msg=what)
    else:
        np.testing.assert_array_equal(got, expected, err_msg=what)


def assert_as_library(got: np.ndarray, expected: np.ndarray, case: Case, what: str) -> None:
    got, expected = texts(got), texts(np.asarray(expected))
    assert got.size == expected.size, what
    got = got.reshape(expected.shape)
    if expected.dtype.kind in "fc":
        tolerance = case.tolerance
        np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance, err_msg=what)
    else:
        assert np.mean(got != expected) <= case.labels_may_differ, what


@pytest.mark.parametrize("name", CASES)
def test_export(exports: Exports, name: str) -> None:
    refusals = exports.served.refusals
    if name in REFUSED:
        assert REFUSED[name] in refusals.get(name, "is served")
        exports.report[name] = f"refused: {refusals[name]}"
        return
    exports.report[name] = "differs"
    assert name not in refusals, refusals[name]
    case = exports.cases[name]
    for n_rows in (1, 7, 300):
        inputs = {key: array[:n_rows] for key, array in case.inputs.items()}
        expected_outputs = run_onnxruntime(exports.models[name], inputs)
        got = exports.served.ask(name, inputs, expected_outputs)
        for output, expected in expected_outputs.items():
            what = f"{output} of {n_rows} rows, ONNX Runtime's"
            assert_equal(got[output], flatten(expected), case.rounding, what)
    for output, expected in case.expected.items():
        assert_as_library(got[output], expected, case, f"{output}, the library's")
    exports.report[name] = "equal"


def test_there_are_enough() -> None:
    assert len(CASES) >= 70


def test_maps_name_their_classes(exports: Exports) -> None:
    """The columns of what was a ZipMap are named in the model's metadata."""
    outputs = exports.served.client.get_model_metadata("logistic_zipmap_strings")["outputs"]
    assert outputs[1]["shape"] == [-1, 3]
    assert outputs[1]["parameters"] == {"labels": ["setosa", "versicolor", "virginica"]}
