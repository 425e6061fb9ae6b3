"""A closed loop of 1, 8, 32 and 256 connections, one row of 30 features as JSON, MLP 64-32: the gateway,
a bare hyper server that parses the same and answers as much, MLServer and LitServe on ONNX Runtime."""

import argparse
import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import generator
import harness
from harness import HOST, Process, ScenarioError, Server

SUMMARY = "requests a second and latency, against a bare hyper server, MLServer and LitServe"
MODEL = "mlp-64-32"
PATH = f"/v2/models/{MODEL}/infer"
PEERS = ["mlserver", "litserve"]
TARGETS = {"bare": 0.80, "mlserver": 30}
OWN_LATENCY_US = 10


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="of each round and server")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 32, 256])
    parser.add_argument("--no-peers", action="store_true", help="without MLServer and LitServe")


def run(arguments: argparse.Namespace) -> int:
    program, models = harness.build_all(arguments)
    bodies = models / MODEL / "requests-1.jsonl"
    result = {}
    with harness.scratch_folder() as folder, contextlib.ExitStack() as stack:
        repository = harness.only(models, folder, MODEL)
        gateway = stack.enter_context(harness.gateway("tidegate", program, folder, repository))
        servers = {"bare": stack.enter_context(bare(arguments, folder, gateway, bodies)),
                   "tidegate": gateway}
        peers = [] if arguments.no_peers else PEERS
        for peer in peers:
            servers[peer] = stack.enter_context(PEER[peer](folder, models, bodies))
        for connections in arguments.connections:
            before = generator.compute_us(gateway, MODEL)
            reports = generator.rounds(
                arguments, {name: (server, PATH, ["--bodies", bodies])
                            for name, server in servers.items()},
                folder, arguments.rounds, seconds=arguments.seconds, connections=connections)
            after = generator.compute_us(gateway, MODEL)
            medians = {name: generator.summary(each) for name, each in reports.items()}
            medians["tidegate"]["compute_us"] = (after[1] - before[1]) / (after[0] - before[0])
            result[connections] = {"medians": medians, "rounds": reports}
            generator.table(f"{connections} connections", medians)
    met = judge(result)
    harness.plot(harness.save("steady", {"connections": result}))
    return 0 if met else 1


def judge(result: dict[int, dict]) -> bool:
    met = []
    print()
    if 32 in result:
        medians = result[32]["medians"]
        for other, target in TARGETS.items():
            if other in medians:
                ratio = (medians["tidegate"]["requests_per_second"]
                         / medians[other]["requests_per_second"])
                met.append(ratio >= target)
                print(f"tidegate/{other}, 32 connections: {ratio:.2f} of the requests/s, "
                      f"target at least {target}: {harness.verdict(met[-1])}")
    if 1 in result:
        medians = result[1]["medians"]
        plan = medians["tidegate"]["compute_us"]
        own = medians["tidegate"]["p50_us"] - medians["bare"]["p50_us"] - plan
        met.append(own <= OWN_LATENCY_US)
        print(f"latency of the gateway's own, 1 connection: {own:.1f} µs ("
              f"{medians['tidegate']['p50_us']:.1f} less bare's {medians['bare']['p50_us']:.1f} and "
              f"the plan's {plan:.1f}), target at most {OWN_LATENCY_US}: {harness.verdict(met[-1])}")
    return all(met)


@contextlib.contextmanager
def bare(arguments: argparse.Namespace, folder: Path, gateway: Server,
         bodies: Path) -> Iterator[Server]:
    """The ceiling, with the gateway's answer."""
    status, answer = harness.request(gateway.port, "POST", PATH, harness.first_body(bodies))
    if status != 200:
        raise ScenarioError(f"the gateway answered {status}: {answer.decode(errors='replace')}")
    answer_file = folder / "answer.json"
    answer_file.write_bytes(answer)
    with harness.bare_hyper(arguments, folder, "--answer", answer_file) as server:
        yield server


@contextlib.contextmanager
def mlserver(folder: Path, models: Path, bodies: Path) -> Iterator[Server]:
    port, grpc_port, metrics_port = harness.free_ports(3)
    configuration = folder / "mlserver"
    configuration.mkdir()
    runtime = harness.ROOT / "load-tests" / "peers" / "mlserver" / "runtime.py"
    (configuration / "runtime.py").write_text(runtime.read_text())
    (configuration / "settings.json").write_text(json.dumps({
        "host": HOST, "http_port": port, "grpc_port": grpc_port, "metrics_port": metrics_port,
        "debug": False, "parallel_workers": 0}))
    (configuration / "model-settings.json").write_text(json.dumps({
        "name": MODEL, "implementation": "runtime.OnnxModel",
        "parameters": {"uri": str(models / MODEL / "1" / "model.onnx")}}))
    command = [harness.environment() / "mlserver", "start", configuration]
    with Process(command, folder / "mlserver.log") as process:
        yield answering("mlserver", process, port, bodies)


@contextlib.contextmanager
def litserve(folder: Path, models: Path, bodies: Path) -> Iterator[Server]:
    [port] = harness.free_ports(1)
    script = harness.ROOT / "load-tests" / "peers" / "litserve_onnx.py"
    model = models / MODEL / "1" / "model.onnx"
    command = [harness.environment() / "python", script, model, PATH, port]
    with Process(command, folder / "litserve.log") as process:
        yield answering("litserve", process, port, bodies)


PEER = {"mlserver": mlserver, "litserve": litserve}


def answering(name: str, process: Process, port: int, bodies: Path) -> Server:
    """Waits until the server answers predictions."""
    body, end = harness.first_body(bodies), time.monotonic() + 90
    while time.monotonic() < end:
        process.check_alive()
        with contextlib.suppress(OSError):
            if harness.request(port, "POST", PATH, body)[0] == 200:
                return Server(name, process, port)
        time.sleep(0.2)
    raise ScenarioError(f"{name} does not answer")
