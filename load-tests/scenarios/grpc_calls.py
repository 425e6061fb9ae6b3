"""A closed loop of 32 streams over 4 connections, one row of 30 features as raw contents, MLP 64-32, over
gRPC: the gateway, and a bare tonic server that reads the same message and answers as much."""

import argparse
import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import generator
import harness
from harness import HOST, Process, ScenarioError, Server

NAME = "grpc"
SUMMARY = "requests a second over gRPC, against a bare tonic server"
MODEL = "mlp-64-32"
PATH = "/inference.GRPCInferenceService/ModelInfer"
TARGET = 0.80


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="of each round and server")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--streams", type=int, default=8, help="of each connection")


def run(arguments: argparse.Namespace) -> int:
    program, models = harness.build_all(arguments)
    bodies = models / MODEL / "requests-1.jsonl"
    what = ["--bodies", bodies, "--model", MODEL]
    with harness.scratch_folder() as folder, contextlib.ExitStack() as stack:
        repository = harness.only(models, folder, MODEL)
        gateway = stack.enter_context(
            harness.gateway("tidegate", program, folder, repository, grpc=True))
        served = Server("tidegate", gateway.process, gateway.grpc, generator="grpc-load")
        servers = {"bare": stack.enter_context(bare(arguments, folder, served, what)),
                   "tidegate": served}
        reports = generator.rounds(
            arguments, {name: (server, PATH, what) for name, server in servers.items()},
            folder, arguments.rounds, seconds=arguments.seconds,
            connections=arguments.connections, options=["--streams", arguments.streams])
    medians = {name: generator.summary(each) for name, each in reports.items()}
    generator.table(f"{arguments.connections} x {arguments.streams} streams", medians)
    ratio = medians["tidegate"]["requests_per_second"] / medians["bare"]["requests_per_second"]
    met = ratio >= TARGET
    print(f"\ntidegate/bare: {ratio:.2f} of the requests/s, target at least {TARGET}: "
          f"{harness.verdict(met)}")
    harness.save(NAME, {"medians": medians, "rounds": reports})
    return 0 if met else 1


@contextlib.contextmanager
def bare(arguments: argparse.Namespace, folder: Path, gateway: Server,
         what: list) -> Iterator[Server]:
    """The ceiling, with the gateway's answer."""
    answer = folder / "answer.bin"
    command = [harness.binary(arguments, "grpc-load"), "--url", gateway.url(PATH), *what,
               "--once", answer]
    if subprocess.run([str(part) for part in command]).returncode != 0:
        raise ScenarioError("the gateway did not answer over gRPC")
    [port] = harness.free_ports(1)
    command = [harness.binary(arguments, "bare-tonic"), "--listen", f"{HOST}:{port}",
               "--answer", answer]
    with Process(command, folder / "bare-tonic.log") as process:
        wait_listening(process, port)
        yield Server("bare", process, port, generator="grpc-load")


def wait_listening(process: Process, port: int, limit: float = 30) -> None:
    end = time.monotonic() + limit
    while time.monotonic() < end:
        process.check_alive()
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return
        time.sleep(0.02)
    raise ScenarioError(f"{process.popen.args[0]} does not listen")
