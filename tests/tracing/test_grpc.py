"""Calls of gRPC are traced as those of HTTP are. Their messages are written by hand: there are few fields."""

from __future__ import annotations

import grpc
import pytest
from conftest import Gateway, Start
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from receivers import LIMIT, Receiver, attributes
from test_spans import PARENT, SAMPLED, TRACE, settings

SERVICE = "/inference.GRPCInferenceService/"
METADATA = (("traceparent", SAMPLED), ("tracestate", "vendor=1"), ("x-request-id", "call-7"))


def field(number: int, data: bytes) -> bytes:
    length = len(data)
    size = bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])
    return bytes([number << 3 | 2]) + size + data


def request(model: bytes, request_id: bytes = b"") -> bytes:
    """A ModelInferRequest of one image of zeros."""
    image = field(1, b"image") + field(2, b"FP32") + field(3, bytes([1, 8, 8]))
    return field(1, model) + field(3, request_id) + field(5, image) + field(7, bytes(256))


@pytest.fixture
def gateway(start: Start, grpc_receiver: Receiver) -> Gateway:
    return start(settings(grpc_receiver, "share = 0.0"))


def test_a_call_is_five_spans_of_the_clients_trace(gateway: Gateway, grpc_receiver: Receiver) -> None:
    with grpc.insecure_channel(gateway.grpc) as channel:
        infer = channel.unary_unary(f"{SERVICE}ModelInfer")
        _, call = infer.with_call(request(b"digits"), metadata=METADATA, timeout=LIMIT)
    spans = grpc_receiver.wait_for(5, TRACE)
    server, *children = spans
    assert [span.name for span in spans] == ["infer digits", "decode", "queue", "compute", "encode"]
    assert server.parent_span_id.hex() == PARENT
    assert server.kind == Span.SPAN_KIND_SERVER
    assert all(child.parent_span_id == server.span_id for child in children)
    said = attributes(server.attributes)
    assert said["rpc.system"] == "grpc"
    assert said["rpc.service"] == "inference.GRPCInferenceService"
    assert said["rpc.method"] == "ModelInfer"
    assert said["rpc.grpc.status_code"] == 0
    assert said["tidegate.model.name"] == "digits"
    assert said["tidegate.request.id"] == "call-7"
    assert not any(key.startswith("http.") for key in said)
    metadata = dict(call.initial_metadata())
    assert metadata["traceparent"] == f"00-{TRACE}-{server.span_id.hex()}-01"
    gateway.stop()


def test_a_call_that_is_refused_says_why(gateway: Gateway, grpc_receiver: Receiver) -> None:
    with grpc.insecure_channel(gateway.grpc) as channel:
        infer = channel.unary_unary(f"{SERVICE}ModelInfer")
        with pytest.raises(grpc.RpcError) as refused:
            infer(request(b"nobody"), metadata=METADATA, timeout=LIMIT)
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    [span] = grpc_receiver.wait_for(1, TRACE)
    said = attributes(span.attributes)
    assert (span.name, said["rpc.grpc.status_code"], said["error.type"]) == ("infer", 5, "not_found")
    assert said["tidegate.reason"] == refused.value.details()
    assert span.status.code == Status.STATUS_CODE_UNSET
    gateway.stop()


def test_each_question_of_a_stream_is_below_the_stream(gateway: Gateway, grpc_receiver: Receiver) -> None:
    questions = [request(b"digits"), request(b"nobody"), request(b"digits")]
    with grpc.insecure_channel(gateway.grpc) as channel:
        infer = channel.stream_stream(f"{SERVICE}ModelStreamInfer")
        assert len(list(infer(iter(questions), metadata=METADATA, timeout=LIMIT))) == 3
    # The stream's own, five of each answer, one of what was refused.
    spans = grpc_receiver.wait_for(12, TRACE)
    [stream] = [span for span in spans if span.kind == Span.SPAN_KIND_SERVER]
    assert stream.parent_span_id.hex() == PARENT
    assert attributes(stream.attributes)["rpc.method"] == "ModelStreamInfer"
    below = [span for span in spans if span.parent_span_id == stream.span_id]
    assert [span.name for span in below] == ["infer digits", "infer", "infer digits"]
    assert [attributes(span.attributes).get("error.type") for span in below] == [None, "not_found", None]
    ids = [attributes(span.attributes)["tidegate.request.id"] for span in below]
    assert ids[0].startswith("call-7") and len(set(ids)) == 3
    assert all(span.end_time_unix_nano <= stream.end_time_unix_nano for span in spans)
    gateway.stop()
