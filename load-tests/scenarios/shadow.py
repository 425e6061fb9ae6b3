"""What shadows cost the primary: latency at half of the capacity with every request copied to a shadow
of equal cost, against without, in many short interleaved rounds of gateways on the same model. A third
gateway is like the first: what its ratios differ from 1 is what the machine does by itself. Then what
becomes of the primary's requests while the shadow is far too slow, or on a server that is not there."""

import argparse
import contextlib
import json
import shutil
import statistics
from pathlib import Path

import generator
import harness
from harness import Server

SUMMARY = "latency with a shadow for every request, against without"
TARGETS = {"p50": 1.05, "p99": 1.25}
SHARE = 0.5


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="mlp-64-32", help="one of models.py (default: mlp-64-32)")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each round and gateway")
    parser.add_argument("--connections", type=int, default=32)


def run(arguments: argparse.Namespace) -> int:
    program, models = harness.build_all(arguments)
    model = arguments.model
    path = f"/v2/models/{model}/infer"
    bodies = ["--bodies", models / model / "requests-1.jsonl"]
    with harness.scratch_folder() as folder, contextlib.ExitStack() as stack:
        repository = two_versions(models, folder, model)
        settings = {"without": versions(model), "with": versions(model, "shadows = { 2 = 1.0 }"),
                    "without again": versions(model)}
        servers = {name: stack.enter_context(harness.gateway(name, program, folder, repository, text))
                   for name, text in settings.items()}
        closed = generator.load(arguments, servers["without"], path, bodies, folder, seconds=3,
                                connections=arguments.connections)
        capacity = closed["requests_per_second"]
        rate = capacity * SHARE
        print(f"capacity of {model}: {capacity:.0f} requests/s; measured at {rate:.0f}")
        loads = {name: (server, path, bodies) for name, server in servers.items()}
        how = {"seconds": arguments.seconds, "connections": arguments.connections,
               "options": ["--rate", f"{rate:.1f}"]}
        generator.rounds(arguments, loads, folder, 1, **how)
        rounds = generator.rounds(arguments, loads, folder, arguments.rounds, **how)
        copies = outcomes(servers["with"])
        failures = {name: trouble(arguments, program, folder, models, model, path, bodies, rate, text)
                    for name, text in troubles(model).items()}
    medians = {name: generator.summary(reports) for name, reports in rounds.items()}
    generator.table(f"{rate:.0f} requests/s", medians)
    met, ratios = True, {}
    print()
    for quantile, target in TARGETS.items():
        of = {name: statistics.median(each["latency_us"][quantile] for each in reports)
              for name, reports in rounds.items()}
        ratios[quantile] = of["with"] / of["without"]
        ratios[f"{quantile} again"] = of["without again"] / of["without"]
        met &= ratios[quantile] <= target
        print(f"{quantile} with a shadow over without: {ratios[quantile]:.3f} (without again over "
              f"without: {ratios[f'{quantile} again']:.3f}), target at most {target}: "
              f"{harness.verdict(ratios[quantile] <= target)}")
    total = sum(copies.values())
    print(f"copies: {copies['compared']:.0f} of {total:.0f} compared, {copies['dropped']:.0f} dropped")
    for name, count in failures.items():
        met &= count == 0
        print(f"primary's failures, {name}: {count}, target 0: {harness.verdict(count == 0)}")
    harness.save("shadow", {"medians": medians, "rounds": rounds, "ratios": ratios,
                            "copies": copies, "failures": failures})
    return 0 if met else 1


def two_versions(models: Path, folder: Path, model: str) -> Path:
    """A repository in which the model has itself as its version 2."""
    repository = harness.only(models, folder, model)
    numbers = sorted(int(each.name) for each in (repository / model).iterdir()
                     if each.name.isdigit())
    shutil.copytree(repository / model / str(numbers[0]), repository / model / "2")
    return repository


def versions(model: str, traffic: str = "") -> str:
    return f"[models.{model}]\nversions = [1]\nprimary = 1\n[models.{model}.traffic]\n{traffic}\n"


def troubles(model: str) -> dict[str, str]:
    [nobody] = harness.free_ports(1)
    away = f'remote_shadows = [{{ url = "http://{harness.HOST}:{nobody}" }}]'
    return {"remote is away": versions(model, away),
            "queue of four": versions(model, "shadows = { 2 = 1.0 }") + "[shadowing]\nqueue = 4\n"}


def trouble(arguments: argparse.Namespace, program: Path, folder: Path, models: Path, model: str,
            path: str, bodies: list, rate: float, settings: str) -> int:
    """Requests that were not answered with 200."""
    with harness.gateway("trouble", program, folder, folder / "models", settings) as server:
        report = generator.load(arguments, server, path, bodies, folder, failures=True,
                                seconds=arguments.seconds, connections=arguments.connections,
                                options=["--rate", f"{rate:.1f}"])
    return sum(count for status, count in report["statuses"].items() if status != "200")


def outcomes(server: Server) -> dict[str, float]:
    _, text = harness.request(server.admin, "GET", "/metrics")
    counts = {"compared": 0.0, "failed": 0.0, "timed_out": 0.0, "dropped": 0.0}
    for line in text.decode().splitlines():
        if line.startswith("tidegate_shadow_copies_total{"):
            name, _, value = line.rpartition(" ")
            for outcome in counts:
                if f'outcome="{outcome}"' in name:
                    counts[outcome] += float(value)
    print(json.dumps(counts))
    return counts
