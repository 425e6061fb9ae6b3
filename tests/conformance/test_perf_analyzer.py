"""perf_analyzer, Triton's load generator in C++: whole runs over HTTP and gRPC."""

from __future__ import annotations

import csv
import os
import re
import subprocess
from pathlib import Path

import pytest
import requests
from conftest import LIMIT, ROOT, Gateway

HOME = ROOT / ".venv" / "perf-analyzer"
REQUESTS = 300
pytestmark = pytest.mark.skipif(
    not (HOME / "perf_analyzer").exists(),
    reason="perf_analyzer is not installed: tests/conformance/run says why",
)


def perf_analyzer(gateway: Gateway, protocol: str, model: str, *options: str) -> str:
    """A run of so many requests; what it prints.

    It was seen once to go on for ever. Where that happens though the gateway has nothing of it under
    way, it is the client that waits for nothing: then it is run once more.
    """
    address = gateway.grpc if protocol == "grpc" else gateway.http
    command = [HOME / "perf_analyzer", "-m", model, "-i", protocol, "-u", address, "-v", *options]
    for _ in range(2):
        client = subprocess.Popen(
            command,
            env=os.environ | {"LD_LIBRARY_PATH": str(HOME)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            printed, _ = client.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            # Before it is ended, and what it waits for is withdrawn.
            owed = under_way(gateway)
            client.kill()
            printed, _ = client.communicate()
            assert owed == 0, f"the gateway owes {owed} answers: {printed}"
            continue
        assert client.returncode == 0, printed
        return printed
    raise AssertionError(f"it went on for ever, twice: {printed}")


def under_way(gateway: Gateway) -> float:
    """Predictions that the gateway has not answered."""
    scrape = requests.get(f"http://{gateway.admin}/metrics", timeout=LIMIT).text
    [count] = re.findall(r"^tidegate_predictions_in_flight (\S+)$", scrape, re.MULTILINE)
    return float(count)


def shapes(gateway: Gateway, model: str) -> list[str]:
    """A row of each input: what perf_analyzer must be told where a dimension is free."""
    metadata = requests.get(f"{gateway.url}/v2/models/{model}", timeout=LIMIT).json()
    options = []
    for tensor in metadata["inputs"]:
        sizes = ",".join("1" if size == -1 else str(size) for size in tensor["shape"])
        options += ["--shape", f"{tensor['name']}:{sizes}"]
    return options


@pytest.mark.parametrize("model", ["digits", "car-loan"])
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_whole_run(gateway: Gateway, tmp_path: Path, protocol: str, model: str) -> None:
    report = tmp_path / "report.csv"
    said = perf_analyzer(
        gateway,
        protocol,
        model,
        *shapes(gateway, model),
        *("--concurrency-range", "4", "--request-count", str(REQUESTS), "-f", str(report)),
    )
    assert f"Request count: {REQUESTS}" in said
    # It reads the statistics while the last requests of its four threads are under way.
    counted = re.search(r"Successful request count: (\d+)", said)
    assert counted is not None
    assert abs(int(counted[1]) - REQUESTS) <= 8
    with report.open() as file:
        [row] = list(csv.DictReader(file))
    assert float(row["Inferences/Second"]) > 0
    assert int(row["Concurrency"]) == 4
    assert float(row["Server Compute Infer"]) > 0


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_asynchronous_calls_at_a_rate(gateway: Gateway, protocol: str) -> None:
    said = perf_analyzer(
        gateway,
        protocol,
        "digits",
        *shapes(gateway, "digits"),
        *("--async", "--request-rate-range", "200", "--request-count", str(REQUESTS)),
    )
    assert f"Request count: {REQUESTS}" in said


def test_streams(gateway: Gateway) -> None:
    said = perf_analyzer(
        gateway,
        "grpc",
        "digits",
        *shapes(gateway, "digits"),
        *("--async", "--streaming", "--concurrency-range", "4", "--request-count", str(REQUESTS)),
    )
    assert f"Request count: {REQUESTS}" in said


def test_json_tensors(gateway: Gateway) -> None:
    said = perf_analyzer(
        gateway,
        "http",
        "digits",
        *shapes(gateway, "digits"),
        *("--input-tensor-format", "json", "--output-tensor-format", "json"),
        *("--concurrency-range", "4", "--request-count", str(REQUESTS)),
    )
    assert f"Request count: {REQUESTS}" in said


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_model_that_is_not_there(gateway: Gateway, protocol: str) -> None:
    with pytest.raises(AssertionError, match="model 'nobody' is not known"):
        perf_analyzer(gateway, protocol, "nobody", "--request-count", "1")


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_shared_memory(gateway: Gateway, protocol: str) -> None:
    said = perf_analyzer(
        gateway,
        protocol,
        "digits",
        *shapes(gateway, "digits"),
        *("--shared-memory", "system", "--output-shared-memory-size", "1024"),
        *("--concurrency-range", "4", "--request-count", str(REQUESTS)),
    )
    assert f"Request count: {REQUESTS}" in said


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_shared_memory_is_refused_with_the_reason(fresh_gateway: Gateway, protocol: str) -> None:
    with pytest.raises(AssertionError, match="shared memory is turned off"):
        perf_analyzer(
            fresh_gateway,
            protocol,
            "digits",
            *shapes(fresh_gateway, "digits"),
            *("--shared-memory", "system", "--request-count", "1"),
        )
