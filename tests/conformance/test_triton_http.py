"""Every call of tritonclient.http that the gateway supports, once with success and once without."""

from __future__ import annotations

import csv
import json

import ml_dtypes
import numpy as np
import pytest
import tritonclient.http as triton
from conftest import ELEMENTS, ROOT, Gateway
from served import NUMPY
from tritonclient.utils import InferenceServerException

EXTENSIONS = [
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
    "system_shared_memory",
]


@pytest.fixture
def client(gateway: Gateway) -> triton.InferenceServerClient:
    with triton.InferenceServerClient(gateway.http, concurrency=16) as client:
        yield client


def images() -> tuple[np.ndarray, np.ndarray]:
    """The test images of the digits, and their labels."""
    with (ROOT / "models/digits/samples.csv").open() as file:
        rows = np.array(list(csv.reader(file))[1:], np.float32)
    return rows[:, :64].reshape(-1, 8, 8), rows[:, 64].astype(np.int64)


def tensor(name: str, array: np.ndarray, datatype: str, binary: bool = True) -> triton.InferInput:
    given = triton.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array, binary_data=binary)
    return given


def sample(datatype: str) -> np.ndarray:
    """Values of a datatype with its extremes: [2, 3]."""
    kind = NUMPY.get(datatype, np.float32)
    if datatype == "BYTES":
        return np.array([["", "a", "ü€𝄞"], ['"\\', "\n", "0"]], dtype=np.object_)
    if datatype == "BOOL":
        return np.array([[True, False, True], [False, False, True]])
    if np.issubdtype(kind, np.integer):
        info = np.iinfo(kind)
        return np.array([[info.min, info.max, 0], [1, 2, 3]], dtype=kind)
    return np.array([[0.0, -0.0, 1.5], [-2.25, 3e4, 0.099976]], dtype=kind)


def text(array: np.ndarray) -> np.ndarray:
    return np.array([[value.decode() for value in row] for row in array], dtype=np.object_)


