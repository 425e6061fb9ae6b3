"""The inference clients of the KServe SDK: REST over V1 and V2, and gRPC, each public method once with success and once without.

They live in an environment of their own: the SDK and tritonclient both register the protocol's messages
under the same names, and one process can hold only one of the two.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from conftest import ELEMENTS, ROOT, Gateway
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput

REQUEST = json.loads((ROOT / "models/digits/request.json").read_text())
IMAGE = np.array(REQUEST["inputs"][0]["data"], np.float32).reshape(1, 8, 8)
NOWHERE = "127.0.0.1:9"
#: What the SDK's own codecs cannot carry.
UNKNOWN_TO_THE_SDK = {"BF16"}
JSON_ONLY = {"FP16"}

Run = Callable[[Any, Gateway], Awaitable[None]]


class Rest:
    """A REST client with the address that each of its calls takes."""

    def __init__(self, protocol: str, address: str) -> None:
        self.address = address
        config = RESTConfig(protocol=protocol, retries=0, http2=protocol == "v2")
        self.client = InferenceRESTClient(config)

    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if method == "close":
            return await self.client.close()
        return await getattr(self.client, method)(self.address, *args, **kwargs)


class Rpc:
    """A gRPC client."""

    def __init__(self, address: str) -> None:
        self.client = InferenceGRPCClient(address, retries=0)

    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return await getattr(self.client, method)(*args, **kwargs)


FLAVOURS = ["v1", "v2", "grpc"]
REFUSALS = (httpx.HTTPStatusError, httpx.ConnectError, grpc.RpcError)


def connect(flavour: str, gateway: Gateway | None) -> Rest | Rpc:
    if flavour == "grpc":
        return Rpc(gateway.grpc if gateway else NOWHERE)
    return Rest(flavour, gateway.url if gateway else f"http://{NOWHERE}")


def request(model: str, array: np.ndarray, datatype: str, name: str, **kwargs: Any) -> InferRequest:
    given = InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array, binary_data=kwargs.pop("binary", True))
    return InferRequest(model_name=model, infer_inputs=[given], **kwargs)


def image(**kwargs: Any) -> InferRequest:
    return request("digits", IMAGE, "FP32", "image", **kwargs)


async def answers(client: Rest | Rpc, gateway: Gateway) -> None:
    if isinstance(client, Rpc):
        answer = await client.call("infer", image(request_id="a/b 7"))
        assert answer.id == "a/b 7"
    else:
        answer = await client.call("infer", image(request_id="a/b 7"), model_name="digits")
        assert answer.id == "a/b 7"
    label = answer.get_output_by_name("label")
    assert (label.shape, label.datatype, label.as_numpy().tolist()) == ([1], "INT64", [5])


async def refuses_an_input(client: Rest | Rpc, gateway: Gateway) -> None:
    wrong = request("digits", IMAGE, "FP32", "picture")
    given = {} if isinstance(client, Rpc) else {"model_name": "digits"}
    with pytest.raises(REFUSALS, match="unknown input 'picture'"):
        await client.call("infer", wrong, **given)


async def answers_v1(client: Rest, gateway: Gateway) -> None:
    answer = await client.call("infer", {"instances": [{"image": IMAGE[0].tolist()}]}, model_name="digits")
    assert answer["predictions"][0]["label"] == 5
    answer = await client.call("infer", {"instances": [IMAGE[0].tolist()] * 2}, model_name="digits")
    assert [one["label"] for one in answer["predictions"]] == [5, 5]


async def refuses_v1(client: Rest, gateway: Gateway) -> None:
    with pytest.raises(httpx.HTTPStatusError, match="picture"):
        await client.call("infer", {"instances": [{"picture": [1]}]}, model_name="digits")
    with pytest.raises(httpx.HTTPStatusError, match="model 'nobody' is not known"):
        await client.call("infer", {"instances": [[1]]}, model_name="nobody")


def says_yes(method: str, *args: Any) -> Run:
    async def run(client: Rest | Rpc, gateway: Gateway) -> None:
        assert await client.call(method, *args) is True

    return run


def nobody_listens(method: str, *args: Any) -> Run:
    async def run(client: Rest | Rpc, gateway: Gateway) -> None:
        flavour = "grpc" if isinstance(client, Rpc) else client.client._config.protocol
        lost = connect(flavour, None)
        with pytest.raises(REFUSALS):
            await lost.call(method, *args)

    return run


async def nobody_is_not_ready(client: Rest | Rpc, gateway: Gateway) -> None:
    try:
        assert await client.call("is_model_ready", "nobody") is False
    except REFUSALS as error:
        assert "nobody" in str(error) or "404" in str(error)


async def closes(client: Rest | Rpc, gateway: Gateway) -> None:
    flavour = "grpc" if isinstance(client, Rpc) else client.client._config.protocol
    other = connect(flavour, gateway)
    assert await other.call("is_server_live")
    await other.call("close")
    with pytest.raises(Exception, match="(?i)closed"):
        await other.call("is_server_live")


async def explains_nothing(client: Rest | Rpc, gateway: Gateway) -> None:
    with pytest.raises(httpx.HTTPStatusError):
        await client.call("explain", "digits", {"instances": [[1]]})


async def cannot_explain(client: Rest | Rpc, gateway: Gateway) -> None:
    with pytest.raises(Exception, match="(?i)unsupported protocol"):
        await client.call("explain", "digits", {"instances": [[1]]})


async def has_no_readiness(client: Rest | Rpc, gateway: Gateway) -> None:
    with pytest.raises(Exception, match="(?i)unsupported protocol"):
        await client.call("is_server_ready")


NOT_OFFERED = "explanations are not offered: `:explain` is refused"
#: By client and method: what works, or why nothing does; and what fails.
CASES: dict[tuple[str, str], tuple[Run | str, Run | str]] = {
    ("v1", "infer"): (answers_v1, refuses_v1),
    ("v1", "is_server_ready"): ("the SDK has no such call over V1", has_no_readiness),
    ("v1", "explain"): (NOT_OFFERED, explains_nothing),
    ("v2", "explain"): ("the SDK has no such call over V2", cannot_explain),
}
for flavour in FLAVOURS:
    CASES |= {
        (flavour, "is_server_live"): (says_yes("is_server_live"), nobody_listens("is_server_live")),
        (flavour, "is_model_ready"): (says_yes("is_model_ready", "digits"), nobody_is_not_ready),
        (flavour, "close"): (closes, closes),
    }
for flavour in ("v2", "grpc"):
    CASES |= {
        (flavour, "infer"): (answers, refuses_an_input),
        (flavour, "is_server_ready"): (says_yes("is_server_ready"), nobody_listens("is_server_ready")),
    }


def methods(flavour: str) -> list[str]:
    client = InferenceGRPCClient if flavour == "grpc" else InferenceRESTClient
    return [name for name, _ in inspect.getmembers(client, callable) if not name.startswith("_")]


EVERY = [(flavour, method) for flavour in FLAVOURS for method in methods(flavour)]


NAMES = {
    "v1": "`kserve.InferenceRESTClient`, V1",
    "v2": "`kserve.InferenceRESTClient`, V2",
    "grpc": "`kserve.InferenceGRPCClient`",
}


def line_of(flavour: str) -> str:
    """The report's line in docs/clients.md."""
    cases = [CASES[flavour, method] for method in methods(flavour)]
    works, fails = (sum(not isinstance(case[kind], str) for case in cases) for kind in (0, 1))
    return f"| {NAMES[flavour]} | {len(cases)} | {works} | {fails} |"


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_report_counts_what_is_tested(flavour: str) -> None:
    assert line_of(flavour) in (ROOT / "docs/clients.md").read_text()


