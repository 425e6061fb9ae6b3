"""Trains the models that the repository ships, and writes everything that goes with them.

    python train.py              write models/digits and models/car-loan
    python train.py --check      train into a temporary folder and compare digests

The car-loan data are read out of the nannyml wheel, given by --wheel (see README.md); the digits
come with scikit-learn. Everything is seeded; weights are rounded, so that the last bits of a
processor's arithmetic do not reach the files.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
from pathlib import Path

# Before numpy is imported: one thread, and one kernel whatever the processor offers.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["OPENBLAS_CORETYPE"] = "Haswell"

MODELS = Path(__file__).resolve().parent.parent


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every generated file below a folder of models, by relative path."""
    names = ("digits", "car-loan")
    files = sorted(path for name in names for path in (folder / name).rglob("*") if path.is_file())
    generated = [path for path in files if path.name not in ("model.toml", "baseline.json")]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in generated
    }


def build(folder: Path, wheel: Path) -> None:
    """Trains all models and writes them below `folder`."""
    import car_loan
    import digits

    digits.build(folder / "digits")
    car_loan.build(folder / "car-loan", wheel)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheel", type=Path, required=True, help="nannyml-0.13.1-py3-none-any.whl")
    parser.add_argument("--check", action="store_true", help="compare digests, write nothing")
    arguments = parser.parse_args()
    if not arguments.check:
        build(MODELS, arguments.wheel)
        for path, digest in digests(MODELS).items():
            print(digest, path)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder), arguments.wheel)
        committed, trained = digests(MODELS), digests(Path(folder))
    differ = [path for path in committed | trained if committed.get(path) != trained.get(path)]
    for path in differ:
        print(f"differs: {path}: committed {committed.get(path)}, trained {trained.get(path)}")
    print("all digests agree" if not differ else f"{len(differ)} files differ")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
