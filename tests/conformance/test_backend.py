"""The node tests of the `onnx` package, served and asked like any other model.

All of `ai.onnx.ml` must pass. Of the default domain, what is not there is refused, and what is
served with another answer than the expected one is listed here, or fails.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
import requests
from conftest import LIMIT
from tritonclient.utils import InferenceServerException

from backend import FOUND, ML, NodeTest, node_tests
from served import Served, datatype

TESTS = node_tests()

#: Answers of the default domain that differ from the expected ones, and why.
WRONG: dict[str, str] = {
    name: "dropout while training is random, and fails here with that reason"
    for name in (
        "test_training_dropout_default",
        "test_training_dropout_default_mask",
        "test_training_dropout",
        "test_training_dropout_mask",
    )
}

#: What the order of a sum may change, by datatype, relative to the largest value.
ROUNDING = {"FP32": 2e-6, "FP16": 2e-3, "BF16": 1e-2}


def judge(served: Served, test: NodeTest) -> tuple[str, str]:
    """`passed`, `refused` or `wrong`, and why."""
    if test.name in served.refusals:
        return "refused", served.refusals[test.name]
    try:
        answers = served.ask(test.name, test.inputs, test.outputs)
    except InferenceServerException as error:
        return "wrong", f"{error.status()}: {error.message()}"
    for name, expected in test.outputs.items():
        difference = compare(answers[name], expected, test)
        if difference:
            return "wrong", f"{name}: {difference}"
    return "passed", ""


def compare(got: np.ndarray, expected: np.ndarray, test: NodeTest) -> str:
    """What differs; nothing where nothing does."""
    if datatype(got) != datatype(expected):
        return f"datatype {datatype(got)}, expected {datatype(expected)}"
    if got.shape != expected.shape:
        return f"shape {got.shape}, expected {expected.shape}"
    if datatype(got) == "BYTES":
        text = np.vectorize(lambda x: x if isinstance(x, bytes) else str(x).encode(), otypes=["O"])
        equal = not got.size or np.array_equal(text(got), text(expected))
        return "" if equal else f"{got.ravel()[:4]}, expected {expected.ravel()[:4]}"
    if expected.dtype.kind in "biu":
        return "" if np.array_equal(got, expected) else "values"
    wide, wide_expected = got.astype(np.float64), expected.astype(np.float64)
    # Some tests allow less than another order of the same sum in the same type gives.
    size = np.max(np.abs(wide_expected[np.isfinite(wide_expected)]), initial=1.0)
    atol = max(test.atol, ROUNDING.get(datatype(expected), 0.0) * float(size))
    near = np.isclose(wide, wide_expected, test.rtol, atol, equal_nan=True)
    if near.all():
        return ""
    return f"{np.mean(~near):.0%} of values, by at most {np.nanmax(np.abs(wide - wide_expected)):.3g}"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    models = {test.name: test.model.SerializeToString() for test in TESTS}
    running = Served(tmp_path_factory.mktemp("backend"), models)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def results(served: Served) -> dict[str, tuple[str, str]]:
    results = {test.name: judge(served, test) for test in TESTS}
    found = {
        test.name: {
            "operator": test.operator,
            "domain": test.domain,
            "result": results[test.name][0],
            "reason": results[test.name][1],
        }
        for test in TESTS
    }
    FOUND.parent.mkdir(parents=True, exist_ok=True)
    FOUND.write_text(json.dumps(found, indent=1))
    return results


@pytest.mark.parametrize("name", [test.name for test in TESTS if test.domain == ML])
def test_ml(results: dict[str, tuple[str, str]], name: str) -> None:
    assert results[name][0] == "passed", results[name][1]


def test_default_domain_is_right_or_refused(results: dict[str, tuple[str, str]]) -> None:
    wrong = {
        test.name: results[test.name][1]
        for test in TESTS
        if test.domain != ML and results[test.name][0] == "wrong"
    }
    assert {n: r for n, r in wrong.items() if n not in WRONG} == {}
    assert [name for name in WRONG if name not in wrong] == [], "listed, but right or refused"


def test_gateway_is_well(results: dict[str, tuple[str, str]], served: Served) -> None:
    assert not any("panicked" in reason for _, reason in results.values())
    assert requests.get(f"{served.gateway.url}/v2/health/live", timeout=LIMIT).status_code == 200