def run(flavour: str, gateway: Gateway, case: Run | str) -> None:
    if isinstance(case, str):
        pytest.skip(case)

    async def within() -> None:
        client = connect(flavour, gateway)
        await case(client, gateway)
        await client.call("close")

    asyncio.run(within())


@pytest.mark.parametrize(("flavour", "method"), EVERY)
def test_works(gateway: Gateway, flavour: str, method: str) -> None:
    run(flavour, gateway, CASES[flavour, method][0])


@pytest.mark.parametrize(("flavour", "method"), EVERY)
def test_fails(gateway: Gateway, flavour: str, method: str) -> None:
    run(flavour, gateway, CASES[flavour, method][1])


def sample(datatype: str) -> np.ndarray:
    if datatype == "BYTES":
        return np.array([["", "ü€𝄞", '"\\']], dtype=np.object_)
    if datatype == "BOOL":
        return np.array([[True, False, True]])
    kinds = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64}
    if datatype in kinds:
        return np.array([[0.5, -2.0, 1024.0]], kinds[datatype])
    kind = np.dtype(datatype.lower())
    return np.array([[np.iinfo(kind).min, 7, np.iinfo(kind).max]], kind)


def words(array: np.ndarray) -> list[Any]:
    return [word.decode() if isinstance(word, bytes) else word for word in array.ravel().tolist()]


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "plain"])
@pytest.mark.parametrize("flavour", ["v2", "grpc"])
@pytest.mark.parametrize("datatype", [name for name in ELEMENTS if name not in UNKNOWN_TO_THE_SDK])
def test_every_datatype(gateway: Gateway, flavour: str, datatype: str, binary: bool) -> None:
    if datatype in JSON_ONLY and not binary:
        pytest.skip("the SDK sends FP16 as binary only")
    array = sample(datatype)

    async def calls(client: Rest | Rpc, _: Gateway) -> None:
        model = f"identity_{datatype.lower()}"
        if datatype == "BYTES" and flavour == "grpc" and not binary:
            given = InferInput("x", [1, 3], "BYTES", data=[word.encode() for word in array[0]])
            asked = InferRequest(model_name=model, infer_inputs=[given])
        else:
            asked = request(model, array, datatype, "x", binary=binary)
        named = {} if isinstance(client, Rpc) else {"model_name": model}
        got = (await client.call("infer", asked, **named)).get_output_by_name("y")
        assert (got.datatype, got.shape) == (datatype, [1, 3])
        assert words(got.as_numpy()) == words(array)

    run(flavour, gateway, calls)


