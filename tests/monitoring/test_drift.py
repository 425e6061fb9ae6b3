"""The whole way: a model with a baseline, traffic that drifts, and everybody who is told."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import requests
from car_loan import MODEL, Traffic, request, write
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from conftest import (
    LIMIT,
    RULES,
    Alertmanager,
    Gateway,
    Receiver,
    binary,
    copy_models,
    eventually,
    start_gateway,
    start_prometheus,
    stop,
    write_config,
)

#: Rows of a request, and of a tick.
BATCH = 50
MONITOR = f"""
[models.{MODEL}.monitor]
tick = "50ms"
tick_rows = {BATCH}
cell_metrics = true
"""


def send_until(
    gateway: Gateway, traffic: Traffic, factor: float, done: Callable[[], object]
) -> object:
    """Sends rows, tick by tick, until `done` gives something."""
    deadline = time.monotonic() + LIMIT
    while True:
        answer = gateway.infer(MODEL, request(traffic.rows(BATCH, factor)))
        assert answer.status_code == 200, answer.text
        time.sleep(0.05)
        found = done()
        if found:
            return found
        assert time.monotonic() < deadline, gateway.get(f"/api/v1/drift/{MODEL}").text


def verdict(gateway: Gateway) -> dict[str, object]:
    return gateway.get(f"/api/v1/drift/{MODEL}/1").json()


def told(receiver: Receiver) -> list[object]:
    """The events that a webhook got, as the SDK reads them."""
    messages = list(receiver.messages)
    return [from_http_event(HTTPMessage(headers=m.headers, body=m.body)) for m in messages]


def drift(gateway: Gateway, *arguments: str) -> str:
    outcome = gateway.run("drift", "--url", f"http://{gateway.admin}", *arguments)
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout


def make_baseline(folder: Path, traffic: Traffic, config: str) -> None:
    copy_models(folder, MODEL)
    reference = write(folder / "reference.csv", traffic.rows(20_000))
    file = write_config(folder, config)
    command = ["baseline", "--config", str(file), "-m", MODEL, "--version", "1"]
    outcome = subprocess.run(
        [binary(), *command, "--data", str(reference)],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr


def test_drift_is_told_and_its_end_too(
    tmp_path: Path, alertmanager: Alertmanager, receiver: Receiver
) -> None:
    traffic = Traffic(1)
    config = f"""
