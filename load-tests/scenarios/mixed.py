"""A light model at a fixed rate, alone and beside a model of 50 ms that as many clients as there are
cores and more keep busy without pause."""

import argparse
import os

import generator
import harness

SUMMARY = "a light model beside a saturated heavy one"
LIGHT, HEAVY = "mlp-64-32", "heavy"
TARGET = 3


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rate", type=float, default=500, help="of the light model (default: 500/s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)


def run(arguments: argparse.Namespace) -> int:
    program, models = harness.build_all(arguments)
    light = ["--bodies", models / LIGHT / "requests-1.jsonl"]
    heavy = ["--bodies", models / HEAVY / "requests-1.jsonl"]
    paths = {name: f"/v2/models/{name}/infer" for name in (LIGHT, HEAVY)}
    clients = 4 * (os.cpu_count() or 1)
    alone, beside, background = [], [], []
    with harness.scratch_folder() as folder:
        repository = harness.only(models, folder, LIGHT, HEAVY)
        with harness.gateway("tidegate", program, folder, repository) as server:
            def measure() -> dict:
                return generator.load(arguments, server, paths[LIGHT], light, folder,
                                      seconds=arguments.seconds, connections=32,
                                      options=["--rate", arguments.rate])

            for _ in range(arguments.rounds):
                alone.append(measure())
                with generator.background(arguments, server, paths[HEAVY], heavy, folder,
                                          clients) as report:
                    beside.append(measure())
                background.append(report)
    medians = {"alone": generator.summary(alone), "beside": generator.summary(beside)}
    generator.table(f"{LIGHT}, {arguments.rate:.0f}/s", medians)
    print(f"{HEAVY}: {max(r['requests_per_second'] for r in background):.1f} requests/s, "
          f"p50 {background[-1]['latency_us']['p50'] / 1000:.0f} ms")
    ratio = medians["beside"]["p99_us"] / medians["alone"]["p99_us"]
    print(f"\n99th percentile beside over alone: {ratio:.2f}, target at most {TARGET}: "
          f"{harness.verdict(ratio <= TARGET)}")
    harness.save("mixed", {"ratio": ratio, "medians": medians, "alone": alone, "beside": beside,
                           "background": background})
    return 0 if ratio <= TARGET else 1
