"""The node tests that the `onnx` package carries, and the report of what becomes of them.

`python backend.py` renders docs/operators.md from what `test_backend.py` found.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases

from served import Arrays, datatype

ROOT = Path(__file__).resolve().parents[2]
FOUND = ROOT / "target" / "conformance" / "operators.json"
ML = "ai.onnx.ml"


@dataclass
class NodeTest:
    """A model of one node, or of what a function expands to, with one set of data."""

    name: str
    operator: str
    domain: str
    model: onnx.ModelProto
    inputs: Arrays
    outputs: Arrays
    rtol: float
    atol: float


def as_array(value: object) -> np.ndarray | None:
    """The value as a tensor that the protocol carries; nothing where it is none."""
    if isinstance(value, onnx.TensorProto):
        value = numpy_helper.to_array(value)
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value)
        return array if datatype(array) else None
    return None


def node_tests() -> list[NodeTest]:
    """All tests whose inputs and outputs are tensors that the protocol carries."""
    tests = []
    for found in collect_testcases(None):
        graph = found.model.graph
        inputs, outputs = found.data_sets[0]
        arrays_in = [as_array(value) for value in inputs]
        arrays_out = [as_array(value) for value in outputs]
        if any(array is None for array in arrays_in + arrays_out):
            continue
        first = graph.node[0]
        operator = first.op_type
        # An expanded function's name says what it was expanded from.
        if found.name.endswith("_expanded") or "_expanded_" in found.name:
            operator = f"{found.name.removeprefix('test_').split('_')[0]} (expanded)"
        names = [value.name for value in graph.input]
        tests.append(
            NodeTest(
                found.name,
                operator,
                first.domain,
                found.model,
                dict(zip(names, arrays_in, strict=False)),
                dict(zip([o.name for o in graph.output], arrays_out, strict=True)),
                found.rtol,
                found.atol,
            )
        )
    return tests


def render(found: dict[str, dict], target: Path) -> None:
    """Writes the tables by operator, and the failures."""
    lines = [
        "# Operators",
        "",
        "What becomes of the node tests that the Python package `onnx` 1.23.2 carries, each served",
        "by the gateway and asked over HTTP. Made by `tests/conformance/run` and",
        "`tests/conformance/backend.py`; not edited by hand. *Refused* is refused at load, with the",
        "reason; *wrong* is served with an answer that is not the expected one.",
        "",
    ]
    for title, is_ml in (("ai.onnx.ml", True), ("The default domain", False)):
        chosen = {n: f for n, f in found.items() if (f["domain"] == ML) == is_ml}
        by_operator: dict[str, list] = defaultdict(list)
        for name, one in chosen.items():
            by_operator[one["operator"]].append((name, one))
        n_passed = sum(one["result"] == "passed" for one in chosen.values())
        lines += [f"## {title}", "", f"{n_passed} of {len(chosen)} tests pass.", ""]
        lines += ["| operator | tests | passed | refused | wrong |", "|---|---|---|---|---|"]
        for operator, ones in sorted(by_operator.items()):
            count = lambda result: sum(one["result"] == result for _, one in ones)  # noqa: E731
            lines.append(
                f"| {operator} | {len(ones)} | {count('passed')} | {count('refused')} "
                f"| {count('wrong')} |"
            )
        failed = [(n, o) for n, o in sorted(chosen.items()) if o["result"] != "passed"]
        if failed:
            lines += ["", "<details><summary>Those that do not pass</summary>", ""]
            for name, one in failed:
                reason = " ".join(one["reason"].split())[:160].replace("|", "\\|")
                lines.append(f"- `{name}` ({one['result']}): {reason}")
            lines += ["", "</details>"]
        lines.append("")
    target.write_text("\n".join(lines))


if __name__ == "__main__":
    render(
        json.loads(FOUND.read_text()),
        Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "operators.md",
    )
