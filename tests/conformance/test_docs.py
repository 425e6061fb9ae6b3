"""docs/clients.md says what is so: its blocks are run, or are the examples that are run, and print what it shows."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from calls import CASES, Reason
from conftest import LIMIT, ROOT, Gateway
from flavours import MODULES
from test_every_call import methods

DOCUMENT = ROOT / "docs" / "clients.md"
EXAMPLES = ROOT / "examples" / "python"
#: What each example is told on its command line.
ADDRESSES: dict[str, Callable[[Gateway], list[str]]] = {
    "triton_http.py": lambda gateway: [gateway.http],
    "triton_grpc.py": lambda gateway: [gateway.grpc],
    "plain_requests.py": lambda gateway: [gateway.url],
    "pandas_arrow.py": lambda gateway: [gateway.url],
    "feedback.py": lambda gateway: [gateway.url, f"http://{gateway.admin}"],
}
#: Run in the environment of the SDK, by kserve_sdk/test_kserve_example.py.
ELSEWHERE = {"kserve_sdk.py"}
NUMBER = re.compile(r"-?\d+\.?\d*")
PERF_ANALYZER = ROOT / ".venv" / "perf-analyzer"
PLACES = os.pathsep.join([str(Path(sys.executable).parent), str(PERF_ANALYZER)])
BLOCK = re.compile(r"(?:^<!-- (?P<note>.*?) -->\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of code, the comment above it, and what it prints."""

    kind: str
    text: str
    note: str
    printed: str


def blocks() -> list[Block]:
    found = [match.groupdict() for match in BLOCK.finditer(DOCUMENT.read_text())]
    paired = zip(found, [*found[1:], {"kind": "", "text": ""}], strict=True)
    return [
        Block(one["kind"], one["text"], one["note"] or "", following["text"])
        for one, following in paired
        if one["kind"] in ("sh", "python")
    ]


SHELL = [block for block in blocks() if block.kind == "sh"]
PYTHON = [block for block in blocks() if block.kind == "python"]


def placed(text: str, gateway: Gateway) -> str:
    """The text with the gateway's addresses for those of the configuration as it ships."""
    for port, address in (("8000", gateway.http), ("8001", gateway.grpc), ("8002", gateway.admin)):
        text = text.replace(f"localhost:{port}", address)
    return text


def same(left: str, right: str, figures: bool) -> bool:
    """The same words; and the same numbers up to rounding, where figures count."""
    if NUMBER.split(left) != NUMBER.split(right):
        return False
    pairs = zip(NUMBER.findall(left), NUMBER.findall(right), strict=True)
    return not figures or all(
        math.isclose(float(one), float(other), rel_tol=1e-3, abs_tol=1e-6) for one, other in pairs
    )


def check(block: Block, printed: str) -> None:
    """The page shows what was printed, or is made to where TIDEGATE_WRITE_REPORTS is set."""
    got = "\n".join(line.rstrip() for line in printed.strip().splitlines())
    is_same = same(got, block.printed.rstrip(), figures=block.note != "figures vary")
    if not is_same and os.environ.get("TIDEGATE_WRITE_REPORTS"):
        before, after = DOCUMENT.read_text().split(f"{block.text}```\n", 1)
        kind, rest = after.split("\n", 1)
        rest = rest.split("```", 1)[1]
        DOCUMENT.write_text(f"{before}{block.text}```\n{kind}\n{got}\n```{rest}")
        return
    assert is_same, printed


@pytest.mark.parametrize("block", SHELL, ids=lambda block: " ".join(block.text.split()[:4]))
def test_commands(fresh_gateway: Gateway, block: Block) -> None:
    program = block.text.split()[0]
    path = f"{PLACES}{os.pathsep}{os.environ['PATH']}"
    if shutil.which(program, path=path) is None:
        pytest.skip(f"{program} is not installed")
    environment = os.environ | {"PATH": path}
    if program == "perf_analyzer":
        environment["LD_LIBRARY_PATH"] = str(PERF_ANALYZER)
    ended = subprocess.run(
        ["bash", "-c", placed(block.text, fresh_gateway)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    check(block, ended.stdout)


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.note)
def test_python_is_the_example(block: Block) -> None:
    """And the example's opening comment shows the same lines as the page, or the first of them."""
    comment, written = (ROOT / block.note).read_text().split('"""\n\n', 1)
    assert block.text.strip() == written.strip()
    shown = [line.strip() for line in block.printed.splitlines()]
    for line in re.findall(r"^    (.+)$", comment, re.MULTILINE):
        start = line.strip().removesuffix("...").rstrip()
        assert any(line.startswith(start) for line in shown), start


def test_every_example_is_shown_and_run() -> None:
    files = {file.name for file in EXAMPLES.glob("*.py")}
    assert {Path(block.note).name for block in PYTHON} == files
    assert set(ADDRESSES) | ELSEWHERE == files


@pytest.mark.parametrize(
    "block", [block for block in PYTHON if Path(block.note).name in ADDRESSES], ids=lambda block: block.note
)
def test_python_prints(fresh_gateway: Gateway, block: Block) -> None:
    addresses = ADDRESSES[Path(block.note).name](fresh_gateway)
    ended = subprocess.run(
        [sys.executable, ROOT / block.note, *addresses],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    check(block, ended.stdout)


def line_of(name: str) -> str:
    """The report's line on a client of tritonclient."""
    every = methods(name)
    works, fails = (
        sum(not isinstance(getattr(CASES[method], kind), Reason) for method in every)
        for kind in ("works", "fails")
    )
    return f"| `tritonclient.{name}` | {len(every)} | {works} | {fails} |"


def test_the_report_counts_what_is_tested() -> None:
    text = DOCUMENT.read_text()
    for name in MODULES:
        assert line_of(name) in text
    for method, case in CASES.items():
        for kind in (case.works, case.fails):
            if isinstance(kind, Reason):
                assert kind.text in text, f"{method}: {kind.text}"
