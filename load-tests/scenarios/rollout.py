"""Rollouts through the real gateway: candidates as good as their primary and ones worse by twice what is
tolerated, gate by gate; kill -9 at random moments of rollouts that go on and on; promotions and rollbacks
by hand under load. Tells wrong promotions, wrong aborts, inconsistent states and times."""

import argparse
import contextlib
import http.client
import json
import random
import signal
import sqlite3
import statistics
import subprocess
import threading
import time
from pathlib import Path

import harness
from harness import HOST, Process, ScenarioError, Server

SUMMARY = "rollouts by gates, kill -9 during them, promotion and rollback by hand"
CANDIDATES = harness.ROOT / "load-tests" / "rollouts" / "candidates.py"
RATE = 0.05
OFF = {"agreement": '"off"', "tolerance": '"off"', "errors": '"off"', "p50": '"off"', "p99": '"off"', "drift": "false"}
# As load-tests/rollouts/candidates.py has it.
GATES = {"agreement": 0.95, "tolerance": 0.95, "errors": 0.05, "p50": 2.0}
TARGET_MS = 100


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rollouts", type=int, default=24, help="of each kind and gate (default: 24)")
    parser.add_argument("--kills", type=int, default=200, help="kill -9 (default: 200)")
    parser.add_argument("--swaps", type=int, default=100, help="promotions and rollbacks by hand (default: 100)")
    parser.add_argument("--gates", nargs="*", choices=list(GATES), default=list(GATES))
    parser.add_argument("--longest", type=float, default=240, help="seconds of one gate's rollouts (default: 240)")


def run(arguments: argparse.Namespace) -> int:
    program = harness.build_gateway(arguments)
    result: dict = {"gates": {}}
    with harness.scratch_folder() as folder:
        for gate in arguments.gates if arguments.rollouts else []:
            result["gates"][gate] = by_gates(program, folder / gate, gate, arguments)
            print(f"{gate:<10} {json.dumps(result['gates'][gate])}", flush=True)
        if arguments.swaps:
            result["by_hand"] = by_hand(program, folder / "hand", arguments.swaps)
            print(f"by hand    {json.dumps(result['by_hand'])}", flush=True)
        if arguments.kills:
            result["kills"] = killed(program, folder / "kills", arguments.kills)
            print(f"kill -9    {json.dumps(result['kills'])}", flush=True)
    met = judge(result)
    harness.save("rollout", result)
    return 0 if met else 1


def judge(result: dict) -> bool:
    met = True

    def say(what: str, value: object, target: str, good: bool) -> None:
        nonlocal met
        met &= good
        print(f"{what:<44} {value}, target {target}: {harness.verdict(good)}")

    print()
    for gate, report in result["gates"].items():
        # Of so few, one in twenty is one.
        most = max(1, round(RATE * report["rollouts"]))
        for what in ("wrong_promotions", "wrong_aborts"):
            say(f"{gate}: {what.replace('_', ' ')} of {report['rollouts']}", report[what],
                f"at most {most}", report[what] <= most)
        say(f"{gate}: failed requests of primaries", report["failed"], "0", report["failed"] == 0)
    if hand := result.get("by_hand"):
        for what in ("promote_ms", "rollback_ms"):
            say(f"{what} (largest, answer to the caller)", hand[what]["max"], f"below {TARGET_MS}",
                hand[what]["max"] < TARGET_MS)
        say("failed requests during them", hand["failed"], "0", hand["failed"] == 0)
    if kills := result.get("kills"):
        for what in ("inconsistent", "mixed_answers", "stores_unsound"):
            say(f"{what.replace('_', ' ')} after {kills['kills']} kills", kills[what], "0", kills[what] == 0)
    return met


