"""The shipped examples, as the tools of those who read them see them."""

from __future__ import annotations

import subprocess

import pytest
from conftest import LIMIT, ROOT

DEPLOY = ROOT / "deploy"


@pytest.mark.parametrize(
    "command",
    [
        ["promtool", "check", "rules", "prometheus/tidegate.rules.yml"],
        ["promtool", "test", "rules", "prometheus/tidegate.rules.test.yml"],
        ["promtool", "check", "config", "prometheus/prometheus.yml"],
        ["amtool", "check-config", "alertmanager/alertmanager.yml"],
    ],
    ids=" ".join,
)
def test_the_examples_are_valid(command: list[str]) -> None:
    outcome = subprocess.run(
        command, cwd=DEPLOY, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
