"""Bulk scoring: 10,000 rows a request as an Arrow stream of 30 columns, 500 trees of 31 leaves
(LightGBM).

Beside it the engine alone, without a gateway: a process a core that runs as many rows at once, again
and again. In both cases the machine does nothing else, but that the gateway's load generator takes its
share of it."""

import argparse
import json
import os
import statistics
import subprocess
from pathlib import Path

import generator
import harness
from harness import ScenarioError

SUMMARY = "rows a second of Arrow streams, against the engine alone on every core"
MODEL = "lightgbm"
PATH = f"/v2/models/{MODEL}/predict"
ROWS = 10_000
TARGET = 0.85


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--connections", type=int, default=2 * (os.cpu_count() or 1))


def worker(arguments: argparse.Namespace) -> Path:
    """The program that runs the engine alone."""
    if arguments.no_build:
        built = (arguments.target_dir / arguments.profile / "deps").glob("onnxruntime-*")
        built = sorted((file for file in built if not file.suffix), key=lambda file: file.stat().st_mtime)
        if not built:
            raise ScenarioError("the engine's worker is not built")
        return built[-1]
    command = ["cargo", "build", "--profile", arguments.profile, "--target-dir",
               str(arguments.target_dir), "--bench", "onnxruntime", "--message-format=json"]
    built = subprocess.run(command, cwd=harness.ROOT, stdout=subprocess.PIPE, text=True)
    if built.returncode != 0:
        raise ScenarioError("the engine's worker could not be built")
    for line in built.stdout.splitlines():
        artifact = json.loads(line)
        if artifact.get("target", {}).get("name") == "onnxruntime":
            return Path(artifact["executable"])
    raise ScenarioError("cargo did not say where the engine's worker is")


def engine_alone(program: Path, models: Path, seconds: float) -> float:
    """Rows a second of a process a core."""
    command = [program, models / MODEL / "1" / "model.onnx", models / MODEL / "rows.f32"]
    workers = [subprocess.Popen([str(part) for part in command], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, text=True)
               for _ in range(os.cpu_count() or 1)]

    def tell(runs: int) -> list[int]:
        """Nanoseconds of a run in each process, all of them at work."""
        for each in workers:
            each.stdin.write(f"{ROWS} {runs}\n")
            each.stdin.flush()
        return [int(each.stdout.readline()) for each in workers]

    try:
        runs = max(1, round(seconds * 1e9 / max(tell(3))))
        return sum(ROWS * 1e9 / each for each in tell(runs))
    finally:
        for each in workers:
            each.stdin.close()
            each.wait(60)


def run(arguments: argparse.Namespace) -> int:
    program, models = harness.build_all(arguments)
    engine = worker(arguments)
    body = ["--body", models / MODEL / "rows.arrow",
            "--header", "content-type:application/vnd.apache.arrow.stream"]
    alone, through = [], []
    with harness.scratch_folder() as folder:
        repository = harness.only(models, folder, MODEL)
        for _ in range(arguments.rounds):
            alone.append(engine_alone(engine, models, arguments.seconds))
            # Not beside the engine alone, which is to have the machine to itself.
            with harness.gateway("tidegate", program, folder, repository) as gateway:
                report = generator.load(arguments, gateway, PATH, body, folder,
                                        seconds=arguments.seconds,
                                        connections=arguments.connections)
            through.append(report)
            print(f"engine alone {alone[-1]:12,.0f} rows/s, through the gateway "
                  f"{report['requests_per_second'] * ROWS:12,.0f} rows/s", flush=True)
    generator.table("10,000 rows", {"tidegate": generator.summary(through)})
    rows = statistics.median(report["requests_per_second"] * ROWS for report in through)
    ratio = rows / statistics.median(alone)
    print(f"\ntidegate/engine alone: {ratio:.2f} of the rows/s, target at least {TARGET}: "
          f"{harness.verdict(ratio >= TARGET)}")
    harness.save("arrow", {"ratio": ratio, "rows_per_second": rows,
                           "engine_rows_per_second": alone, "rounds": through})
    return 0 if ratio >= TARGET else 1
