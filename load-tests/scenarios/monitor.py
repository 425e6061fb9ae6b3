"""What watching costs: requests a second with the monitor on and off, every row counted, MLP 64-32 with
30 features, in interleaved rounds of two gateways on the same model."""

import argparse
import contextlib
import time

import generator
import harness
from harness import ScenarioError, Server

SUMMARY = "requests a second with the monitor on, against off"
MODEL = "mlp-64-32"
PATH = f"/v2/models/{MODEL}/infer"
TARGET = 0.95
# Rows that the baseline is learned of before anything is measured.
LEARNED = 5000
SETTINGS = {
    "off": "[defaults.monitor]\nenabled = false\n",
    "on": f"[defaults.monitor]\nbaseline = {{ learn = {LEARNED} }}\n",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4, help="of each round and gateway")
    parser.add_argument("--connections", type=int, default=32)


def run(arguments: argparse.Namespace) -> int:
    program, models = harness.build_all(arguments)
    bodies = ["--bodies", models / MODEL / "requests-1.jsonl"]
    with harness.scratch_folder() as folder, contextlib.ExitStack() as stack:
        repository = harness.only(models, folder, MODEL)
        servers = {
            name: stack.enter_context(harness.gateway(name, program, folder, repository, settings))
            for name, settings in SETTINGS.items()}
        loads = {name: (server, PATH, bodies) for name, server in servers.items()}
        # Not counted: the baseline is learned, and whatever else happens once.
        generator.rounds(arguments, loads, folder, 1, seconds=2,
                         connections=arguments.connections)
        wait_learned(servers["on"])
        rounds = generator.rounds(arguments, loads, folder, arguments.rounds,
                                  seconds=arguments.seconds, connections=arguments.connections)
        counts = figures(servers["on"])
    medians = {name: generator.summary(reports) for name, reports in rounds.items()}
    generator.table(f"{arguments.connections} connections", medians)
    pairs = [on["requests_per_second"] / off["requests_per_second"]
             for on, off in zip(rounds["on"], rounds["off"])]
    ratio = sorted(pairs)[len(pairs) // 2]
    offered = counts["observations"] + counts["dropped"]
    print(f"\non/off: {ratio:.3f} of the requests/s (median of pairs; {min(pairs):.3f} to "
          f"{max(pairs):.3f}), target at least {TARGET}: {harness.verdict(ratio >= TARGET)}")
    print(f"observed {counts['observations']:.0f} of {offered:.0f} answers, dropped "
          f"{counts['dropped']:.0f}; the monitor's thread used {counts['cpu']:.2f} s of CPU, "
          f"{counts['cpu'] * 1e9 / max(counts['observations'], 1):.0f} ns a row")
    harness.save("monitor", {"medians": medians, "rounds": rounds, "ratio": ratio,
                             "counts": counts})
    return 0 if ratio >= TARGET else 1


def wait_learned(server: Server, limit: float = 30) -> None:
    end = time.monotonic() + limit
    while time.monotonic() < end:
        status, body = harness.request(server.admin, "GET", f"/api/v1/drift/{MODEL}")
        if status == 200 and b'"learning"' not in body.split(b'"features"')[0]:
            return
        time.sleep(0.1)
    raise ScenarioError(f"the baseline was not learned within {limit} s: {body[:300]!r}")


def figures(server: Server) -> dict[str, float]:
    _, text = harness.request(server.admin, "GET", "/metrics")
    values = {}
    for line in text.decode().splitlines():
        name, _, value = line.partition(" ")
        values[name] = value
    return {
        "observations": float(values['tidegate_monitor_observations_total{outcome="observed"}']),
        "dropped": float(values['tidegate_monitor_observations_total{outcome="dropped"}']),
        "cpu": float(values["tidegate_monitor_cpu_seconds_total"]),
    }
