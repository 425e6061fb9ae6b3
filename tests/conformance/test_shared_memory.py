"""System shared memory with tritonclient's four clients: tensors in files of /dev/shm."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import requests
from calls import IMAGE
from conftest import ELEMENTS, LIMIT, ROOT, Gateway, start, stop
from flavours import MODULES, Flavour, connect
from tritonclient.utils import InferenceServerException, serialize_byte_tensor, shared_memory
from test_triton_http import sample

NUMBERS = itertools.count()


@pytest.fixture(params=MODULES)
def client(request: pytest.FixtureRequest, gateway: Gateway) -> Iterator[Flavour]:
    with connect(request.param, gateway) as client:
        yield client


class Region:
    """A region of the client's, registered with the server."""

    def __init__(self, client: Flavour, size: int, offset: int = 0) -> None:
        self.client, self.size = client, size
        self.name = f"region {next(NUMBERS)}"
        self.key = f"/tidegate-{os.getpid()}-{next(NUMBERS)}"
        self.path = Path("/dev/shm") / self.key[1:]
        self.handle = shared_memory.create_shared_memory_region(self.name, self.key, offset + size)
        self.offset = offset
        client.call("register_system_shared_memory", self.name, self.key, size, offset=offset)

    def put(self, array: np.ndarray, offset: int = 0) -> None:
        shared_memory.set_shared_memory_region(self.handle, [array], offset=self.offset + offset)

    def get(self, datatype: type, shape: list[int], offset: int = 0) -> np.ndarray:
        held = shared_memory.get_contents_as_numpy(
            self.handle, datatype, shape, offset=self.offset + offset
        )
        return held.copy()

    def __enter__(self) -> Region:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.call("unregister_system_shared_memory", self.name)
        shared_memory.destroy_shared_memory_region(self.handle)


@pytest.fixture
def region(client: Flavour) -> Iterator[Callable[..., Region]]:
    with ExitStack() as stack:
        yield lambda *args, **kwargs: stack.enter_context(Region(client, *args, **kwargs))


def given(client: Flavour, name: str, shape: tuple[int, ...], datatype: str, *there: Any) -> Any:
    """An input in a region."""
    tensor = client.module.InferInput(name, list(shape), datatype)
    tensor.set_shared_memory(*there)
    return tensor


def wanted(client: Flavour, name: str, *there: Any) -> Any:
    """An output in a region."""
    output = client.output(name)
    output.set_shared_memory(*there)
    return output


def test_inputs_and_outputs(client: Flavour, region: Callable[..., Region]) -> None:
    inputs, results = region(2 * IMAGE.nbytes, offset=64), region(200)
    inputs.put(IMAGE, offset=IMAGE.nbytes)
    answer = client.call(
        "infer",
        "digits",
        [given(client, "image", IMAGE.shape, "FP32", inputs.name, IMAGE.nbytes, IMAGE.nbytes)],
        outputs=[
            wanted(client, "probabilities", results.name, 100, 8),
            client.output("label"),
        ],
        request_id="7",
    )
    assert answer.as_numpy("label").tolist() == [5]
    told = answer.get_output("probabilities")
    if client.is_grpc:
        assert (told.datatype, list(told.shape), len(told.parameters)) == ("FP32", [1, 10], 0)
    else:
        # Without parameters, as Triton has it: its client in C++ takes any for binary data.
        assert told == {"name": "probabilities", "datatype": "FP32", "shape": [1, 10]}
    over_socket = client.infer("digits", {"image": IMAGE}).as_numpy("probabilities")
    np.testing.assert_array_equal(results.get(np.float32, [1, 10], offset=8), over_socket)


@pytest.mark.parametrize("datatype", list(ELEMENTS))
def test_every_datatype(client: Flavour, region: Callable[..., Region], datatype: str) -> None:
    array = sample(datatype)
    if datatype == "BF16":
        array = array.astype(ml_dtypes.bfloat16)
    held = serialize_byte_tensor(array) if datatype == "BYTES" else array
    raw = held.item() if datatype == "BYTES" else held.tobytes()
    inputs, results = region(len(raw)), region(len(raw))
    with inputs.path.open("r+b") as file:
        file.write(raw)
    client.call(
        "infer",
        f"identity_{datatype.lower()}",
        [given(client, "x", array.shape, datatype, inputs.name, len(raw))],
        outputs=[wanted(client, "y", results.name, len(raw))],
    )
    assert results.path.read_bytes()[: len(raw)] == raw


