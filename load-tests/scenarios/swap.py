"""Swaps the version that serves while 32 connections predict without pause: no request may fail, and
memory must stay where it was."""

import argparse
import contextlib
import http.client
import json
import os
import signal
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import harness
from harness import MODEL, Process, ScenarioError, Server

SUMMARY = "a thousand swaps under load: failed requests, memory"
PATH = f"/v2/models/{MODEL}/infer"
SAMPLE_EVERY = 50
TARGET_GROWTH = 1.05


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--swaps", type=int, default=1000)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--load-on", choices=["http", "admin"], default="http",
                        help="the listener with the repository API (default: http)")


def run(arguments: argparse.Namespace) -> int:
    program = harness.build_gateway(arguments)
    harness.build_load_tests(arguments)
    result = swap_under_load(arguments, program, arguments.swaps, progress=True)

    growth = result["rss_ratio"]
    times = result["swap_ms"]
    print(f"\nswaps            {result['swaps']}, {result['swaps_per_second']:.1f}/s, each "
          f"{times['median']:.1f} ms (median), {times['max']:.1f} ms (max)")
    print(f"requests         {result['requests']}, {result['requests_per_second']:.0f}/s")
    print(f"failed requests  {result['failed']}, target 0: {harness.verdict(result['failed'] == 0)}")
    if result["first_failure"]:
        print(f"                 for example: {result['first_failure']}")
    print(f"resident memory  {harness.megabytes(result['rss_half'])} after half of the swaps, "
          f"{harness.megabytes(result['rss_end'])} after all: ratio {growth:.3f}, "
          f"target at most {TARGET_GROWTH}: {harness.verdict(growth <= TARGET_GROWTH)}")
    harness.save("swap", result)
    return 0 if result["failed"] == 0 and growth <= TARGET_GROWTH else 1


def swap_under_load(arguments: argparse.Namespace, program: Path, swaps: int,
                    progress: bool) -> dict:
    """Starts a gateway on a copy of the models, swaps between versions 1 and 2 under load."""
    with harness.scratch_folder() as folder:
        repository = harness.copy_models(arguments, folder / "models")
        swapper = Swapper(repository / MODEL / "model.toml")
        swapper.write(1)
        with harness.gateway("tidegate", program, folder, repository) as server:
            swapper.connect(server.admin if arguments.load_on == "admin" else server.port)
            with background_load(arguments, server, folder) as generator:
                seconds, rss = perform(swapper, server, generator, swaps, progress)
                report = end_load(generator, folder)
    return {
        "swaps": swaps,
        "swaps_per_second": swaps / sum(seconds),
        "swap_ms": {"median": statistics.median(seconds) * 1e3, "max": max(seconds) * 1e3},
        "requests": report["answers"] + report["connection_errors"],
        "requests_per_second": report["requests_per_second"],
        "latency_us": report["latency_us"],
        "failed": report["failed"],
        "first_failure": report["first_failure"],
        "rss_half": rss[swaps // 2],
        "rss_end": rss[swaps],
        "rss_ratio": rss[swaps] / rss[swaps // 2],
        "rss": rss,
    }


class Swapper:
    """Changes which version the repository names, and has the gateway load it."""

    def __init__(self, file: Path):
        self.file = file

    def connect(self, port: int) -> None:
        self.connection = http.client.HTTPConnection(harness.HOST, port, timeout=60)

    def write(self, version: int) -> None:
        """Replaces the file at once: the gateway never sees half of it."""
        new = self.file.with_name(".model.toml.new")
        new.write_text(f"versions = [{version}]\n")
        os.replace(new, self.file)

    def swap(self, version: int) -> float:
        """Returns how long it took until the version served."""
        start = time.perf_counter()
        self.write(version)
        status, answer = self.post(f"/v2/repository/models/{MODEL}/load")
        if status != 200:
            raise ScenarioError(f"loading version {version} was answered with {status}: {answer}")
        return time.perf_counter() - start

    def post(self, path: str) -> tuple[int, str]:
        self.connection.request("POST", path, b"{}", {"content-type": "application/json"})
        answer = self.connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")


@contextlib.contextmanager
def background_load(arguments: argparse.Namespace, server: Server,
                    folder: Path) -> Iterator[Process]:
    command = [harness.binary(arguments, "load"), "--url", server.url(PATH),
               "--bodies", harness.bodies(arguments), "--connections", arguments.connections,
               "--warmup", "0s", "--duration", "10m", "--json", folder / "load.json"]
    with Process(command, folder / "load.log") as generator:
        time.sleep(1)
        yield generator


def end_load(generator: Process, folder: Path) -> dict:
    generator.end(signal.SIGINT)
    report_file = folder / "load.json"
    if not report_file.is_file():
        raise ScenarioError("the load generator left no report")
    return json.loads(report_file.read_text())


def perform(swapper: Swapper, server: Server, generator: Process, swaps: int,
            progress: bool) -> tuple[list[float], dict[int, int]]:
    """Seconds of each swap, and resident memory by the number of swaps before it."""
    seconds, rss = [], {0: settled_rss(server)}
    for number in range(1, swaps + 1):
        version = 1 + number % 2
        seconds.append(swapper.swap(version))
        if number % SAMPLE_EVERY == 0 or number in (swaps // 2, swaps):
            server.process.check_alive()
            # It ends by itself after ten minutes, and swaps without load would prove nothing.
            generator.check_alive()
            check_version(server, version)
            rss[number] = settled_rss(server)
            if progress:
                print(f"{number:5} swaps  {harness.megabytes(rss[number]):>9}", flush=True)
    return seconds, rss


def check_version(server: Server, version: int) -> None:
    status, answer = harness.request(server.port, "GET", f"/v2/models/{MODEL}")
    versions = json.loads(answer).get("versions") if status == 200 else None
    if versions != [str(version)]:
        raise ScenarioError(f"after a swap to version {version} the metadata says: {status} "
                            f"{answer.decode(errors='replace')}")


def settled_rss(server: Server) -> int:
    """The median of a few readings: the version just replaced may still be being dropped."""
    readings = []
    for _ in range(5):
        time.sleep(0.02)
        readings.append(server.process.rss())
    return statistics.median(readings)
