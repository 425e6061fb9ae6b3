"""What is left of the machine for the model: rows a second through the gateway over the plan run in a
loop on every core without a server; and dynamic batching of single rows, on over off.

The rows come as JSON and as binary tensors. The clients take their part of the cores, which the loop
has for itself; so beside the rows a second stands the processor time: what the loop takes for a row,
over what the gateway takes for one, client excluded."""

import argparse
import json
import os
import re
import statistics
import struct
import subprocess
from pathlib import Path

import generator
import harness
from harness import ScenarioError, Server

SUMMARY = "compute-bound models against the bare engine; dynamic batching on against off"
BOUND = {"mlp-512-512": 32, "cnn": 1}
TARGET_BOUND = 0.95
BATCHED = "mlp-512-512"
TARGET_BATCHING = 1.5


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)


def run(arguments: argparse.Namespace) -> int:
    program, models = harness.build_all(arguments)
    result, met = {}, []
    for model, rows in BOUND.items():
        ratios, result[model] = bound(arguments, program, models, model, rows)
        # By rows a second, in the form that a client chooses who has many of them.
        met.append(ratios["binary"]["rows"] >= TARGET_BOUND)
        for form, ratio in ratios.items():
            print(f"{model}, {rows} rows a request, {form}: {ratio['rows']:.2f} of the bare engine's "
                  f"rows/s, {ratio['cpu']:.2f} by processor time", flush=True)
        print(f"target at least {TARGET_BOUND} of the rows/s: {harness.verdict(met[-1])}", flush=True)
    ratio, result["batching"] = batching(arguments, program, models)
    met.append(ratio >= TARGET_BATCHING)
    print(f"\nbatching on over off: {ratio:.2f}, target at least {TARGET_BATCHING}: "
          f"{harness.verdict(met[-1])}")
    harness.save("compute", result)
    return 0 if all(met) else 1


def bound(arguments: argparse.Namespace, program: Path, models: Path, model: str,
          rows: int) -> tuple[dict, dict]:
    path = f"/v2/models/{model}/infer"
    bare: list[dict] = []
    with harness.scratch_folder() as folder:
        forms = {"JSON": ["--bodies", models / model / f"requests-{rows}.jsonl"],
                 "binary": binary(models / model / f"requests-{rows}.jsonl", folder)}
        served: dict[str, list[dict]] = {form: [] for form in forms}
        repository = harness.only(models, folder, model)
        with harness.gateway("tidegate", program, folder, repository) as server:
            for _ in range(arguments.rounds):
                bare.append(bare_engine(program, models / model, rows, arguments.seconds))
                for form, options in forms.items():
                    served[form].append(through(arguments, server, path, options, folder, rows))

    def median(each: list[dict], what: str) -> float:
        return statistics.median(one[what] for one in each)

    ratios = {form: {"rows": median(each, "rows_per_second") / median(bare, "rows_per_second"),
                     "cpu": median(bare, "cpu_us_per_row") / median(each, "cpu_us_per_row")}
              for form, each in served.items()}
    return ratios, {"ratios": ratios, "bare": bare, "served": served}


def through(arguments: argparse.Namespace, server: Server, path: str, options: list, folder: Path,
            rows: int) -> dict:
    # The generator looks at its connections once a millisecond: each of its wake-ups takes a core from a
    # thread that computes. There are enough requests under way for all cores meanwhile.
    report = generator.load(arguments, server, path, [*options, "--tick", "1ms"], folder,
                            seconds=arguments.seconds, connections=64)
    return {"rows_per_second": report["requests_per_second"] * rows,
            "cpu_us_per_row": report["cpu_us_per_request"] / rows}


def binary(bodies: Path, folder: Path) -> list:
    """The first request of the file with its tensor in binary: options of the generator."""
    [tensor] = json.loads(harness.first_body(bodies))["inputs"]
    data = struct.pack(f"<{len(tensor['data'])}f", *tensor.pop("data"))
    head = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": len(data)}}],
                       "parameters": {"binary_data_output": True}}).encode()
    file = folder / "request.bin"
    file.write_bytes(head + data)
    return ["--body", file, "--header", "content-type:application/octet-stream",
            "--header", f"inference-header-content-length:{len(head)}"]


def bare_engine(program: Path, model: Path, rows: int, seconds: float) -> dict:
    """Rows a second of the plan in a loop, on every core at once, and its processor time for a row."""
    def loops(duration: str) -> tuple[float, float]:
        command = [program, "inspect", model / "1" / "model.onnx", "--shape",
                   f"x={rows},{features(model)}", "--run-for", duration]
        processes = [subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE,
                                      text=True) for _ in range(os.cpu_count() or 1)]
        rate, spent = 0.0, 0.0
        for process in processes:
            text = process.stdout.read()
            _, code, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(code)
            found = re.search(r"^loop +([0-9.]+) runs/s", text, re.MULTILINE)
            if process.returncode or not found:
                raise ScenarioError(f"the bare engine said: {text}")
            rate += float(found[1]) * rows
            spent += usage.ru_utime + usage.ru_stime
        return rate, spent

    # What loading the model takes is none of the loop's.
    _, loading = loops("1ms")
    rate, spent = loops(f"{seconds}s")
    return {"rows_per_second": rate, "cpu_us_per_row": (spent - loading) * 1e6 / (rate * seconds)}


def features(model: Path) -> int:
    return 16 if model.name == "cnn" else 30


def batching(arguments: argparse.Namespace, program: Path, models: Path) -> tuple[float, dict]:
    path, bodies = f"/v2/models/{BATCHED}/infer", ["--bodies", models / BATCHED / "requests-1.jsonl"]
    settings = {
        "off": f"[models.{BATCHED}.batching]\nmax_batch = 0",
        "on": f"[models.{BATCHED}.batching]\nmax_batch = 32",
    }
    with harness.scratch_folder() as folder:
        repository = harness.only(models, folder, BATCHED)
        with (harness.gateway("off", program, folder, repository, settings["off"]) as off,
              harness.gateway("on", program, folder, repository, settings["on"]) as on):
            servers = {"off": (off, path, bodies), "on": (on, path, bodies)}
            reports = generator.rounds(arguments, servers, folder, arguments.rounds,
                                       seconds=arguments.seconds, connections=64)
    medians = {name: generator.summary(each) for name, each in reports.items()}
    generator.table(f"{BATCHED}, batching", medians)
    ratio = medians["on"]["requests_per_second"] / medians["off"]["requests_per_second"]
    return ratio, {"medians": medians, "rounds": reports}
