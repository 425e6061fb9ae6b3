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
    "page-hinkley-tuned": ("Page–Hinkley, delta 0.1 (half of the smaller shift), threshold {:.1f}",
                           lambda threshold: drift.PageHinkley(threshold=threshold, delta=0.1),
                           (30, 35, 40, 45, 50, 55, 60)),
}


def main() -> None:
    name, make, thresholds = DETECTORS[sys.argv[1]]
    binary, null_values, streams = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    nothing = values(binary, "none", 6_000_000, 0, null_values)
    lengths = [run_length(make(threshold), nothing) for threshold in thresholds]
    threshold = calibrated(thresholds, lengths)
    report: dict = {"name": name.format(threshold), "thresholds": thresholds, "run_lengths": lengths,
                    "threshold": threshold}
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


def calibrated(thresholds: tuple, lengths: list[float]) -> float:
    """Between the two whose run lengths are around the one wanted; the closest one that is tried if none are."""
    pairs = zip(zip(thresholds, lengths), zip(thresholds[1:], lengths[1:]))
    for (low, short), (high, long) in pairs:
        if short < RUN_LENGTH <= long:
            part = math.log(RUN_LENGTH / short) / math.log(long / short)
            return low + part * (high - low)
    return thresholds[0] if lengths[0] >= RUN_LENGTH else thresholds[-1]


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
