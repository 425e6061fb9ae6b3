"""What is left of the machine for the model: rows a second through the gateway over the plan run in a
loop on every core without a server; and dynamic batching of single rows, on over off."""

import argparse
import os
import re
import statistics
import subprocess
from pathlib import Path

import generator
import harness
from harness import ScenarioError

SUMMARY = "compute-bound models against the bare engine; dynamic batching on against off"
BOUND = {"mlp-512-512": 32, "cnn": 1}
TARGET_BOUND = 0.95
BATCHED = "mlp-512-512"
TARGET_BATCHING = 1.5


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)


def run(arguments: argparse.Namespace) -> int:
    program, models = harness.build_all(arguments)
    result, met = {}, []
    for model, rows in BOUND.items():
        ratio, each = bound(arguments, program, models, model, rows)
        result[model], _ = each, met.append(ratio >= TARGET_BOUND)
        print(f"{model}, {rows} rows a request: {ratio:.2f} of the bare engine's rows/s, "
              f"target at least {TARGET_BOUND}: {harness.verdict(met[-1])}", flush=True)
    ratio, result["batching"] = batching(arguments, program, models)
    met.append(ratio >= TARGET_BATCHING)
    print(f"\nbatching on over off: {ratio:.2f}, target at least {TARGET_BATCHING}: "
          f"{harness.verdict(met[-1])}")
    harness.save("compute", result)
    return 0 if all(met) else 1


def bound(arguments: argparse.Namespace, program: Path, models: Path, model: str,
          rows: int) -> tuple[float, dict]:
    path, bodies = f"/v2/models/{model}/infer", ["--bodies", models / model / f"requests-{rows}.jsonl"]
    bare, served = [], []
    with harness.scratch_folder() as folder:
        repository = harness.only(models, folder, model)
        with harness.gateway("tidegate", program, folder, repository) as server:
            for _ in range(arguments.rounds):
                bare.append(bare_engine(program, models / model, rows, arguments.seconds))
                report = generator.load(arguments, server, path, bodies, folder,
                                        seconds=arguments.seconds, connections=16)
                served.append(report["requests_per_second"] * rows)
    return statistics.median(served) / statistics.median(bare), {"bare": bare, "served": served}


def bare_engine(program: Path, model: Path, rows: int, seconds: float) -> float:
    """Rows a second of the plan in a loop, on every core at once."""
    command = [program, "inspect", model / "1" / "model.onnx", "--shape", f"x={rows},{features(model)}",
               "--run-for", f"{seconds}s"]
    processes = [subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)
                 for _ in range(os.cpu_count() or 1)]
    total = 0.0
    for process in processes:
        text = process.communicate()[0]
        found = re.search(r"^loop +([0-9.]+) runs/s", text, re.MULTILINE)
        if not found:
            raise ScenarioError(f"the bare engine said: {text}")
        total += float(found[1]) * rows
    return total


def features(model: Path) -> int:
    return 16 if model.name == "cnn" else 30


def batching(arguments: argparse.Namespace, program: Path, models: Path) -> tuple[float, dict]:
    path, bodies = f"/v2/models/{BATCHED}/infer", ["--bodies", models / BATCHED / "requests-1.jsonl"]
    settings = {
        "off": f"[models.{BATCHED}.batching]\nmax_batch = 0",
        "on": f"[models.{BATCHED}.batching]\nmax_batch = 32",
    }
    with harness.scratch_folder() as folder:
        repository = harness.only(models, folder, BATCHED)
        with (harness.gateway("off", program, folder, repository, settings["off"]) as off,
              harness.gateway("on", program, folder, repository, settings["on"]) as on):
            servers = {"off": (off, path, bodies), "on": (on, path, bodies)}
            reports = generator.rounds(arguments, servers, folder, arguments.rounds,
                                       seconds=arguments.seconds, connections=64)
    medians = {name: generator.summary(each) for name, each in reports.items()}
    generator.table(f"{BATCHED}, batching", medians)
    ratio = medians["on"]["requests_per_second"] / medians["off"]["requests_per_second"]
    return ratio, {"medians": medians, "rounds": reports}
