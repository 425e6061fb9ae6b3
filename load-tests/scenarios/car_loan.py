"""The car-loan data of the PyPI package nannyml, replayed over HTTP in their order: a baseline of the
reference period, then the analysis period, one row a request. The data change at row 25,000. Says at
which row which feature raised its first alarm, and draws the evidence over the rows."""

import argparse
import csv
import http.client
import io
import json
import shutil
import subprocess
import time
import urllib.parse
import zipfile
from pathlib import Path

import harness
from harness import HOST, ScenarioError, Server

SUMMARY = "known drift found: which features, and after how many rows"
MODEL = "car-loan"
PACKAGE = "nannyml==0.13.1"
DATA = "nannyml/datasets/data/synthetic_car_loan_{}.csv"
NUMERIC = ("car_value", "debt_to_income_ratio", "loan_length", "driver_tenure")
CATEGORICAL = ("salary_range", "repaid_loan_on_prev_car", "size_of_downpayment")
# Where the data change, the features whose distribution does, and those whose does not.
CHANGE, WITHIN = 25_000, 1_000
CHANGED = ("car_value", "salary_range", "loan_length", "repaid_loan_on_prev_car")
SAME = ("debt_to_income_ratio", "driver_tenure", "size_of_downpayment")
# A look after every 50 rows, and as many looks as 30 days have seconds.
PROMISE = "1 per 129600000 rows"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", type=int, default=1, help="of the model (default: 1)")
    parser.add_argument("--rows", type=int, default=50_000, help="of the analysis period")
    parser.add_argument("--data", type=harness.absolute, metavar="WHEEL",
                        help=f"the wheel of {PACKAGE}, instead of downloading it")


def run(arguments: argparse.Namespace) -> int:
    program = harness.build_gateway(arguments)
    wheel = arguments.data or download()
    version = arguments.version
    with harness.scratch_folder() as folder:
        repository = folder / "models"
        shutil.copytree(arguments.models / MODEL, repository / MODEL)
        reference = folder / "reference.csv"
        reference.write_bytes(read(wheel, "reference"))
        settings = (f"[models.{MODEL}]\nprimary = {version}\n"
                    f"[models.{MODEL}.monitor]\nfalse_alarms = \"{PROMISE}\"\n")
        make_baseline(program, folder, repository, settings, version, reference)
        rows = list(csv.DictReader(io.StringIO(read(wheel, "analysis").decode())))
        rows = rows[:arguments.rows]
        with harness.gateway("tidegate", program, folder, repository, settings) as server:
            started = time.monotonic()
            replay(server, rows)
            took = time.monotonic() - started
            verdict = wait_counted(server, version, len(rows))
            events = ask(server, "/api/v1/events")["events"]
            features = [feature["name"] for feature in verdict["features"]]
            histories = {name: history(server, version, name) for name in features}
    first = first_alarms(events)
    print(f"\n{len(rows)} rows in {took:.0f} s; promised: {PROMISE}")
    met = judge(first, len(rows))
    result = {"first_alarms": first, "histories": histories, "change": CHANGE,
              "threshold": verdict["threshold"], "rows": len(rows), "verdict": verdict}
    harness.plot(harness.save("car_loan", result))
    return 0 if met else 1


def download() -> Path:
    """The wheel, downloaded once."""
    folder = harness.ROOT / "target" / "load-tests" / "nannyml"
    found = list(folder.glob("nannyml-*.whl"))
    if not found:
        command = [harness.environment() / "python", "-m", "pip", "download", "--quiet",
                   "--no-deps", "--disable-pip-version-check", "--dest", folder, PACKAGE]
        if subprocess.run(command).returncode != 0:
            raise ScenarioError(f"{PACKAGE} could not be downloaded; give its wheel with --data")
        found = list(folder.glob("nannyml-*.whl"))
    return found[0]


def read(wheel: Path, part: str) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(DATA.format(part))


def make_baseline(program: Path, folder: Path, repository: Path, settings: str, version: int,
                  reference: Path) -> None:
    config, _, _ = harness.write_config(folder, repository, settings)
    command = [program, "baseline", "--config", config, "--model", MODEL, "--version", version,
               "--data", reference, "--timestamp", "timestamp", "--label", "repaid"]
    if subprocess.run([str(part) for part in command], cwd=harness.ROOT).returncode != 0:
        raise ScenarioError("the baseline could not be made")


def body(row: dict[str, str]) -> bytes:
    def number(text: str) -> float | None:
        return float(text) if text else None

    inputs = [{"name": name, "shape": [1, 1], "datatype": "FP32", "data": [number(row[name])]}
              for name in NUMERIC]
    inputs += [{"name": name, "shape": [1, 1], "datatype": "BYTES", "data": [row[name]]}
               for name in CATEGORICAL]
    return json.dumps({"id": row["id"], "inputs": inputs}).encode()


def replay(server: Server, rows: list[dict[str, str]]) -> None:
    """One connection, so that the rows stay in order."""
    connection = http.client.HTTPConnection(HOST, server.port, timeout=30)
    headers = {"content-type": "application/json"}
    for number, row in enumerate(rows):
        connection.request("POST", f"/v2/models/{MODEL}/infer", body(row), headers)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise ScenarioError(f"row {number}: {answer.status} {text[:300]!r}")
        if number % 5000 == 0:
            print(f"row {number}", flush=True)
    connection.close()


def ask(server: Server, path: str) -> dict:
    status, text = harness.request(server.admin, "GET", path)
    if status != 200:
        raise ScenarioError(f"{path}: {status} {text[:300]!r}")
    return json.loads(text)


def wait_counted(server: Server, version: int, n_rows: int, limit: float = 30) -> dict:
    """The verdict once every row is counted."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        verdict = ask(server, f"/api/v1/drift/{MODEL}/{version}")
        if verdict["rows"] >= n_rows:
            return verdict
        time.sleep(0.2)
    raise ScenarioError(f"{verdict['rows']} of {n_rows} rows were counted within {limit} s")


def history(server: Server, version: int, feature: str) -> list[dict]:
    name = urllib.parse.quote(feature)
    return ask(server, f"/api/v1/drift/{MODEL}/{version}/history?feature={name}")["points"]


def first_alarms(events: list[dict]) -> dict[str, int]:
    """The row of the first alarm, by feature; all together under the empty name."""
    first: dict[str, int] = {}
    for event in events:
        if event["to"] == "drifted" and event["detector"] == "drift":
            first.setdefault(event.get("feature") or "", event["rows"])
    return first


def judge(first: dict[str, int], n_rows: int) -> bool:
    print(f"{'feature':36}  first alarm at row")
    for name, row in sorted(first.items(), key=lambda each: each[1]):
        print(f"{name or '(all together)':36}  {row}")
    early = [name for name, row in first.items() if row < CHANGE]
    wrong = [name for name in SAME if name in first]
    late = [name for name in CHANGED if not CHANGE <= first.get(name, n_rows + 1) <= CHANGE + WITHIN]
    met = not (early or wrong or late)
    print(f"\nalarms before the change: {early or 'none'}; on features that stay the same: "
          f"{wrong or 'none'}; changed and not found within {WITHIN} rows: {late or 'none'}: "
          f"{harness.verdict(met)}")
    return met
