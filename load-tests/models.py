"""Makes the models that the scenarios measure, with requests for them: `models.py FOLDER`.

Weights are random but always the same: what a model costs does not depend on what it has learned.
"""

import json
import sys
from pathlib import Path

import lightgbm
import numpy as np
import onnx
import pyarrow as pa
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType
from onnx import TensorProto, helper, numpy_helper

RANDOM = np.random.default_rng(0)


def constant(name: str, *shape: int) -> onnx.TensorProto:
    scale = 1 / np.sqrt(np.prod(shape[:-1]) or 1)
    return numpy_helper.from_array(RANDOM.normal(0, scale, shape).astype(np.float32), name)


def model(nodes: list, constants: list, x: list, y: list) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "graph", [value("x", TensorProto.FLOAT, ["n", *x])],
                              [value("y", TensorProto.FLOAT, ["n", *y])], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def perceptron(*widths: int) -> onnx.ModelProto:
    """Layers as PyTorch exports them, and a softmax."""
    nodes, constants, value = [], [], "x"
    for number, (n_in, n_out) in enumerate(zip(widths, widths[1:])):
        weight, bias, sums = f"w{number}", f"b{number}", f"sums{number}"
        constants += [constant(weight, n_out, n_in), constant(bias, n_out)]
        nodes.append(helper.make_node("Gemm", [value, weight, bias], [sums], transB=1))
        value = sums
        if number < len(widths) - 2:
            value = f"hidden{number}"
            nodes.append(helper.make_node("Relu", [sums], [value]))
    nodes.append(helper.make_node("Softmax", [value], ["y"], axis=-1))
    return model(nodes, constants, [widths[0]], [widths[-1]])


def convolutions(layers: int) -> onnx.ModelProto:
    """A small image of eight channels made of 16 features, convolved again and again."""
    sizes = numpy_helper.from_array(np.array([-1, 16, 1, 1]), "sizes")
    constants = [sizes, constant("image", 1, 16, 32, 32), constant("kernel", 16, 16, 3, 3)]
    nodes = [helper.make_node("Reshape", ["x", "sizes"], ["points"]),
             helper.make_node("Add", ["points", "image"], ["image0"])]
    for layer in range(layers):
        nodes += [
            helper.make_node("Conv", [f"image{layer}", "kernel"], [f"sums{layer}"],
                             pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [f"sums{layer}"], [f"image{layer + 1}"]),
        ]
    nodes += [helper.make_node("GlobalAveragePool", [f"image{layers}"], ["pooled"]),
              helper.make_node("Flatten", ["pooled"], ["y"])]
    return model(nodes, constants, [16], [16])


def identity() -> onnx.ModelProto:
    return model([helper.make_node("Identity", ["x"], ["y"])], [], [3, 224, 224], [3, 224, 224])


def boosted() -> onnx.ModelProto:
    """500 trees of 31 leaves, as LightGBM exports them."""
    x = RANDOM.normal(size=(20_000, 30)).astype(np.float32)
    y = (x @ RANDOM.normal(size=30) + RANDOM.normal(size=len(x)) > 0).astype(int)
    trees = lightgbm.LGBMClassifier(n_estimators=500, num_leaves=31, verbose=-1, random_state=0,
                                    n_jobs=1)
    types = [("x", FloatTensorType([None, 30]))]
    return convert_lightgbm(trees.fit(x, y), initial_types=types, target_opset=15, zipmap=False)


MODELS = {
    "mlp-64-32": (lambda: perceptron(30, 64, 32, 2), 30),
    "mlp-512-512": (lambda: perceptron(30, 512, 512, 2), 30),
    "cnn": (lambda: convolutions(4), 16),
    "heavy": (lambda: convolutions(250), 16),
    "identity": (identity, None),
    "lightgbm": (boosted, 30),
}


def request(features: int, rows: int) -> str:
    """As clients send it: the shortest decimals of binary32 numbers."""
    data = [float(str(x)) for x in RANDOM.normal(size=rows * features).astype(np.float32)]
    tensor = {"name": "x", "shape": [rows, features], "datatype": "FP32", "data": data}
    return json.dumps({"inputs": [tensor]})


def binary_request(folder: Path) -> None:
    """One image as a binary tensor; the length of the JSON part is in a file of its own."""
    data = RANDOM.normal(size=3 * 224 * 224).astype(np.float32).tobytes()
    tensor = {"name": "x", "shape": [1, 3, 224, 224], "datatype": "FP32",
              "parameters": {"binary_data_size": len(data)}}
    head = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
    head = json.dumps(head).encode()
    (folder / "binary").write_bytes(head + data)
    (folder / "binary.length").write_text(str(len(head)))


def table(folder: Path, count: int, features: int) -> None:
    """Rows in columns, as an Arrow stream; and as they are, twice over."""
    x = RANDOM.normal(size=(2 * count, features)).astype(np.float32)
    (folder / "rows.f32").write_bytes(x.tobytes())
    columns = pa.table({f"x_{column}": x[:count, column] for column in range(features)})
    with pa.ipc.new_stream(folder / "rows.arrow", columns.schema) as stream:
        stream.write_table(columns)


def main() -> None:
    root = Path(sys.argv[1])
    for name, (make, features) in MODELS.items():
        folder = root / name
        (folder / "1").mkdir(parents=True, exist_ok=True)
        onnx.save(make(), folder / "1" / "model.onnx")
        if features:
            for rows, count in [(1, 100), (32, 10)]:
                lines = "\n".join(request(features, rows) for _ in range(count))
                (folder / f"requests-{rows}.jsonl").write_text(lines + "\n")
        else:
            binary_request(folder)
    table(root / "lightgbm", 10_000, 30)


main()
