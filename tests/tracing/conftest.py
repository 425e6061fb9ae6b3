"""Starts receivers and gateways, on loopback."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests
from receivers import LIMIT, Receiver, over_grpc, over_http

ROOT = Path(__file__).resolve().parents[2]
BODY = (ROOT / "models/digits/request.json").read_bytes()


@dataclass
class Gateway:
    """A running gateway with the model digits."""

    process: subprocess.Popen[str]
    file: Path
    http: str
    admin: str
    grpc: str = ""
    log: list[str] = field(default_factory=list)

    def infer(self, path: str = "/v2/models/digits/infer", body: bytes = BODY, **headers: str) -> requests.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.post(f"http://{self.http}{path}", body, headers=named, timeout=LIMIT)

    def metric(self, name: str) -> float:
        text = requests.get(f"http://{self.admin}/metrics", timeout=LIMIT).text
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))

    def access_line(self) -> dict[str, object]:
        """Waits for the one line that a request left: the log has a thread of its own."""
        deadline = time.monotonic() + LIMIT
        while True:
            lines = [json.loads(line) for line in list(self.log) if line.startswith("{")]
            lines = [line for line in lines if line.get("message") == "request"]
            if lines:
                [line] = lines
                return line
            assert time.monotonic() < deadline, "no line of a request in the log"
            time.sleep(0.02)

    def configure(self, tracing: str) -> None:
        """Replaces [tracing] and reloads."""
        text = re.sub(r"\[tracing\].*", f"[tracing]\n{tracing}\n", self.file.read_text(), flags=re.DOTALL)
        self.file.write_text(text)
        requests.post(f"http://{self.admin}/api/v1/config/reload", timeout=LIMIT).raise_for_status()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(LIMIT) == 0


Start = Callable[..., Gateway]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts gateways with a [tracing] and an environment; whatever is left of them is ended."""
    running = []

    def start_one(tracing: str, environment: dict[str, str] | None = None) -> Gateway:
        folder = tmp_path / str(len(running))
        ignored = shutil.ignore_patterns("baseline.json")
        shutil.copytree(ROOT / "models/digits", folder / "models/digits", ignore=ignored)
        file = folder / "tidegate.toml"
        file.write_text(
            '[server]\nhttp = "127.0.0.1:0"\nadmin = "127.0.0.1:0"\ngrpc = "127.0.0.1:0"\n'
            '[repository]\npath = "models"\nsettle = "1ms"\n'
            '[log]\nformat = "json"\naccess = "all"\n'
            f"[limits]\nbody = 100000\n[tracing]\n{tracing}\n"
        )
        environ = {name: text for name, text in os.environ.items() if not name.startswith("OTEL_")}
        process = subprocess.Popen(
            [os.environ["TIDEGATE_BIN"], "serve", "--config", str(file)],
            stderr=subprocess.PIPE, text=True, env=environ | (environment or {}),
        )
        running.append(process)
        assert process.stderr is not None
        log: list[str] = []
        for line in process.stderr:
            log.append(line)
            entry = json.loads(line) if line.startswith("{") else {}
            if entry.get("message") == "serving":
                stderr = process.stderr
                threading.Thread(target=lambda: log.extend(stderr), daemon=True).start()
                return Gateway(process, file, entry["http"], entry["admin"], entry["grpc"], log)
        raise AssertionError(f"the gateway ended with {process.wait(LIMIT)}: {log}")

    yield start_one
    for process in running:
        process.kill()
        process.wait(LIMIT)


@pytest.fixture(params=[over_grpc, over_http], ids=["grpc", "http"])
def receiver(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    running = request.param()
    yield running
    running.stop()


@pytest.fixture
def grpc_receiver() -> Iterator[Receiver]:
    running = over_grpc()
    yield running
    running.stop()
