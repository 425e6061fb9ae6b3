"""What only gRPC has: streams, cancellation, deadlines, compression, keep-alive, messages as JSON."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import requests
import tritonclient.grpc as triton
from calls import IMAGE, PAIR, Stream
from conftest import LIMIT, Gateway
from flavours import Flavour, connect
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

CANCELLED = "tidegate_http_requests_total"
ROWS = np.ones((512, 1024), np.float32)


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[Flavour]:
    with connect("grpc", gateway) as client:
        yield client


@pytest.fixture(scope="module")
def aio(gateway: Gateway) -> Iterator[Flavour]:
    with connect("grpc.aio", gateway) as client:
        yield client


@pytest.fixture(scope="module")
def stub(gateway: Gateway) -> Iterator[service_pb2_grpc.GRPCInferenceServiceStub]:
    """The generated stub, for messages that the client would not send."""
    with grpc.insecure_channel(gateway.grpc) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def metric(gateway: Gateway, name: str, *labels: str) -> float:
    """The sum of a metric's series that have these labels."""
    text = requests.get(f"http://{gateway.admin}/metrics", timeout=LIMIT).text
    lines = (line for line in text.splitlines() if line.startswith((f"{name}{{", f"{name} ")))
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if all(label in line for label in labels))


def until(condition: Any, seconds: float = 20) -> None:
    """Waits for something that happens soon."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_messages_and_json_say_the_same(client: Flavour) -> None:
    for method, *given in (
        ("get_server_metadata",),
        ("get_model_metadata", "digits"),
        ("get_model_config", "digits"),
        ("get_model_repository_index",),
        ("get_inference_statistics", "car-loan"),
    ):
        message = getattr(client.client, method)(*given)
        as_json = getattr(client.client, method)(*given, as_json=True)
        assert set(as_json) == {field.name for field, _ in message.ListFields()}, method
    assert client.client.get_model_metadata("digits").inputs[0].shape == [-1, 8, 8]
    assert client.client.get_model_config("digits").config.platform == "onnx_onnxv1"


def test_an_answer_as_json(client: Flavour) -> None:
    answer = client.infer("identity_int64", {"x": PAIR})
    assert answer.get_output("y").shape == [1, 2]
    assert answer.get_response(as_json=True)["model_name"] == "identity_int64"
    assert answer.get_output("nothing") is None
    assert answer.as_numpy("nothing") is None


def test_statistics_count_requests_over_grpc(client: Flavour) -> None:
    def counts() -> tuple[int, int, int]:
        stats = client.client.get_inference_statistics("digits", "2").model_stats[0]
        return stats.inference_count, stats.execution_count, stats.inference_stats.success.count

    before = counts()
    client.infer("digits", {"image": np.repeat(IMAGE, 3, axis=0)}, model_version="2")
    after = counts()
    assert tuple(b - a for a, b in zip(before, after, strict=True)) == (3, 1, 1)


@pytest.mark.parametrize("coding", ["gzip"])
def test_compression_of_streams(client: Flavour, coding: str) -> None:
    got: queue.Queue[Any] = queue.Queue()
    client.call("start_stream", lambda result, error: got.put((result, error)), compression_algorithm=coding)
    try:
        client.call("async_stream_infer", "identity_int64", [client.tensor("x", PAIR)])
        result, error = got.get(timeout=LIMIT)
        assert error is None
        np.testing.assert_array_equal(result.as_numpy("y"), PAIR)
    finally:
        client.call("stop_stream")


def test_deflate_over_grpc(client: Flavour) -> None:
    """Triton's client offers deflate; a server without it names what it takes."""
    try:
        answer = client.infer("identity_int64", {"x": PAIR}, compression_algorithm="deflate")
    except InferenceServerException as error:
        assert error.status() == "StatusCode.UNIMPLEMENTED"
    else:
        np.testing.assert_array_equal(answer.as_numpy("y"), PAIR)


def test_keep_alive(gateway: Gateway) -> None:
    options = triton.KeepAliveOptions(
        keepalive_time_ms=200,
        keepalive_timeout_ms=1000,
        keepalive_permit_without_calls=True,
        http2_max_pings_without_data=0,
    )
    with connect("grpc", gateway, keepalive_options=options) as client:
        for _ in range(3):
            assert client.call("is_server_live")
            time.sleep(0.5)
        assert client.infer("digits", {"image": IMAGE}).as_numpy("label").tolist() == [5]


