"""Time from the start of the process to its first answered prediction, and the size of the binary."""

import argparse
import contextlib
import http.client
import statistics
import time
from pathlib import Path

import harness
from harness import MODEL, Process, ScenarioError

SUMMARY = "time to the first prediction, size of the binary"
PATH = f"/v2/models/{MODEL}/versions/1/infer"
TARGET_MS = 150
TARGET_BYTES = 40_000_000
POLL_SECONDS = 0.002
LIMIT_SECONDS = 30


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=20)


def run(arguments: argparse.Namespace) -> int:
    program = harness.build_gateway(arguments)
    body = harness.first_body(harness.bodies(arguments))
    with harness.scratch_folder() as folder:
        repository = harness.copy_models(arguments, folder / "models")
        times = [time_to_answer(program, folder, repository, body)
                 for _ in range(arguments.rounds)]

    median, size = statistics.median(times), program.stat().st_size
    print(f"first prediction after {median:.1f} ms (median of {len(times)} starts; "
          f"min {min(times):.1f}, max {max(times):.1f}), target below {TARGET_MS} ms: "
          f"{harness.verdict(median < TARGET_MS)}")
    print(f"binary {harness.megabytes(size)}, target below {harness.megabytes(TARGET_BYTES)}: "
          f"{harness.verdict(size < TARGET_BYTES)}")
    harness.save("start", {"median_ms": median, "min_ms": min(times), "max_ms": max(times),
                           "rounds_ms": times, "binary_bytes": size,
                           "all_models": arguments.all_models})
    return 0 if median < TARGET_MS and size < TARGET_BYTES else 1


def time_to_answer(program: Path, folder: Path, repository: Path, body: bytes) -> float:
    """Milliseconds from before the process is made to a prediction answered with status 200."""
    config, port, _ = harness.write_config(folder, repository)
    command = [program, "serve", "--config", config]
    start = time.perf_counter()
    with Process(command, folder / f"start-{port}.log") as process:
        while time.perf_counter() - start < LIMIT_SECONDS:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if harness.request(port, "POST", PATH, body)[0] == 200:
                    return (time.perf_counter() - start) * 1e3
            process.check_alive()
            time.sleep(POLL_SECONDS)
        raise ScenarioError(f"no prediction in {LIMIT_SECONDS} s")
