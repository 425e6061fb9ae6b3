"""What recording predictions costs, and what is left of them: requests a second with every row of MLP
64-32 recorded and without, in interleaved rounds; a replay of rows that ran in dynamic batches, which
must have the same bits; and gateways that are killed at random moments, whose files must all be whole."""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import generator
import harness
from harness import ScenarioError, Server

SUMMARY = "requests a second with every row recorded, against off; replay to the bit; kill -9"
MODEL, BATCHED = "mlp-64-32", "mlp-512-512"
TARGET = 0.90


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4, help="of each round and gateway")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--rows", type=int, default=100_000, help="that are replayed")
    parser.add_argument("--kills", type=int, default=200, help="of a gateway that records")
    parser.add_argument("--decoded", action="store_true", help="features as columns as well")
    parser.add_argument("--part", choices=["cost", "replay", "kill"], help="only this")


def run(arguments: argparse.Namespace) -> int:
    program, models = harness.build_all(arguments)
    parts = {"cost": cost, "replay": replay, "kill": kill}
    wanted = [arguments.part] if arguments.part else list(parts)
    result, met = {}, []
    for name in wanted:
        with harness.scratch_folder() as folder:
            good, result[name] = parts[name](arguments, program, models, folder)
        met.append(good)
    harness.save("capture", result)
    return 0 if all(met) else 1


def settings(to: Path, more: str = "") -> str:
    return f"[defaults.capture]\nenabled = true\nto = {json.dumps(str(to))}\n{more}\n"


