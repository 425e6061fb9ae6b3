"""What tritonclient.http receives, to the last member: names, shapes, datatypes and forms."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest
import tritonclient.http as triton
from conftest import ELEMENTS, Gateway
from test_triton_http import images, sample, tensor
from tritonclient.utils import InferenceServerException

IMAGE = {"name": "image", "datatype": "FP32", "shape": [-1, 8, 8]}
OUTPUTS = [
    {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
    {"name": "label", "datatype": "INT64", "shape": [-1]},
]


@pytest.fixture
def client(gateway: Gateway) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(gateway.http, concurrency=16) as client:
        yield client


def test_server_metadata_has_these_members(client: triton.InferenceServerClient) -> None:
    metadata = client.get_server_metadata()
    assert set(metadata) == {"name", "version", "extensions"}
    assert metadata["name"] == "tidegate"


DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def test_model_metadata_is_exactly(client: triton.InferenceServerClient) -> None:
    assert client.get_model_metadata("digits") == {
        "name": "digits",
        "versions": ["1", "2"],
        "platform": "onnx_onnxv1",
        "inputs": [IMAGE],
        "outputs": [OUTPUTS[0] | {"parameters": {"labels": DIGITS}}, OUTPUTS[1]],
    }


@pytest.mark.parametrize("datatype", list(ELEMENTS))
def test_metadata_of_every_datatype(client: triton.InferenceServerClient, datatype: str) -> None:
    metadata = client.get_model_metadata(f"identity_{datatype.lower()}")
    assert metadata["inputs"] == [{"name": "x", "datatype": datatype, "shape": [-1, -1]}]
    assert metadata["outputs"] == [{"name": "y", "datatype": datatype, "shape": [-1, -1]}]


@pytest.mark.parametrize("datatype", list(ELEMENTS))
def test_config_of_every_datatype(client: triton.InferenceServerClient, datatype: str) -> None:
    config = client.get_model_config(f"identity_{datatype.lower()}")
    wanted = "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"
    assert (config["input"][0]["data_type"], config["output"][0]["data_type"]) == (wanted, wanted)


@pytest.mark.parametrize("version", ["", "2", "candidate"])
def test_config_names_the_model(client: triton.InferenceServerClient, version: str) -> None:
    config = client.get_model_config("digits", version)
    assert (config["name"], config["platform"]) == ("digits", "onnx_onnxv1")
    assert [output["name"] for output in config["output"]] == ["probabilities", "label"]


@pytest.mark.parametrize("datatype", [name for name in ELEMENTS if name != "BF16"])
def test_answers_have_datatype_shape_and_size(
    client: triton.InferenceServerClient, datatype: str
) -> None:
    array = sample(datatype)
    answer = client.infer(f"identity_{datatype.lower()}", [tensor("x", array, datatype)])
    output = answer.get_output("y")
    assert (output["datatype"], output["shape"]) == (datatype, [2, 3])
    if datatype != "BYTES":
        assert output["parameters"] == {"binary_data_size": array.nbytes}


def test_bfloat16_as_json(client: triton.InferenceServerClient) -> None:
    array = np.array([[1.0, -2.5, 256.0]], ml_dtypes.bfloat16)
    wanted = [triton.InferRequestedOutput("y", binary_data=False)]
    answer = client.infer("identity_bf16", [tensor("x", array, "BF16")], outputs=wanted)
    output = answer.get_output("y")
    assert (output["datatype"], output["shape"]) == ("BF16", [1, 3])
    assert output["data"] == [1.0, -2.5, 256.0]


@pytest.mark.parametrize("binary", [True, False])
def test_a_single_named_output_comes_alone(
    client: triton.InferenceServerClient, binary: bool
) -> None:
    wanted = [triton.InferRequestedOutput("label", binary_data=binary)]
    answer = client.infer("digits", [tensor("image", images()[0][:1], "FP32")], outputs=wanted)
    outputs = answer.get_response()["outputs"]
    assert [output["name"] for output in outputs] == ["label"]
    assert ("data" in outputs[0]) is not binary
    assert answer.as_numpy("label").tolist() == [5]


def test_no_named_outputs_gives_all(client: triton.InferenceServerClient) -> None:
    answer = client.infer("digits", [tensor("image", images()[0][:3], "FP32")])
    outputs = answer.get_response()["outputs"]
    assert [(output["name"], output["shape"]) for output in outputs] == [
        ("probabilities", [3, 10]),
        ("label", [3]),
    ]
    assert answer.as_numpy("probabilities").dtype == np.float32
    assert answer.as_numpy("label").dtype == np.int64


def test_inputs_in_both_forms_in_one_request(client: triton.InferenceServerClient) -> None:
    numbers = ("car_value", 12638), ("debt_to_income_ratio", 0.5), ("loan_length", 21), ("driver_tenure", 4)
    words = (
        ("salary_range", "0 - 20K €"),
        ("repaid_loan_on_prev_car", "False"),
        ("size_of_downpayment", "10%"),
    )

    def predict(binary_numbers: bool, binary_words: bool) -> np.ndarray:
        given = [
            tensor(name, np.array([[value]], np.float32), "FP32", binary_numbers)
            for name, value in numbers
        ]
        given += [
            tensor(name, np.array([[value]], np.object_), "BYTES", binary_words)
            for name, value in words
        ]
        return client.infer("car-loan", given).as_numpy("probability")

    expected = predict(True, True)
    for forms in ((True, False), (False, True), (False, False)):
        np.testing.assert_array_equal(predict(*forms), expected)


@pytest.mark.parametrize("count", [1, 3, 10])
def test_classification_of_any_count(client: triton.InferenceServerClient, count: int) -> None:
    wanted = [triton.InferRequestedOutput("probabilities", binary_data=False, class_count=count)]
    given = [tensor("image", images()[0][:1], "FP32")]
    answer = client.infer("digits", given, outputs=wanted)
    output = answer.get_output("probabilities")
    assert (output["datatype"], output["shape"]) == ("BYTES", [1, count])
    assert [entry.split(":")[1:] for entry in output["data"][:1]] == [["5", "five"]]


@pytest.mark.parametrize("number", ["1", "2"])
def test_an_alias_answers_as_its_version(client: triton.InferenceServerClient, number: str) -> None:
    given = [tensor("image", images()[0][:5], "FP32")]
    alias = {"1": "stable", "2": "candidate"}[number]
    answers = [client.infer("digits", given, model_version=name) for name in (number, alias)]
    np.testing.assert_array_equal(*[answer.as_numpy("probabilities") for answer in answers])


@pytest.mark.parametrize(
    ("model", "version", "message"),
    [
        ("nobody", "", "model 'nobody' is not known"),
        ("digits", "9", "model 'digits' has no version '9' that serves"),
        ("digits", "nightly", "model 'digits' has no version 'nightly' that serves"),
    ],
)
def test_unknown_models_and_versions_are_404(
    client: triton.InferenceServerClient, model: str, version: str, message: str
) -> None:
    given = [tensor("image", images()[0][:1], "FP32")]
    with pytest.raises(InferenceServerException, match=message) as error:
        client.infer(model, given, model_version=version)
    assert error.value.status() == "404"


def test_bytes_that_are_not_utf8_are_400(client: triton.InferenceServerClient) -> None:
    words = np.array([[b"fine", b"\xff\xfe"]], dtype=np.object_)
    with pytest.raises(InferenceServerException, match="not UTF-8") as error:
        client.infer("identity_bytes", [tensor("x", words, "BYTES")])
    assert error.value.status() == "400"


def test_async_infer(client: triton.InferenceServerClient) -> None:
    pending = client.async_infer("digits", [tensor("image", images()[0][:1], "FP32")], request_id="7")
    answer = pending.get_result()
    assert answer.get_response()["id"] == "7"
    assert answer.as_numpy("label").tolist() == [5]


def test_async_infer_of_an_unknown_model(client: triton.InferenceServerClient) -> None:
    pending = client.async_infer("nobody", [tensor("image", images()[0][:1], "FP32")])
    with pytest.raises(InferenceServerException, match="model 'nobody' is not known"):
        pending.get_result()


def test_sixteen_threads_get_their_own_answers(gateway: Gateway) -> None:
    def call(number: int) -> None:
        array = np.full((number + 1, 3), number, np.int32)
        with triton.InferenceServerClient(gateway.http) as client:
            for turn in range(4):
                name = f"{number}-{turn}"
                answer = client.infer("identity_int32", [tensor("x", array, "INT32")], request_id=name)
                assert answer.get_response()["id"] == name
                np.testing.assert_array_equal(answer.as_numpy("y"), array)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(call, range(16)))


def test_statistics_count_failures(client: triton.InferenceServerClient) -> None:
    def failures() -> int:
        stats = client.get_inference_statistics("identity_bool", "1")["model_stats"][0]
        return stats["inference_stats"]["fail"]["count"]

    before = failures()
    with pytest.raises(InferenceServerException, match="expected x BOOL"):
        client.infer("identity_bool", [tensor("x", np.zeros((1, 1), np.int8), "INT8")])
    assert failures() - before == 1


def test_the_index_is_complete(client: triton.InferenceServerClient) -> None:
    index = client.get_model_repository_index()
    wanted = [("car-loan", "1"), ("car-loan", "2"), ("digits", "1"), ("digits", "2")]
    wanted += [(f"identity_{name.lower()}", "1") for name in ELEMENTS]
    assert sorted((entry["name"], entry["version"]) for entry in index) == sorted(wanted)
    assert {(entry["state"], entry["reason"]) for entry in index} == {("READY", "")}


def test_the_index_after_unload(own_gateway: Gateway) -> None:
    with triton.InferenceServerClient(own_gateway.http) as client:
        client.unload_model("digits")
        index = client.get_model_repository_index()
        assert {entry["state"] for entry in index} == {"UNAVAILABLE"}
        with pytest.raises(InferenceServerException) as error:
            client.infer("digits", [tensor("image", images()[0][:1], "FP32")])
        assert error.value.status() == "503"
        client.load_model("digits")
        assert client.infer(
            "digits", [tensor("image", images()[0][:1], "FP32")]
        ).as_numpy("label").tolist() == [5]


def test_load_of_a_broken_file_says_why_and_serves_on(own_gateway: Gateway) -> None:
    broken = own_gateway.models / "digits" / "3"
    broken.mkdir()
    (broken / "model.onnx").write_bytes(b"this is no model")
    with triton.InferenceServerClient(own_gateway.http) as client:
        with pytest.raises(InferenceServerException) as error:
            client.load_model("digits")
        assert "3" in error.value.message()
        assert client.is_model_ready("digits", "1")
        states = {e["version"]: e for e in client.get_model_repository_index()}
        assert states["3"]["state"] == "UNAVAILABLE"
        assert states["3"]["reason"] != ""
