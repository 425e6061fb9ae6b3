"""The shipped samples, predicted the way a user would."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import requests
import tritonclient.http as triton
from conftest import LIMIT, ROOT, Gateway
from test_triton_http import images, tensor


@pytest.mark.parametrize(("version", "least"), [("1", 0.9), ("2", 0.97)])
def test_accuracy_of_the_digits(gateway: Gateway, version: str, least: float) -> None:
    pixels, labels = images()
    assert len(labels) == 300
    with triton.InferenceServerClient(gateway.http) as client:
        answer = client.infer("digits", [tensor("image", pixels, "FP32")], model_version=version)
    got = answer.as_numpy("label")
    assert (got == labels).mean() > least
    np.testing.assert_array_equal(got, answer.as_numpy("probabilities").argmax(axis=1))


def test_digits_of_the_requests_file(gateway: Gateway) -> None:
    _, labels = images()
    lines = (ROOT / "models/digits/requests.jsonl").read_text().splitlines()
    with requests.Session() as session:
        url = f"{gateway.url}/v2/models/digits/versions/candidate/infer"
        answers = [session.post(url, data=line.encode(), timeout=LIMIT).json() for line in lines[:60]]
    got = [answer["outputs"][1]["data"][0] for answer in answers]
    assert np.mean(np.array(got) == labels[:60]) > 0.9


def car_loans() -> tuple[dict[str, list[str]], list[int]]:
    with (ROOT / "models/car-loan/samples.csv").open() as file:
        rows = list(csv.DictReader(file))
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    repaid = [int(value) for value in columns.pop("repaid")]
    return columns, repaid


def test_all_car_loans_in_one_json_request(gateway: Gateway) -> None:
    columns, repaid = car_loans()
    metadata = requests.get(f"{gateway.url}/v2/models/car-loan", timeout=LIMIT).json()
    inputs = [
        {
            "name": entry["name"],
            "datatype": entry["datatype"],
            "shape": [len(repaid), 1],
            "data": columns[entry["name"]]
            if entry["datatype"] == "BYTES"
            else [float(value) for value in columns[entry["name"]]],
        }
        for entry in metadata["inputs"]
    ]
    answer = gateway.post("/v2/models/car-loan/infer", {"inputs": inputs})
    assert answer.status_code == 200
    outputs = {output["name"]: output for output in answer.json()["outputs"]}
    labels, chances = (np.array(outputs[name]["data"]) for name in ("label", "probability"))
    assert labels.size == chances.size == 400
    assert ((chances >= 0) & (chances <= 1)).all()
    np.testing.assert_array_equal(labels, (chances > 0.5).astype(int))
    most_frequent = max(np.mean(repaid), 1 - np.mean(repaid))
    assert (labels == np.array(repaid)).mean() >= most_frequent


def test_a_car_loan_alone_is_as_in_a_batch(gateway: Gateway) -> None:
    request = json.loads((ROOT / "models/car-loan/request.json").read_text())
    both = gateway.post("/v2/models/car-loan/infer", request).json()
    for row in range(2):
        inputs = [
            given | {"shape": [1, 1], "data": given["data"][row : row + 1]}
            for given in request["inputs"]
        ]
        alone = gateway.post("/v2/models/car-loan/infer", {"inputs": inputs}).json()
        for one, two in zip(alone["outputs"], both["outputs"], strict=True):
            np.testing.assert_allclose(one["data"][0], two["data"][row], rtol=1e-5)