def cost(arguments: argparse.Namespace, program: Path, models: Path,
         folder: Path) -> tuple[bool, dict]:
    bodies, path = ["--bodies", models / MODEL / "requests-1.jsonl"], f"/v2/models/{MODEL}/infer"
    decoded = f"decoded = {str(arguments.decoded).lower()}"
    configured = {"off": "", "on": settings(folder / "captures", decoded)}
    with contextlib.ExitStack() as stack:
        repository = harness.only(models, folder, MODEL)
        servers = {
            name: stack.enter_context(harness.gateway(name, program, folder, repository, lines))
            for name, lines in configured.items()}
        loads = {name: (server, path, bodies) for name, server in servers.items()}
        # Not counted: what happens once.
        generator.rounds(arguments, loads, folder, 1, seconds=1, connections=arguments.connections)
        rounds = generator.rounds(arguments, loads, folder, arguments.rounds,
                                  seconds=arguments.seconds, connections=arguments.connections)
        answered = metric(servers["on"], "tidegate_prediction_rows_total")
        wait_rows(servers["on"], answered)
        counts = {name: metric(servers["on"], f"tidegate_capture_{name}_total")
                  for name in ("rows", "bytes", "dropped", "cpu_seconds")}
    medians = {name: generator.summary(reports) for name, reports in rounds.items()}
    generator.table(f"{arguments.connections} connections", medians)
    pairs = [on["requests_per_second"] / off["requests_per_second"]
             for on, off in zip(rounds["on"], rounds["off"])]
    ratio = sorted(pairs)[len(pairs) // 2]
    rows = max(counts["rows"], 1)
    whole = counts["dropped"] == 0 and counts["rows"] == answered
    print(f"\non/off: {ratio:.3f} of the requests/s (median of pairs; {min(pairs):.3f} to "
          f"{max(pairs):.3f}), target at least {TARGET}: {harness.verdict(ratio >= TARGET)}")
    print(f"recorded {counts['rows']:.0f} of {answered:.0f} rows, dropped {counts['dropped']:.0f}: "
          f"{harness.verdict(whole)}; {counts['cpu_seconds'] * 1e9 / rows:.0f} ns of the thread's "
          f"CPU and {counts['bytes'] / rows:.0f} bytes a row")
    return ratio >= TARGET and whole, {"medians": medians, "rounds": rounds, "ratio": ratio,
                                       "counts": counts, "answered": answered}


def replay(arguments: argparse.Namespace, program: Path, models: Path,
           folder: Path) -> tuple[bool, dict]:
    """Rows that ran in batches of several requests, run again here."""
    repository, captures = harness.only(models, folder, BATCHED), folder / "captures"
    batching = f"[models.{BATCHED}]\n[models.{BATCHED}.batching]\nmax_batch = 32\n"
    bodies, path = ["--bodies", models / BATCHED / "requests-1.jsonl"], f"/v2/models/{BATCHED}/infer"
    lines = settings(captures) + batching
    with harness.gateway("recording", program, folder, repository, lines) as server:
        with generator.background(arguments, server, path, bodies, folder, 64):
            wait_rows(server, arguments.rows, limit=600)
        dropped = metric(server, "tidegate_capture_dropped_total")
    config, _, _ = harness.write_config(folder, repository, lines)
    took = time.monotonic()
    code, report = replayed(program, config, captures, BATCHED, "exact")
    took = time.monotonic() - took
    rows = report["rows"]
    equal = rows >= arguments.rows and report["bit_equal"] == report["promised"] == rows
    print(f"\nreplayed {rows} rows in {took:.1f} s, {report['batches_reformed']} batches formed "
          f"again, {report['rows_not_reformed']} rows of incomplete ones; bit-equal "
          f"{report['bit_equal']}, promised {report['promised']}: {harness.verdict(equal)}; dropped "
          f"{dropped:.0f}")
    return equal and code == 0, {"report": report, "seconds": took, "dropped": dropped}


def kill(arguments: argparse.Namespace, program: Path, models: Path,
         folder: Path) -> tuple[bool, dict]:
    """Gateways that are killed while they record; every file that can be seen must be whole."""
    repository, captures = harness.only(models, folder, MODEL), folder / "captures"
    bodies, path = ["--bodies", models / MODEL / "requests-1.jsonl"], f"/v2/models/{MODEL}/infer"
    lines = settings(captures, "flush = \"50ms\"\nroll_time = \"1s\"\nroll_size = \"256KiB\"")
    config, _, _ = harness.write_config(folder, repository, lines)
    seen: set[Path] = set()
    rows, bad = 0, []
    for number in range(arguments.kills):
        with harness.gateway("recording", program, folder, repository, lines) as server:
            load = generator.command(arguments, server, path, bodies, 60, 8,
                                     folder / "load.json", "--allow-failures", "--rate", 2000)
            with harness.Process(load, folder / "load.log", limit=5) as process:
                time.sleep(0.6 + random.random())
                server.process.popen.send_signal(signal.SIGKILL)
                server.process.popen.wait()
                process.end(signal.SIGKILL)
        for file in sorted(set(captures.rglob("*.parquet")) - seen):
            if file.name.startswith("."):
                continue
            seen.add(file)
            try:
                _, report = replayed(program, config, file, MODEL, "numeric")
                rows += report["rows"]
            except ScenarioError as error:
                bad.append(str(error))
        if number % 20 == 19:
            print(f"{number + 1} kills, {len(seen)} files, {len(bad)} unreadable", flush=True)
    print(f"\n{arguments.kills} kills: {len(seen)} files with {rows} rows, unreadable {len(bad)}: "
          f"{harness.verdict(not bad and bool(seen))}")
    for error in bad[:5]:
        print(error)
    return not bad and bool(seen), {"files": len(seen), "rows": rows, "unreadable": bad}


def replayed(program: Path, config: Path, captures: Path, model: str,
             mode: str) -> tuple[int, dict]:
    command = [program, "replay", captures, "--model", model, "--mode", mode, "--json"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True,
                          env={**os.environ, "TIDEGATE_CONFIG": str(config)})
    try:
        return done.returncode, json.loads(done.stdout)
    except json.JSONDecodeError as error:
        raise ScenarioError(f"replay of {captures}: {done.stderr}") from error


def metric(server: Server, name: str) -> float:
    _, text = harness.request(server.admin, "GET", "/metrics")
    lines = text.decode().splitlines()
    values = [float(line.rpartition(" ")[2]) for line in lines
              if line.startswith((f"{name} ", f"{name}{{"))]
    return sum(values)


def wait_rows(server: Server, rows: float, limit: float = 60) -> None:
    end = time.monotonic() + limit
    while time.monotonic() < end:
        server.process.check_alive()
        if metric(server, "tidegate_capture_rows_total") >= rows:
            return
        if metric(server, "tidegate_capture_dropped_total") > 0 and rows <= metric(
                server, "tidegate_prediction_rows_total"):
            time.sleep(12)
            return
        time.sleep(0.2)
    raise ScenarioError(f"{rows:.0f} rows were not recorded within {limit} s")
