"""Traffic of the shipped car-loan model: rows like its samples, well or drifting."""

from __future__ import annotations

import csv
import random
from pathlib import Path

from conftest import ROOT

NUMERIC = ("car_value", "debt_to_income_ratio", "loan_length", "driver_tenure")
CATEGORICAL = ("salary_range", "repaid_loan_on_prev_car", "size_of_downpayment")
MODEL = "car-loan"

Row = dict[str, str]


def samples() -> list[Row]:
    with (ROOT / "models/car-loan/samples.csv").open() as file:
        return list(csv.DictReader(file))


class Traffic:
    """Independent rows, each a sample with its numbers a little off; the same every time."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.samples = samples()

    def row(self, factor: float = 1.0) -> Row:
        """`factor` is what car values are multiplied by: 1 is well."""
        row = dict(self.random.choice(self.samples))
        for name in ("car_value", "debt_to_income_ratio", "driver_tenure"):
            row[name] = str(float(row[name]) * self.random.uniform(0.9, 1.1))
        row["car_value"] = str(float(row["car_value"]) * factor)
        return row

    def rows(self, count: int, factor: float = 1.0) -> list[Row]:
        return [self.row(factor) for _ in range(count)]


def write(path: Path, rows: list[Row]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*NUMERIC, *CATEGORICAL], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def request(rows: list[Row]) -> dict[str, object]:
    inputs = [
        {
            "name": name,
            "shape": [len(rows), 1],
            "datatype": "FP32",
            "data": [float(row[name]) for row in rows],
        }
        for name in NUMERIC
    ]
    inputs += [
        {
            "name": name,
            "shape": [len(rows), 1],
            "datatype": "BYTES",
            "data": [row[name] for row in rows],
        }
        for name in CATEGORICAL
    ]
    return {"inputs": inputs}
