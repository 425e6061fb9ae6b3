"""Every public method of tritonclient's four clients: a call that works and a call that fails.

`test_every_call.py` finds the methods by reflection and fails for one that is missing here.
"""

from __future__ import annotations

import json
import os
import queue
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import requests
from conftest import LIMIT, ROOT, Gateway
from flavours import Flavour
from tritonclient.utils import InferenceServerException, shared_memory

Run = Callable[[Flavour, Gateway], None]

IMAGE = np.array(
    json.loads((ROOT / "models/digits/request.json").read_text())["inputs"][0]["data"], np.float32
).reshape(1, 8, 8)
PAIR = np.array([[1, 2]], np.int64)
#: Nobody listens on the discard port of this machine.
NOWHERE = "127.0.0.1:9"

GETTER = "reads what the client keeps; it cannot fail"
OWN = "works on what the client keeps; no server is asked"


@dataclass(frozen=True)
class Reason:
    """Why there is no call of this kind."""

    text: str


@dataclass(frozen=True)
class Case:
    works: Run | Reason
    fails: Run | Reason


def gives(method: str, *args: Any, that: Callable[[Any], bool] = lambda _: True, **kwargs: Any) -> Run:
    """The call answers, and the answer is as it should be."""

    def run(client: Flavour, _: Gateway) -> None:
        answer = client.call(method, *args, **kwargs)
        assert that(answer), answer

    return run


def refuses(message: str, method: str, *args: Any, **kwargs: Any) -> Run:
    """The call raises, with a message that says why."""

    def run(client: Flavour, _: Gateway) -> None:
        with pytest.raises(InferenceServerException, match=message):
            client.call(method, *args, **kwargs)

    return run


def unreachable(method: str) -> Run:
    """The call raises where no server listens."""

    def run(client: Flavour, _: Gateway) -> None:
        with Flavour(client.name, NOWHERE) as lost:
            with pytest.raises((InferenceServerException, OSError)):
                lost.call(method)

    return run


def is_not_ready(client: Flavour, _: Gateway) -> None:
    assert client.call("is_model_ready", "nobody") is False
    assert client.call("is_model_ready", "digits", "7") is False


def infers(client: Flavour, _: Gateway) -> None:
    answer = client.infer("digits", {"image": IMAGE}, request_id="a/b 7", model_version="2")
    assert answer.as_numpy("label").tolist() == [5]
    assert answer.as_numpy("probabilities").shape == (1, 10)
    response = answer.get_response(as_json=True) if client.is_grpc else answer.get_response()
    assert (response["id"], response["model_version"]) == ("a/b 7", "2")


def infers_nobody(client: Flavour, _: Gateway) -> None:
    with pytest.raises(InferenceServerException, match="model 'nobody' is not known") as error:
        client.infer("nobody", {"image": IMAGE})
    assert error.value.status() == ("StatusCode.NOT_FOUND" if client.is_grpc else "404")


def later(client: Flavour, model: str) -> tuple[Any, Any]:
    """Result and error of `async_infer`."""
    given = [client.tensor("image", IMAGE)]
    if client.is_grpc:
        got: queue.Queue[tuple[Any, Any]] = queue.Queue()
        client.call("async_infer", model, given, lambda result, error: got.put((result, error)))
        return got.get(timeout=LIMIT)
    try:
        return client.call("async_infer", model, given).get_result(timeout=LIMIT), None
    except InferenceServerException as error:
        return None, error


def infers_later(client: Flavour, _: Gateway) -> None:
    result, error = later(client, "digits")
    assert error is None
    assert result.as_numpy("label").tolist() == [5]


def infers_nobody_later(client: Flavour, _: Gateway) -> None:
    result, error = later(client, "nobody")
    assert result is None
    assert "model 'nobody' is not known" in error.message()


def unloads_and_loads(client: Flavour, _: Gateway) -> None:
    client.call("unload_model", "identity_bool")
    assert not client.call("is_model_ready", "identity_bool")
    client.call("load_model", "identity_bool")
    assert client.call("is_model_ready", "identity_bool")


