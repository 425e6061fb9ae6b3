"""Binary tensors of 600 kB through an identity model: in the messages, and in regions of shared memory
that the messages name. The client's own copies into and out of its regions are not in it."""

import argparse
import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import generator
import harness
from tensors import MODEL, PATH

SUMMARY = "large tensors in shared memory, against the same in messages"
SETTINGS = "[server.shared_memory]\nenabled = true\n"
TARGET = 1.3


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--connections", type=int, default=8)


def region(gateway: harness.Server, name: str, data: bytes) -> Path:
    """A file of /dev/shm, registered with the gateway under a name."""
    file = Path("/dev/shm") / f"tidegate-load-{os.getpid()}-{name}"
    file.write_bytes(data)
    wanted = json.dumps({"key": file.name, "byte_size": len(data)}).encode()
    path = f"/v2/systemsharedmemory/region/{name}/register"
    status, answer = harness.request(gateway.port, "POST", path, wanted)
    if status != 200:
        raise harness.ScenarioError(f"{path} was answered with {status}: {answer.decode()}")
    return file


@contextlib.contextmanager
def regions(gateway: harness.Server, data: bytes) -> Iterator[None]:
    files = []
    try:
        files += [region(gateway, name, data) for name in ("in", "out")]
        yield
    finally:
        for file in files:
            file.unlink()


def run(arguments: argparse.Namespace) -> int:
    program, models = harness.build_all(arguments)
    length = int((models / MODEL / "binary.length").read_text())
    data = (models / MODEL / "binary").read_bytes()[length:]
    [tensor] = json.loads((models / MODEL / "binary").read_bytes()[:length])["inputs"]
    place = {name: {"shared_memory_region": name, "shared_memory_byte_size": len(data)}
             for name in ("in", "out")}
    named = {"inputs": [tensor | {"parameters": place["in"]}],
             "outputs": [{"name": "y", "parameters": place["out"]}]}
    binary = ["--body", models / MODEL / "binary",
              "--header", "content-type:application/octet-stream",
              "--header", f"inference-header-content-length:{length}"]
    with harness.scratch_folder() as folder:
        (folder / "named.json").write_text(json.dumps(named))
        repository = harness.only(models, folder, MODEL)
        with (harness.gateway("tidegate", program, folder, repository, SETTINGS) as gateway,
              regions(gateway, data)):
            servers = {"messages": (gateway, PATH, binary),
                       "regions": (gateway, PATH, ["--body", folder / "named.json"])}
            reports = generator.rounds(arguments, servers, folder, arguments.rounds,
                                       seconds=arguments.seconds, connections=arguments.connections)
    medians = {name: generator.summary(each) for name, each in reports.items()}
    generator.table("600 kB in and out", medians)
    ratio = medians["regions"]["requests_per_second"] / medians["messages"]["requests_per_second"]
    print(f"\nregions/messages: {ratio:.2f} of the requests/s, target at least {TARGET}: "
          f"{harness.verdict(ratio >= TARGET)}")
    harness.save("shared-memory", {"ratio": ratio, "medians": medians, "rounds": reports})
    return 0 if ratio >= TARGET else 1
