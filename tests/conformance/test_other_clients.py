"""tritonclient over asyncio, plain requests, and HTTP/2."""

from __future__ import annotations

import asyncio
import json

import httpx
import numpy as np
import pytest
import requests
import tritonclient.http.aio as triton
from conftest import LIMIT, ROOT, Gateway

REQUEST = json.loads((ROOT / "models/digits/request.json").read_text())


def test_tritonclient_aio(gateway: Gateway) -> None:
    async def calls() -> None:
        async with triton.InferenceServerClient(gateway.http) as client:
            assert await client.is_server_live()
            assert await client.is_model_ready("digits")
            assert (await client.get_server_metadata())["name"] == "tidegate"
            image = np.array(REQUEST["inputs"][0]["data"], np.float32).reshape(1, 8, 8)
            for binary in (True, False):
                given = triton.InferInput("image", [1, 8, 8], "FP32")
                given.set_data_from_numpy(image, binary_data=binary)
                answer = await client.infer("digits", [given])
                assert answer.as_numpy("label").tolist() == [5]

    asyncio.run(calls())


def test_http2_without_tls(gateway: Gateway) -> None:
    with httpx.Client(http1=False, http2=True, timeout=LIMIT) as client:
        metadata = client.get(f"{gateway.url}/v2/models/digits")
        assert (metadata.http_version, metadata.status_code) == ("HTTP/2", 200)
        answer = client.post(f"{gateway.url}/v2/models/digits/infer", json=REQUEST)
        assert answer.http_version == "HTTP/2"
        assert answer.json()["outputs"][1]["data"] == [5]
        assert client.get(f"{gateway.url}/v2/models/nobody").status_code == 404


def test_health_bodies_and_the_list_of_models(gateway: Gateway) -> None:
    def get(path: str) -> object:
        return requests.get(f"{gateway.url}{path}", timeout=LIMIT).json()

    assert get("/v2/health/live") == {"live": True}
    assert get("/v2/health/ready") == {"ready": True}
    assert get("/v2/models/digits/ready") == {"name": "digits", "ready": True}
    assert "digits" in get("/v2/models")["models"]


def test_nested_and_flat_data_are_the_same(gateway: Gateway) -> None:
    flat = REQUEST["inputs"][0]
    nested = flat | {"data": np.array(flat["data"]).reshape(1, 8, 8).tolist()}
    answers = [
        gateway.post("/v2/models/digits/infer", {"inputs": [given]}).json()
        for given in (flat, nested)
    ]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/octet-stream"])
def test_the_content_type_of_requests_does_not_matter(
    gateway: Gateway, content_type: str | None
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    answer = requests.post(
        f"{gateway.url}/v2/models/digits/infer",
        data=json.dumps(REQUEST).encode(),
        headers=headers,
        timeout=LIMIT,
    )
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"


def test_a_raw_request(gateway: Gateway) -> None:
    image = np.array(REQUEST["inputs"][0]["data"], np.float32)
    answer = requests.post(
        f"{gateway.url}/v2/models/digits/infer",
        data=image.tobytes(),
        headers={"Inference-Header-Content-Length": "0"},
        timeout=LIMIT,
    )
    length = int(answer.headers["Inference-Header-Content-Length"])
    outputs = json.loads(answer.content[:length])["outputs"]
    sizes = [output["parameters"]["binary_data_size"] for output in outputs]
    assert sizes == [40, 8]
    assert np.frombuffer(answer.content[length + 40 :], np.int64).tolist() == [5]


def test_ids_unknown_parameters_and_extra_members(gateway: Gateway) -> None:
    body = REQUEST | {"id": "42", "parameters": {"custom": 1, "other": "x"}, "more": {"a": [1]}}
    answer = gateway.post("/v2/models/digits/infer", body)
    assert answer.json()["id"] == "42"
    assert "id" not in gateway.post("/v2/models/digits/infer", REQUEST).json()


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("INT64", [-(2**63), 2**63 - 1, 2**53 + 1]),
        ("UINT64", [0, 2**64 - 1, 2**53 + 1]),
        ("FP64", [0.1, 1e308, 5e-324]),
        ("FP32", ["NaN", "Infinity", "-Infinity"]),
        ("FP16", [0.5, 65504.0, -2.0]),
        ("BF16", [0.5, 256.0, -2.0]),
        ("BOOL", [True, False, True]),
        ("BYTES", ["", "ü€𝄞", 'a"b']),
    ],
)
def test_json_is_exact(gateway: Gateway, datatype: str, data: list[object]) -> None:
    given = {"name": "x", "datatype": datatype, "shape": [1, 3], "data": data}
    answer = gateway.post(f"/v2/models/identity_{datatype.lower()}/infer", {"inputs": [given]})
    assert answer.json()["outputs"][0]["data"] == data


def test_minus_zero_keeps_its_sign(gateway: Gateway) -> None:
    given = {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [-0.0]}
    answer = gateway.post("/v2/models/identity_fp32/infer", {"inputs": [given]})
    assert str(answer.json()["outputs"][0]["data"][0]) == "-0.0"


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("POST", "/v2/models/digits/infer", b"{", {}, 400),
        ("POST", "/v2/models/nobody/infer", b"{}", {}, 404),
        ("GET", "/v2/nowhere", b"", {}, 404),
        ("GET", "/v2/models/digits/infer", b"", {}, 405),
        ("DELETE", "/v2/models/digits", b"", {}, 405),
        ("POST", "/v2/models/digits/infer", b"x" * (2 << 20), {}, 413),
        ("POST", "/v2/models/digits/infer", b"x", {"Content-Encoding": "br"}, 415),
    ],
)
def test_errors_are_json(
    own_gateway: Gateway, method: str, path: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    answer = requests.request(
        method, f"{own_gateway.url}{path}", data=body, headers=headers, timeout=LIMIT
    )
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/json"
    assert isinstance(answer.json()["error"], str)


def test_requests_of_the_car_loan_model(gateway: Gateway) -> None:
    lines = (ROOT / "models/car-loan/requests.jsonl").read_text().splitlines()
    with requests.Session() as session:
        for line in lines[::20]:
            answer = session.post(
                f"{gateway.url}/v2/models/car-loan/infer", data=line.encode(), timeout=LIMIT
            )
            outputs = {output["name"]: output["data"][0] for output in answer.json()["outputs"]}
            assert outputs["label"] == int(outputs["probability"] > 0.5)
