"""What all scenarios share: processes that always end, ports, a gateway to measure, results.

Processes are started in sessions of their own, so that ctrl-c reaches this program only, which then
ends each of them by its pid.
"""

import argparse
import contextlib
import http.client
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "load-tests" / "results"
HOST = "127.0.0.1"
MODEL = "digits"


class ScenarioError(Exception):
    """The scenario cannot go on; the message says why."""


def absolute(text: str) -> Path:
    """Options are relative to where the user is; everything runs in the root of the project."""
    return Path(text).resolve()


def add_common_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", type=absolute, default=ROOT / "models", metavar="DIR",
                        help="model repository to copy from (default: models)")
    parser.add_argument("--all-models", action="store_true",
                        help=f"serve the whole repository, not the {MODEL} model alone")
    parser.add_argument("--target-dir", type=absolute, default=ROOT / "target", metavar="DIR",
                        help="where cargo builds (default: target)")
    parser.add_argument("--profile", default="release",
                        help="cargo's profile to build with; 'quick' is quicker to build, and slower")
    parser.add_argument("--no-build", action="store_true", help="use the binaries that are there")


def run_scenario(run: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    """Runs one scenario; SIGTERM unwinds like ctrl-c, so that no process is left behind."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run(arguments)
    except (ScenarioError, OSError, http.client.HTTPException) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


# Building


def cargo_build(profile: str, target_dir: Path, *options: str) -> None:
    command = ["cargo", "build", "--profile", profile, "--target-dir", str(target_dir), *options]
    print("+", *command, flush=True)
    if subprocess.run(command, cwd=ROOT).returncode != 0:
        raise ScenarioError("the build failed")


def build_gateway(arguments: argparse.Namespace) -> Path:
    """The gateway's binary."""
    if not arguments.no_build:
        cargo_build(arguments.profile, arguments.target_dir)
    return binary(arguments, "tidegate")


def build_load_tests(arguments: argparse.Namespace) -> None:
    """A build apart from the gateway's: together cargo would join the features of shared crates."""
    if not arguments.no_build:
        cargo_build(arguments.profile, arguments.target_dir, "--package", "load-tests")


def binary(arguments: argparse.Namespace, name: str) -> Path:
    return existing(arguments.target_dir / arguments.profile / name)


def environment() -> Path:
    """The folder of an environment with the packages of requirements.txt, made where it is not there."""
    folder = ROOT / ".venv" / "load-tests"
    wanted = (ROOT / "load-tests" / "requirements.txt").read_text()
    done = folder / "installed.txt"
    if not done.is_file() or done.read_text() != wanted:
        print("installing the packages of load-tests/requirements.txt", flush=True)
        python = folder / "bin" / "python"
        for command in ([sys.executable, "-m", "venv", folder],
                        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                         "-r", ROOT / "load-tests" / "requirements.txt"]):
            if subprocess.run(command).returncode != 0:
                raise ScenarioError("the packages could not be installed")
        done.write_text(wanted)
    return folder / "bin"


def measured_models() -> Path:
    """The repository of models.py, made where it is not there."""
    script, folder = ROOT / "load-tests" / "models.py", ROOT / "target" / "load-tests" / "models"
    done = folder / ".made-by"
    if not done.is_file() or done.read_text() != script.read_text():
        shutil.rmtree(folder, ignore_errors=True)
        if subprocess.run([environment() / "python", script, folder]).returncode != 0:
            raise ScenarioError("the models could not be made")
        done.write_text(script.read_text())
    return folder


def build_all(arguments: argparse.Namespace) -> tuple[Path, Path]:
    """The gateway's binary and the repository of models.py, with all that measures them built."""
    program = build_gateway(arguments)
    build_load_tests(arguments)
    return program, measured_models()


def plot(result: Path) -> None:
    """Draws a result beside it."""
    script = ROOT / "load-tests" / "plot.py"
    if subprocess.run([environment() / "python", script, result]).returncode != 0:
        raise ScenarioError(f"{result.name} could not be drawn")


def existing(file: Path) -> Path:
    if not file.is_file():
        raise ScenarioError(f"{file} does not exist")
    return file


# Processes


class Process:
    """A child process with its output in a file; a context manager that ends it, and shows what it
    wrote if the scenario fails."""

    def __init__(self, command: list[str | Path], log: Path, limit: float = 30):
        self.log, self.limit = log, limit
        with log.open("ab") as output:
            self.popen = subprocess.Popen(
                [str(part) for part in command], cwd=ROOT, stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT, start_new_session=True)

    @property
    def pid(self) -> int:
        return self.popen.pid

    def check_alive(self) -> None:
        code = self.popen.poll()
        if code is not None:
            raise ScenarioError(f"{self.popen.args[0]} ended with code {code}")

    def end(self, how: int = signal.SIGTERM) -> int:
        """Asks the process to end, kills it (and no other) after a while: its exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(how)
            try:
                self.popen.wait(self.limit)
            except subprocess.TimeoutExpired:
                print(f"pid {self.pid} did not end in {self.limit} s: killed", file=sys.stderr)
                self.popen.kill()
        code = self.popen.wait()
        # What it started and left behind: its session is its process group as well.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        return code

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, exception: type[BaseException] | None, *_: object) -> None:
        self.end()
        wrote = self.log.read_text(errors="replace").strip()
        if exception and issubclass(exception, Exception) and wrote:
            print(f"{self.popen.args[0]} wrote:\n{wrote[-2000:]}", file=sys.stderr)

    def rss(self) -> int:
        """Resident memory in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)[1]) * 1024

    def cpu_seconds(self) -> float:
        """User and system time so far, of all threads, and of all processes that it started."""
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                # The second field, the name in parentheses, may itself contain blanks.
                fields = stat.read_text().rpartition(")")[2].split()
                # Each process of a scenario has a session of its own.
                if int(fields[3]) == self.pid:
                    ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


