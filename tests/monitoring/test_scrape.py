"""A real Prometheus scrapes a gateway, evaluates the shipped rules and tells an Alertmanager."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from conftest import (
    LIMIT,
    RULES,
    Alertmanager,
    copy_models,
    eventually,
    free_port,
    start_gateway,
    start_prometheus,
    stop,
)


def test_metrics_are_scraped_and_an_alert_fires_and_resolves(
    tmp_path: Path, alertmanager: Alertmanager
) -> None:
    copy_models(tmp_path, "digits")
    # A port of its own, so that the gateway comes back where it was.
    port = free_port()
    gateway = start_gateway(tmp_path, admin=port)
    metrics = gateway.get("/metrics").text
    lint = subprocess.run(
        ["promtool", "check", "metrics"],
        input="".join(line for line in metrics.splitlines(True) if "tidegate_" in line),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert lint.returncode == 0, lint.stdout + lint.stderr
    # The shipped rules, without the time that an alert waits.
    rules = re.sub(r"for: \d+m", "for: 0s", RULES.read_text())
    prometheus = start_prometheus(
        tmp_path, gateway.admin, alertmanager.url.removeprefix("http://"), rules
    )
    try:
        eventually("a scrape", lambda: prometheus.value('up{job="tidegate"}') == 1)
        assert eventually("a series", lambda: prometheus.value("tidegate_versions_live")) >= 1
        assert not alertmanager.alerts(alertname="TidegateDown")
        gateway.stop()
        [alert] = eventually("the alert", lambda: alertmanager.alerts(alertname="TidegateDown"))
        assert alert["labels"]["severity"] == "critical"
        gateway = start_gateway(tmp_path, admin=port)
        eventually("the end", lambda: not alertmanager.alerts(alertname="TidegateDown"))
    finally:
        stop(prometheus.process)
        gateway.stop()
