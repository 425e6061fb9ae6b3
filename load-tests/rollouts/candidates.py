"""Makes versions that are as good as another, or worse by a known amount:

    candidates.py pairs FOLDER GATE N   N models `equal-i` and N `worse-i`, two versions each
    candidates.py apart FOLDER          the model `apart`, whose versions 1 and 2 say which they are
    candidates.py broken MODEL OUT      MODEL with every number that it has learned turned round

Inputs are x, uniform from 0 to 1, so that a threshold is a share of the rows.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# Of each gate: what is tolerated, as tests of it are configured (load-tests/scenarios/rollout.py).
TOLERATED = {"agreement": 0.05, "tolerance": 0.05, "errors": 0.05}
# A product with a matrix of this size costs enough to be timed; the slow candidate makes more of them.
SIZE, PRODUCTS, SLOWER = 256, 8, 8


def model(nodes: list, constants: list, y: int, name: str) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, name, [value("x", TensorProto.FLOAT, ["n", 1])],
                              [value("y", y, ["n", 1])], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def constant(name: str, value: object, dtype: type = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, dtype), name)


def classes(threshold: float) -> onnx.ModelProto:
    """The class is 1 where x is above the threshold."""
    nodes = [helper.make_node("Greater", ["x", "t"], ["above"]),
             helper.make_node("Cast", ["above"], ["y"], to=TensorProto.INT64)]
    return model(nodes, [constant("t", threshold)], TensorProto.INT64, "classes")


def numbers(share: float) -> onnx.ModelProto:
    """y is 1 + x, and 5 more on this share of the rows."""
    nodes = [helper.make_node("Less", ["x", "t"], ["below"]),
             helper.make_node("Cast", ["below"], ["is_off"], to=TensorProto.FLOAT),
             helper.make_node("Mul", ["is_off", "five"], ["off"]),
             helper.make_node("Add", ["x", "one"], ["plain"]),
             helper.make_node("Add", ["plain", "off"], ["y"])]
    constants = [constant("t", share), constant("one", 1.0), constant("five", 5.0)]
    return model(nodes, constants, TensorProto.FLOAT, "numbers")


def failing(share: float) -> onnx.ModelProto:
    """y is x, and a place that does not exist is looked up on this share of the rows."""
    nodes = [helper.make_node("Less", ["x", "t"], ["below"]),
             helper.make_node("Cast", ["below"], ["is_off"], to=TensorProto.INT64),
             helper.make_node("Mul", ["is_off", "far"], ["place"]),
             helper.make_node("Gather", ["table", "place"], ["zero"], axis=0),
             helper.make_node("Add", ["x", "zero"], ["y"])]
    constants = [constant("t", share), constant("far", 1000, np.int64), constant("table", [0.0])]
    return model(nodes, constants, TensorProto.FLOAT, "failing")


def slow(products: int) -> onnx.ModelProto:
    """y is x after so many products with a matrix, of which too little is left to be seen."""
    random = np.random.default_rng(0)
    matrix = random.normal(0, 1 / np.sqrt(SIZE), (SIZE, SIZE))
    nodes = [helper.make_node("MatMul", ["x", "row"], ["h0"])]
    nodes += [helper.make_node("MatMul", [f"h{i}", "matrix"], [f"h{i + 1}"]) for i in range(products)]
    nodes += [helper.make_node("MatMul", [f"h{products}", "column"], ["sum"]),
              helper.make_node("Mul", ["sum", "little"], ["nothing"]),
              helper.make_node("Add", ["x", "nothing"], ["y"])]
    constants = [constant("row", np.ones((1, SIZE))), constant("column", np.ones((SIZE, 1))),
                 constant("matrix", matrix), constant("little", 1e-20)]
    return model(nodes, constants, TensorProto.FLOAT, "slow")


def apart(number: float) -> onnx.ModelProto:
    nodes = [helper.make_node("Add", ["x", "number"], ["y"])]
    return model(nodes, [constant("number", number)], TensorProto.FLOAT, "apart")


def write(proto: onnx.ModelProto, folder: Path, number: int) -> None:
    # Two versions of the same numbers are two files all the same.
    proto.doc_string = f"version {number}"
    path = folder / str(number) / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(proto.SerializeToString())


def pair(gate: str, is_worse: bool) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    if gate == "p50":
        return slow(PRODUCTS), slow(PRODUCTS * SLOWER if is_worse else PRODUCTS)
    share = 2 * TOLERATED[gate] if is_worse else 0.0
    if gate == "agreement":
        return classes(0.5), classes(0.5 + share)
    make = numbers if gate == "tolerance" else failing
    return make(0.0), make(share)


def broken(source: Path, target: Path) -> None:
    proto = onnx.load(source)
    for tensor in proto.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(proto.SerializeToString())


def main() -> int:
    match sys.argv[1:]:
        case ["pairs", folder, gate, number]:
            for name in ("equal", "worse"):
                for i in range(int(number)):
                    for version, proto in enumerate(pair(gate, name == "worse"), 1):
                        write(proto, Path(folder) / f"{name}-{i}", version)
        case ["apart", folder]:
            for version in (1, 2):
                write(apart(float(version)), Path(folder) / "apart", version)
        case ["broken", source, target]:
            broken(Path(source), Path(target))
        case _:
            print(__doc__, file=sys.stderr)
            return 64
    return 0


if __name__ == "__main__":
    sys.exit(main())
