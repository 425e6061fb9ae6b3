"""Writes the rows that the shipped baselines are made of, as CSV: see README.md.

    python reference.py --wheel nannyml-0.13.1-py3-none-any.whl --folder DIR

car-loan.csv is the reference period as it stands in the wheel; digits.csv holds the 1,497 images
that are not in the test split.
"""

from __future__ import annotations

import argparse
import csv
import zipfile
from pathlib import Path

from car_loan import FOLDER
from digits import SEED
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def digits(path: Path) -> None:
    pixels, labels = load_digits(return_X_y=True)
    train, _, train_labels, _ = train_test_split(
        pixels, labels, test_size=300, stratify=labels, random_state=SEED
    )
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([f"image_{index}" for index in range(64)] + ["label"])
        for row, label in zip(train.astype(int), train_labels, strict=True):
            writer.writerow([*row, label])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheel", type=Path, required=True, help="nannyml-0.13.1-py3-none-any.whl")
    parser.add_argument("--folder", type=Path, required=True, help="where the files go")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(arguments.wheel) as archive:
        text = archive.read(f"{FOLDER}reference.csv")
    (arguments.folder / "car-loan.csv").write_bytes(text)
    digits(arguments.folder / "digits.csv")


if __name__ == "__main__":
    main()
