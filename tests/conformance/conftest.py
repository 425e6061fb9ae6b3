"""Starts the gateway on a copy of the shipped models, beside an identity model of every datatype."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import requests
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 60

ELEMENTS = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


@dataclass
class Gateway:
    """A running gateway."""

    process: subprocess.Popen[str]
    http: str
    grpc: str
    admin: str
    models: Path

    @property
    def url(self) -> str:
        return f"http://{self.http}"

    def post(self, path: str, body: object, **kwargs: object) -> requests.Response:
        return requests.post(f"{self.url}{path}", json=body, timeout=LIMIT, **kwargs)


def identity(datatype: str) -> bytes:
    """A model whose output `y` is its input `x`, of shape [N, M]."""
    element = ELEMENTS[datatype]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"], "identity")],
        "identity",
        [helper.make_tensor_value_info("x", element, ["N", "M"])],
        [helper.make_tensor_value_info("y", element, ["N", "M"])],
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def products(count: int, width: int = 1024) -> bytes:
    """A model that multiplies its rows `count` times by a matrix: as slow as one likes."""
    weights = np.full((width, width), 1 / width, np.float32)
    names = ["x", *(f"x{n}" for n in range(1, count)), "y"]
    graph = helper.make_graph(
        [helper.make_node("MatMul", [names[n], "w"], [names[n + 1]]) for n in range(count)],
        "products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", width])],
        [numpy_helper.from_array(weights, "w")],
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def start(folder: Path, config: str = "") -> Gateway:
    """Starts the gateway on the models in `folder`, and waits until it serves."""
    file = folder / "tidegate.toml"
    file.write_text(
        '[server]\nhttp = "127.0.0.1:0"\ngrpc = "127.0.0.1:0"\nadmin = "127.0.0.1:0"\n'
        '[repository]\npath = "models"\nsettle = "1ms"\npoll = "200ms"\n'
        f'[log]\nformat = "json"\n{config}'
    )
    binary = os.environ.get("TIDEGATE_BIN", str(ROOT / "target/debug/tidegate"))
    process = subprocess.Popen(
        [binary, "serve", "--config", str(file)], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        entry = json.loads(line) if line.startswith("{") else {}
        if entry.get("message") == "serving":
            # Whatever else is logged must not fill the pipe.
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return Gateway(process, entry["http"], entry["grpc"], entry["admin"], folder / "models")
    raise AssertionError(f"the gateway ended with {process.wait(LIMIT)}")


def stop(gateway: Gateway) -> None:
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.process.wait(LIMIT) == 0


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    for model in ("digits", "car-loan"):
        shutil.copytree(ROOT / "models" / model, folder / "models" / model)
    for datatype in ELEMENTS:
        path = folder / "models" / f"identity_{datatype.lower()}" / "1" / "model.onnx"
        path.parent.mkdir(parents=True)
        path.write_bytes(identity(datatype))
    running = start(folder, "[server.shared_memory]\nenabled = true\n")
    assert requests.get(f"{running.url}/v2/health/ready", timeout=LIMIT).status_code == 200
    yield running
    stop(running)


@pytest.fixture
def own_gateway(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway for tests that change what serves."""
    shutil.copytree(ROOT / "models" / "digits", tmp_path / "models" / "digits")
    running = start(tmp_path, '[limits]\nbody = "1MiB"\n')
    yield running
    stop(running)


@pytest.fixture(scope="module")
def fresh_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway of the shipped models alone, which nobody has asked yet."""
    folder = tmp_path_factory.mktemp("fresh")
    for model in ("digits", "car-loan"):
        shutil.copytree(ROOT / "models" / model, folder / "models" / model)
    running = start(folder)
    yield running
    stop(running)


@pytest.fixture(scope="session")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway of one model that takes about a second for 512 rows."""
    folder = tmp_path_factory.mktemp("slow")
    path = folder / "models" / "slow" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(products(64))
    running = start(folder)
    yield running
    stop(running)
