"""Plain HTTP: exact errors, number edge cases, compression, raw bodies."""

from __future__ import annotations

import gzip
import json
import zlib

import numpy as np
import pytest
import requests
from conftest import LIMIT, ROOT, Gateway

REQUEST = json.loads((ROOT / "models/digits/request.json").read_text())
INFER = "/v2/models/digits/infer"


def identity(gateway: Gateway, datatype: str, shape: list[int], data: list[object]) -> requests.Response:
    given = {"name": "x", "datatype": datatype, "shape": shape, "data": data}
    return gateway.post(f"/v2/models/identity_{datatype.lower()}/infer", {"inputs": [given]})


@pytest.mark.parametrize("datatype", ["FP16", "BF16", "FP32", "FP64"])
def test_what_json_cannot_write_is_strings(gateway: Gateway, datatype: str) -> None:
    data = ["NaN", "-Infinity", "Infinity", -0.0]
    answer = identity(gateway, datatype, [2, 2], data)
    output = answer.json()["outputs"][0]
    assert (output["datatype"], output["shape"]) == (datatype, [2, 2])
    assert output["data"][:3] == data[:3]
    assert str(output["data"][3]) == "-0.0"


def test_bare_nan_is_refused_with_a_hint(gateway: Gateway) -> None:
    body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":[NaN]}]}'
    answer = requests.post(f"{gateway.url}/v2/models/identity_fp32/infer", data=body, timeout=LIMIT)
    assert answer.status_code == 400
    assert 'send the strings "NaN", "Infinity" and "-Infinity"' in answer.json()["error"]


@pytest.mark.parametrize(
    ("datatype", "value", "message"),
    [
        ("INT8", 128, "128 is out of range for INT8 (-128 to 127)"),
        ("UINT8", -1, "out of range for UINT8"),
        ("INT32", 1.5, "expected an integer of INT32"),
        ("INT64", 2**63, "out of range for INT64"),
        ("UINT64", 2**64, "UINT64"),
        ("INT64", "1", 'expected a value of INT64, got string "1"'),
        ("FP16", 70000, "70000 is out of range for FP16 (-65504 to 65504)"),
        ("FP32", 1e39, "out of range for FP32"),
        ("FP32", "x", 'expected a value of FP32, got string "x"'),
        ("BOOL", "true", "BOOL"),
        ("BYTES", 1, "BYTES"),
    ],
)
def test_values_that_do_not_fit_are_refused(
    gateway: Gateway, datatype: str, value: object, message: str
) -> None:
    answer = identity(gateway, datatype, [1, 1], [value])
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert "data[0]" in answer.json()["error"]
    assert message in answer.json()["error"]


def test_a_whole_float_is_an_integer(gateway: Gateway) -> None:
    assert identity(gateway, "INT32", [1, 2], [1.0, -2.0]).json()["outputs"][0]["data"] == [1, -2]


@pytest.mark.parametrize("data", [[[1], [2, 3, 4]], [[1, 2], 3, 4], [1, 2, 3], [1, 2, 3, 4, 5]])
def test_data_that_do_not_fit_the_shape_are_refused(gateway: Gateway, data: list[object]) -> None:
    answer = identity(gateway, "FP32", [2, 2], data)
    assert answer.status_code == 400
    assert "tensor 'x'" in answer.json()["error"]


def test_no_elements(gateway: Gateway) -> None:
    output = identity(gateway, "FP32", [0, 3], []).json()["outputs"][0]
    assert output == {"name": "y", "datatype": "FP32", "shape": [0, 3], "data": []}


def test_a_raw_body_of_a_wrong_size(gateway: Gateway) -> None:
    answer = requests.post(
        f"{gateway.url}{INFER}",
        data=bytes(250),
        headers={"Inference-Header-Content-Length": "0"},
        timeout=LIMIT,
    )
    assert answer.status_code == 400
    assert "shape [1, 8, 8] of FP32 needs 256 bytes, got 250" in answer.json()["error"]


def test_a_raw_body_fills_the_free_dimension(gateway: Gateway) -> None:
    array = np.arange(6, dtype=np.float32)
    answer = requests.post(
        f"{gateway.url}/v2/models/identity_fp32/infer",
        data=array.tobytes(),
        headers={"Inference-Header-Content-Length": "0"},
        timeout=LIMIT,
    )
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/octet-stream"
    length = int(answer.headers["Inference-Header-Content-Length"])
    assert json.loads(answer.content[:length])["outputs"][0]["shape"] == [1, 6]
    assert answer.content[length:] == array.tobytes()


