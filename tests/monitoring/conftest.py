"""Starts gateways, a Prometheus, an Alertmanager and a receiver of CloudEvents, all on loopback."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TypeVar

import pytest
import requests

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy/prometheus/tidegate.rules.yml"
LIMIT = 60

T = TypeVar("T")


def binary() -> str:
    return os.environ.get("TIDEGATE_BIN", str(ROOT / "target/debug/tidegate"))


def eventually(what: str, look: Callable[[], T | None], limit: float = LIMIT) -> T:
    """Waits until `look` finds something; a server that is not there yet is waited for."""
    deadline = time.monotonic() + limit
    while True:
        try:
            found = look()
        except requests.ConnectionError:
            found = None
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {limit} s for: {what}"
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def stop(process: subprocess.Popen[str]) -> None:
    """Ends a process that was started here, and waits for it."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(LIMIT)
    finally:
        process.kill()


@dataclass
class Gateway:
    """A running gateway."""

    process: subprocess.Popen[str]
    folder: Path
    http: str
    admin: str

    def get(self, path: str, **query: object) -> requests.Response:
        return requests.get(f"http://{self.admin}{path}", params=query, timeout=LIMIT)

    def post(self, path: str, body: object) -> requests.Response:
        return requests.post(f"http://{self.admin}{path}", json=body, timeout=LIMIT)

    def infer(self, model: str, body: object) -> requests.Response:
        return requests.post(f"http://{self.http}/v2/models/{model}/infer", json=body, timeout=LIMIT)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs a command of the same binary."""
        return subprocess.run(
            [binary(), *arguments], capture_output=True, text=True, timeout=LIMIT, check=False
        )

    def stop(self) -> None:
        stop(self.process)
        assert self.process.returncode == 0


def write_config(folder: Path, config: str, admin: int = 0) -> Path:
    file = folder / "tidegate.toml"
    file.write_text(
        f'[server]\nhttp = "127.0.0.1:0"\ngrpc = "off"\nadmin = "127.0.0.1:{admin}"\n'
        '[repository]\npath = "models"\nsettle = "1ms"\npoll = "200ms"\n'
        f'[log]\nformat = "json"\n{config}'
    )
    return file


def start_gateway(folder: Path, config: str = "", admin: int = 0) -> Gateway:
    """Starts a gateway on the models in `folder`, and waits until it serves."""
    file = write_config(folder, config, admin)
    process = subprocess.Popen(
        [binary(), "serve", "--config", str(file)], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        entry = json.loads(line) if line.startswith("{") else {}
        if entry.get("message") == "serving":
            log = (folder / "log").open("a")
            # Whatever else is logged must not fill the pipe.
            stderr = process.stderr
            threading.Thread(target=lambda: shutil.copyfileobj(stderr, log), daemon=True).start()
            return Gateway(process, folder, entry["http"], entry["admin"])
    raise AssertionError(f"the gateway ended with {process.wait(LIMIT)}")


def copy_models(folder: Path, *models: str) -> None:
    """Shipped models, without the baselines that are shipped with some."""
    ignored = shutil.ignore_patterns("baseline.json")
    for model in models:
        shutil.copytree(ROOT / "models" / model, folder / "models" / model, ignore=ignored)


@dataclass
class Alertmanager:
    """A running Alertmanager."""

    process: subprocess.Popen[str]
    url: str

    def alerts(self, **labels: str) -> list[dict[str, object]]:
        """Alerts that fire and have these labels."""
        answer = requests.get(f"{self.url}/api/v2/alerts", timeout=LIMIT)
        answer.raise_for_status()
        return [alert for alert in answer.json() if labels.items() <= alert["labels"].items()]


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[Alertmanager]:
    """On the example configuration that is shipped."""
    port = free_port()
    with (tmp_path / "alertmanager.log").open("w") as log:
        process = subprocess.Popen(
            [
                "prometheus-alertmanager",
                f"--config.file={ROOT / 'deploy/alertmanager/alertmanager.yml'}",
                f"--storage.path={tmp_path / 'alertmanager'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--cluster.listen-address=",
            ],
            stderr=log,
            text=True,
        )
    running = Alertmanager(process, f"http://127.0.0.1:{port}")
    eventually("Alertmanager", lambda: requests.get(f"{running.url}/-/ready", timeout=LIMIT).ok)
    yield running
    stop(process)


@dataclass
class Prometheus:
    """A running Prometheus."""

    process: subprocess.Popen[str]
    url: str

    def query(self, expression: str) -> list[dict[str, object]]:
        answer = requests.get(
            f"{self.url}/api/v1/query", params={"query": expression}, timeout=LIMIT
        )
        answer.raise_for_status()
        return answer.json()["data"]["result"]

    def value(self, expression: str) -> float | None:
        """The value of the only series; nothing where there is none."""
        series = self.query(expression)
        assert len(series) <= 1, series
        return float(series[0]["value"][1]) if series else None


def start_prometheus(folder: Path, target: str, alertmanager: str, rules: str) -> Prometheus:
    """Scrapes `target` every second, and evaluates `rules` as often."""
    port = free_port()
    (folder / "rules.yml").write_text(rules)
    config = folder / "prometheus.yml"
    config.write_text(
        "global: { scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }\n"
        "rule_files: [rules.yml]\n"
        "alerting:\n  alertmanagers:\n"
        f"    - static_configs: [{{ targets: ['{alertmanager}'] }}]\n"
        "scrape_configs:\n  - job_name: tidegate\n"
        f"    static_configs: [{{ targets: ['{target}'] }}]\n"
    )
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'prometheus'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--rules.alert.resend-delay=1s",
            ],
            stderr=log,
            text=True,
        )
    running = Prometheus(process, f"http://127.0.0.1:{port}")
    eventually("Prometheus", lambda: requests.get(f"{running.url}/-/ready", timeout=LIMIT).ok)
    return running


@dataclass
class Message:
    """A request that a receiver got."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """Takes every request with 204, or with what `statuses` says first."""

    server: ThreadingHTTPServer
    scheme: str
    messages: list[Message] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"{self.scheme}://localhost:{self.server.server_port}/hook"


def start_receiver(tls: ssl.SSLContext | None = None) -> Receiver:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.messages.append(Message(self.path, headers, body))
            self.send_response(receiver.statuses.pop(0) if receiver.statuses else 204)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    receiver = Receiver(server, "https" if tls else "http")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    running = start_receiver()
    yield running
    running.server.shutdown()
