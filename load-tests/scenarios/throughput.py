"""Requests a second of the gateway and of a bare hyper server that only parses the request, in
interleaved rounds."""

import argparse
import contextlib
import json
import statistics
from collections.abc import Iterator
from pathlib import Path

import harness
from harness import MODEL, Process, ScenarioError, Server

SUMMARY = "requests a second, against a bare hyper server"
PATH = f"/v2/models/{MODEL}/versions/1/infer"
TARGET_RATIO = 0.5


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="of each round and server")
    parser.add_argument("--connections", type=int, default=32)


def run(arguments: argparse.Namespace) -> int:
    program = harness.build_gateway(arguments)
    harness.build_load_tests(arguments)
    requests = harness.bodies(arguments)
    with harness.scratch_folder() as folder:
        repository = harness.copy_models(arguments, folder / "models")
        with (harness.gateway("tidegate", program, folder, repository) as gateway,
              bare_server(arguments, folder, sample_answer(gateway, requests)) as bare):
            rounds = measure(arguments, [gateway, bare], requests, folder)

    medians = {name: summarise(reports) for name, reports in rounds.items()}
    ratio = medians["tidegate"]["requests_per_second"] / medians["bare"]["requests_per_second"]
    print_medians(medians)
    print(f"\ntidegate/bare: {ratio:.2f} of the requests/s, target at least {TARGET_RATIO}: "
          f"{harness.verdict(ratio >= TARGET_RATIO)}")
    harness.save("throughput", {"ratio": ratio, "medians": medians, "rounds": rounds})
    return 0 if ratio >= TARGET_RATIO else 1


def sample_answer(server: Server, requests: Path) -> bytes:
    """What the gateway answers, for the bare server to answer the same."""
    status, answer = harness.request(server.port, "POST", PATH, harness.first_body(requests))
    if status != 200:
        raise ScenarioError(f"the gateway answered {status}: {answer.decode(errors='replace')}")
    return answer


@contextlib.contextmanager
def bare_server(arguments: argparse.Namespace, folder: Path, answer: bytes) -> Iterator[Server]:
    answer_file = folder / "answer.json"
    answer_file.write_bytes(answer)
    [port] = harness.free_ports(1)
    command = [harness.binary(arguments, "bare-hyper"), "--listen", f"{harness.HOST}:{port}",
               "--answer", answer_file]
    with Process(command, folder / "bare-hyper.log") as process:
        harness.wait_ready(process, port)
        yield Server("bare", process, port)


def measure(arguments: argparse.Namespace, servers: list[Server], requests: Path,
            folder: Path) -> dict[str, list[dict]]:
    """Reports of all rounds by server. Rounds are interleaved, and their order turns around each
    time, so that what changes on the machine meanwhile meets all servers alike."""
    rounds: dict[str, list[dict]] = {server.name: [] for server in servers}
    width = max(len(server.name) for server in servers)
    for number in range(1, arguments.rounds + 1):
        for server in servers if number % 2 else reversed(servers):
            report = load(arguments, server, requests, folder)
            rounds[server.name].append(report)
            latency = report["latency_us"]
            print(f"round {number}  {server.name:{width}}  "
                  f"{report['requests_per_second']:8.0f} requests/s  "
                  f"p50 {latency['p50']:6.0f} µs  p99 {latency['p99']:6.0f} µs  "
                  f"server CPU {report['cpu_us_per_request']:6.1f} µs/request", flush=True)
    return rounds


def load(arguments: argparse.Namespace, server: Server, requests: Path, folder: Path) -> dict:
    """One round against one server: the report, with the server's CPU time a request."""
    report_file = folder / f"{server.name}.json"
    command = [harness.binary(arguments, "load"), "--url", server.url(PATH), "--bodies", requests,
               "--connections", arguments.connections, "--warmup", "1s",
               "--duration", f"{arguments.seconds}s", "--json", report_file]
    before = server.process.cpu_seconds()
    with Process(command, folder / "load.log") as generator:
        code = generator.popen.wait()
        server.process.check_alive()
        if code != 0:
            raise ScenarioError(f"load against {server.name} ended with code {code}")
    report = json.loads(report_file.read_text())
    spent = server.process.cpu_seconds() - before
    answered = report["answers"] + report["warmup_answers"]
    report["cpu_us_per_request"] = spent * 1e6 / answered
    return report


def summarise(reports: list[dict]) -> dict[str, float]:
    def median(value) -> float:
        return statistics.median(value(report) for report in reports)

    return {
        "requests_per_second": median(lambda report: report["requests_per_second"]),
        "p50_us": median(lambda report: report["latency_us"]["p50"]),
        "p99_us": median(lambda report: report["latency_us"]["p99"]),
        "cpu_us_per_request": median(lambda report: report["cpu_us_per_request"]),
    }


def print_medians(medians: dict[str, dict[str, float]]) -> None:
    print(f"\n{'median':10}  {'requests/s':>10}  {'p50 µs':>8}  {'p99 µs':>8}  {'CPU µs/request':>14}")
    for name, each in medians.items():
        print(f"{name:10}  {each['requests_per_second']:10.0f}  {each['p50_us']:8.0f}  "
              f"{each['p99_us']:8.0f}  {each['cpu_us_per_request']:14.1f}")
