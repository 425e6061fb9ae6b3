"""A gateway that records what it answers."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"


class Gateway:
    def __init__(self, process: subprocess.Popen, http: str, admin: str):
        self.process, self.http, self.admin = process, http, admin

    def ask(self, address: str, method: str, path: str, body: bytes | None = None,
            headers: dict | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(address, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def infer(self, model: str, body: bytes, request_id: str) -> dict:
        status, text = self.ask(self.http, "POST", f"/v2/models/{model}/infer", body,
                                {"x-request-id": request_id})
        assert status == 200, text
        return json.loads(text)

    def infer_raw(self, model: str, pixels: bytes, shape: list[int], request_id: str) -> None:
        """The request with its one tensor in the binary form."""
        tensor = {"name": "image", "datatype": "FP32", "shape": shape,
                  "parameters": {"binary_data_size": len(pixels)}}
        head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
        status, text = self.ask(
            self.http, "POST", f"/v2/models/{model}/infer", head + pixels,
            {"x-request-id": request_id, "inference-header-content-length": str(len(head))})
        assert status == 200, text

    def metric(self, name: str) -> float:
        _, text = self.ask(self.admin, "GET", "/metrics")
        lines = [line for line in text.decode().splitlines() if line.startswith(name)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def wait(self, what: str, condition, limit: float = 60):
        end = time.monotonic() + limit
        while time.monotonic() < end:
            assert self.process.poll() is None, "the gateway ended"
            if found := condition():
                return found
            time.sleep(0.05)
        raise AssertionError(f"waited {limit} s for: {what}")

    def end(self, how: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(60)


@contextlib.contextmanager
def gateway(folder: Path, models: list[str], settings: str,
            environment: dict[str, str] | None = None) -> Iterator[Gateway]:
    """A gateway on free ports that serves copies of shipped models, ended afterwards."""
    repository = folder / "models"
    for model in models:
        if not (repository / model).exists():
            shutil.copytree(ROOT / "models" / model, repository / model)
    config = folder / "tidegate.toml"
    config.write_text(f"""\
[server]
http = "{HOST}:0"
grpc = "off"
admin = "{HOST}:0"
[repository]
path = "models"
settle = "1ms"
[log]
format = "json"
{settings}
""")
    program = os.environ["TIDEGATE_BIN"]
    process = subprocess.Popen([program, "serve", "--config", str(config)], text=True,
                               stderr=subprocess.PIPE, env={**os.environ, **(environment or {})})
    log = (folder / "log").open("a")
    try:
        for line in process.stderr:
            log.write(line)
            entry = json.loads(line)
            if entry["message"] == "serving":
                break
        else:
            raise AssertionError(f"the gateway ended with {process.wait()}")
        drain(process, log)
        yield Gateway(process, entry["http"], entry["admin"])
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def drain(process: subprocess.Popen, log) -> None:
    import threading

    def copy() -> None:
        for line in process.stderr:
            log.write(line)
        log.close()

    threading.Thread(target=copy, daemon=True).start()


def digits(pixels: list[float]) -> bytes:
    shape = [len(pixels) // 64, 8, 8]
    tensor = {"name": "image", "datatype": "FP32", "shape": shape, "data": pixels}
    return json.dumps({"inputs": [tensor]}).encode()
