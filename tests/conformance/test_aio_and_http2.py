"""tritonclient.http.aio beyond a first call, and binary tensors over HTTP/2."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import httpx
import numpy as np
import pytest
import tritonclient.http.aio as triton
from conftest import LIMIT, ROOT, Gateway
from test_triton_http import EXTENSIONS, tensor
from tritonclient.utils import InferenceServerException

REQUEST = json.loads((ROOT / "models/digits/request.json").read_text())
IMAGE = np.array(REQUEST["inputs"][0]["data"], np.float32).reshape(1, 8, 8)


def run(gateway: Gateway, calls: Callable[[triton.InferenceServerClient], Awaitable[None]]) -> None:
    async def all_calls() -> None:
        async with triton.InferenceServerClient(gateway.http) as client:
            await calls(client)

    asyncio.run(all_calls())


def test_aio_health_and_metadata(gateway: Gateway) -> None:
    async def calls(client: triton.InferenceServerClient) -> None:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert not await client.is_model_ready("nobody")
        assert (await client.get_server_metadata())["extensions"] == EXTENSIONS
        assert (await client.get_model_metadata("digits"))["versions"] == ["1", "2"]
        assert (await client.get_model_config("digits"))["max_batch_size"] == 0
        assert (await client.get_inference_statistics("digits", "2"))["model_stats"][0]["version"] == "2"

    run(gateway, calls)


def test_aio_gathers_many(gateway: Gateway) -> None:
    async def calls(client: triton.InferenceServerClient) -> None:
        arrays = [np.full((1, n + 1), n, np.int64) for n in range(16)]
        answers = await asyncio.gather(
            *(client.infer("identity_int64", [tensor("x", array, "INT64")]) for array in arrays)
        )
        for answer, array in zip(answers, arrays, strict=True):
            np.testing.assert_array_equal(answer.as_numpy("y"), array)

    run(gateway, calls)


def test_aio_errors(gateway: Gateway) -> None:
    async def calls(client: triton.InferenceServerClient) -> None:
        with pytest.raises(InferenceServerException, match="model 'nobody' is not known") as error:
            await client.infer("nobody", [tensor("image", IMAGE, "FP32")])
        assert error.value.status() == "404"
        with pytest.raises(InferenceServerException, match="deadline") as error:
            await client.infer("digits", [tensor("image", IMAGE, "FP32")], timeout=1)
        assert error.value.status() == "504"

    run(gateway, calls)


def test_aio_load_and_unload(own_gateway: Gateway) -> None:
    async def calls(client: triton.InferenceServerClient) -> None:
        await client.unload_model("digits")
        assert not await client.is_model_ready("digits")
        await client.load_model("digits")
        assert await client.is_model_ready("digits")
        with pytest.raises(InferenceServerException, match="no model 'nobody'"):
            await client.load_model("nobody")

    run(own_gateway, calls)


def test_binary_tensors_over_http2(gateway: Gateway) -> None:
    head = {
        "inputs": [
            {
                "name": "image",
                "shape": [1, 8, 8],
                "datatype": "FP32",
                "parameters": {"binary_data_size": 256},
            }
        ],
        "outputs": [{"name": "label", "parameters": {"binary_data": True}}],
    }
    text = json.dumps(head).encode()
    with httpx.Client(http1=False, http2=True, timeout=LIMIT) as client:
        answer = client.post(
            f"{gateway.url}/v2/models/digits/infer",
            content=text + IMAGE.tobytes(),
            headers={"Inference-Header-Content-Length": str(len(text))},
        )
    assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
    length = int(answer.headers["Inference-Header-Content-Length"])
    assert np.frombuffer(answer.content[length:], np.int64).tolist() == [5]


def test_streams_of_one_http2_connection(gateway: Gateway) -> None:
    async def calls() -> None:
        async with httpx.AsyncClient(http1=False, http2=True, timeout=LIMIT) as client:
            bodies = [REQUEST | {"id": str(n)} for n in range(16)]
            url = f"{gateway.url}/v2/models/digits/infer"
            answers = await asyncio.gather(*(client.post(url, json=body) for body in bodies))
        assert [answer.json()["id"] for answer in answers] == [str(n) for n in range(16)]
        assert {answer.http_version for answer in answers} == {"HTTP/2"}

    asyncio.run(calls())
