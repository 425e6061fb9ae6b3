"""The same questions to two servers of the Open Inference Protocol, and what differs in their answers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import requests
from conftest import LIMIT, ROOT
from served import NUMPY
from tritonclient.grpc import service_pb2, service_pb2_grpc

DIGITS = json.loads((ROOT / "models/digits/request.json").read_text())
CAR_LOAN = json.loads((ROOT / "models/car-loan/request.json").read_text())
NUMBERS = {
    "BOOL": [True, False, True],
    "UINT8": [0, 1, 255],
    "UINT16": [0, 1, 65535],
    "UINT32": [0, 1, 2**32 - 1],
    "UINT64": [0, 2**53 + 1, 2**64 - 1],
    "INT8": [-128, 0, 127],
    "INT16": [-(2**15), 0, 2**15 - 1],
    "INT32": [-(2**31), 0, 2**31 - 1],
    "INT64": [-(2**63), 2**53 + 1, 2**63 - 1],
    "FP16": [0.5, -2.0, 65504.0],
    "FP32": [0.1, -2.5, 3e38],
    "FP64": [0.1, -2.5, 1e308],
    "BYTES": ["", 'a"b', "ü€𝄞"],
}
FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


@dataclass(frozen=True)
class Http:
    """A question over HTTP."""

    name: str
    path: str
    body: Any = None
    method: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def ask(self, server: Server) -> dict[str, Any]:
        method = self.method or ("GET" if self.body is None else "POST")
        data = self.body if isinstance(self.body, bytes) else json.dumps(self.body)
        answer = requests.request(
            method,
            f"http://{server.http}{self.path}",
            data=None if self.body is None else data,
            headers={"Content-Type": "application/json"} | self.headers,
            timeout=LIMIT,
        )
        try:
            body = answer.json()
        except ValueError:
            body = None
        if answer.status_code != 200:
            says = isinstance(body, dict) and isinstance(body.get("error"), str)
            return {"status": answer.status_code, "error": "a string" if says else "not a string"}
        return {"status": 200} | normal(body)


@dataclass(frozen=True)
class Grpc:
    """A question over gRPC."""

    name: str
    call: str
    message: Any

    def ask(self, server: Server) -> dict[str, Any]:
        with grpc.insecure_channel(server.grpc) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            try:
                answer = getattr(stub, self.call)(self.message, timeout=LIMIT)
            except grpc.RpcError as error:
                says = "a string" if error.details() else "nothing"
                return {"status": error.code().name, "error": says}
        if self.call == "ModelInfer":
            return {"status": "OK"} | infer_message(answer)
        members = {field.name: getattr(answer, field.name) for field in answer.DESCRIPTOR.fields}
        for name in ("inputs", "outputs"):
            if name in members:
                members[name] = [(t.name, t.datatype, list(t.shape)) for t in members[name]]
        return {"status": "OK"} | plain(members)


@dataclass(frozen=True)
class Server:
    """Where a server listens."""

    http: str
    grpc: str


def plain(members: dict[str, Any]) -> dict[str, Any]:
    """Without what servers may fill as they like, and with lists for repeated fields."""
    return {
        name: list(value) if not isinstance(value, (str, bool, int, list)) else value
        for name, value in members.items()
        if name not in ("extensions", "properties", "parameters", "version", "platform")
    }


def normal(body: Any) -> dict[str, Any]:
    """The members of an answer that the specification fixes."""
    if not isinstance(body, dict):
        return {"body": type(body).__name__ if body is not None else "no JSON"}
    members = {
        name: value
        for name, value in body.items()
        if name not in ("extensions", "parameters", "model_version", "version", "platform")
        and value is not None
    }
    for name in ("inputs", "outputs"):
        if name in members:
            members[name] = {tensor["name"]: tensor_of(tensor) for tensor in members[name]}
    return members


def tensor_of(tensor: dict[str, Any]) -> tuple[Any, ...]:
    shape = tuple(tensor["shape"])
    if "data" not in tensor:
        return (tensor["datatype"], shape)
    data = np.array(tensor["data"], dtype=np.object_).ravel().tolist()
    return (tensor["datatype"], shape, data)


def infer_message(answer: Any) -> dict[str, Any]:
    outputs = {}
    for index, output in enumerate(answer.outputs):
        if answer.raw_output_contents:
            raw = answer.raw_output_contents[index]
            data = list(words(raw)) if output.datatype == "BYTES" else (
                np.frombuffer(raw, NUMPY[output.datatype]).tolist()
            )
        else:
            data = list(getattr(output.contents, FIELDS.get(output.datatype, "fp32_contents")))
        outputs[output.name] = (output.datatype, tuple(output.shape), data)
    return {
        "model_name": answer.model_name,
        "id": answer.id,
        "contents": "raw" if answer.raw_output_contents else "typed",
        "outputs": outputs,
    }


def words(raw: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(raw):
        size = int.from_bytes(raw[at : at + 4], "little")
        yield raw[at + 4 : at + 4 + size]
        at += 4 + size


def same(left: Any, right: Any) -> bool:
    """Equal, floats up to the rounding of two engines."""
    if isinstance(left, float) and isinstance(right, (float, int)) and not isinstance(right, bool):
        if math.isnan(left) and math.isnan(right):
            return True
        return math.isclose(left, right, rel_tol=1e-4, abs_tol=1e-5)
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return bool(left == right) and isinstance(left, bool) == isinstance(right, bool)


def differences(left: dict[str, Any], right: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Members that differ, with what each says."""
    names = [*left, *(name for name in right if name not in left)]
    missing = "nothing"
    pairs = {name: (left.get(name, missing), right.get(name, missing)) for name in names}
    return {name: pair for name, pair in pairs.items() if not same(*pair)}


