"""The example with the KServe SDK, run as a user would."""

from __future__ import annotations

import subprocess
import sys

from conftest import LIMIT, ROOT, Gateway


def test_example(gateway: Gateway) -> None:
    ended = subprocess.run(
        [sys.executable, ROOT / "examples/python/kserve_sdk.py", gateway.url, gateway.grpc],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("REST, V1: it is a 5\n")
    assert f"```text\n{ended.stdout}```" in (ROOT / "docs/clients.md").read_text()