def test_images_of_600_kb_and_several_megabytes(
    client: Flavour, region: Callable[..., Region]
) -> None:
    for rows in (1, 16):
        array = np.random.default_rng(rows).normal(size=(rows, 150_528)).astype(np.float32)
        inputs, results = region(array.nbytes), region(array.nbytes)
        inputs.put(array)
        client.call(
            "infer",
            "identity_fp32",
            [given(client, "x", array.shape, "FP32", inputs.name, array.nbytes)],
            outputs=[wanted(client, "y", results.name, array.nbytes)],
        )
        np.testing.assert_array_equal(results.get(np.float32, list(array.shape)), array)


def test_a_region_and_a_message_in_one_request(
    client: Flavour, region: Callable[..., Region]
) -> None:
    """And classes, which are strings, in a region."""
    amounts = np.array([[12638.0]], np.float32)
    there = region(64)
    there.put(amounts)
    numbers = {"debt_to_income_ratio": 0.49, "loan_length": 21.0, "driver_tenure": 4.2}
    words = {
        "salary_range": "0 - 20K €",
        "repaid_loan_on_prev_car": "False",
        "size_of_downpayment": "10%",
    }
    others = [client.tensor(name, np.array([[value]], np.float32)) for name, value in numbers.items()]
    others += [client.tensor(name, np.array([[value]], object)) for name, value in words.items()]
    tensors = [given(client, "car_value", (1, 1), "FP32", there.name, 4), *others]
    answer = client.call("infer", "car-loan", tensors).as_numpy("probability")
    same = client.call("infer", "car-loan", [client.tensor("car_value", amounts), *others])
    np.testing.assert_array_equal(answer, same.as_numpy("probability"))


def test_refusals_name_the_tensor_and_what_was_expected(
    client: Flavour, region: Callable[..., Region]
) -> None:
    there = region(IMAGE.nbytes)
    there.put(IMAGE)

    def refused(words: str, tensor: Any, output: Any = None) -> None:
        with pytest.raises(InferenceServerException, match=re.escape(words)) as error:
            client.call("infer", "digits", [tensor], outputs=[output or client.output("label")])
        assert error.value.status() in ("400", "StatusCode.INVALID_ARGUMENT")

    def image(*place: Any) -> Any:
        return given(client, "image", IMAGE.shape, "FP32", *place)

    refused("tensor 'image': parameter 'shared_memory_region': no region 'none'", image("none", 256))
    refused("shape [1, 8, 8] of FP32 needs 256 bytes, got 255", image(there.name, 255))
    refused("256 bytes from 8 on are not within region", image(there.name, 256, 8))
    refused(
        "tensor 'label': parameter 'shared_memory_byte_size': the output has 8 bytes, got 4",
        image(there.name, 256),
        wanted(client, "label", there.name, 4),
    )
    # The client cuts its file: an error and no end of the server.
    os.truncate(there.path, 100)
    refused(f"region '{there.name}' is shorter than it was", image(there.name, 256))
    assert client.call("is_server_live")


def test_calls_about_regions_that_fail(client: Flavour, region: Callable[..., Region]) -> None:
    there = region(64)
    link = Path(f"/dev/shm/tidegate-link-{os.getpid()}")
    link.symlink_to("/etc/passwd")
    try:
        for name, key, size, offset, words in [
            ("other", "/../etc/passwd", 1, 0, "expected the name of a file in /dev/shm"),
            ("other", "/etc/passwd", 1, 0, "expected the name of a file in /dev/shm"),
            ("other", f"/{link.name}", 1, 0, "a regular file"),
            ("other", "/tidegate-not-there", 1, 0, "there is no such shared memory"),
            ("other", there.key, 0, 0, "byte_size: expected 1 to"),
            ("other", there.key, 65, 0, "65 bytes from offset 0 on are not within"),
            ("other", there.key, 1, 64, "1 bytes from offset 64 on are not within"),
            (there.name, there.key, 64, 0, "is registered already"),
        ]:
            with pytest.raises(InferenceServerException, match=re.escape(words)):
                client.call("register_system_shared_memory", name, key, size, offset=offset)
    finally:
        link.unlink()
    assert "other" not in str(client.call("get_system_shared_memory_status"))
    with pytest.raises(InferenceServerException, match="no region 'other' is registered"):
        client.call("get_system_shared_memory_status", "other")


