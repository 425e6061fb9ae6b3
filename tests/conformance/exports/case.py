"""What a case is, and the register of all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType

ROWS = 300
OPSETS = {"": 17, "ai.onnx.ml": 3}


@dataclass
class Case:
    """A model, what it is asked, and what the library that trained it says itself."""

    model: onnx.ModelProto
    inputs: dict[str, np.ndarray]
    expected: dict[str, np.ndarray]
    #: How far the export may be from the library: a fraction of the rows for labels, and a
    #: tolerance for numbers. The distance from ONNX Runtime is the same for all cases.
    labels_may_differ: float = 0.0
    tolerance: float = 1e-4
    #: How far another order of the same sums may be from ONNX Runtime, relative to the largest
    #: value: more where terms much larger than the result cancel out.
    rounding: float = 1e-6


#: What builds each case, by name.
CASES: dict[str, Callable[[], Case]] = {}


def case(name: str) -> Callable[[Callable[[], Case]], Callable[[], Case]]:
    def register(build: Callable[[], Case]) -> Callable[[], Case]:
        assert name not in CASES, name
        CASES[name] = build
        return build

    return register


def rows(x: np.ndarray) -> np.ndarray:
    """`ROWS` rows, repeated where there are fewer."""
    return np.resize(x, (ROWS, *x.shape[1:]))


def sklearn_case(
    model: object,
    x: np.ndarray,
    y: np.ndarray | None = None,
    *,
    outputs: dict[str, str] | None = None,
    options: dict | None = None,
    double: bool = False,
    **tolerances: float,
) -> Case:
    """Trains `model`, exports it with one input of free rows, and asks it the training rows.

    `outputs` says which method of the model tells each output of the export.
    """
    model.fit(x) if y is None else model.fit(x, y)
    kind = np.float64 if double else np.float32
    asked = rows(x).astype(kind)
    types = None
    if not double:
        types = [("X", FloatTensorType([None, x.shape[1]]))]
    exported = to_onnx(
        model, asked[:1], initial_types=types, options=options, target_opset=OPSETS
    )
    if outputs is None:
        names = [output.name for output in exported.graph.output]
        if hasattr(model, "predict_proba"):
            outputs = dict(zip(names, ["predict", "predict_proba"], strict=False))
        elif hasattr(model, "predict"):
            outputs = {names[0]: "predict"}
        else:
            outputs = {names[0]: "transform"}
    expected = {name: np.asarray(getattr(model, how)(asked)) for name, how in outputs.items()}
    return Case(exported, {exported.graph.input[0].name: asked}, expected, **tolerances)