def identity(datatype: str, shape: list[int], data: list[Any], **members: Any) -> dict[str, Any]:
    given = {"name": "x", "datatype": datatype, "shape": shape, "data": data}
    return {"inputs": [given]} | members


def infer(name: str, model: str, body: Any, **kwargs: Any) -> Http:
    return Http(name, f"/v2/models/{model}/infer", body, **kwargs)


def http_questions() -> Iterator[Http]:
    yield Http("server is live", "/v2/health/live")
    yield Http("server is ready", "/v2/health/ready")
    yield Http("server metadata", "/v2")
    yield Http("model is ready", "/v2/models/digits/ready")
    yield Http("version is ready", "/v2/models/digits/versions/1/ready")
    yield Http("unknown model is ready", "/v2/models/nobody/ready")
    yield Http("unknown version is ready", "/v2/models/digits/versions/9/ready")
    yield Http("model metadata", "/v2/models/digits")
    yield Http("version metadata", "/v2/models/digits/versions/1")
    yield Http("metadata of strings", "/v2/models/car-loan")
    yield Http("metadata of an unknown model", "/v2/models/nobody")
    yield Http("metadata of an unknown version", "/v2/models/digits/versions/9")
    yield Http("repository index", "/v2/repository/index", {})
    yield Http("load of an unknown model", "/v2/repository/models/nobody/load", {})
    yield Http("unload of an unknown model", "/v2/repository/models/nobody/unload", {})
    yield Http("no such path", "/v2/nothing")
    yield Http("GET where POST is due", "/v2/models/digits/infer")
    yield Http("DELETE of a model", "/v2/models/digits", method="DELETE")

    yield infer("one row", "digits", DIGITS)
    yield infer("one row, by version", "digits/versions/1", DIGITS)
    yield infer("one row, unknown version", "digits/versions/9", DIGITS)
    yield infer("one row, unknown model", "nobody", DIGITS)
    yield infer("strings and numbers", "car-loan", CAR_LOAN)
    yield infer("id", "digits", DIGITS | {"id": "a/b 7"})
    yield infer("empty id", "digits", DIGITS | {"id": ""})
    yield infer("id is a number", "digits", DIGITS | {"id": 7})
    yield infer("parameters nobody knows", "digits", DIGITS | {"parameters": {"a": 1, "b": "c", "d": True}})
    yield infer("one output of two", "digits", DIGITS | {"outputs": [{"name": "label"}]})
    yield infer(
        "outputs in another order", "digits", DIGITS | {"outputs": [{"name": "label"}, {"name": "probabilities"}]}
    )
    yield infer("unknown output", "digits", DIGITS | {"outputs": [{"name": "u"}]})
    flat = DIGITS["inputs"][0]
    nested = np.array(flat["data"]).reshape(1, 8, 8).tolist()
    yield infer("nested data", "digits", {"inputs": [flat | {"data": nested}]})
    yield infer("shape as strings", "digits", {"inputs": [flat | {"shape": ["1", "8", "8"]}]})
    yield infer("unknown input", "digits", {"inputs": [flat | {"name": "picture"}]})
    yield infer("unknown input besides", "digits", {"inputs": [flat, flat | {"name": "picture"}]})
    yield infer("input twice", "digits", {"inputs": [flat, flat]})
    yield infer("no inputs", "digits", {"inputs": []})
    yield infer("inputs missing", "digits", {})
    yield infer("input missing", "car-loan", {"inputs": CAR_LOAN["inputs"][1:]})
    yield infer("wrong datatype", "digits", {"inputs": [flat | {"datatype": "FP64"}]})
    yield infer("no such datatype", "digits", {"inputs": [flat | {"datatype": "FP33"}]})
    yield infer("datatype in small letters", "digits", {"inputs": [flat | {"datatype": "fp32"}]})
    yield infer("wrong shape", "digits", {"inputs": [flat | {"shape": [1, 64]}]})
    yield infer("too few values", "digits", {"inputs": [flat | {"data": flat["data"][:-1]}]})
    yield infer("too many values", "digits", {"inputs": [flat | {"data": [*flat["data"], 0.0]}]})
    yield infer("negative shape", "digits", {"inputs": [flat | {"shape": [-1, 8, 8]}]})
    yield infer("data missing", "digits", {"inputs": [{k: v for k, v in flat.items() if k != "data"}]})
    yield infer("shape missing", "digits", {"inputs": [{k: v for k, v in flat.items() if k != "shape"}]})
    yield infer("name missing", "digits", {"inputs": [{k: v for k, v in flat.items() if k != "name"}]})
    yield infer("member nobody knows", "digits", DIGITS | {"more": 1})
    yield infer("strings in FP32", "identity_fp32", identity("FP32", [1, 1], ["a"]))
    yield infer("a number as text in INT64", "identity_int64", identity("INT64", [1, 1], ["1"]))
    yield infer("1.5 in INT32", "identity_int32", identity("INT32", [1, 1], [1.5]))
    yield infer("300 in UINT8", "identity_uint8", identity("UINT8", [1, 1], [300]))
    yield infer("-1 in UINT64", "identity_uint64", identity("UINT64", [1, 1], [-1]))
    yield infer("2^63 in INT64", "identity_int64", identity("INT64", [1, 1], [2**63]))
    yield infer("null in FP32", "identity_fp32", identity("FP32", [1, 1], [None]))
    yield infer("no rows", "identity_fp32", identity("FP32", [0, 3], []))
    yield infer("-0.0", "identity_fp32", identity("FP32", [1, 1], [-0.0]))
    yield infer("not JSON", "digits", b"{")
    yield infer("empty body", "digits", b"")
    yield infer("a list", "digits", [])
    yield infer("no content type", "digits", json.dumps(DIGITS).encode(), headers={"Content-Type": ""})
    octets = {"Content-Type": "application/octet-stream"}
    yield infer("JSON as octets", "digits", json.dumps(DIGITS).encode(), headers=octets)
    for datatype, data in NUMBERS.items():
        yield infer(
            f"{datatype} as JSON", f"identity_{datatype.lower()}", identity(datatype, [1, 3], data, id="x")
        )


