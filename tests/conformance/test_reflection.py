"""Clients that know nothing beforehand: by reflection in Python, by grpcurl, and the health service of gRPC."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from calls import IMAGE
from conftest import LIMIT, Gateway
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "inference.GRPCInferenceService"
SERVICES = {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
#: The calls of the Open Inference Protocol, and those that Triton adds.
CALLS = {
    "ServerLive",
    "ServerReady",
    "ModelReady",
    "ServerMetadata",
    "ModelMetadata",
    "ModelInfer",
    "ModelStreamInfer",
    "ModelConfig",
    "ModelStatistics",
    "RepositoryIndex",
    "RepositoryModelLoad",
    "RepositoryModelUnload",
    "SystemSharedMemoryStatus",
    "SystemSharedMemoryRegister",
    "SystemSharedMemoryUnregister",
    "CudaSharedMemoryStatus",
    "CudaSharedMemoryRegister",
    "CudaSharedMemoryUnregister",
    "TraceSetting",
    "LogSettings",
}


class Discovered:
    """A server's services, as it describes them itself; a pool of its own keeps generated messages out."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address)
        self.database = ProtoReflectionDescriptorDatabase(self.channel)
        self.pool = descriptor_pool.DescriptorPool(self.database)

    def call(self, method: str, **members: Any) -> Any:
        service, name = method.rsplit("/", 1)
        found = self.pool.FindServiceByName(service).FindMethodByName(name)
        request = message_factory.GetMessageClass(found.input_type)
        answer = message_factory.GetMessageClass(found.output_type)
        unary = self.channel.unary_unary(
            f"/{method}",
            request_serializer=request.SerializeToString,
            response_deserializer=answer.FromString,
        )
        return unary(request(**members), timeout=LIMIT)


@pytest.fixture(scope="module")
def discovered(gateway: Gateway) -> Iterator[Discovered]:
    server = Discovered(gateway.grpc)
    yield server
    server.channel.close()


def test_services_are_listed(discovered: Discovered) -> None:
    assert SERVICES <= set(discovered.database.get_services())


def test_the_service_is_described(discovered: Discovered) -> None:
    service = discovered.pool.FindServiceByName(SERVICE)
    assert set(service.methods_by_name) == CALLS
    stream = service.methods_by_name["ModelStreamInfer"]
    assert (stream.client_streaming, stream.server_streaming) == (True, True)
    assert stream.output_type.full_name == "inference.ModelStreamInferResponse"


def test_field_numbers_are_those_of_triton(discovered: Discovered) -> None:
    """Each message that tritonclient knows has its fields under the same numbers and types here."""
    from tritonclient.grpc import model_config_pb2, service_pb2

    def fields(message: Any) -> dict[str, tuple[int, int, bool]]:
        return {
            field.name: (field.number, field.type, field.is_repeated)
            for field in message.fields
        }

    for file in (service_pb2.DESCRIPTOR, model_config_pb2.DESCRIPTOR):
        for name, message in file.message_types_by_name.items():
            try:
                ours = discovered.pool.FindMessageTypeByName(message.full_name)
            except KeyError:
                assert file is model_config_pb2.DESCRIPTOR, f"{name} is missing"
                continue
            known = fields(message)
            for field, kind in fields(ours).items():
                assert known.get(field) == kind, f"{name}.{field}"


def test_calls_without_generated_code(discovered: Discovered) -> None:
    assert discovered.call(f"{SERVICE}/ServerLive").live
    metadata = discovered.call(f"{SERVICE}/ModelMetadata", name="digits")
    assert [tensor.name for tensor in metadata.outputs] == ["probabilities", "label"]
    given = {"name": "image", "datatype": "FP32", "shape": [1, 8, 8]}
    answer = discovered.call(
        f"{SERVICE}/ModelInfer",
        model_name="digits",
        inputs=[given | {"contents": {"fp32_contents": IMAGE.ravel().tolist()}}],
        outputs=[{"name": "label"}],
    )
    assert np.frombuffer(answer.raw_output_contents[0], np.int64).tolist() == [5]


def test_health(discovered: Discovered) -> None:
    serving = 1
    for service in ("", SERVICE):
        assert discovered.call("grpc.health.v1.Health/Check", service=service).status == serving
    with pytest.raises(grpc.RpcError) as error:
        discovered.call("grpc.health.v1.Health/Check", service="nothing")
    assert error.value.code() == grpc.StatusCode.NOT_FOUND


def grpcurl(gateway: Gateway, *words: str, data: Any = None) -> subprocess.CompletedProcess[str]:
    before = ["-plaintext", *(["-d", json.dumps(data)] if data is not None else [])]
    command = [Path(sys.executable).parent / "grpcurl", *before, gateway.grpc, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)


def test_grpcurl_lists_and_describes(gateway: Gateway) -> None:
    assert SERVICES <= set(grpcurl(gateway, "list").stdout.split())
    listed = grpcurl(gateway, "list", SERVICE).stdout.split()
    assert set(listed) == {f"{SERVICE}.{name}" for name in CALLS}
    described = grpcurl(gateway, "describe", "inference.ModelInferRequest").stdout
    assert "repeated bytes raw_input_contents = 7;" in described


def test_grpcurl_asks(gateway: Gateway) -> None:
    given = {"name": "image", "datatype": "FP32", "shape": [1, 8, 8]}
    data = {
        "modelName": "digits",
        "id": "one",
        "inputs": [given | {"contents": {"fp32Contents": IMAGE.ravel().tolist()}}],
        "outputs": [{"name": "label"}],
    }
    answer = grpcurl(gateway, f"{SERVICE}/ModelInfer", data=data)
    assert answer.returncode == 0, answer.stderr
    said = json.loads(answer.stdout)
    assert (said["id"], said["rawOutputContents"]) == ("one", ["BQAAAAAAAAA="])


def test_grpcurl_is_told_what_is_wrong(gateway: Gateway) -> None:
    answer = grpcurl(gateway, f"{SERVICE}/ModelMetadata", data={"name": "nobody"})
    assert answer.returncode != 0
    assert "Code: NotFound" in answer.stderr
    assert "model 'nobody' is not known" in answer.stderr
