"""Receivers of OTLP: what an OpenTelemetry collector is to a gateway, over gRPC and over HTTP.

Run alone it prints what comes over gRPC: `receivers.py PORT`."""

from __future__ import annotations

import gzip
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

LIMIT = 30


def value(any_value: AnyValue) -> object:
    return getattr(any_value, any_value.WhichOneof("value"))


def attributes(pairs: list[KeyValue]) -> dict[str, object]:
    return {pair.key: value(pair.value) for pair in pairs}


@dataclass
class Receiver:
    """Keeps what it is sent."""

    protocol: str
    port: int
    stop: Callable[[], object] = lambda: None
    requests: list[ExportTraceServiceRequest] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for request in list(self.requests)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @property
    def resource(self) -> dict[str, object]:
        return attributes(self.requests[0].resource_spans[0].resource.attributes)

    def trace(self, trace_id: str) -> list[Span]:
        return [span for span in self.spans if span.trace_id.hex() == trace_id]

    def wait_for(self, count: int, trace_id: str) -> list[Span]:
        """Waits until so many spans of a trace have come: the request's own first."""
        deadline = time.monotonic() + LIMIT
        while len(spans := self.trace(trace_id)) < count:
            assert time.monotonic() < deadline, f"{len(spans)} of {count} spans after {LIMIT} s"
            time.sleep(0.02)
        return sorted(spans, key=lambda span: (span.start_time_unix_nano, span.kind != Span.SPAN_KIND_SERVER))


def over_grpc(port: int = 0) -> Receiver:
    server = grpc.server(ThreadPoolExecutor(4))
    receiver = Receiver("grpc", 0, lambda: server.stop(None).wait())

    class Service(TraceServiceServicer):
        def Export(self, request: ExportTraceServiceRequest, context: grpc.ServicerContext) -> ExportTraceServiceResponse:
            receiver.headers.append({k: v for k, v in context.invocation_metadata() if isinstance(v, str)})
            receiver.requests.append(request)
            return ExportTraceServiceResponse()

    add_TraceServiceServicer_to_server(Service(), server)
    receiver.port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return receiver


def over_http(port: int = 0) -> Receiver:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            is_right = self.path == "/v1/traces" and self.headers["content-type"] == "application/x-protobuf"
            if self.headers["content-encoding"] == "gzip":
                body = gzip.decompress(body)
            if is_right:
                receiver.headers.append({name.lower(): value for name, value in self.headers.items()})
                receiver.requests.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200 if is_right else 404)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    receiver = Receiver("http", server.server_port, server.shutdown)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return receiver


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def main() -> None:
    receiver = over_grpc(int(sys.argv[1]))
    shown = 0
    while True:
        for span in receiver.spans[shown:]:
            shown += 1
            took = (span.end_time_unix_nano - span.start_time_unix_nano) / 1000
            print(f"{span.trace_id.hex()} {span.name:24} {took:9.0f} µs {attributes(span.attributes)}", flush=True)
        time.sleep(0.2)


if __name__ == "__main__":
    main()
