"""What tracing costs: requests a second with a share of the requests traced, and without tracing, MLP 64-32
with 30 features, in interleaved rounds of two gateways. The receiver takes OTLP over HTTP and discards it."""

import argparse
import contextlib
import http.server
import threading
from collections.abc import Iterator

import generator
import harness
from harness import Server

SUMMARY = "requests a second with 1 %% of the requests traced, against tracing off"
MODEL = "mlp-64-32"
PATH = f"/v2/models/{MODEL}/infer"
TARGET = 0.97


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4, help="of each round and gateway")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--share", type=float, default=0.01, help="of the requests that are traced")


class Receiver(http.server.ThreadingHTTPServer):
    """Counts what it is sent, and does nothing else with it."""

    exports = 0
    received = 0

    class RequestHandlerClass(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            left = int(self.headers["content-length"])
            self.server.exports += 1
            self.server.received += left
            while left > 0:
                left -= len(self.rfile.read(min(left, 1 << 20)))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    def __init__(self) -> None:
        super().__init__((harness.HOST, 0), self.RequestHandlerClass)


@contextlib.contextmanager
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def run(arguments: argparse.Namespace) -> int:
    program, models = harness.build_all(arguments)
    bodies = ["--bodies", models / MODEL / "requests-1.jsonl"]
    with harness.scratch_folder() as folder, receiver() as sink, contextlib.ExitStack() as stack:
        repository = harness.only(models, folder, MODEL)
        traced = (f'[tracing]\nendpoint = "http://{harness.HOST}:{sink.server_port}"\n'
                  f'protocol = "http"\nshare = {arguments.share}\n')
        servers = {
            name: stack.enter_context(harness.gateway(name, program, folder, repository, settings))
            for name, settings in {"off": "", "on": traced}.items()}
        loads = {name: (server, PATH, bodies) for name, server in servers.items()}
        # Not counted: whatever happens once.
        generator.rounds(arguments, loads, folder, 1, seconds=1,
                         connections=arguments.connections)
        rounds = generator.rounds(arguments, loads, folder, arguments.rounds,
                                  seconds=arguments.seconds, connections=arguments.connections)
        spans = figures(servers["on"])
    medians = {name: generator.summary(reports) for name, reports in rounds.items()}
    generator.table(f"{arguments.connections} connections", medians)
    pairs = [on["requests_per_second"] / off["requests_per_second"]
             for on, off in zip(rounds["on"], rounds["off"])]
    ratio = sorted(pairs)[len(pairs) // 2]
    print(f"\non/off: {ratio:.3f} of the requests/s (median of pairs; {min(pairs):.3f} to "
          f"{max(pairs):.3f}), target at least {TARGET}: {harness.verdict(ratio >= TARGET)}")
    print(f"{arguments.share:.1%} traced: spans {spans}; the receiver got "
          f"{harness.megabytes(sink.received)} in {sink.exports} exports")
    harness.save("tracing", {"medians": medians, "rounds": rounds, "ratio": ratio, "spans": spans,
                             "share": arguments.share})
    return 0 if ratio >= TARGET and not spans["dropped"] + spans["failed"] else 1


def figures(server: Server) -> dict[str, int]:
    """Spans by what became of them."""
    _, text = harness.request(server.admin, "GET", "/metrics")
    counts = {}
    for outcome in ("exported", "dropped", "failed"):
        prefix = f'tidegate_trace_spans_total{{outcome="{outcome}"}} '
        lines = [line for line in text.decode().splitlines() if line.startswith(prefix)]
        counts[outcome] = sum(int(line.removeprefix(prefix)) for line in lines)
    return counts
