"""Other detectors on the same streams, each with the threshold at which it alarms as seldom as ours."""

import json
import math
import subprocess
import sys

from simulation import ROOT, Simulation, SimulationError, table

RIVER = "river==0.26.1"
ENVIRONMENT = ROOT / ".venv" / "drift"

# Values between false alarms: 10,000 ticks of 50.
RUN_LENGTH = 500_000
SHIFTS = ("mean:0.2", "mean:0.5", "sd:1.2", "sd:1.5", "bimodal")
BEFORE = 10_000
HORIZON = 40_000
NULL_VALUES = 5_000_000


def run(simulation: Simulation) -> object:
    python = environment()
    calibrated = simulation.run("calibrate", streams=simulation.share(100))
    threshold = calibrated["threshold_of_10000_ticks"]
    streams = simulation.share(400)
    reports = {}

    def ours(name: str, threshold: float) -> None:
        reports[name] = {shift: simulation.run("delay", shift=shift, rows=0, streams=streams, before=BEFORE,
                                               horizon=HORIZON, threshold=threshold) for shift in SHIFTS}

    ours("Tidegate, the guaranteed threshold", math.log(RUN_LENGTH / 50))
    ours(f"Tidegate, threshold exp({threshold:.2f}) by simulation", threshold)
    for test, windows in (("ks", (500, 1000)), ("chi-square", (500, 1000)), ("psi", (500, 1000)), ("kswin", (30,))):
        for window in windows:
            report = simulation.run("windowed", test=test, window=window, run_length=RUN_LENGTH,
                                    streams=simulation.share(20 if test == "kswin" else 400), horizon=HORIZON)
            reports[f'{test}, {window} values (at least {report["threshold"]:.4g})'] = report
    for detector in ("adwin", "page-hinkley", "page-hinkley-tuned"):
        command = [python, str(ROOT / "load-tests" / "drift" / "river_delays.py"), detector,
                   str(simulation.binary), str(simulation.share(NULL_VALUES)), str(simulation.share(100))]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise SimulationError(f"{detector} failed")
        report = json.loads(done.stdout)
        reports[report["name"]] = report
        print(done.stdout, flush=True)
    table(("detector", *SHIFTS), [(name, *(cell(report[shift]) for shift in SHIFTS))
                                  for name, report in reports.items()])
    return reports


def cell(report: dict) -> str:
    streams = report["found"] + report["missed"]
    missed = f' ({report["missed"]} of {streams} missed)' if report["missed"] else ""
    return f'{report["mean"]:.0f} ± {report["error"]:.0f}{missed}' if report["found"] else f"none of {streams} found"


def environment() -> str:
    """River, in an environment of its own."""
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", RIVER], check=True)
    return str(python)
