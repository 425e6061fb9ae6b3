"""Captured files open in pandas, polars and DuckDB: one file, a folder, its partitions."""

import json
import random

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest
from gateway import ROOT, digits, gateway


@pytest.fixture(scope="module")
def captured(tmp_path_factory):
    """The folder of files, and what was answered by request id and row."""
    folder = tmp_path_factory.mktemp("readers")
    settings = ("[defaults.capture]\nenabled = true\nto = \"captures\"\ndecoded = true\n"
                "flush = \"20ms\"\n")
    rng, told = random.Random(5), {}
    with gateway(folder, ["digits", "car-loan"], settings) as served:
        for number in range(40):
            n_rows = number % 3 + 1
            pixels = [float(rng.randrange(17)) for _ in range(64 * n_rows)]
            answer = served.infer("digits", digits(pixels), f"digit-{number}")
            for row in range(n_rows):
                scores = answer["outputs"][0]["data"][row * 10:row * 10 + 10]
                told[f"digit-{number}", row] = pixels[row * 64:row * 64 + 64], scores
        loan = (ROOT / "models/car-loan/request.json").read_bytes()
        served.infer("car-loan", loan, "loan-1")
        status, _ = served.ask(served.http, "POST", "/v2/models/digits/infer", b"{}",
                               {"x-request-id": "wrong"})
        assert status == 400
        assert served.end() == 0
    return folder / "captures", told


def check(rows, told) -> None:
    """`rows` are dictionaries of the digits' rows."""
    answered = [row for row in rows if row["code"] == "ok"]
    assert len(answered) == len(told)
    assert [row["request_id"] for row in rows if row["code"] != "ok"] == ["wrong"]
    for row in answered:
        pixels, scores = told[row["request_id"], int(row["request_row"])]
        assert [row[f"image_{column}"] for column in range(64)] == pixels
        raw = np.frombuffer(row["input.image"], "<f4")
        assert raw.tolist() == pixels
        assert row["input.image.tensor"] == "FP32 [1, 8, 8]"
        raw = np.frombuffer(row["output.probabilities"], "<f4")
        assert raw.tolist() == np.array(scores, "<f4").tolist()
        assert row["sample"] == 1.0 and row["reason"] == "sample"
        assert row["digest"].startswith("sha256:") and row["total_ns"] >= row["compute_ns"]


def test_pandas_reads_a_file_and_the_folder(captured):
    folder, told = captured
    files = sorted((folder / "model=digits").rglob("*.parquet"))
    assert files and all(not file.name.startswith(".") for file in files)
    one = pd.concat([pd.read_parquet(file) for file in files])
    check(one.to_dict("records"), told)
    assert str(one["time"].dtype) == "datetime64[ms, UTC]"
    everything = pd.read_parquet(folder)
    assert set(everything["model"].astype(str)) == {"digits", "car-loan"}


def test_polars_reads_partitions(captured):
    folder, told = captured
    frame = pl.scan_parquet(folder / "model=digits/**/*.parquet", hive_partitioning=True).collect()
    check(frame.to_dicts(), told)
    assert frame["date"].n_unique() >= 1 and set(frame["model"]) == {"digits"}


def test_duckdb_asks_both_models_at_once(captured):
    folder, told = captured
    source = f"read_parquet('{folder}/**/*.parquet', hive_partitioning = true, union_by_name = true)"
    rows = duckdb.sql(f"select * from {source} where model = 'digits'").to_arrow_table().to_pylist()
    check(rows, told)
    loans = duckdb.sql(f"""select request_row, car_value, salary_range, "input.salary_range"
                           from {source} where model = 'car-loan' order by request_row""").fetchall()
    request = json.loads((ROOT / "models/car-loan/request.json").read_text())
    values = {tensor["name"]: tensor["data"] for tensor in request["inputs"]}
    assert [row[1] for row in loans] == values["car_value"]
    assert [row[2] for row in loans] == values["salary_range"]
    # Each text stands behind its length in the raw form.
    assert [row[3][4:].decode() for row in loans] == values["salary_range"]
