"""What every client of tritonclient must get right, whatever carries it: datatypes, sizes, limits, many at once."""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from conftest import ELEMENTS, LIMIT, Gateway
from flavours import MODULES, Flavour, connect
from test_triton_http import images, sample, text
from tritonclient.utils import InferenceServerException

#: What the HTTP clients do not send as JSON.
BINARY_ONLY = {"FP16", "BF16"}


@pytest.fixture(scope="module")
def clients(gateway: Gateway) -> Iterator[dict[str, Flavour]]:
    connected = {name: connect(name, gateway) for name in MODULES}
    yield connected
    for client in connected.values():
        client.close()


@pytest.fixture(params=list(MODULES))
def client(request: pytest.FixtureRequest, clients: dict[str, Flavour]) -> Flavour:
    return clients[request.param]


def values(datatype: str) -> np.ndarray:
    if datatype == "BF16":
        return np.array([[1.0, -2.5, 3.140625], [0.0, -0.0, 3e38]], ml_dtypes.bfloat16)
    return sample(datatype)


@pytest.mark.parametrize("datatype", list(ELEMENTS))
def test_binary_both_ways(client: Flavour, datatype: str) -> None:
    array = values(datatype)
    answer = client.infer(f"identity_{datatype.lower()}", {"x": array})
    got = answer.as_numpy("y")
    np.testing.assert_array_equal(text(got) if datatype == "BYTES" else got, array)
    if array.dtype.kind == "f":
        np.testing.assert_array_equal(np.signbit(got), np.signbit(array))


@pytest.mark.parametrize("name", ["http", "http.aio"])
@pytest.mark.parametrize("datatype", [name for name in ELEMENTS if name not in BINARY_ONLY])
def test_json_both_ways(clients: dict[str, Flavour], name: str, datatype: str) -> None:
    client, array = clients[name], values(datatype)
    answer = client.call(
        "infer",
        f"identity_{datatype.lower()}",
        [client.tensor("x", array, binary=False)],
        outputs=[client.output("y", binary=False)],
    )
    np.testing.assert_array_equal(answer.as_numpy("y"), array)
    assert "data" in answer.get_output("y")


def test_bytes_of_every_kind(client: Flavour) -> None:
    words = ["", "a", "ü€𝄞", '"\\', "\0", "x" * 100_000]
    array = np.array([words], dtype=np.object_)
    np.testing.assert_array_equal(
        text(client.infer("identity_bytes", {"x": array}).as_numpy("y")), array
    )
    empty = np.empty((0, 3), dtype=np.object_)
    assert client.infer("identity_bytes", {"x": empty}).as_numpy("y").shape == (0, 3)


def test_no_rows(client: Flavour) -> None:
    empty = np.empty((0, 3), np.float32)
    got = client.infer("identity_fp32", {"x": empty}).as_numpy("y")
    assert (got.shape, got.dtype) == ((0, 3), np.float32)


def test_large_tensors(client: Flavour) -> None:
    array = np.random.default_rng(1).random((2048, 2048), np.float32)
    np.testing.assert_array_equal(client.infer("identity_fp32", {"x": array}).as_numpy("y"), array)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_compression(client: Flavour, coding: str) -> None:
    array = np.arange(40_000, dtype=np.float32).reshape(200, 200)
    if client.is_grpc:
        if coding == "deflate":
            pytest.skip("gRPC with deflate is refused; see test_deflate_over_grpc")
        how = {"compression_algorithm": coding}
    else:
        how = {"request_compression_algorithm": coding, "response_compression_algorithm": coding}
    got = client.infer("identity_fp32", {"x": array}, **how).as_numpy("y")
    np.testing.assert_array_equal(got, array)


def test_class_scores(client: Flavour) -> None:
    image = images()[0][:2]
    wanted = [client.output("probabilities", class_count=3)]
    best = client.infer("digits", {"image": image}, outputs=wanted).as_numpy("probabilities")
    assert best.shape == (2, 3)
    scores = client.infer("digits", {"image": image}).as_numpy("probabilities")
    value, index, label = best[0][0].decode().split(":")
    assert int(index) == scores[0].argmax()
    assert np.float32(value) == scores[0].max()
    assert label in {"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"}


def test_the_timeout_parameter(client: Flavour) -> None:
    with pytest.raises(InferenceServerException, match="deadline") as error:
        client.infer("digits", {"image": images()[0][:1]}, timeout=1)
    expected = "StatusCode.DEADLINE_EXCEEDED" if client.is_grpc else "504"
    assert error.value.status() == expected