def test_a_stream(gateway: Gateway) -> None:
    with connect("grpc.aio", gateway) as client, Region(client, IMAGE.nbytes) as inputs:
        inputs.put(IMAGE)

        async def asks() -> list[int]:
            async def questions() -> Any:
                for _ in range(3):
                    there = inputs.name, IMAGE.nbytes
                    tensor = given(client, "image", IMAGE.shape, "FP32", *there)
                    yield {"model_name": "digits", "inputs": [tensor]}

            labels = []
            async for result, error in client.client.stream_infer(questions()):
                assert error is None
                labels += result.as_numpy("label").tolist()
            return labels

        assert client.wait(asks()) == [5, 5, 5]


def test_bodies_by_hand(gateway: Gateway) -> None:
    """What tritonclient does not send."""

    def post(path: str, body: object) -> tuple[int, str]:
        answer = gateway.post(f"/v2/systemsharedmemory/{path}", body)
        return answer.status_code, answer.json()["error"]

    status, error = post("region/r/register", {"byte_size": 4})
    assert status == 400 and "`key` is missing" in error
    status, error = post("region/r/register", {"key": "/k"})
    assert status == 400 and "`byte_size` is missing" in error
    status, error = post("region/r/register", {"key": "/k", "byte_size": -1})
    assert status == 400 and "expected a whole number" in error
    status, error = post("region/r/register", {"key": 7, "byte_size": 1})
    assert status == 400 and "expected a string" in error
    assert post("region/r/register", {"key": "/tidegate-no", "byte_size": 1})[0] == 404
    for method, path, expected in [
        ("GET", "region/r/register", 405),
        ("GET", "unregister", 405),
        ("POST", "status", 405),
        ("GET", "region/r/status", 404),
        ("GET", "region/r", 404),
    ]:
        url = f"{gateway.url}/v2/systemsharedmemory/{path}"
        assert requests.request(method, url, timeout=LIMIT).status_code == expected, (method, path)


@pytest.mark.parametrize("name", MODULES)
def test_limits_of_the_configuration(tmp_path: Path, name: str) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "digits").symlink_to(ROOT / "models" / "digits")
    config = 'enabled = true\nprefix = "tidegate-"\nregions = 2\nregion_size = "1KiB"\n'
    gateway = start(tmp_path, f"[server.shared_memory]\n{config}")
    try:
        with connect(name, gateway) as client, Region(client, 1024) as one, Region(client, 8):
            for key, size, words in [
                ("/other", 8, "begins with 'tidegate-' (server.shared_memory.prefix)"),
                (one.key, 1025, "expected 1 to 1024 (server.shared_memory.region_size)"),
                (one.key, 8, "2 regions are registered, which is the limit"),
            ]:
                with pytest.raises(InferenceServerException, match=re.escape(words)):
                    client.call("register_system_shared_memory", "third", key, size)
            client.call("unregister_system_shared_memory")
            client.call("register_system_shared_memory", "third", one.key, 8)
            assert "system_shared_memory" in client.call("get_server_metadata")["extensions"]
    finally:
        stop(gateway)


@pytest.mark.parametrize("name", MODULES)
def test_it_is_off_unless_it_is_turned_on(fresh_gateway: Gateway, name: str) -> None:
    off = r"shared memory is turned off \(server.shared_memory.enabled\)"
    with connect(name, fresh_gateway) as client:
        assert "system_shared_memory" not in client.call("get_server_metadata")["extensions"]
        for method, args in [
            ("register_system_shared_memory", ("r", "/k", 1)),
            ("unregister_system_shared_memory", ()),
            ("get_system_shared_memory_status", ()),
        ]:
            with pytest.raises(InferenceServerException, match=off) as error:
                client.call(method, *args)
            assert error.value.status() in ("501", "StatusCode.UNIMPLEMENTED")
        image = given(client, "image", IMAGE.shape, "FP32", "r", IMAGE.nbytes)
        with pytest.raises(InferenceServerException, match=f"tensor 'image': {off}"):
            client.call("infer", "digits", [image])
        output = wanted(client, "label", "r", 8)
        with pytest.raises(InferenceServerException, match=f"tensor 'label': {off}"):
            client.call("infer", "digits", [client.tensor("image", IMAGE)], outputs=[output])
