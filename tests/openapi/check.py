"""Starts the gateway on a copy of the shipped models and lets schemathesis call it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONFIG = Path(__file__).with_name("schemathesis.toml")
LIMIT = 60

#: Takes models out of service, which is not what the other calls are to be tried on.
CHANGES = "_load$|_unload$"

#: Each run: the listener, seconds, and which calls.
RUNS = [
    ("http", 40, ["--exclude-operation-id-regex", CHANGES]),
    ("admin", 30, []),
    ("http", 10, ["--include-operation-id-regex", CHANGES]),
]


def start(folder: Path) -> tuple[subprocess.Popen[str], dict[str, str]]:
    """The gateway, and its addresses."""
    for model in ("digits", "car-loan"):
        shutil.copytree(ROOT / "models" / model, folder / "models" / model)
    file = folder / "tidegate.toml"
    file.write_text(
        '[server]\nhttp = "127.0.0.1:0"\ngrpc = "off"\nadmin = "127.0.0.1:0"\n'
        '[repository]\npath = "models"\nsettle = "1ms"\n[log]\nformat = "json"\n'
        '[store]\npath = "store.db"\n[server.shared_memory]\nenabled = true\n'
    )
    binary = os.environ.get("TIDEGATE_BIN", str(ROOT / "target/debug/tidegate"))
    process = subprocess.Popen(
        [binary, "serve", "--config", str(file)], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        entry = json.loads(line) if line.startswith("{") else {}
        if entry.get("message") == "serving":
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return process, entry
    raise SystemExit(f"the gateway ended with {process.wait(LIMIT)}")


def main() -> int:
    schemathesis = Path(sys.executable).with_name("schemathesis")
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        process, addresses = start(Path(folder))
        try:
            for listener, seconds, options in RUNS:
                url = f"http://{addresses[listener]}/openapi.json"
                command = [
                    str(schemathesis), "--config-file", str(CONFIG), "run", url,
                    "--max-time", str(seconds), *options, *sys.argv[1:],
                ]  # fmt: skip
                print(f"-- {listener} {' '.join(options)}", flush=True)
                # Its reports and databases go where the models are.
                if subprocess.run(command, cwd=folder, timeout=10 * LIMIT).returncode != 0:
                    failed.append(f"{listener} {' '.join(options)}")
        finally:
            process.send_signal(signal.SIGTERM)
        if process.wait(LIMIT) != 0:
            failed.append("the gateway did not end well")
    for what in failed:
        print(f"FAILED: {what}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