def test_metadata_goes_in_and_comes_back(stub: Any) -> None:
    answer, call = stub.ModelReady.with_call(
        service_pb2.ModelReadyRequest(name="digits"), metadata=(("x-request-id", "abc-1"),)
    )
    assert answer.ready
    metadata = dict(call.initial_metadata()) | dict(call.trailing_metadata())
    assert metadata["x-request-id"] == "abc-1"


def test_many_requests_on_one_stream(client: Flavour) -> None:
    count = 200
    with Stream(client) as stream:
        for n in range(count):
            stream.send("identity_int64", PAIR * n, request_id=str(n))
        got = {}
        for _ in range(count):
            result, error = stream.receive()
            assert error is None
            got[int(result.get_response().id)] = result.as_numpy("y")
    for n in range(count):
        np.testing.assert_array_equal(got[n], PAIR * n)


def test_a_stream_that_fails_each_second_time(client: Flavour) -> None:
    with Stream(client) as stream:
        for n in range(6):
            stream.send("digits" if n % 2 else "identity_int64", IMAGE if n % 2 else PAIR)
            stream.send("nobody", IMAGE)
        answers = [stream.receive() for _ in range(12)]
    assert sum(error is None for _, error in answers) == 6


def test_streams_end_at_their_time(slow: Gateway) -> None:
    got: queue.Queue[Any] = queue.Queue()
    with connect("grpc", slow) as client:
        client.call("start_stream", lambda result, error: got.put((result, error)), stream_timeout=0.3)
        client.call("async_stream_infer", "slow", [client.tensor("x", ROWS)])
        result, error = got.get(timeout=LIMIT)
        assert result is None
        # By the client's clock, by the gateway's, or foreseen by the gateway: whichever comes first.
        assert error.status() == "StatusCode.DEADLINE_EXCEEDED" or "deadline" in error.message()
        client.call("stop_stream", cancel_requests=True)


def test_streams_are_cancelled(slow: Gateway) -> None:
    got: queue.Queue[Any] = queue.Queue()
    with connect("grpc", slow) as client:
        client.call("start_stream", lambda result, error: got.put((result, error)))
        client.call("async_stream_infer", "slow", [client.tensor("x", ROWS)])
        time.sleep(0.2)
        client.call("stop_stream", cancel_requests=True)
        result, error = got.get(timeout=LIMIT)
        assert result is None
        assert error.status() == "StatusCode.CANCELLED"


def test_requests_are_cancelled(slow: Gateway) -> None:
    """The client is told at once, and the gateway counts it as cancelled."""
    before = metric(slow, CANCELLED, 'plane="grpc"', 'outcome="cancelled"')
    got: queue.Queue[Any] = queue.Queue()
    with connect("grpc", slow) as client:
        calls = [
            client.call(
                "async_infer",
                "slow",
                [client.tensor("x", ROWS)],
                lambda result, error: got.put((result, error)),
            )
            for _ in range(8)
        ]
        time.sleep(0.2)
        for call in calls:
            call.cancel()
        for _ in calls:
            result, error = got.get(timeout=LIMIT)
            assert result is None
            assert error.status() == "StatusCode.CANCELLED"
    until(lambda: metric(slow, CANCELLED, 'plane="grpc"', 'outcome="cancelled"') - before >= 8)


