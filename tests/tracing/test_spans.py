"""What a receiver gets of requests."""

from __future__ import annotations

import json
import math
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from conftest import BODY, Start
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from receivers import LIMIT, Receiver, attributes, free_port, over_grpc, over_http

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{PARENT}-01"
UNSAMPLED = f"00-{TRACE}-{PARENT}-00"


def settings(receiver: Receiver, more: str = "") -> str:
    return f'endpoint = "{receiver.url}"\nprotocol = "{receiver.protocol}"\n{more}'


def test_an_answer_is_five_spans_of_the_clients_trace(start: Start, receiver: Receiver) -> None:
    gateway = start(settings(receiver, 'share = 0.0\nattributes = { "deployment.environment.name" = "test" }'))
    before = time.time_ns()
    answer = gateway.infer(traceparent=SAMPLED, tracestate="vendor=1", x_request_id="request-7")
    after = time.time_ns()
    assert answer.status_code == 200
    spans = receiver.wait_for(5, TRACE)
    server, *children = spans
    assert [span.name for span in spans] == ["infer digits", "decode", "queue", "compute", "encode"]
    assert server.parent_span_id.hex() == PARENT
    assert server.kind == Span.SPAN_KIND_SERVER
    assert {span.trace_state for span in spans} == {"vendor=1"}
    # Flags: sampled, and that it is known whether the parent is remote.
    assert server.flags & 1
    assert answer.headers["traceparent"] == f"00-{TRACE}-{server.span_id.hex()}-01"
    said = attributes(server.attributes)
    expected = {
        "http.request.method": "POST",
        "http.route": "/v2/models/{model}/infer",
        "url.path": "/v2/models/digits/infer",
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "http.response.status_code": 200,
        "tidegate.model.name": "digits",
        "tidegate.model.version": int(answer.headers["tidegate-model-version"]),
        "tidegate.model.digest": answer.headers["tidegate-model-digest"],
        "tidegate.slot": "primary",
        "tidegate.request.id": "request-7",
        "tidegate.request.rows": 1,
        "tidegate.batch.rows": 1,
    }
    assert said == expected
    assert server.status.code == Status.STATUS_CODE_UNSET
    assert before <= server.start_time_unix_nano <= server.end_time_unix_nano <= after
    at = server.start_time_unix_nano
    for child in children:
        assert child.parent_span_id == server.span_id
        assert child.kind == Span.SPAN_KIND_INTERNAL
        assert at <= child.start_time_unix_nano <= child.end_time_unix_nano, child.name
        at = child.end_time_unix_nano
        own = attributes(child.attributes)
        for key in ("model.name", "model.version", "model.digest", "slot", "request.id"):
            assert own[f"tidegate.{key}"] == said[f"tidegate.{key}"]
    assert at <= server.end_time_unix_nano
    assert attributes(children[2].attributes)["tidegate.batch.rows"] == 1
    assert len({span.span_id for span in spans}) == 5
    resource = receiver.resource
    assert resource["service.name"] == "tidegate"
    assert resource["deployment.environment.name"] == "test"
    assert "service.version" in resource
    # The same ids are in the log.
    line = gateway.access_line()
    assert (line["request_id"], line["trace_id"]) == ("request-7", TRACE)
    gateway.stop()


def test_what_is_refused_or_fails_says_why(start: Start, grpc_receiver: Receiver) -> None:
    gateway = start(settings(grpc_receiver, "share = 1.0"))
    doc = json.loads(BODY)
    doc["inputs"][0]["shape"] = [1, 1]
    cases = [
        ("/v2/models/nobody/infer", BODY, 404, "not_found", "infer"),
        ("/v2/models/digits/versions/9/infer", BODY, 404, "not_found", "infer"),
        ("/v2/models/digits/infer", b"{", 400, "invalid_argument", "infer digits"),
        ("/v2/models/digits/infer", json.dumps(doc).encode(), 400, "invalid_argument", "infer digits"),
        ("/v2/models/digits/infer", b" " * 200_000, 413, "too_large", "infer"),
    ]
    for path, body, status, code, name in cases:
        answer = gateway.infer(path, body)
        assert answer.status_code == status
        trace_id = answer.headers["traceparent"].split("-")[1]
        [span] = grpc_receiver.wait_for(1, trace_id)
        said = attributes(span.attributes)
        assert span.name == name
        assert not span.parent_span_id
        assert said["error.type"] == code
        assert said["http.response.status_code"] == status
        assert said["tidegate.reason"] == answer.json()["error"][:256]
        # By the conventions a request that is itself wrong is no error of the server.
        assert span.status.code == Status.STATUS_CODE_UNSET
    answer = gateway.infer(x_request_timeout_ms="0")
    assert answer.status_code == 504
    [span] = grpc_receiver.wait_for(1, answer.headers["traceparent"].split("-")[1])
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert span.status.message == answer.json()["error"]
    assert attributes(span.attributes)["error.type"] == "deadline_exceeded"
    # A GET is no prediction, but asks at a prediction's place.
    answer = requests.get(f"http://{gateway.http}/v2/models/digits/infer", timeout=LIMIT)
    [span] = grpc_receiver.wait_for(1, answer.headers["traceparent"].split("-")[1])
    assert attributes(span.attributes)["http.request.method"] == "GET"
    # Nothing else is traced.
    answer = requests.get(f"http://{gateway.http}/v2/models/digits", headers={"traceparent": SAMPLED}, timeout=LIMIT)
    assert "traceparent" not in answer.headers