def free_ports(count: int) -> list[int]:
    """Ports free a moment ago; all held at once, so that they differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


# HTTP


def request(port: int, method: str, path: str, body: bytes | None = None,
            timeout: float = 30) -> tuple[int, bytes]:
    """One request on a connection of its own: status and body."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout)
    try:
        connection.request(method, path, body, {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def wait_ready(process: Process, port: int, limit: float = 60) -> None:
    end = time.monotonic() + limit
    while time.monotonic() < end:
        process.check_alive()
        with contextlib.suppress(OSError, http.client.HTTPException):
            if request(port, "GET", "/v2/health/ready")[0] == 200:
                return
        time.sleep(0.02)
    raise ScenarioError(f"not ready after {limit} s")


# The gateway


@dataclass
class Server:
    """Something that answers predictions, and is ready."""

    name: str
    process: Process
    port: int
    admin: int | None = None
    grpc: int | None = None
    generator: str = "load"

    def url(self, path: str) -> str:
        return f"http://{HOST}:{self.port}{path}"


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tidegate-load-") as folder:
        yield Path(folder)


def copy_models(arguments: argparse.Namespace, destination: Path) -> Path:
    """A model repository that the scenario may change. By default of the one model that is measured:
    memory and start-up time of other models would hide changes in its own."""
    if not (arguments.models / MODEL).is_dir():
        raise ScenarioError(f"{arguments.models} has no model {MODEL}")
    if arguments.all_models:
        shutil.copytree(arguments.models, destination)
    else:
        shutil.copytree(arguments.models / MODEL, destination / MODEL)
    return destination


def write_config(folder: Path, repository: Path, settings: str = "",
                 grpc_port: int | None = None) -> tuple[Path, int, int]:
    """A configuration on free ports, with `settings` at its end: its file, the port for predictions,
    the one for administration. Over gRPC it serves only where a port is given for that."""
    http_port, admin_port = free_ports(2)
    file = folder / f"tidegate-{http_port}.toml"
    # JSON strings are TOML strings.
    file.write_text(f"""\
[server]
http = "{HOST}:{http_port}"
grpc = "{f"{HOST}:{grpc_port}" if grpc_port else "off"}"
admin = "{HOST}:{admin_port}"

[repository]
path = {json.dumps(str(repository))}
watch = false
poll = "0s"
settle = "1ms"

[log]
level = "warn"
access = "off"

{settings}
""")
    return file, http_port, admin_port


@contextlib.contextmanager
def gateway(name: str, program: Path, folder: Path, repository: Path,
            settings: str = "", grpc: bool = False) -> Iterator[Server]:
    """A gateway that is ready, and ended afterwards."""
    grpc_port = free_ports(1)[0] if grpc else None
    config, port, admin = write_config(folder, repository, settings, grpc_port)
    command = [program, "serve", "--config", config]
    with Process(command, folder / f"{name}-{port}.log") as process:
        wait_ready(process, port)
        yield Server(name, process, port, admin, grpc_port)


@contextlib.contextmanager
def bare_hyper(arguments: argparse.Namespace, folder: Path, *options: object) -> Iterator[Server]:
    """The server that only does HTTP."""
    [port] = free_ports(1)
    command = [binary(arguments, "bare-hyper"), "--listen", f"{HOST}:{port}", *options]
    with Process(command, folder / "bare-hyper.log") as process:
        wait_ready(process, port)
        yield Server("bare", process, port)


def only(models: Path, folder: Path, *names: str) -> Path:
    """A repository of some of the models."""
    for name in names:
        shutil.copytree(models / name, folder / "models" / name)
    return folder / "models"


# Requests and results


def bodies(arguments: argparse.Namespace) -> Path:
    return existing(arguments.models / MODEL / "requests.jsonl")


def first_body(file: Path) -> bytes:
    with file.open("rb") as lines:
        return lines.readline().strip()


def megabytes(size: float) -> str:
    return f"{size / 1e6:.1f} MB"


def verdict(good: bool) -> str:
    return "met" if good else "MISSED"


def save(scenario: str, result: dict) -> Path:
    """Writes the result with what one needs to read it later: the file."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    about = {
        "scenario": scenario,
        "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "load_average": os.getloadavg()[0],
    }
    file = RESULTS / f"{scenario}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    file.write_text(json.dumps(about | result, indent=2) + "\n")
    print(f"\nwritten to {file.relative_to(ROOT)}")
    return file
