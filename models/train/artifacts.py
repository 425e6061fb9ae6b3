"""What goes into a model's folder: the graph, golden requests, requests for examples and load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

Feeds = dict[str, np.ndarray]

DATATYPES = {"float32": "FP32", "int64": "INT64", "object": "BYTES"}


def rounded(array: np.ndarray, digits: int = 4) -> np.ndarray:
    """The array as FP32 with few significant digits."""
    texts = np.char.mod(f"%.{digits - 1}e", array)
    return texts.astype(np.float64).astype(np.float32)


def constant(name: str, array: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(array, name)


def save(path: Path, graph: onnx.GraphProto, description: str, opsets: dict[str, int]) -> None:
    """Writes a checked model."""
    model = helper.make_model(
        graph,
        producer_name="tidegate-models",
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in opsets.items()],
        ir_version=8,
        doc_string=description,
    )
    helper.set_model_props(model, {"author": "Tidegate", "description": description})
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(path: Path, feeds: Feeds) -> Feeds:
    """The model's outputs by name."""
    model = session(path)
    names = [output.name for output in model.get_outputs()]
    return dict(zip(names, model.run(names, feeds), strict=True))


def tensor(name: str, array: np.ndarray) -> dict[str, Any]:
    """A tensor of the Open Inference Protocol."""
    return {
        "name": name,
        "shape": list(array.shape),
        "datatype": DATATYPES[str(array.dtype)],
        "data": [plain(value) for value in array.ravel().tolist()],
    }


def plain(value: Any) -> Any:
    """A number as short as FP32 allows."""
    if not isinstance(value, float):
        return value
    short = float(f"{value:.7g}")
    return int(short) if short.is_integer() and abs(short) < 1e6 else short


def request(feeds: Feeds) -> dict[str, Any]:
    return {"inputs": [tensor(name, array) for name, array in feeds.items()]}


def compact(document: Any) -> str:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)


def write_golden(path: Path, cases: dict[str, Feeds]) -> None:
    """Writes golden.json beside a model: inputs, and what ONNX Runtime answers."""
    golden = []
    for name, feeds in cases.items():
        outputs = run(path, feeds)
        golden.append({
            "name": name,
            "inputs": [tensor(key, array) for key, array in feeds.items()],
            "outputs": [tensor(key, array) for key, array in outputs.items()],
            "tolerance": {"absolute": 1e-5, "relative": 1e-4},
        })
    (path.parent / "golden.json").write_text(compact({"cases": golden}) + "\n")


def write_requests(folder: Path, example: Feeds, rows: list[Feeds]) -> None:
    """Writes request.json, for curl, and requests.jsonl, one request of one row a line."""
    (folder / "request.json").write_text(compact(request(example)) + "\n")
    lines = [compact(request(feeds)) for feeds in rows]
    (folder / "requests.jsonl").write_text("\n".join(lines) + "\n")