def load_refuses_overrides(client: Flavour, _: Gateway) -> None:
    for message, given in (
        ("no model 'nobody'", {"model_name": "nobody"}),
        ("parameter 'config' is not supported", {"model_name": "digits", "config": "{}"}),
        ("not supported", {"model_name": "digits", "config": "{}", "files": {"file:1/model.onnx": b"x"}}),
    ):
        with pytest.raises(InferenceServerException, match=message):
            client.call("load_model", **given)


def closes(client: Flavour, gateway: Gateway) -> None:
    address = gateway.grpc if client.is_grpc else gateway.http
    other = Flavour(client.name, address)
    assert other.call("is_server_live")
    other.close()


def fails_once_closed(client: Flavour, gateway: Gateway) -> None:
    other = Flavour(client.name, gateway.grpc if client.is_grpc else gateway.http)
    other.call("close")
    with pytest.raises(Exception, match="(?i)clos|shutdown|NoneType|connect"):
        other.call("is_server_live")


class Stamp:
    """A plugin of the client: it puts a header on each request."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, request: Any) -> None:
        self.calls += 1
        request.headers = (request.headers or {}) | {"x-request-id": f"stamp-{self.calls}"}


def uses_a_plugin(client: Flavour, _: Gateway) -> None:
    stamp = Stamp()
    client.call("register_plugin", stamp)
    try:
        assert client.call("plugin") is stamp
        assert client.call("is_server_live", headers={})
        assert stamp.calls == 1
        with pytest.raises(InferenceServerException, match="already registered"):
            client.call("register_plugin", stamp)
    finally:
        client.call("unregister_plugin")
    assert client.call("plugin") is None


def a_written_request(client: Flavour, gateway: Gateway) -> tuple[bytes, dict[str, str]]:
    """The bytes of an answer to a request that the client wrote and another sent, and its headers."""
    body, length = client.module.InferenceServerClient.generate_request_body(
        [client.tensor("image", IMAGE)]
    )
    answer = requests.post(
        f"{gateway.url}/v2/models/digits/infer",
        data=body,
        headers={"Inference-Header-Content-Length": str(length)},
        timeout=LIMIT,
    )
    assert answer.status_code == 200, answer.text
    return answer.content, dict(answer.headers)


def writes_and_reads(client: Flavour, gateway: Gateway) -> None:
    body, headers = a_written_request(client, gateway)
    length = int(headers["inference-header-content-length"])
    answer = client.module.InferenceServerClient.parse_response_body(body, header_length=length)
    assert answer.as_numpy("label").tolist() == [5]


def read_refuses(client: Flavour, gateway: Gateway) -> None:
    body, _ = a_written_request(client, gateway)
    with pytest.raises(Exception, match="(?i)json|parse|utf"):
        client.module.InferenceServerClient.parse_response_body(body, header_length=7)


def write_refuses(client: Flavour, _: Gateway) -> None:
    with pytest.raises(InferenceServerException, match="reserved parameter"):
        client.module.InferenceServerClient.generate_request_body(
            [client.tensor("image", IMAGE)], parameters={"sequence_id": 1}
        )


class Stream:
    """A stream of the synchronous client, and what comes back on it."""

    def __init__(self, client: Flavour) -> None:
        self.client = client
        self.got: queue.Queue[tuple[Any, Any]] = queue.Queue()

    def __enter__(self) -> Stream:
        self.client.call("start_stream", lambda result, error: self.got.put((result, error)))
        return self

    def __exit__(self, *_: object) -> None:
        self.client.call("stop_stream")

    def send(self, model: str, array: np.ndarray, **kwargs: Any) -> None:
        given = [self.client.tensor("image" if model == "digits" else "x", array)]
        self.client.call("async_stream_infer", model, given, **kwargs)

    def receive(self) -> tuple[Any, Any]:
        return self.got.get(timeout=LIMIT)


def streams(client: Flavour, _: Gateway) -> None:
    with Stream(client) as stream:
        for n in range(3):
            stream.send("identity_int64", PAIR + n, request_id=str(n))
        for n in range(3):
            result, error = stream.receive()
            assert error is None
            assert result.get_response().id == str(n)
            np.testing.assert_array_equal(result.as_numpy("y"), PAIR + n)


def second_stream_is_refused(client: Flavour, _: Gateway) -> None:
    with Stream(client):
        with pytest.raises(InferenceServerException, match="another stream"):
            client.call("start_stream", lambda result, error: None)


def stream_tells_errors(client: Flavour, _: Gateway) -> None:
    with pytest.raises(InferenceServerException, match="stream not available"):
        client.call("async_stream_infer", "digits", [client.tensor("image", IMAGE)])
    with Stream(client) as stream:
        stream.send("nobody", IMAGE)
        result, error = stream.receive()
        assert result is None
        assert "model 'nobody' is not known" in error.message()
        # The stream lives on.
        stream.send("digits", IMAGE)
        result, error = stream.receive()
        assert error is None
        assert result.as_numpy("label").tolist() == [5]


def aio_stream(client: Flavour, models: list[str]) -> list[tuple[Any, Any]]:
    async def all_calls() -> list[tuple[Any, Any]]:
        async def requests_() -> Any:
            for model in models:
                yield {"model_name": model, "inputs": [client.tensor("image", IMAGE)]}

        answers = client.client.stream_infer(requests_(), stream_timeout=LIMIT)
        return [answer async for answer in answers]

    return client.wait(all_calls())


def aio_streams(client: Flavour, _: Gateway) -> None:
    answers = aio_stream(client, ["digits"] * 3)
    assert [error for _, error in answers] == [None] * 3
    assert [result.as_numpy("label").tolist() for result, _ in answers] == [[5]] * 3


def aio_stream_tells_errors(client: Flavour, _: Gateway) -> None:
    (nothing, error), (result, none) = aio_stream(client, ["nobody", "digits"])
    assert (nothing, none) == (None, None)
    assert "model 'nobody' is not known" in error.message()
    assert result.as_numpy("label").tolist() == [5]


def setting(answer: Any, name: str) -> Any:
    """A setting by name, out of the HTTP or the gRPC form."""
    value = answer["settings"][name] if "settings" in answer else answer[name]
    if isinstance(value, dict):
        return value.get("value", next(iter(value.values()), None))
    return value


CUDA = Reason("CUDA shared memory is not offered: models run on the CPU")


def cuda(method: str, *args: Any) -> Case:
    return Case(CUDA, refuses("CUDA shared memory is not supported", method, *args))


def shares(client: Flavour, _: Gateway) -> None:
    """Registers a region, is told of it, and takes it back."""
    name = f"called by {client.name}"
    region = shared_memory.create_shared_memory_region(name, f"/tidegate-{os.getpid()}-{client.name}", 64)
    try:
        client.call("register_system_shared_memory", name, region._shm_key, 32, offset=16)
        told = client.call("get_system_shared_memory_status", name)
        # 64-bit numbers are strings in the JSON of Protocol Buffers.
        [told] = told["regions"].values() if client.is_grpc else told
        numbers = (int(told["offset"]), int(told["byte_size"]))
        assert (told["name"], told["key"], numbers) == (name, region._shm_key, (16, 32))
        client.call("unregister_system_shared_memory", name)
        left = client.call("get_system_shared_memory_status")
        assert name not in str(left)
    finally:
        shared_memory.destroy_shared_memory_region(region)


def has_digits(index: list[dict[str, Any]]) -> bool:
    return {"digits", "car-loan"} <= {entry["name"] for entry in index}


CASES = {
    "is_server_live": Case(
        gives("is_server_live", that=lambda live: live is True), unreachable("is_server_live")
    ),
    "is_server_ready": Case(
        gives("is_server_ready", that=lambda ready: ready is True), unreachable("is_server_ready")
    ),
    "is_model_ready": Case(
        gives("is_model_ready", "digits", "stable", that=lambda ready: ready is True), is_not_ready
    ),
    "get_server_metadata": Case(
        gives("get_server_metadata", that=lambda answer: answer["name"] == "tidegate"),
        unreachable("get_server_metadata"),
    ),
    "get_model_metadata": Case(
        gives("get_model_metadata", "digits", that=lambda answer: answer["versions"] == ["1", "2"]),
        refuses("model 'nobody' is not known", "get_model_metadata", "nobody"),
    ),
    "get_model_config": Case(
        gives(
            "get_model_config",
            "digits",
            that=lambda answer: answer["input"][0]["data_type"] == "TYPE_FP32",
        ),
        refuses("no version '7' that serves", "get_model_config", "digits", "7"),
    ),
    "get_model_repository_index": Case(
        gives("get_model_repository_index", that=has_digits),
        unreachable("get_model_repository_index"),
    ),
    "get_inference_statistics": Case(
        gives(
            "get_inference_statistics",
            "digits",
            "1",
            that=lambda answer: answer["model_stats"][0]["version"] == "1",
        ),
        refuses("model 'nobody' is not known", "get_inference_statistics", "nobody"),
    ),
    "load_model": Case(unloads_and_loads, load_refuses_overrides),
    "unload_model": Case(
        unloads_and_loads, refuses("no model 'nobody'", "unload_model", "nobody")
    ),
    "get_log_settings": Case(
        gives("get_log_settings", that=lambda answer: setting(answer, "log_info") is True),
        unreachable("get_log_settings"),
    ),
    "get_trace_settings": Case(
        gives("get_trace_settings", that=lambda answer: setting(answer, "trace_level")),
        refuses("model 'nobody' is not known", "get_trace_settings", "nobody"),
    ),
    "update_log_settings": Case(
        # What is so already may be set; what is not is the configuration's.
        gives(
            "update_log_settings",
            {"log_info": True, "log_verbose_level": 0},
            that=lambda answer: setting(answer, "log_info") is True,
        ),
        refuses("set log.level in the configuration", "update_log_settings", {"log_verbose_level": 1}),
    ),
    "update_trace_settings": Case(
        gives(
            "update_trace_settings",
            settings={"trace_level": ["OFF"], "trace_rate": None},
            that=lambda answer: setting(answer, "trace_level") == ["OFF"],
        ),
        refuses("configured in the file", "update_trace_settings", settings={"trace_level": ["MAX"]}),
    ),
    "get_system_shared_memory_status": Case(
        shares, refuses("no region 'nobody' is registered", "get_system_shared_memory_status", "nobody")
    ),
    "register_system_shared_memory": Case(
        shares,
        refuses("there is no such shared memory", "register_system_shared_memory", "r", "/nothing", 64),
    ),
    # What is not there is as it should be, as with Triton.
    "unregister_system_shared_memory": Case(shares, unreachable("unregister_system_shared_memory")),
    "get_cuda_shared_memory_status": cuda("get_cuda_shared_memory_status"),
    "register_cuda_shared_memory": cuda("register_cuda_shared_memory", "region", "AAAA", 0, 64),
    "unregister_cuda_shared_memory": cuda("unregister_cuda_shared_memory", "region"),
    "infer": Case(infers, infers_nobody),
    "async_infer": Case(infers_later, infers_nobody_later),
    "close": Case(closes, fails_once_closed),
    "plugin": Case(uses_a_plugin, Reason(GETTER)),
    "register_plugin": Case(uses_a_plugin, uses_a_plugin),
    "unregister_plugin": Case(
        uses_a_plugin, refuses("No plugin has been registered", "unregister_plugin")
    ),
    "generate_request_body": Case(writes_and_reads, write_refuses),
    "parse_response_body": Case(writes_and_reads, read_refuses),
    "start_stream": Case(streams, second_stream_is_refused),
    "stop_stream": Case(streams, Reason("stops nothing where no stream runs, by its documentation")),
    "async_stream_infer": Case(streams, stream_tells_errors),
    "stream_infer": Case(aio_streams, aio_stream_tells_errors),
}