@pytest.mark.parametrize("flavour", ["v2", "grpc"])
def test_binary_outputs_and_outputs_by_name(gateway: Gateway, flavour: str) -> None:
    async def calls(client: Rest | Rpc, _: Gateway) -> None:
        wanted = [RequestedOutput("label", {"binary_data": True})]
        named = {} if isinstance(client, Rpc) else {"model_name": "digits"}
        answer = await client.call("infer", image(request_outputs=wanted), **named)
        assert [output.name for output in answer.outputs] == ["label"]
        assert answer.outputs[0].as_numpy().tolist() == [5]

    run(flavour, gateway, calls)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_64_at_once(gateway: Gateway, flavour: str) -> None:
    async def calls(client: Rest | Rpc, _: Gateway) -> None:
        if flavour == "v1":
            given = {"instances": [IMAGE[0].tolist()]}
            calls = [client.call("infer", given, model_name="digits") for _ in range(64)]
            got = [answer["predictions"][0]["label"] for answer in await asyncio.gather(*calls)]
        else:
            named = {} if flavour == "grpc" else {"model_name": "digits"}
            calls = [client.call("infer", image(), **named) for _ in range(64)]
            answers = await asyncio.gather(*calls)
            got = [answer.get_output_by_name("label").as_numpy().item() for answer in answers]
        assert got == [5] * 64

    run(flavour, gateway, calls)


def test_a_timeout_of_the_grpc_client(slow: Gateway) -> None:
    """On a model that takes longer than that: a limit that only the client's clock could miss says nothing."""
    rows = request("slow", np.ones((512, 1024), np.float32), "FP32", "x")

    async def calls(client: Rest | Rpc, _: Gateway) -> None:
        with pytest.raises(grpc.RpcError) as error:
            await client.call("infer", rows, timeout=0.2)
        if error.value.code() != grpc.StatusCode.DEADLINE_EXCEEDED:
            # The gateway knows how long the model takes, and does not begin in vain.
            assert error.value.code() == grpc.StatusCode.UNAVAILABLE
            assert "would be answered in about" in error.value.details()

    run("grpc", slow, calls)
