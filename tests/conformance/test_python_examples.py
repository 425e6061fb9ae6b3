"""The examples in Python, run as a user would, and what they print."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
from conftest import LIMIT, ROOT, Gateway

FOLDER = ROOT / "examples" / "python"
#: Run elsewhere: kserve_sdk/test_kserve_example.py, in the environment of the SDK.
ELSEWHERE = {"kserve_sdk.py"}

Addresses = Callable[[Gateway], list[str]]
EXPECTED: dict[str, tuple[Addresses, list[str]]] = {
    "triton_http.py": (
        lambda gateway: [gateway.http],
        [
            "digits: image FP32 [-1, 8, 8] -> probabilities FP32 [-1, 10], label INT64 [-1]",
            "it is a 5 (98 %), the label says 5",
            "it is a 3 (99 %), the label says 3",
            "it is a 4 (41 %), the label says 4",
            "it is a 6 (99 %), the label says 6",
            "it is a 1 (80 %), the label says 1",
        ],
    ),
    "triton_grpc.py": (
        lambda gateway: [gateway.grpc],
        [f"image {n} is a {digit}" for n, digit in enumerate([5, 3, 4, 6, 1])] + ["5 images, 5 requests"],
    ),
    "plain_requests.py": (
        lambda gateway: [gateway.url],
        [
            "repaid with 77 %, by car-loan version 1",
            "repaid with 85 %, by car-loan version 1",
            "as tensors: [1, 1]",
            "refused with 400: model 'car-loan' version 1: row 0: 'car_valu' is no input and no feature; "
            "did you mean 'car_value'?",
        ],
    ),
    "feedback.py": (
        lambda gateway: [gateway.url, f"http://{gateway.admin}"],
        [
            "400 loans asked",
            "400 labels sent: 400 joined",
            "car-loan version 1 by 400 labels: accuracy 0.92, ROC AUC 0.95",
        ],
    ),
    "pandas_arrow.py": (
        lambda gateway: [gateway.url],
        ["400 loans, 400 answers by car-loan version 1", "car_value", "0    12638.0", "1", "2", "92 % as the data say"],
    ),
}


def run_example(name: str, addresses: list[str]) -> list[str]:
    ended = subprocess.run(
        [sys.executable, FOLDER / name, *addresses],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout.splitlines()


def test_every_example_is_run() -> None:
    assert {file.name for file in FOLDER.glob("*.py")} == set(EXPECTED) | ELSEWHERE


@pytest.mark.parametrize("name", list(EXPECTED))
def test_example(fresh_gateway: Gateway, name: str) -> None:
    addresses, expected = EXPECTED[name]
    printed = run_example(name, addresses(fresh_gateway))
    for line, start in zip(printed, expected, strict=True):
        assert line.strip().startswith(start), printed
