"""The program that simulates (load-tests/src/bin/drift), and tables of what it says."""

import json
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "load-tests" / "results"

# No call may take longer than this many seconds.
LONGEST = 3600


class SimulationError(Exception):
    """The simulation cannot go on; the message says why."""


class Simulation:
    def __init__(self, target_dir: Path | None, quick: bool) -> None:
        target = (target_dir or ROOT / "target").resolve()
        command = ["cargo", "build", "--release", "--package", "load-tests", "--bin", "drift",
                   "--target-dir", str(target)]
        if subprocess.run(command, cwd=ROOT).returncode != 0:
            raise SimulationError("the build failed")
        # What follows leaves the machine to others.
        os.nice(10)
        self.binary = target / "release" / "drift"
        self.quick = quick

    def share(self, number: int) -> int:
        return max(number // 10, 1) if self.quick else number

    def command(self, experiment: str, *flags: str, **options: object) -> list[str]:
        words = [str(self.binary), experiment, *(f"--{flag}" for flag in flags)]
        for name, value in options.items():
            words += [f"--{name.replace('_', '-')}", str(value)]
        return words

    def run(self, experiment: str, *flags: str, **options: object) -> dict:
        """One simulation; it may take minutes."""
        done = subprocess.run(self.command(experiment, *flags, **options), stdout=subprocess.PIPE, timeout=LONGEST)
        if done.returncode != 0:
            raise SimulationError(f"{experiment} {options} failed")
        report = json.loads(done.stdout)
        print(json.dumps({"experiment": experiment, **options, **report}), flush=True)
        return report


def table(head: tuple, rows: list[tuple]) -> None:
    """As Markdown."""
    print()
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(str(entry) for entry in row) + " |")
