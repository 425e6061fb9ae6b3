"""Light and heavy predictions, swaps and bad requests together for a while: nothing fails that should not, and
memory stays where it is. One minute by default; `--minutes` makes it hours."""

import argparse
import time

import generator
import harness
import swap
from harness import MODEL

SUMMARY = "everything at once for a minute or for hours: failures, memory"
TARGET_GROWTH = 1.1


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--rate", type=float, default=2000, help="of each kind of load")


def run(arguments: argparse.Namespace) -> int:
    program, models = harness.build_all(arguments)
    reports, rss = [], []
    with harness.scratch_folder() as folder:
        repository = harness.copy_models(arguments, folder / "models")
        harness.only(models, folder, "cnn")
        swapper = swap.Swapper(repository / MODEL / "model.toml")
        swapper.write(1)
        bad = folder / "bad.json"
        bad.write_text('{"inputs": [{"name": "image", "shape": [1, 8, 8], "datatype": "FP32"}]}\n')
        with harness.gateway("tidegate", program, folder, repository) as server:
            swapper.connect(server.port)
            end = time.monotonic() + arguments.minutes * 60
            half = None
            while time.monotonic() < end:
                loads = [
                    (f"/v2/models/{MODEL}/infer", ["--bodies", harness.bodies(arguments)], arguments.rate),
                    ("/v2/models/cnn/infer", ["--bodies", models / "cnn" / "requests-1.jsonl"], 200),
                    (f"/v2/models/{MODEL}/infer", ["--body", bad], 200),
                ]
                reports += round_of(arguments, server, swapper, loads, folder, end)
                rss.append(swap.settled_rss(server))
                if half is None and time.monotonic() > end - arguments.minutes * 30:
                    half = rss[-1]
                print(f"{harness.megabytes(rss[-1]):>9}  "
                      f"{sum(r['answers'] for r in reports)} answers", flush=True)
    failed = sum(count for report in reports for status, count in report["statuses"].items()
                 if status not in ("200", "400"))
    failed += sum(report["connection_errors"] for report in reports)
    growth = rss[-1] / (half or rss[0])
    met = failed == 0 and growth <= TARGET_GROWTH
    print(f"\nfailed {failed}, target 0; memory {harness.megabytes(rss[-1])}, {growth:.3f} of that after "
          f"half of the time, target at most {TARGET_GROWTH}: {harness.verdict(met)}")
    harness.save("soak", {"failed": failed, "growth": growth, "rss": rss})
    return 0 if met else 1


def round_of(arguments, server, swapper, loads: list, folder, end: float) -> list[dict]:
    """Ten seconds, or what is left: all loads at once, with a swap twice a second."""
    until = min(time.monotonic() + 10, max(end, time.monotonic() + 2))
    with generator.together(arguments, server, loads, folder, arguments.connections) as reports:
        version = 1
        while time.monotonic() < until:
            version = 3 - version
            swapper.swap(version)
            time.sleep(0.5)
    return reports
