"""Models served by a gateway of their own, and what ONNX Runtime makes of the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import onnxruntime
import requests
import tritonclient.http as triton
from conftest import LIMIT, start, stop

#: NumPy's kinds; BF16's is another package's.
NUMPY = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}

Arrays = dict[str, np.ndarray]


def datatype(array: np.ndarray) -> str | None:
    """The protocol's datatype for an array; nothing where it has none."""
    if array.dtype.kind in "OSU":
        return "BYTES"
    if array.dtype == ml_dtypes.bfloat16:
        return "BF16"
    return next((name for name, kind in NUMPY.items() if array.dtype == kind), None)


class Served:
    """A gateway on a folder of models, each of one version."""

    def __init__(
        self, folder: Path, models: Mapping[str, bytes], settings: Mapping[str, str] | None = None
    ) -> None:
        for name, model in models.items():
            path = folder / "models" / name / "1" / "model.onnx"
            path.parent.mkdir(parents=True)
            path.write_bytes(model)
        for name, text in (settings or {}).items():
            (folder / "models" / name / "model.toml").write_text(text)
        self.gateway = start(folder)
        self.client = triton.InferenceServerClient(
            self.gateway.http, connection_timeout=LIMIT, network_timeout=LIMIT
        )
        index = requests.post(f"{self.gateway.url}/v2/repository/index", json={}, timeout=LIMIT)
        #: Why models do not serve, by name.
        self.refusals = {
            entry["name"]: entry.get("reason", "")
            for entry in index.json()
            if entry["state"] != "READY"
        }

    def ask(self, model: str, inputs: Arrays, outputs: Iterable[str]) -> Arrays:
        tensors = []
        for name, array in inputs.items():
            tensor = triton.InferInput(name, array.shape, datatype(array))
            # The client takes strings as objects only.
            tensor.set_data_from_numpy(array.astype(object) if array.dtype.kind in "SU" else array)
            tensors.append(tensor)
        answer = self.client.infer(model, tensors)
        return {name: answer.as_numpy(name) for name in outputs}

    def stop(self) -> None:
        stop(self.gateway)


def run_onnxruntime(model: bytes, inputs: Arrays) -> dict[str, object]:
    """All outputs by name, computed on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))