@pytest.mark.parametrize("length", ["9999999", "-1", "x"])
def test_a_wrong_length_of_the_json_part(gateway: Gateway, length: str) -> None:
    answer = requests.post(
        f"{gateway.url}{INFER}",
        data=b"{}",
        headers={"Inference-Header-Content-Length": length},
        timeout=LIMIT,
    )
    assert answer.status_code == 400
    assert "inference-header-content-length" in answer.json()["error"]


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_compressed_requests_and_answers(gateway: Gateway, coding: str) -> None:
    data = list(range(1000))
    body = json.dumps(
        {"inputs": [{"name": "x", "datatype": "INT64", "shape": [1, 1000], "data": data}]}
    ).encode()
    packed = gzip.compress(body) if coding == "gzip" else zlib.compress(body)
    answer = requests.post(
        f"{gateway.url}/v2/models/identity_int64/infer",
        data=packed,
        headers={"Content-Encoding": coding, "Accept-Encoding": coding},
        timeout=LIMIT,
    )
    assert answer.status_code == 200
    assert answer.headers["Content-Encoding"] == coding
    assert answer.json()["outputs"][0]["data"] == data


def test_no_compression_unless_asked_for(gateway: Gateway) -> None:
    data = list(range(1000))
    given = {"name": "x", "datatype": "INT64", "shape": [1, 1000], "data": data}
    answer = gateway.post(
        "/v2/models/identity_int64/infer", {"inputs": [given]}, headers={"Accept-Encoding": "identity"}
    )
    assert "Content-Encoding" not in answer.headers
    assert answer.json()["outputs"][0]["data"] == data


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_body_that_is_not_what_its_coding_says(gateway: Gateway, coding: str) -> None:
    answer = requests.post(
        f"{gateway.url}{INFER}", data=b"{}", headers={"Content-Encoding": coding}, timeout=LIMIT
    )
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]


def test_a_body_that_grows_beyond_the_limit(own_gateway: Gateway) -> None:
    answer = requests.post(
        f"{own_gateway.url}{INFER}",
        data=gzip.compress(bytes(4 << 20)),
        headers={"Content-Encoding": "gzip"},
        timeout=LIMIT,
    )
    assert answer.status_code == 413
    assert "limits.body" in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status", "error"),
    [
        ("PUT", INFER, 405, "/v2/models/digits/infer takes POST, not PUT"),
        ("GET", "/nope", 404, "there is nothing at /nope; the protocols' calls are below /v2 and /v1"),
        (
            "GET",
            "/v2/models/digits/versions/9",
            404,
            "model 'digits' has no version '9' that serves; versions that serve: 1, 2, candidate, stable",
        ),
    ],
)
def test_errors_are_exactly(
    gateway: Gateway, method: str, path: str, status: int, error: str
) -> None:
    answer = requests.request(method, f"{gateway.url}{path}", timeout=LIMIT)
    assert (answer.status_code, answer.json()) == (status, {"error": error})


def test_405_says_what_is_allowed(gateway: Gateway) -> None:
    assert requests.get(f"{gateway.url}{INFER}", timeout=LIMIT).headers["Allow"] == "POST, OPTIONS"


@pytest.mark.parametrize("body", [[], {}, {"inputs": []}, {"inputs": {}}, {"inputs": [{}]}, "x", None])
def test_bodies_that_are_no_request(gateway: Gateway, body: object) -> None:
    answer = gateway.post(INFER, body)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]


def test_the_list_of_models_is_exactly_what_serves(own_gateway: Gateway) -> None:
    answer = requests.get(f"{own_gateway.url}/v2/models", timeout=LIMIT)
    assert answer.json() == {"models": ["digits"]}


@pytest.mark.parametrize("path", ["/v2/models/nobody/ready", "/v2/models/digits/versions/9/ready"])
def test_what_does_not_exist_is_not_ready(gateway: Gateway, path: str) -> None:
    assert requests.get(f"{gateway.url}{path}", timeout=LIMIT).status_code == 404


def test_the_timeout_header(gateway: Gateway) -> None:
    answer = gateway.post(INFER, REQUEST, headers={"x-request-timeout-ms": "0"})
    assert answer.status_code == 504


def test_the_timeout_parameter(gateway: Gateway) -> None:
    answer = gateway.post(INFER, REQUEST | {"parameters": {"timeout": 1}})
    assert answer.status_code == 504
    assert "deadline" in answer.json()["error"]


def test_request_ids_of_the_header_come_back(gateway: Gateway) -> None:
    answer = gateway.post(INFER, REQUEST, headers={"x-request-id": "abc-1"})
    assert answer.headers["x-request-id"] == "abc-1"


def test_answers_name_the_model_that_answered(gateway: Gateway) -> None:
    answer = gateway.post("/v2/models/digits/versions/candidate/infer", REQUEST)
    assert answer.headers["tidegate-model-version"] == "2"
    assert answer.headers["tidegate-model-digest"].startswith("sha256:")
    assert (answer.json()["model_name"], answer.json()["model_version"]) == ("digits", "2")