[alerts]
group_wait = "200ms"
resend = "1s"
[[alerts.webhooks]]
url = "{receiver.url}"
[[alerts.alertmanagers]]
url = "{alertmanager.url}"
{MONITOR}"""
    make_baseline(tmp_path, traffic, config)
    gateway = start_gateway(tmp_path, config)
    rules = RULES.read_text()
    prometheus = start_prometheus(tmp_path, gateway.admin, "127.0.0.1:1", rules)
    alerts = lambda: alertmanager.alerts(alertname="TidegateDrift")  # noqa: E731
    try:
        # Well, from the first moment.
        assert "0 rows in 0 ticks" in drift(gateway, "-m", MODEL, "--version", "1")
        send_until(gateway, traffic, 1.0, lambda: verdict(gateway)["ticks"] >= 40)
        now = verdict(gateway)
        assert now["state"] == "ok", now["text"]
        assert not alerts()
        assert not receiver.messages
        assert " ok " in drift(gateway)
        # It drifts: all features together may be found a moment before the one that does.
        named = lambda: [alert for alert in alerts() if "features" in alert["annotations"]]  # noqa: E731
        [alert] = send_until(gateway, traffic, 1.5, named)
        assert alert["labels"] == {
            "alertname": "TidegateDrift",
            "model": MODEL,
            "version": "1",
            "severity": "warning",
        }
        assert "car_value" in alert["annotations"]["features"]
        assert alert["startsAt"] < alert["endsAt"]
        event = eventually("the webhook", lambda: told(receiver))[0]
        assert event.get_type() == "dev.tidegate.drift.detected"
        assert event.get_subject() == MODEL
        data = event.get_data()
        features = [part.get("feature") for part in data["events"]]
        assert "car_value" in features
        assert "debt_to_income_ratio" not in features
        assert "car_value" in data["text"]
        # Everybody who asks sees it; verdicts are made once a second.
        eventually("the verdict", lambda: verdict(gateway)["state"] == "drifted")
        page = drift(gateway, "-m", MODEL, "--version", "1", "--window", "5m")
        assert "drifted" in page.splitlines()[0]
        assert "car_value" in page
        page = drift(gateway, "-m", MODEL, "--feature", "car_value", "--window", "all")
        assert "baseline" in page.splitlines()[2]
        document = json.loads(drift(gateway, "-m", MODEL, "--version", "1", "--json"))
        assert document["state"] == "drifted"
        path = f"/api/v1/drift/{MODEL}/stable"
        # Its first point is made when its time is over.
        history = gateway.get(f"{path}/history", feature="car_value").json()
        assert history["feature"] == "car_value"
        assert isinstance(history["points"], list)
        histogram = gateway.get(f"{path}/histogram", feature="car_value", window="all").json()
        assert sum(histogram["baseline"]) == 20_000
        assert len(histogram["cells"]) == len(histogram["live"])
        assert any(
            event["to"] == "drifted" and event.get("feature") == "car_value"
            for event in gateway.get("/api/v1/events", model=MODEL).json()["events"]
        )
        state = f'tidegate_drift_state{{model="{MODEL}",version="1"}}'
        eventually("the gauge", lambda: prometheus.value(state) == 3)
        feature = f'tidegate_drift_feature_state{{model="{MODEL}",version="1",feature="car_value"}}'
        assert prometheus.value(feature) == 3
        psi = 'feature:tidegate_drift_psi_debiased:increase1h{feature="car_value"}'
        send_until(gateway, traffic, 1.5, lambda: (prometheus.value(psi) or 0) > 0.1)
        lint = subprocess.run(
            ["promtool", "check", "metrics"],
            input="".join(
                line
                for line in gateway.get("/metrics").text.splitlines(True)
                if "tidegate_" in line
            ),
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert lint.returncode == 0, lint.stdout + lint.stderr
        # It recovers.
        send_until(gateway, traffic, 1.0, lambda: verdict(gateway)["state"] == "recovered")
        eventually("the end of the alert", lambda: not alerts())
        eventually("the webhook", lambda: told(receiver)[-1].get_type().endswith(".recovered"))
        types = [event.get_type() for event in told(receiver)]
        assert types[-1] == "dev.tidegate.drift.recovered", types
        # It drifts again, and somebody says that this is known.
        send_until(gateway, traffic, 2.0, alerts)
        assert "acknowledged" in drift(gateway, "-m", MODEL, "--acknowledge", "--who", "ada")
        eventually("the end of the alert", lambda: not alerts())
        eventually("the verdict", lambda: verdict(gateway)["acknowledged"])
        assert verdict(gateway)["state"] == "drifted"
        assert told(receiver)[-1].get_type() == "dev.tidegate.drift.closed"
        assert gateway.get("/metrics").text.count('outcome="failed"} 0') >= 2
    finally:
        stop(prometheus.process)
        gateway.stop()


def test_a_version_that_goes_takes_alert_and_series_with_it(
    tmp_path: Path, alertmanager: Alertmanager
) -> None:
    traffic = Traffic(4)
    alerts = f'[alerts]\ngroup_wait = "0s"\n[[alerts.alertmanagers]]\nurl = "{alertmanager.url}"\n'
    config = alerts + MONITOR
    make_baseline(tmp_path, traffic, config)
    gateway = start_gateway(tmp_path, config)
    series = f'tidegate_drift_state{{model="{MODEL}",version="1"}}'
    try:
        assert series in gateway.get("/metrics").text
        send_until(gateway, traffic, 2.0, lambda: alertmanager.alerts(alertname="TidegateDrift"))
        unload = f"http://{gateway.http}/v2/repository/models/{MODEL}/unload"
        assert requests.post(unload, json={}, timeout=LIMIT).status_code == 200
        eventually("its end", lambda: not alertmanager.alerts(alertname="TidegateDrift"))
        assert series not in gateway.get("/metrics").text
        eventually("zero", lambda: "\ntidegate_alerts_firing 0\n" in gateway.get("/metrics").text)
    finally:
        gateway.stop()


def test_targets_change_with_a_reload(
    tmp_path: Path, alertmanager: Alertmanager, receiver: Receiver
) -> None:
    traffic = Traffic(6)
    make_baseline(tmp_path, traffic, MONITOR)
    gateway = start_gateway(tmp_path, MONITOR)
    firing = "\ntidegate_alerts_firing 1\n"
    try:
        send_until(gateway, traffic, 2.0, lambda: firing in gateway.get("/metrics").text)
        assert not alertmanager.alerts(alertname="TidegateDrift")
        target = f'[[alerts.alertmanagers]]\nurl = "{alertmanager.url}"\n'
        write_config(gateway.folder, target + MONITOR)
        # What fires already is told to whoever is new.
        eventually("the alert", lambda: alertmanager.alerts(alertname="TidegateDrift"))
        # A receiver that is away is tried again; the gateway serves meanwhile.
        receiver.statuses[:] = [503, 503]
        hook = f'[[alerts.webhooks]]\nname = "hook"\nurl = "{receiver.url}"\n'
        write_config(gateway.folder, '[alerts]\ngroup_wait = "0s"\n' + hook + target + MONITOR)
        waiting = 'tidegate_alert_messages_waiting{target="hook"}'
        eventually("the target", lambda: waiting in gateway.get("/metrics").text)
        drift(gateway, "-m", MODEL, "--acknowledge")
        # It has drifted and is closed: the first of the two messages is tried three times.
        eventually("the messages", lambda: len(receiver.messages) == 4)
        ids = [json.loads(message.body)["id"] for message in receiver.messages]
        assert len(set(ids[:3])) == 1
        assert ids[3] != ids[0]
        retries = 'tidegate_alert_retries_total{target="hook"} 2'
        eventually("the count", lambda: retries in gateway.get("/metrics").text)
    finally:
        gateway.stop()


def test_files_are_compared_without_a_server(tmp_path: Path) -> None:
    traffic = Traffic(2)
    make_baseline(tmp_path, traffic, MONITOR)
    file = write_config(tmp_path, MONITOR)
    command = [binary(), "drift", "--config", str(file), "-m", MODEL, "--version", "1", "--data"]
    for factor in (1.0, 1.5):
        current = write(tmp_path / "current.csv", traffic.rows(5_000, factor))
        outcome = subprocess.run(
            [*command, str(current), "--json"],
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert outcome.returncode == 0, outcome.stderr
        comparison = json.loads(outcome.stdout)
        assert comparison["rows"] == 5_000
        psi = {
            feature["name"]: feature["window"]["effects"]["psi_debiased"]
            for feature in comparison["features"]
        }
        assert (psi["car_value"] > 0.1) == (factor > 1)
        assert psi["debt_to_income_ratio"] < 0.02
    table = subprocess.run(
        [*command, str(current)], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert "5,000 rows against 20,000 of the baseline" in table.stdout
    assert table.stdout.splitlines()[3].startswith("car_value")


def test_a_version_without_a_baseline_says_how_to_make_one(tmp_path: Path) -> None:
    copy_models(tmp_path, MODEL)
    gateway = start_gateway(tmp_path)
    try:
        overview = gateway.get("/api/v1/drift").json()
        assert overview["verdicts"] == []
        assert {"model": MODEL, "version": 1} in overview["unwatched"]
        assert "tidegate baseline" in drift(gateway)
        for path, expected in (
            (f"/api/v1/drift/{MODEL}/1", "tidegate baseline --model car-loan --version 1"),
            (f"/api/v1/drift/{MODEL}/7", "there are: 1, 2"),
            ("/api/v1/drift/car", "there are: car-loan"),
            (f"/api/v1/drift/{MODEL}/1/history", "the parameter 'feature' is missing"),
            (f"/api/v1/drift/{MODEL}/1/histogram?fature=a", "there are: feature, segment, window"),
            ("/api/v1/events?after=x", "expected the number of an event, got 'x'"),
        ):
            answer = gateway.get(path)
            assert answer.status_code in (400, 404)
            assert expected in answer.json()["error"]
        answer = gateway.post("/api/v1/drift", {})
        assert answer.status_code == 405
        answer = gateway.get(f"/api/v1/drift/{MODEL}/1/freeze")
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST, OPTIONS")
    finally:
        gateway.stop()


def test_a_baseline_is_learned_frozen_and_learned_anew(tmp_path: Path) -> None:
    traffic = Traffic(3)
    copy_models(tmp_path, MODEL)
    gateway = start_gateway(tmp_path, f"{MONITOR}baseline = {{ learn = 100000 }}\n")
    try:
        send_until(
            gateway, traffic, 1.0, lambda: verdict(gateway)["baseline"]["rows"] >= 20 * BATCH
        )
        now = verdict(gateway)
        assert now["state"] == "learning"
        assert now["baseline"]["learning"] + now["baseline"]["rows"] == 100_000
        assert "learning a baseline" in drift(gateway, "-m", MODEL, "--version", "1")
        assert "fixed with the rows so far" in drift(gateway, "-m", MODEL, "--freeze")
        send_until(gateway, traffic, 1.0, lambda: verdict(gateway)["state"] == "ok")
        assert "learning a new baseline" in drift(gateway, "-m", MODEL, "--rebase", "5000")
        eventually("learning", lambda: verdict(gateway)["state"] == "learning")
        answer = gateway.post(f"/api/v1/drift/{MODEL}/1/rebase", {"rows": 5000, "feature": "x"})
        assert answer.status_code == 400
    finally:
        gateway.stop()
