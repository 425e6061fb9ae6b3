"""MLServer beside the gateway, on the same models: the same questions, and each difference named."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from conftest import ELEMENTS, LIMIT, ROOT, Gateway, identity
from named_differences import GRPC, HTTP, Named, explain
from side_by_side import NUMBERS, Grpc, Http, Server, differences, grpc_questions, http_questions

HERE = Path(__file__).parent
MLSERVER = "1.7.1"
BIN = ROOT / ".venv" / "mlserver" / "bin"
pytestmark = pytest.mark.skipif(
    not (BIN / "mlserver").exists(), reason="MLServer is not installed: tests/conformance/run says why"
)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def settings(gateway: Gateway, folder: Path, model: str, file: Path) -> None:
    """A model of MLServer with the metadata that the gateway reads out of the file."""
    metadata = requests.get(f"{gateway.url}/v2/models/{model}/versions/1", timeout=LIMIT).json()
    tensors = {
        kind: [{name: tensor[name] for name in ("name", "datatype", "shape")} for tensor in metadata[kind]]
        for kind in ("inputs", "outputs")
    }
    place = folder / model
    place.mkdir()
    written = {
        "name": model,
        "platform": metadata["platform"],
        "implementation": "runtime.OnnxModel",
        "parameters": {"uri": str(file), "version": "1"},
    }
    (place / "model-settings.json").write_text(json.dumps(written | tensors))
    shutil.copy(HERE / "mlserver" / "runtime.py", place / "runtime.py")


@pytest.fixture(scope="module")
def mlserver(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("mlserver")
    http, grpc, metrics = free_ports(3)
    server = {"host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": metrics}
    (folder / "settings.json").write_text(
        json.dumps(server | {"debug": False, "parallel_workers": 0, "metrics_endpoint": None})
    )
    models = {name: ROOT / "models" / name / "1" / "model.onnx" for name in ("digits", "car-loan")}
    for datatype in NUMBERS:
        name = f"identity_{datatype.lower()}"
        models[name] = folder / f"{name}.onnx"
        models[name].write_bytes(identity(datatype))
    for name, file in models.items():
        settings(gateway, folder, name, file)
    log = (folder / "log").open("w")
    process = subprocess.Popen(
        [BIN / "mlserver", "start", folder], stdout=log, stderr=log, env=os.environ | {"NO_COLOR": "1"}
    )
    try:
        for _ in range(600):
            try:
                ready = requests.get(f"http://127.0.0.1:{http}/v2/health/ready", timeout=LIMIT)
                if ready.status_code == 200:
                    break
            except requests.ConnectionError:
                pass
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
        yield Server(f"127.0.0.1:{http}", f"127.0.0.1:{grpc}")
    finally:
        process.terminate()
        process.wait(LIMIT)


class Seen:
    """What the questions brought to light."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], list[str]] = {}
        self.asked: list[tuple[str, str]] = []

    def check(
        self, protocol: str, named: list[Named], question: Http | Grpc, ours: Server, theirs: Server
    ) -> None:
        used, left = explain(named, question.name, differences(question.ask(ours), question.ask(theirs)))
        self.asked.append((protocol, question.name))
        for difference in used:
            self.found.setdefault((protocol, difference.title), []).append(question.name)
        assert not left, "differences that nobody named: (ours, MLServer's)"

    def questions(self, protocol: str) -> int:
        return sum(asked == protocol for asked, _ in self.asked)

    def report(self, protocol: str, named: list[Named]) -> str:
        """The table of differences, in Markdown."""
        differing = {name for (asked, _), names in self.found.items() if asked == protocol for name in names}
        count = self.questions(protocol)
        lines = [
            f"# Tidegate and MLServer {MLSERVER}, side by side over {protocol}",
            "",
            f"{count} questions to both, on the same ONNX models: {count - len(differing)} answers have the "
            f"same status, names, datatypes, shapes, ids and values (floats to 1e-4), {len(differing)} differ "
            "in what follows.",
            "",
            "| difference | Tidegate | MLServer | follows the specification | questions |",
            "|---|---|---|---|---|",
        ]
        for one in named:
            names = self.found[(protocol, one.title)]
            where = ", ".join(names) if len(names) <= 4 else f"{len(names)}: {', '.join(names[:3])}, ..."
            lines.append(f"| {one.title} | {one.ours} | {one.theirs} | {one.follows}: {one.why} | {where} |")
        return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def seen() -> Seen:
    return Seen()


@pytest.fixture(scope="module")
def ours(gateway: Gateway) -> Server:
    return Server(gateway.http, gateway.grpc)


@pytest.mark.parametrize("question", list(http_questions()), ids=lambda question: question.name)
def test_http(ours: Server, mlserver: Server, seen: Seen, question: Http) -> None:
    seen.check("HTTP", HTTP, question, ours, mlserver)


@pytest.mark.parametrize("question", list(grpc_questions()), ids=lambda question: question.name)
def test_grpc(ours: Server, mlserver: Server, seen: Seen, question: Grpc) -> None:
    seen.check("gRPC", GRPC, question, ours, mlserver)


@pytest.mark.parametrize(("protocol", "named"), [("HTTP", HTTP), ("gRPC", GRPC)])
def test_the_report_says_what_was_found(seen: Seen, protocol: str, named: list[Named]) -> None:
    """Every named difference is still there, and mlserver.md lists them all, with their questions."""
    if not seen.questions(protocol):
        pytest.skip("none of its questions was asked in this run")
    for difference in named:
        assert (protocol, difference.title) in seen.found, f"{difference.title}: no longer so"
    written = seen.report(protocol, named)
    if os.environ.get("TIDEGATE_WRITE_REPORTS"):
        (HERE / "mlserver" / f"{protocol.lower()}.md").write_text(written)
    assert (HERE / "mlserver" / f"{protocol.lower()}.md").read_text() == written, (
        "run tests/conformance/run with TIDEGATE_WRITE_REPORTS=1"
    )