def test_aio_cancels(slow: Gateway) -> None:
    with connect("grpc.aio", slow) as client:

        async def calls() -> None:
            task = asyncio.ensure_future(client.client.infer("slow", [client.tensor("x", ROWS)]))
            await asyncio.sleep(0.2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await client.client.is_server_live()

        client.wait(calls())


def test_aio_streams_are_cancelled(slow: Gateway) -> None:
    with connect("grpc.aio", slow) as client:

        async def given() -> AsyncIterator[dict[str, Any]]:
            yield {"model_name": "slow", "inputs": [client.tensor("x", ROWS)]}
            await asyncio.sleep(LIMIT)

        async def calls() -> None:
            answers = client.client.stream_infer(given())
            asyncio.get_running_loop().call_later(0.2, answers.cancel)
            with pytest.raises(asyncio.CancelledError):
                async for _ in answers:
                    pass

        client.wait(calls())


def test_aio_streams_many(aio: Flavour) -> None:
    async def given() -> AsyncIterator[dict[str, Any]]:
        for n in range(50):
            yield {
                "model_name": "identity_int64",
                "inputs": [aio.tensor("x", PAIR * n)],
                "request_id": str(n),
            }

    async def calls() -> dict[int, np.ndarray]:
        got = {}
        async for result, error in aio.client.stream_infer(given(), stream_timeout=LIMIT):
            assert error is None
            got[int(result.get_response().id)] = result.as_numpy("y")
        return got

    got = aio.wait(calls())
    assert set(got) == set(range(50))
    for n, array in got.items():
        np.testing.assert_array_equal(array, PAIR * n)


def typed(model: str, datatype: str, shape: list[int], **contents: Any) -> Any:
    """A request with typed contents, as clients without NumPy send it."""
    request = service_pb2.ModelInferRequest(model_name=model)
    given = request.inputs.add(name="x", datatype=datatype, shape=shape)
    for field, data in contents.items():
        getattr(given.contents, field).extend(data)
    return request


@pytest.mark.parametrize(
    ("datatype", "field", "data", "kind"),
    [
        ("BOOL", "bool_contents", [True, False], np.bool_),
        ("INT8", "int_contents", [-128, 127], np.int8),
        ("INT16", "int_contents", [-32768, 32767], np.int16),
        ("INT32", "int_contents", [-(2**31), 2**31 - 1], np.int32),
        ("INT64", "int64_contents", [-(2**63), 2**63 - 1], np.int64),
        ("UINT8", "uint_contents", [0, 255], np.uint8),
        ("UINT16", "uint_contents", [0, 65535], np.uint16),
        ("UINT32", "uint_contents", [0, 2**32 - 1], np.uint32),
        ("UINT64", "uint64_contents", [0, 2**64 - 1], np.uint64),
        ("FP32", "fp32_contents", [1.5, -0.0], np.float32),
        ("FP64", "fp64_contents", [1e300, -0.1], np.float64),
    ],
)
def test_typed_contents(stub: Any, datatype: str, field: str, data: list[Any], kind: Any) -> None:
    answer = stub.ModelInfer(typed(f"identity_{datatype.lower()}", datatype, [1, 2], **{field: data}))
    assert (answer.outputs[0].name, answer.outputs[0].datatype) == ("y", datatype)
    assert not answer.outputs[0].HasField("contents"), "answers are raw: clients read nothing else"
    assert np.frombuffer(answer.raw_output_contents[0], kind).tolist() == data


def test_typed_bytes(stub: Any) -> None:
    answer = stub.ModelInfer(
        typed("identity_bytes", "BYTES", [1, 2], bytes_contents=[b"", "ü".encode()])
    )
    assert answer.raw_output_contents[0] == b"\0\0\0\0\2\0\0\0\xc3\xbc"


def broken(text: str, change: Any) -> Any:
    return pytest.param(text, change, id=text)


def set_raw(*raw: bytes) -> Any:
    return lambda request: request.raw_input_contents.extend(raw)


@pytest.mark.parametrize(
    ("message", "change"),
    [
        broken("raw and typed", set_raw(bytes(16))),
        broken("shape", lambda request: request.inputs[0].shape.append(2)),
        broken("datatype", lambda request: setattr(request.inputs[0], "datatype", "FP33")),
        broken("out of range", lambda request: request.inputs[0].contents.int64_contents.append(1)),
        broken("unknown output", lambda request: request.outputs.add(name="u")),
        broken("x", lambda request: request.ClearField("inputs")),
    ],
)
def test_requests_that_are_wrong(stub: Any, message: str, change: Any) -> None:
    request = typed("identity_int64", "INT64", [1, 2], int64_contents=[1, 2])
    change(request)
    with pytest.raises(grpc.RpcError) as error:
        stub.ModelInfer(request)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert error.value.details()


def test_messages_beyond_the_limit(own_gateway: Gateway) -> None:
    with connect("grpc", own_gateway) as client:
        with pytest.raises(InferenceServerException) as error:
            client.infer("digits", {"image": np.zeros((8192, 8, 8), np.float32)})
        assert error.value.status() in ("StatusCode.RESOURCE_EXHAUSTED", "StatusCode.OUT_OF_RANGE")
        assert client.infer("digits", {"image": IMAGE}).as_numpy("label").tolist() == [5]


def test_64_threads(gateway: Gateway) -> None:
    """Each thread with a client of its own."""
    failures: list[Exception] = []

    def work(n: int) -> None:
        try:
            with connect("grpc", gateway) as client:
                array = np.full((1, 5), n, np.int64)
                np.testing.assert_array_equal(
                    client.infer("identity_int64", {"x": array}).as_numpy("y"), array
                )
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
