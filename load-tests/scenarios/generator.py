"""Runs of the load generator: one against a server, or rounds against several."""

import argparse
import contextlib
import itertools
import json
import signal
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import harness
from harness import Process, ScenarioError, Server


NUMBER = itertools.count()


def command(arguments: argparse.Namespace, server: Server, path: str, bodies: list, seconds: float,
            connections: int, report: Path, *options: object) -> list:
    return [harness.binary(arguments, server.generator), "--url", server.url(path), *bodies,
            "--connections", connections, "--warmup", "500ms",
            "--duration", f"{round(seconds * 1000)}ms", "--json", report, *options]


def load(arguments: argparse.Namespace, server: Server, path: str, bodies: list, folder: Path, *,
         seconds: float, connections: int, options: Sequence = (), failures: bool = False) -> dict:
    """One run: the report, with the server's CPU time a request."""
    file = folder / f"{server.name}.json"
    options = [*options, "--allow-failures"] if failures else options
    before = server.process.cpu_seconds()
    line = command(arguments, server, path, bodies, seconds, connections, file, *options)
    with Process(line, folder / "load.log") as generator:
        code = generator.popen.wait()
        server.process.check_alive()
        if code != 0:
            raise ScenarioError(f"load against {server.name} ended with code {code}")
    report = json.loads(file.read_text())
    spent = server.process.cpu_seconds() - before
    report["cpu_us_per_request"] = spent * 1e6 / max(1, report["answers"] + report["warmup_answers"])
    return report


@contextlib.contextmanager
def background(arguments: argparse.Namespace, server: Server, path: str, bodies: list, folder: Path,
               connections: int, *options: object) -> Iterator[dict]:
    """Load without pause; what is yielded is filled with the report at the end."""
    file = folder / f"background-{next(NUMBER)}.json"
    line = command(arguments, server, path, bodies, 600, connections, file, "--allow-failures",
                   *options)
    report = {}
    with Process(line, folder / "background.log") as generator:
        yield report
        generator.check_alive()
        generator.end(signal.SIGINT)
        report.update(json.loads(file.read_text()))


@contextlib.contextmanager
def together(arguments: argparse.Namespace, server: Server, loads: list[tuple], folder: Path,
             connections: int) -> Iterator[list[dict]]:
    """Open loops without pause, each of path, bodies and rate; yields the list of their reports, which
    is filled at the end."""
    reports: list[dict] = []
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(background(arguments, server, path, bodies, folder,
                                                  connections, "--rate", rate))
                   for path, bodies, rate in loads]
        yield reports
    reports += running


def rounds(arguments: argparse.Namespace, servers: dict[str, tuple], folder: Path,
           number_of: int, **how) -> dict[str, list[dict]]:
    """Reports of all rounds by name; `servers` has server, path and bodies of each. Rounds are
    interleaved, and their order turns around each time, so that what changes on the machine
    meanwhile meets all alike."""
    reports = {name: [] for name in servers}
    for number in range(number_of):
        for name in list(servers) if number % 2 == 0 else reversed(servers):
            server, path, bodies = servers[name]
            reports[name].append(load(arguments, server, path, bodies, folder, **how))
    return reports


def summary(reports: list[dict]) -> dict[str, float]:
    def median(value) -> float:
        return statistics.median(value(report) for report in reports)

    return {
        "requests_per_second": median(lambda report: report["requests_per_second"]),
        "p50_us": median(lambda report: report["latency_us"]["p50"]),
        "p99_us": median(lambda report: report["latency_us"]["p99"]),
        "cpu_us_per_request": median(lambda report: report["cpu_us_per_request"]),
    }


def table(title: str, medians: dict[str, dict[str, float]]) -> None:
    print(f"\n{title:24} {'requests/s':>10}  {'p50 µs':>8}  {'p99 µs':>8}  {'CPU µs/request':>14}")
    for name, each in medians.items():
        print(f"{name:24} {each['requests_per_second']:10.0f}  {each['p50_us']:8.0f}  "
              f"{each['p99_us']:8.0f}  {each['cpu_us_per_request']:14.1f}", flush=True)


def compute_us(server: Server, model: str) -> tuple[int, float]:
    """Requests answered by a model, and the microseconds that the engine computed for them."""
    status, answer = harness.request(server.port, "GET", f"/v2/models/{model}/stats")
    if status != 200:
        raise ScenarioError(f"the statistics of {model} were answered with {status}")
    [stats] = json.loads(answer)["model_stats"]
    infer = stats["inference_stats"]["compute_infer"]
    return infer["count"], infer["ns"] / 1000
