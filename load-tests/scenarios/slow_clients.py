"""Good clients at a fixed rate while others hold connections: some send a byte of a request now and
then, some announce a body that never comes, some ask and never read the answer."""

import argparse
import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import generator
import harness
from harness import HOST, MODEL, Server

SUMMARY = "good clients beside slow ones"
PATH = f"/v2/models/{MODEL}/infer"
TARGET = 2
LIMITS = '[limits]\nheader_time = "2s"\nbody_time = "2s"'


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--slow", type=int, default=500, help="slow clients at a time")
    parser.add_argument("--rate", type=float, default=2000)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)


def run(arguments: argparse.Namespace) -> int:
    program = harness.build_gateway(arguments)
    harness.build_load_tests(arguments)
    bodies = ["--bodies", harness.bodies(arguments)]
    alone, beside = [], []
    with harness.scratch_folder() as folder:
        repository = harness.copy_models(arguments, folder / "models")
        with harness.gateway("tidegate", program, folder, repository, LIMITS) as server:
            def measure() -> dict:
                return generator.load(arguments, server, PATH, bodies, folder, connections=32,
                                      seconds=arguments.seconds, options=["--rate", arguments.rate])

            for _ in range(arguments.rounds):
                alone.append(measure())
                with slow_clients(server, arguments.slow) as closed:
                    beside.append(measure())
    medians = {"alone": generator.summary(alone), "beside": generator.summary(beside)}
    generator.table(f"{arguments.rate:.0f}/s, {arguments.slow} slow clients", medians)
    ratio = medians["beside"]["p99_us"] / medians["alone"]["p99_us"]
    print(f"slow connections that the gateway closed in the last round: {closed[0]}")
    print(f"\nno good request failed; 99th percentile beside over alone: {ratio:.2f}, "
          f"target at most {TARGET}: {harness.verdict(ratio <= TARGET)}")
    harness.save("slow_clients", {"ratio": ratio, "medians": medians, "alone": alone,
                                  "beside": beside, "closed": closed[0]})
    return 0 if ratio <= TARGET else 1


@contextlib.contextmanager
def slow_clients(server: Server, count: int) -> Iterator[list[int]]:
    """Connections that are opened again as the gateway closes them; yields how often it did."""
    closed, stop = [0], threading.Event()
    thread = threading.Thread(target=trickle, args=(server, count, closed, stop))
    thread.start()
    try:
        yield closed
    finally:
        stop.set()
        thread.join()


def trickle(server: Server, count: int, closed: list[int], stop: threading.Event) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n".encode()
    connections: list[tuple[socket.socket, int]] = []
    while not stop.is_set():
        while len(connections) < count:
            connections.append((socket.create_connection((HOST, server.port)), len(connections)))
        alive = []
        for connection, number in connections:
            try:
                connection.setblocking(False)
                # Half of them trickle a head, half of them a body.
                connection.send(head if number % 2 else b"P")
                alive.append((connection, number + 2))
            except BlockingIOError:
                alive.append((connection, number))
            except OSError:
                connection.close()
                closed[0] += 1
        connections = alive
        time.sleep(0.25)
    for connection, _ in connections:
        connection.close()