def test_parameters_that_nobody_knows_are_passed_over(client: Flavour) -> None:
    given = {"tenant": "a", "weight": 3, "is_test": True, "ratio": 0.5}
    if not client.is_grpc:
        del given["ratio"]  # the HTTP clients refuse floats
    answer = client.infer("digits", {"image": images()[0][:1]}, parameters=given, priority=2)
    assert answer.as_numpy("label").shape == (1,)


def test_errors_are_the_same_words(client: Flavour) -> None:
    image = images()[0][:1]
    for model, arrays, message in (
        ("digits", {"image": image.astype(np.float64)}, r"expected image FP32 \[-1,8,8\]"),
        ("digits", {"picture": image}, "unknown input 'picture'"),
        ("digits", {"image": image[:, :4]}, r"expected image FP32 \[-1,8,8\]"),
        ("identity_bytes", {"x": np.array([[b"\xff"]], np.object_)}, "not UTF-8"),
    ):
        with pytest.raises(InferenceServerException, match=message) as error:
            client.infer(model, arrays)
        assert error.value.status() == ("StatusCode.INVALID_ARGUMENT" if client.is_grpc else "400")
    with pytest.raises(InferenceServerException, match="no version '9' that serves"):
        client.infer("digits", {"image": image}, model_version="9")
    with pytest.raises(InferenceServerException, match="unknown output 'u'"):
        client.infer("digits", {"image": image}, outputs=[client.output("u")])


def together(client: Flavour, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """The answers of as many requests at once."""
    model = "identity_int64"
    if client.is_aio:

        async def all_calls() -> list[Any]:
            calls = (client.client.infer(model, [client.tensor("x", array)]) for array in arrays)
            return await asyncio.gather(*calls)

        return [answer.as_numpy("y") for answer in client.wait(all_calls())]
    if not client.is_grpc:
        calls = [client.call("async_infer", model, [client.tensor("x", array)]) for array in arrays]
        return [call.get_result(timeout=LIMIT).as_numpy("y") for call in calls]
    got: queue.Queue[tuple[int, Any, Any]] = queue.Queue()
    for n, array in enumerate(arrays):
        client.call(
            "async_infer",
            model,
            [client.tensor("x", array)],
            lambda result, error, n=n: got.put((n, result, error)),
        )
    answers = sorted((got.get(timeout=LIMIT) for _ in arrays), key=lambda answer: answer[0])
    assert [error for _, _, error in answers] == [None] * len(arrays)
    return [result.as_numpy("y") for _, result, _ in answers]


def test_64_at_once(client: Flavour) -> None:
    arrays = [np.full((1, n + 1), n, np.int64) for n in range(64)]
    for got, array in zip(together(client, arrays), arrays, strict=True):
        np.testing.assert_array_equal(got, array)


def test_the_same_numbers_from_all_of_them(clients: dict[str, Flavour]) -> None:
    pixels = images()[0][:50]
    answers = [client.infer("digits", {"image": pixels}) for client in clients.values()]
    for answer in answers[1:]:
        for name in ("probabilities", "label"):
            np.testing.assert_array_equal(answer.as_numpy(name), answers[0].as_numpy(name))


def test_a_client_that_waits_no_longer(slow: Gateway) -> None:
    """Each client's own limit of time, on a model that takes longer than that."""
    rows = np.ones((512, 1024), np.float32)
    for name, how in (
        ("http", {"options": {"network_timeout": 0.2}}),
        ("http.aio", {"options": {"conn_timeout": 0.2}}),
        ("grpc", {"given": {"client_timeout": 0.2}}),
        ("grpc.aio", {"given": {"client_timeout": 0.2}}),
    ):
        with connect(name, slow, **how.get("options", {})) as client:
            begun = time.monotonic()
            with pytest.raises((TimeoutError, InferenceServerException)) as error:
                client.infer("slow", {"x": rows}, **how.get("given", {}))
            assert time.monotonic() - begun < 5, name
            if client.is_grpc and error.value.status() != "StatusCode.DEADLINE_EXCEEDED":
                # Once the gateway knows how long the model takes, it does not begin in vain.
                assert error.value.status() == "StatusCode.UNAVAILABLE"
                assert "would be answered in about" in error.value.message()