def test_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "2")
    assert client.is_model_ready("digits", "stable")
    assert not client.is_model_ready("nobody")
    assert not client.is_model_ready("digits", "7")
    assert client.get_server_metadata()["extensions"] == EXTENSIONS
    metadata = client.get_model_metadata("digits")
    assert metadata["versions"] == ["1", "2"]
    assert metadata["platform"] == "onnx_onnxv1"
    assert metadata["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 8, 8]}]
    assert client.get_model_metadata("digits", "candidate")["versions"] == ["2"]
    with pytest.raises(InferenceServerException, match="model 'nobody' is not known"):
        client.get_model_metadata("nobody")


def test_config_statistics_and_index(client: triton.InferenceServerClient) -> None:
    config = client.get_model_config("digits")
    assert config["max_batch_size"] == 0
    assert config["input"][0]["data_type"] == "TYPE_FP32"
    assert config["input"][0]["dims"] == [-1, 8, 8]
    before = client.get_inference_statistics("digits", "1")["model_stats"][0]
    client.infer("digits", [tensor("image", images()[0][:3], "FP32")], model_version="1")
    after = client.get_inference_statistics("digits", "1")["model_stats"][0]
    assert after["inference_count"] - before["inference_count"] == 3
    assert after["execution_count"] - before["execution_count"] == 1
    success = [stats["inference_stats"]["success"]["count"] for stats in (before, after)]
    assert success[1] - success[0] == 1
    everything = client.get_inference_statistics()["model_stats"]
    assert len(everything) == 4 + len(ELEMENTS)
    index = client.get_model_repository_index()
    ready = {(entry["name"], entry["version"]) for entry in index if entry["state"] == "READY"}
    assert {("digits", "1"), ("digits", "2"), ("car-loan", "1")} <= ready
    with pytest.raises(InferenceServerException):
        client.get_model_config("nobody")
    with pytest.raises(InferenceServerException):
        client.get_inference_statistics("nobody")


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("datatype", [name for name in ELEMENTS if name != "BF16"])
def test_every_datatype(
    client: triton.InferenceServerClient, datatype: str, binary_in: bool, binary_out: bool
) -> None:
    if datatype == "FP16" and not binary_in:
        pytest.skip("tritonclient sends FP16 as binary only")
    array = sample(datatype)
    wanted = triton.InferRequestedOutput("y", binary_data=binary_out)
    given = tensor("x", array, datatype, binary_in)
    answer = client.infer(f"identity_{datatype.lower()}", [given], outputs=[wanted])
    got = answer.as_numpy("y")
    if datatype == "BYTES":
        got = text(got) if binary_out else got
    np.testing.assert_array_equal(got, array)
    if np.issubdtype(array.dtype, np.floating):
        np.testing.assert_array_equal(np.signbit(got), np.signbit(array))


def test_bfloat16(client: triton.InferenceServerClient) -> None:
    array = np.array([[1.0, -2.5, 3.140625]], ml_dtypes.bfloat16)
    answer = client.infer("identity_bf16", [tensor("x", array, "BF16")])
    assert answer.get_output("y")["datatype"] == "BF16"
    np.testing.assert_array_equal(answer.as_numpy("y"), array)


def test_outputs_named_mixed_and_unnamed(client: triton.InferenceServerClient) -> None:
    given = [tensor("image", images()[0][:2], "FP32")]
    everything = client.infer("digits", given, request_id="a/b 7")
    assert everything.get_response()["id"] == "a/b 7"
    assert everything.as_numpy("probabilities").shape == (2, 10)
    mixed = [
        triton.InferRequestedOutput("label", binary_data=False),
        triton.InferRequestedOutput("probabilities", binary_data=True),
    ]
    answer = client.infer("digits", given, outputs=mixed)
    assert [output["name"] for output in answer.get_response()["outputs"]] == ["label", "probabilities"]
    np.testing.assert_array_equal(answer.as_numpy("label"), everything.as_numpy("label"))
    np.testing.assert_array_equal(
        answer.as_numpy("probabilities"), everything.as_numpy("probabilities")
    )


def test_classification(client: triton.InferenceServerClient) -> None:
    given = [tensor("image", images()[0][:2], "FP32")]
    scores = client.infer("digits", given).as_numpy("probabilities")
    wanted = [triton.InferRequestedOutput("probabilities", class_count=3)]
    classes = client.infer("digits", given, outputs=wanted).as_numpy("probabilities")
    assert classes.shape == (2, 3)
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    for row, best in zip(scores, classes, strict=True):
        for index, entry in zip(np.argsort(-row)[:3], best, strict=True):
            value, position, label = entry.decode().split(":")
            assert (int(position), label) == (index, names[index])
            assert np.float32(value) == row[index]


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_compression(client: triton.InferenceServerClient, coding: str) -> None:
    array = np.arange(40_000, dtype=np.float32).reshape(200, 200)
    answer = client.infer(
        "identity_fp32",
        [tensor("x", array, "FP32")],
        request_compression_algorithm=coding,
        response_compression_algorithm=coding,
    )
    np.testing.assert_array_equal(answer.as_numpy("y"), array)


def test_large_tensors(client: triton.InferenceServerClient) -> None:
    array = np.random.default_rng(1).random((1024, 1024), np.float32)
    answer = client.infer("identity_fp32", [tensor("x", array, "FP32")])
    np.testing.assert_array_equal(answer.as_numpy("y"), array)


def test_versions_and_aliases(client: triton.InferenceServerClient) -> None:
    given = [tensor("image", images()[0][:1], "FP32")]
    for version, number in (("", "1"), ("1", "1"), ("2", "2"), ("stable", "1"), ("candidate", "2")):
        answer = client.infer("digits", given, model_version=version).get_response()
        assert answer["model_version"] == number
    with pytest.raises(InferenceServerException, match="no version '9' that serves"):
        client.infer("digits", given, model_version="9")


def test_errors_name_what_was_expected(client: triton.InferenceServerClient) -> None:
    image = images()[0][:1]
    with pytest.raises(InferenceServerException, match=r"expected image FP32 \[-1,8,8\]"):
        client.infer("digits", [tensor("image", image.astype(np.float64), "FP64")])
    with pytest.raises(InferenceServerException, match="unknown input 'picture'"):
        client.infer("digits", [tensor("picture", image, "FP32")])
    with pytest.raises(InferenceServerException, match="unknown output 'u'"):
        outputs = [triton.InferRequestedOutput("u")]
        client.infer("digits", [tensor("image", image, "FP32")], outputs=outputs)
    with pytest.raises(InferenceServerException, match="not UTF-8"):
        words = np.array([[b"\xff"]], dtype=np.object_)
        client.infer("identity_bytes", [tensor("x", words, "BYTES")])
    with pytest.raises(InferenceServerException, match="deadline") as error:
        client.infer("digits", [tensor("image", image, "FP32")], timeout=1)
    assert error.value.status() == "504"


def test_concurrent(client: triton.InferenceServerClient) -> None:
    pixels, _ = images()
    expected = client.infer("digits", [tensor("image", pixels, "FP32")]).as_numpy("label")
    pending = [
        client.async_infer("digits", [tensor("image", pixels[i : i + 1], "FP32")]) for i in range(64)
    ]
    got = [request.get_result().as_numpy("label")[0] for request in pending]
    np.testing.assert_array_equal(got, expected[:64])


def test_load_and_unload(own_gateway: Gateway) -> None:
    with triton.InferenceServerClient(own_gateway.http) as client:
        client.unload_model("digits")
        assert not client.is_model_ready("digits")
        client.load_model("digits")
        assert client.is_model_ready("digits")
        with pytest.raises(InferenceServerException, match="no model 'nobody'"):
            client.load_model("nobody")
        with pytest.raises(InferenceServerException, match="no model 'nobody'"):
            client.unload_model("nobody")
        with pytest.raises(InferenceServerException, match="parameter 'config' is not supported"):
            client.load_model("digits", config="{}")


def test_accuracy_is_what_the_models_readme_says(client: triton.InferenceServerClient) -> None:
    pixels, labels = images()
    for version, least in (("1", 0.93), ("2", 0.98)):
        given = [tensor("image", pixels, "FP32")]
        got = client.infer("digits", given, model_version=version).as_numpy("label")
        assert (got == labels).mean() >= least


@pytest.mark.parametrize("name", ["digits/1", "digits/2", "car-loan/1", "car-loan/2"])
def test_golden_requests_through_binary(client: triton.InferenceServerClient, name: str) -> None:
    model, version = name.split("/")
    cases = json.loads((ROOT / "models" / name / "golden.json").read_text())["cases"]
    for case in cases:
        given = [
            tensor(
                entry["name"],
                np.array(entry["data"], NUMPY[entry["datatype"]]).reshape(entry["shape"]),
                entry["datatype"],
            )
            for entry in case["inputs"]
        ]
        answer = client.infer(model, given, model_version=version)
        for output in case["outputs"]:
            expected = np.array(output["data"]).reshape(output["shape"])
            np.testing.assert_allclose(
                answer.as_numpy(output["name"]), expected, rtol=1e-4, atol=1e-5
            )
