"""What both car-loan versions have in common: columns, and what becomes of the score."""

from __future__ import annotations

from pathlib import Path

import artifacts
import numpy as np
from artifacts import constant
from onnx import NodeProto, TensorProto, helper

NUMERIC = ("car_value", "debt_to_income_ratio", "loan_length", "driver_tenure")
CATEGORICAL = ("salary_range", "repaid_loan_on_prev_car", "size_of_downpayment")


def save(
    path: Path,
    nodes: list[NodeProto],
    constants: list[TensorProto],
    description: str,
    opsets: dict[str, int],
) -> None:
    """Writes the model whose `nodes` give `score`: the probability's logit."""
    decision = [
        helper.make_node("Sigmoid", ["score"], ["probability"], "sigmoid"),
        helper.make_node("Greater", ["score", "zero"], ["is_repaid"], "decide"),
        helper.make_node("Cast", ["is_repaid"], ["label"], "label", to=TensorProto.INT64),
    ]
    numeric = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 1]) for n in NUMERIC]
    text = [helper.make_tensor_value_info(n, TensorProto.STRING, ["N", 1]) for n in CATEGORICAL]
    graph = helper.make_graph(
        nodes + decision,
        "car_loan",
        numeric + text,
        [
            helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["N", 1]),
            helper.make_tensor_value_info("label", TensorProto.INT64, ["N", 1]),
        ],
        [*constants, constant("zero", np.zeros(1, np.float32))],
    )
    artifacts.save(path, graph, description, opsets)