def test_the_share_and_who_decides_change_without_a_restart(start: Start, grpc_receiver: Receiver) -> None:
    gateway = start(settings(grpc_receiver, "share = 0.2"))
    session = requests.Session()
    url = f"http://{gateway.http}/v2/models/digits/infer"

    def sampled(count: int, **headers: str) -> int:
        answers = [session.post(url, BODY, headers=headers, timeout=LIMIT) for _ in range(count)]
        return sum(answer.headers.get("traceparent", "-00").endswith("-01") for answer in answers)

    count = 500
    bound = 5 * math.sqrt(count * 0.2 * 0.8)
    assert abs(sampled(count) - 0.2 * count) < bound
    # The client decides over its own.
    assert sampled(20, traceparent=SAMPLED) == 20
    assert sampled(20, traceparent=UNSAMPLED) == 0
    answer = session.post(url, BODY, headers={"traceparent": UNSAMPLED}, timeout=LIMIT)
    assert answer.headers["traceparent"].startswith(f"00-{TRACE}-")
    gateway.configure(settings(grpc_receiver, "share = 0.0"))
    assert sampled(50) == 0
    assert sampled(5, traceparent=SAMPLED) == 5
    # Malformed ones are as good as none.
    assert sampled(5, traceparent=SAMPLED.upper()) == 0
    gateway.configure(settings(grpc_receiver, "share = 1.0\nparent = false"))
    assert sampled(20) == 20
    assert sampled(5, traceparent=UNSAMPLED) == 5
    gateway.configure(settings(grpc_receiver, "share = 0.0\nparent = false"))
    assert sampled(5, traceparent=SAMPLED) == 0


def test_ids_differ_and_every_sampled_request_comes(start: Start, receiver: Receiver) -> None:
    gateway = start(settings(receiver, "share = 1.0"))
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: gateway.infer(), range(100)))
    gateway.stop()
    # What waited when the gateway was told to end came too.
    expected = {answer.headers["traceparent"].split("-")[1] for answer in answers}
    assert len(expected) == 100
    assert {span.trace_id.hex() for span in receiver.spans} == expected
    assert len(receiver.spans) == 500
    assert len({span.span_id for span in receiver.spans}) == 500


def test_a_receiver_that_is_down_harms_nothing_and_is_taken_up_again(start: Start) -> None:
    port = free_port()
    gateway = start(
        f'endpoint = "http://127.0.0.1:{port}"\nshare = 1.0\nqueue = 10\ntimeout = "500ms"\n'
    )
    latencies = []
    for _ in range(100):
        before = time.monotonic()
        assert gateway.infer().status_code == 200
        latencies.append(time.monotonic() - before)
    assert sorted(latencies)[90] < 0.5
    deadline = time.monotonic() + LIMIT
    lost = ('tidegate_trace_spans_total{outcome="dropped"}', 'tidegate_trace_spans_total{outcome="failed"}')
    while sum(map(gateway.metric, lost)) < 100 * 5:
        assert time.monotonic() < deadline, list(map(gateway.metric, lost))
        time.sleep(0.05)
    assert sum(map(gateway.metric, lost)) == 500
    assert all(gateway.metric(name) > 0 for name in lost)
    assert any("spans could not be sent" in line for line in list(gateway.log))
    receiver = over_grpc(port)
    while not receiver.spans:
        assert time.monotonic() < deadline + LIMIT
        gateway.infer()
        time.sleep(0.2)
    gateway.stop()
    receiver.stop()


def test_the_end_does_not_wait_for_a_receiver_that_is_gone(start: Start) -> None:
    # Nobody answers there: connections are accepted by the system, and nothing more.
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)
        gateway = start(f'endpoint = "http://127.0.0.1:{silent.getsockname()[1]}"\nprotocol = "http"\nshare = 1.0\n[shutdown]\ndrain = "2s"')
        assert gateway.infer().status_code == 200
        before = time.monotonic()
        gateway.stop()
        assert time.monotonic() - before < 6


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_the_environment_says_what_the_file_does_not(start: Start, protocol: str) -> None:
    receiver = over_grpc() if protocol == "grpc" else over_http()
    gateway = start(
        'share = 1.0\nheaders_env = { x-secret = "SECRET" }',
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_HEADERS": "x-other=two",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_SERVICE_NAME": "scoring",
            "OTEL_RESOURCE_ATTRIBUTES": "k8s.pod.name=pod-1,service.namespace=risk",
            "SECRET": "sesame",
        },
    )
    gateway.infer(traceparent=SAMPLED)
    receiver.wait_for(5, TRACE)
    assert receiver.headers[0]["x-secret"] == "sesame"
    assert receiver.headers[0]["x-other"] == "two"
    resource = receiver.resource
    assert resource["service.name"] == "scoring"
    assert resource["k8s.pod.name"] == "pod-1"
    assert resource["service.namespace"] == "risk"
    assert not any("sesame" in line for line in list(gateway.log))
    gateway.stop()
    receiver.stop()


def test_without_a_receiver_nothing_is_said(start: Start) -> None:
    gateway = start("share = 1.0")
    answer = gateway.infer(traceparent=SAMPLED)
    assert answer.status_code == 200
    assert "traceparent" not in answer.headers
    line = gateway.access_line()
    assert "trace_id" not in line
    gateway.stop()
