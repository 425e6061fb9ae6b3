"""Threshold and delays of one of river's detectors; competitors.py calls it. Prints one JSON document."""

import array
import json
import math
import subprocess
import sys
from collections.abc import Callable

from river import drift

RUN_LENGTH = 500_000
SHIFTS = ("mean:0.2", "mean:0.5", "sd:1.2", "sd:1.5", "bimodal")
BEFORE = 10_000
HORIZON = 40_000


def values(binary: str, shift: str, seed: int, change: int, number: int) -> array.array:
    done = subprocess.run([binary, "stream", "--shift", shift, "--seed", str(seed), "--change", str(change),
                           "--values", str(number)], stdout=subprocess.PIPE, check=True)
    return array.array("d", done.stdout)


# Threshold to detector; thresholds in the order of longer run lengths.
DETECTORS: dict[str, tuple[str, Callable, tuple]] = {
    "adwin": ("ADWIN, delta {:.3g}", lambda delta: drift.ADWIN(delta=delta),
              (0.9, 0.6, 0.4, 0.2, 0.1, 0.05, 0.02, 0.01, 0.002)),
    "page-hinkley": ("Page–Hinkley, threshold {:.0f}", lambda threshold: drift.PageHinkley(threshold=threshold),
                     (100, 150, 200, 250, 300, 400, 500)),
    "page-hinkley-tuned": ("Page–Hinkley, delta 0.1 (half of the smaller shift), threshold {:.0f}",
                           lambda threshold: drift.PageHinkley(threshold=threshold, delta=0.1),
                           (40, 60, 80, 100, 125, 150, 200, 300, 400)),
}


def main() -> None:
    name, make, thresholds = DETECTORS[sys.argv[1]]
    binary, null_values, streams = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    nothing = values(binary, "none", 6_000_000, 0, null_values)
    lengths: dict[float, float] = {}

    def length(threshold: float) -> float:
        if threshold not in lengths:
            lengths[threshold] = run_length(make(threshold), nothing)
        return lengths[threshold]

    threshold = calibrated(thresholds, length)
    report: dict = {"name": name.format(threshold), "run_lengths": lengths, "threshold": threshold}
    for shift in SHIFTS:
        delays = []
        seed = 0
        while len(delays) < streams:
            found = delay(make(threshold), values(binary, shift, seed, BEFORE, BEFORE + HORIZON))
            seed += 1
            if found is not None:
                delays.append(found)
        report[shift] = summary([d for d in delays if d < math.inf], delays.count(math.inf))
    print(json.dumps(report))


def run_length(detector: object, stream: array.array) -> float:
    """Detectors start anew after an alarm by themselves."""
    alarms = 0
    for x in stream:
        detector.update(x)
        alarms += detector.drift_detected
    return len(stream) / max(alarms, 0.5)


def calibrated(thresholds: tuple, length: Callable[[float], float]) -> float:
    """Between the two whose run lengths are around the one wanted, found by halving; the one at the end if none are."""
    low, high = 0, len(thresholds) - 1
    if length(thresholds[low]) >= RUN_LENGTH:
        return thresholds[low]
    if length(thresholds[high]) < RUN_LENGTH:
        return thresholds[high]
    while high - low > 1:
        middle = (low + high) // 2
        if length(thresholds[middle]) < RUN_LENGTH:
            low = middle
        else:
            high = middle
    short, long = length(thresholds[low]), length(thresholds[high])
    part = math.log(RUN_LENGTH / short) / math.log(long / short)
    return thresholds[low] + part * (thresholds[high] - thresholds[low])


def delay(detector: object, stream: array.array) -> float | None:
    """Infinite if it is missed, nothing if it alarms before the change."""
    for at, x in enumerate(stream):
        detector.update(x)
        if detector.drift_detected:
            return None if at < BEFORE else at - BEFORE + 1
    return math.inf


def summary(delays: list[float], missed: int) -> dict:
    if not delays:
        return {"found": 0, "missed": missed}
    mean = sum(delays) / len(delays)
    variance = sum((delay - mean) ** 2 for delay in delays) / len(delays)
    return {"found": len(delays), "missed": missed, "mean": mean, "error": math.sqrt(variance / len(delays)),
            "p90": sorted(delays)[len(delays) * 9 // 10]}


main()