def make(folder: Path, *words: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    command = [harness.environment() / "python", CANDIDATES, *words]
    if subprocess.run([str(word) for word in command]).returncode != 0:
        raise ScenarioError("the candidates could not be made")
    return folder


def settings(folder: Path, gates: dict[str, object], stages: str, requests: int) -> str:
    told = ", ".join(f"{name} = {value}" for name, value in (OFF | gates).items())
    return (f"[store]\npath = {json.dumps(str(folder / 'tidegate.db'))}\n"
            f"[defaults]\nversions = \"all\"\nprimary = 1\n"
            f"[defaults.traffic.comparison]\nlatency_ratio = 2.0\n"
            f"[defaults.rollout]\nrequests = {requests}\ntime = \"0s\"\nstages = {stages}\n"
            f"wrong_promotion = {RATE}\nwrong_abort = {RATE}\ngates = {{ {told} }}\n")


class Client:
    """Predictions and orders, each kind over one connection."""

    def __init__(self, server: Server):
        self.data = http.client.HTTPConnection(HOST, server.port, timeout=30)
        self.admin = http.client.HTTPConnection(HOST, server.admin, timeout=150)

    def predict(self, model: str, rows: list[float]) -> tuple[int, str, list]:
        body = {"inputs": [{"name": "x", "shape": [len(rows), 1], "datatype": "FP32", "data": rows}]}
        self.data.request("POST", f"/v2/models/{model}/infer", json.dumps(body),
                          {"content-type": "application/json"})
        answer = self.data.getresponse()
        document = json.loads(answer.read())
        outputs = document["outputs"][0]["data"] if answer.status == 200 else []
        return answer.status, answer.headers.get("tidegate-model-version", ""), outputs

    def ask(self, path: str) -> dict:
        self.admin.request("GET", path)
        return self.read(path)

    def order(self, model: str, verb: str, **body: object) -> dict:
        path = f"/api/v1/rollouts/{model}/{verb}"
        self.admin.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        return self.read(path)

    def read(self, path: str) -> dict:
        answer = self.admin.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise ScenarioError(f"{path}: {answer.status} {text[:300]!r}")
        return json.loads(text)


def by_gates(program: Path, folder: Path, gate: str, arguments: argparse.Namespace) -> dict:
    number = arguments.rollouts
    repository = make(folder / "models", "pairs", folder / "models", gate, number)
    stages = "[{ shadow = 1.0 }, { canary = 0.4 }, { full = true }]"
    rows = 1 if gate in ("errors", "p50") else 20
    text = settings(folder, {gate: GATES[gate]}, stages, requests=20)
    models = [f"{kind}-{i}" for kind in ("equal", "worse") for i in range(number)]
    with harness.gateway("tidegate", program, folder, repository, text) as server:
        client = Client(server)
        for model in models:
            client.order(model, "start", version=2, who="load test")
        started, failed, n_requests = time.monotonic(), 0, 0
        states: dict[str, str] = {}
        dice = random.Random(7)
        while time.monotonic() - started < arguments.longest:
            view = client.ask("/api/v1/rollouts")
            states = {rollout["model"]: rollout["state"] for rollout in view["rollouts"]}
            under_way = [model for model in models if states.get(model) == "running"]
            if not under_way:
                break
            for model in under_way:
                for _ in range(8):
                    status, version, _ = client.predict(model, [dice.random() for _ in range(rows)])
                    n_requests += 1
                    failed += status != 200 and version != "2" and gate != "errors"
        took = time.monotonic() - started
    ended = lambda kind, state: sum(states.get(f"{kind}-{i}") == state for i in range(number))  # noqa: E731
    return {
        "rollouts": number,
        "wrong_promotions": ended("worse", "promoted"), "wrong_aborts": ended("equal", "rolled_back"),
        "promoted": ended("equal", "promoted"), "taken_back": ended("worse", "rolled_back"),
        "undecided": sum(state == "running" for state in states.values()),
        "failed": failed, "requests": n_requests, "seconds": round(took, 1),
    }


def by_hand(program: Path, folder: Path, swaps: int) -> dict:
    repository = make(folder / "models", "apart", folder / "models")
    text = settings(folder, {"errors": 0.05}, "[{ full = true }]", requests=20)
    times: dict[str, list[float]] = {"promote": [], "rollback": []}
    with harness.gateway("tidegate", program, folder, repository, text) as server:
        with background(server) as seen:
            client = Client(server)
            for _ in range(swaps):
                for verb, body in (("promote", {"version": 2}), ("rollback", {})):
                    started = time.monotonic()
                    client.order("apart", verb, **body)
                    times[verb].append((time.monotonic() - started) * 1e3)
        history = client.ask("/api/v1/history?model=apart&most=10000")["history"]
    if len(history) != 2 * swaps:
        raise ScenarioError(f"history has {len(history)} lines of {2 * swaps} changes")
    of = lambda verb: {"median": round(statistics.median(times[verb]), 2),  # noqa: E731
                       "max": round(max(times[verb]), 2)}
    return {"swaps": swaps, "promote_ms": of("promote"), "rollback_ms": of("rollback"),
            "requests": seen.answers, "failed": seen.failed, "mixed_answers": seen.mixed}


class Seen:
    def __init__(self) -> None:
        self.answers = self.failed = self.mixed = 0
        self.broke_off = 0


@contextlib.contextmanager
def background(server: Server, may_break: bool = False):
    """One connection that predicts without pause. Each answer must be of one version: the number that it
    adds, in every row, is that of the version that the head names."""
    seen, stop = Seen(), threading.Event()

    def send() -> None:
        dice = random.Random(1)
        try:
            client = Client(server)
            while not stop.is_set():
                rows = [dice.random() for _ in range(8)]
                status, version, outputs = client.predict("apart", rows)
                seen.answers += 1
                seen.failed += status != 200
                if status == 200:
                    added = {round(y - x) for x, y in zip(rows, outputs, strict=True)}
                    seen.mixed += added != {int(version)}
        except (OSError, http.client.HTTPException, ValueError):
            seen.broke_off += 1
            if not may_break:
                seen.failed += 1

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join(30)


def killed(program: Path, folder: Path, kills: int) -> dict:
    """Rollouts one after the other, and a kill at a random moment of them, again and again."""
    repository = make(folder / "models", "apart", folder / "models")
    stages = "[{ shadow = 1.0 }, { canary = 0.4 }, { canary = 0.8 }, { full = true }]"
    text = settings(folder, {"errors": 0.2}, stages, requests=10)
    config, port, admin = harness.write_config(folder, repository, text)
    dice = random.Random(3)
    report = {"kills": 0, "inconsistent": 0, "mixed_answers": 0, "stores_unsound": 0, "answers": 0,
              "example": None, "stages": {}}
    before = None
    while True:
        with Process([program, "serve", "--config", config], folder / "tidegate.log") as process:
            harness.wait_ready(process, port)
            server = Server("tidegate", process, port, admin)
            client = Client(server)
            if (wrong := inconsistent(client, before)) is not None:
                report["inconsistent"] += 1
                report["example"] = report["example"] or wrong
            if report["kills"] == kills:
                break
            with background(server, may_break=True) as seen:
                end = time.monotonic() + dice.uniform(0.0, 1.5)
                with contextlib.suppress(ScenarioError):
                    while time.monotonic() < end:
                        before = go_on(client, report["stages"])
                        time.sleep(dice.uniform(0.0, 0.05))
                process.popen.send_signal(signal.SIGKILL)
                process.popen.wait()
            report["kills"] += 1
            report["answers"] += seen.answers
            report["mixed_answers"] += seen.mixed
        with sqlite3.connect(folder / "tidegate.db") as store:
            report["stores_unsound"] += store.execute("PRAGMA integrity_check").fetchone()[0] != "ok"
    return report


def go_on(client: Client, stages: dict[str, int]) -> dict:
    """Begins a rollout where none is under way: what is seen."""
    document = client.ask("/api/v1/rollouts/apart")
    rollout = document["rollout"] or {"state": "none"}
    stage = f"{rollout['state']} {rollout.get('stage_name', '')}".strip()
    stages[stage] = stages.get(stage, 0) + 1
    if rollout["state"] not in ("running", "paused"):
        steered = document["steered"]
        if steered and steered["steering"]["warm"]:
            client.order("apart", "rollback", who="load test")
        else:
            client.order("apart", "start", version=2, who="load test")
    return document


def inconsistent(client: Client, before: dict | None) -> str | None:
    """What does not fit together after a start: what serves, what steers, the rollout's stage; or what
    was seen before and is gone."""
    document = client.ask("/api/v1/rollouts/apart")
    status = client.ask("/api/v1/status")
    [model] = [model for model in status["models"] if model["name"] == "apart"]
    steered, rollout = document["steered"], document["rollout"]
    if before and before["steered"] and not steered:
        return f"what was steered is not: {before['steered']}"
    if steered and steered["steering"]["primary"] != model["primary"]:
        return f"steered to {steered['steering']}, primary {model['primary']}"
    if rollout and rollout["state"] == "running":
        shares = {"shadow": steered["steering"]["shadows"], "canary": steered["steering"]["canaries"],
                  "full": model["primary"] == 2}
        kind = rollout["stage_name"].split()[0]
        if [name for name, share in shares.items() if share] != [kind]:
            return f"in stage {rollout['stage_name']}, steered to {steered['steering']}"
        slots = {version["version"]: version["slot"] for version in model["versions"]}
        if slots[2] != {"full": "primary"}.get(kind, kind):
            return f"in stage {rollout['stage_name']}, version 2 is {slots[2]}"
    if before and before["rollout"] and before["rollout"]["state"] == "running" and rollout:
        if rollout["id"] == before["rollout"]["id"] and rollout["stage"] < before["rollout"]["stage"]:
            return f"stage {before['rollout']['stage']} was seen, and it is {rollout['stage']} now"
    return None
