"""Tables as pandas and pyarrow write them: Arrow streams of every make and CSV, in and out."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas
import pyarrow
import pytest
import requests
from conftest import LIMIT, ROOT, Gateway

ARROW = "application/vnd.apache.arrow.stream"
CSV = "text/csv"
TEXTS = {name: str for name in ("salary_range", "repaid_loan_on_prev_car", "size_of_downpayment")}


@pytest.fixture(scope="module")
def loans() -> pandas.DataFrame:
    return pandas.read_csv(ROOT / "models/car-loan/samples.csv", dtype=TEXTS)


@pytest.fixture(scope="module")
def expected(gateway: Gateway, loans: pandas.DataFrame) -> np.ndarray:
    """The probabilities, by the Open Inference Protocol."""
    metadata = requests.get(f"{gateway.url}/v2/models/car-loan", timeout=LIMIT).json()
    inputs = [
        {key: entry[key] for key in ("name", "datatype")}
        | {"shape": [len(loans), 1], "data": loans[entry["name"]].tolist()}
        for entry in metadata["inputs"]
    ]
    answer = gateway.post("/v2/models/car-loan/infer", {"inputs": inputs}).json()
    return np.array(answer["outputs"][0]["data"], np.float32)


def written(table: pyarrow.Table, rows: int | None = None, **options: Any) -> bytes:
    body = io.BytesIO()
    with pyarrow.ipc.new_stream(
        body, table.schema, options=pyarrow.ipc.IpcWriteOptions(**options)
    ) as stream:
        stream.write_table(table, max_chunksize=rows)
    return body.getvalue()


def ask(gateway: Gateway, body: bytes, kind: str = ARROW, accept: str = ARROW) -> requests.Response:
    return requests.post(
        f"{gateway.url}/v2/models/car-loan/predict",
        data=body,
        headers={"Content-Type": kind, "Accept": accept},
        timeout=LIMIT,
    )


def answers(gateway: Gateway, body: bytes) -> pandas.DataFrame:
    answer = ask(gateway, body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == ARROW
    return pyarrow.ipc.open_stream(answer.content).read_pandas()


def table(loans: pandas.DataFrame) -> pyarrow.Table:
    return pyarrow.Table.from_pandas(loans.drop(columns="repaid"), preserve_index=False)


@pytest.mark.parametrize("rows", [None, 1, 7, 400])
def test_batches_of_any_size(
    gateway: Gateway, loans: pandas.DataFrame, expected: np.ndarray, rows: int | None
) -> None:
    got = answers(gateway, written(table(loans), rows))
    np.testing.assert_array_equal(got["probability"].to_numpy(np.float32), expected)
    np.testing.assert_array_equal(got["label"], (expected > 0.5).astype(int))


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compressed_buffers(
    gateway: Gateway, loans: pandas.DataFrame, expected: np.ndarray, compression: str
) -> None:
    got = answers(gateway, written(table(loans), 100, compression=compression))
    np.testing.assert_array_equal(got["probability"].to_numpy(np.float32), expected)


def test_categories_and_other_numbers(
    gateway: Gateway, loans: pandas.DataFrame, expected: np.ndarray
) -> None:
    """Categories are dictionaries in Arrow, and whole numbers often come as integers."""
    given = loans.drop(columns="repaid").astype(
        {name: "category" for name in TEXTS} | {"car_value": "int64", "loan_length": "int16"}
    )
    got = answers(gateway, written(pyarrow.Table.from_pandas(given, preserve_index=False)))
    np.testing.assert_array_equal(got["probability"].to_numpy(np.float32), expected)


def test_columns_in_another_order_and_more_of_them(
    gateway: Gateway, loans: pandas.DataFrame, expected: np.ndarray
) -> None:
    given = loans[loans.columns[::-1]]  # with `repaid`, which is no input
    got = answers(gateway, written(pyarrow.Table.from_pandas(given, preserve_index=False)))
    np.testing.assert_array_equal(got["probability"].to_numpy(np.float32), expected)


def test_csv_both_ways(gateway: Gateway, loans: pandas.DataFrame, expected: np.ndarray) -> None:
    body = loans.drop(columns="repaid").to_csv(index=False).encode()
    answer = ask(gateway, body, CSV, CSV)
    assert answer.status_code == 200, answer.text
    got = pandas.read_csv(io.StringIO(answer.text))
    np.testing.assert_allclose(got["probability"], expected, rtol=1e-6)


def test_arrow_in_and_json_out(gateway: Gateway, loans: pandas.DataFrame, expected: np.ndarray) -> None:
    answer = ask(gateway, written(table(loans)), accept="application/json")
    assert answer.status_code == 200, answer.text
    got = [row["probability"] for row in answer.json()["predictions"]]
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_what_is_wrong_with_a_table(gateway: Gateway, loans: pandas.DataFrame) -> None:
    whole = table(loans)
    for body, message in (
        (written(whole.drop_columns(["car_value"])), "car_value"),
        (written(whole.slice(0, 0)), "no rows"),
        (written(whole)[:1000], "Arrow stream"),
        (b"car_value\n1\n", "Arrow stream"),
    ):
        answer = ask(gateway, body)
        assert answer.status_code == 400, message
        assert message in answer.json()["error"]