def message(model: str, version: str = "", request: Any = None, **members: Any) -> Any:
    """The gRPC form of a JSON request, with typed contents."""
    built = service_pb2.ModelInferRequest(model_name=model, model_version=version, **members)
    for tensor in (request or {}).get("inputs", []):
        given = built.inputs.add(name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"])
        data = [d.encode() if isinstance(d, str) else d for d in tensor["data"]]
        getattr(given.contents, FIELDS[tensor["datatype"]]).extend(data)
    return built


def raw(model: str, datatype: str, shape: list[int], *contents: bytes, **members: Any) -> Any:
    built = service_pb2.ModelInferRequest(model_name=model, raw_input_contents=contents, **members)
    built.inputs.add(name="x", datatype=datatype, shape=shape)
    return built


def raw_bytes(datatype: str, data: list[Any]) -> bytes:
    if datatype != "BYTES":
        return np.array(data, NUMPY[datatype]).tobytes()
    encoded = [word.encode() for word in data]
    return b"".join(len(word).to_bytes(4, "little") + word for word in encoded)


def grpc_questions() -> Iterator[Grpc]:
    yield Grpc("server is live", "ServerLive", service_pb2.ServerLiveRequest())
    yield Grpc("server is ready", "ServerReady", service_pb2.ServerReadyRequest())
    yield Grpc("server metadata", "ServerMetadata", service_pb2.ServerMetadataRequest())
    for name in ("digits", "nobody"):
        yield Grpc(f"{name} is ready", "ModelReady", service_pb2.ModelReadyRequest(name=name))
        yield Grpc(f"metadata of {name}", "ModelMetadata", service_pb2.ModelMetadataRequest(name=name))
    yield Grpc("one row", "ModelInfer", message("digits", request=DIGITS))
    yield Grpc("one row, by version", "ModelInfer", message("digits", "1", DIGITS))
    yield Grpc("one row, unknown version", "ModelInfer", message("digits", "9", DIGITS))
    yield Grpc("one row, unknown model", "ModelInfer", message("nobody", request=DIGITS))
    yield Grpc("no model", "ModelInfer", message("", request=DIGITS))
    yield Grpc("strings and numbers", "ModelInfer", message("car-loan", request=CAR_LOAN))
    yield Grpc("id", "ModelInfer", message("digits", request=DIGITS, id="a/b 7"))
    one_output = message("digits", request=DIGITS)
    one_output.outputs.add(name="label")
    yield Grpc("one output of two", "ModelInfer", one_output)
    unknown_output = message("digits", request=DIGITS)
    unknown_output.outputs.add(name="u")
    yield Grpc("unknown output", "ModelInfer", unknown_output)
    yield Grpc("no inputs", "ModelInfer", message("digits"))
    for text, change in (
        ("unknown input", {"name": "picture"}),
        ("wrong datatype", {"datatype": "FP64"}),
        ("wrong shape", {"shape": [1, 64]}),
        ("too few values", {"data": DIGITS["inputs"][0]["data"][:-1]}),
    ):
        given = {"inputs": [DIGITS["inputs"][0] | change]}
        yield Grpc(text, "ModelInfer", message("digits", request=given))
    for datatype, data in NUMBERS.items():
        model = f"identity_{datatype.lower()}"
        if datatype in FIELDS:
            typed = message(model, request=identity(datatype, [1, 3], data), id="x")
            yield Grpc(f"{datatype}, typed", "ModelInfer", typed)
        contents = raw_bytes(datatype, data)
        yield Grpc(f"{datatype}, raw", "ModelInfer", raw(model, datatype, [1, 3], contents, id="x"))
    yield Grpc("raw, too short", "ModelInfer", raw("identity_fp32", "FP32", [1, 2], bytes(7)))
    yield Grpc("raw, one tensor too many", "ModelInfer", raw("identity_fp32", "FP32", [1, 1], bytes(4), bytes(4)))
    both = message("identity_fp32", request=identity("FP32", [1, 1], [1.0]))
    both.raw_input_contents.append(bytes(4))
    yield Grpc("raw and typed", "ModelInfer", both)


def questions() -> Iterator[Http | Grpc]:
    yield from http_questions()
    yield from grpc_questions()
