"""Requests due at fixed rates, from a fifth of the capacity to twice as much, then a fifth again:
latency from when each request was due, and what is answered in time. The capacity is measured
first, with a closed loop."""

import argparse

import generator
import harness

SUMMARY = "open loop up to twice the capacity: latency, goodput, recovery"
SHARES = [0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0, 0.2]
TARGET_GOODPUT = 0.9
# The generator has its part of the same cores, and each of its wake-ups takes one from a thread that computes. It
# uses as many connections as requests wait, not all of them in turn.
TICK = "1ms"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="cnn", help="one of models.py (default: cnn, about 1 ms)")
    parser.add_argument("--seconds", type=float, default=5, help="at each rate")
    parser.add_argument("--connections", type=int, default=512,
                        help="enough for all requests that wait (default: 512)")
    parser.add_argument("--deadline", type=int, default=100, metavar="MS")


def run(arguments: argparse.Namespace) -> int:
    program, models = harness.build_all(arguments)
    model, deadline = arguments.model, arguments.deadline
    path, bodies = f"/v2/models/{model}/infer", ["--bodies", models / model / "requests-1.jsonl"]
    settings = f'[models.{model}]\ndeadline = "{deadline}ms"'
    with harness.scratch_folder() as folder:
        repository = harness.only(models, folder, model)
        with harness.gateway("tidegate", program, folder, repository, settings) as server:
            how = {"seconds": arguments.seconds, "failures": True}
            closed = generator.load(arguments, server, path, bodies, folder, connections=32, **how)
            capacity = closed["requests_per_second"]
            print(f"capacity of {model}: {capacity:.0f} requests/s; deadline {deadline} ms\n")
            print("    due  answered/s  refused/s  never sent   p50 ms   p99 ms   max ms")
            points = []
            for share in SHARES:
                options = ["--rate", f"{capacity * share:.1f}", "--tick", TICK, "--pooled"]
                point = generator.load(arguments, server, path, bodies, folder, options=options,
                                       connections=arguments.connections, **how)
                points.append(point | {"share": share})
                show(points[-1])
    met = judge(points, capacity, deadline)
    # The last is the recovery, which the plot has no room for.
    result = {"model": model, "capacity": capacity, "deadline_ms": deadline, "points": points[:-1],
              "recovery": points[-1]}
    harness.plot(harness.save("open_loop", result))
    return 0 if met else 1


def show(point: dict) -> None:
    refused = sum(count for status, count in point["statuses"].items() if status != "200")
    latency = point["latency_us"]
    print(f"{point['share']:6.0%} {point['requests_per_second']:11.0f} "
          f"{refused / point['seconds']:10.0f} {point['unsent']:11} "
          + " ".join(f"{latency[q] / 1000:8.1f}" for q in ("p50", "p99", "max")), flush=True)


def judge(points: list[dict], capacity: float, deadline: int) -> bool:
    twice = next(point for point in points if point["share"] == 2.0)
    first, last = points[0]["latency_us"]["p99"], points[-1]["latency_us"]["p99"]
    goodput = twice["requests_per_second"] / capacity
    p99 = twice["latency_us"]["p99"] / 1000
    checks = [
        (f"goodput at twice the capacity: {goodput:.2f} of it, target at least {TARGET_GOODPUT}",
         goodput >= TARGET_GOODPUT),
        (f"99th percentile of what was answered then: {p99:.1f} ms, target within {deadline} ms",
         p99 <= deadline),
        (f"99th percentile at a fifth after the overload over before: {last / first:.2f}, "
         "target at most 2", last <= first * 2),
    ]
    print()
    for text, met in checks:
        print(f"{text}: {harness.verdict(met)}")
    return all(met for _, met in checks)
