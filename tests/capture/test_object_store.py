"""Files reach an S3 server on loopback, whole; while it is away they wait, and serving goes on."""

import io
import signal
import socket
import urllib.request

import boto3
import numpy as np
import pandas as pd
import pytest
from gateway import HOST, digits, gateway
from moto.server import ThreadedMotoServer

BUCKET = "captures"
SETTINGS = ("[capture]\nspool = \"spool\"\n[defaults.capture]\nenabled = true\n"
            f"to = \"s3://{BUCKET}/some/where\"\nflush = \"20ms\"\nroll_time = \"1s\"\n")
PIXELS = [float(position % 17) for position in range(64)]


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind((HOST, 0))
        return free.getsockname()[1]


def environment(port: int) -> dict[str, str]:
    return {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": f"http://{HOST}:{port}",
            "AWS_ALLOW_HTTP": "true"}


class Store:
    def __init__(self, port: int):
        self.server = ThreadedMotoServer(HOST, port)
        self.server.start()
        # What an earlier server of this process held is still there.
        urllib.request.urlopen(
            urllib.request.Request(f"http://{HOST}:{port}/moto-api/reset", method="POST")).close()
        self.client = boto3.client("s3", endpoint_url=f"http://{HOST}:{port}",
                                   region_name="us-east-1", aws_access_key_id="test",
                                   aws_secret_access_key="secret")
        self.client.create_bucket(Bucket=BUCKET)

    def keys(self) -> list[str]:
        found = self.client.list_objects_v2(Bucket=BUCKET)
        return [entry["Key"] for entry in found.get("Contents", [])]

    def rows(self) -> pd.DataFrame:
        bodies = [self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
                  for key in self.keys()]
        frames = [pd.read_parquet(io.BytesIO(body)) for body in bodies]
        return pd.concat(frames) if frames else pd.DataFrame({"request_id": []})


def test_files_arrive_small_and_in_parts(tmp_path, port):
    store = Store(port)
    rng = np.random.default_rng(3)
    try:
        settings = (SETTINGS.replace("1s", "1h").replace("20ms", "1h")
                    + "roll_size = \"17MiB\"\n")
        # A debug build is slow: what it is behind with must find room.
        settings = settings.replace("[capture]\n", "[capture]\nqueue_size = \"256MiB\"\n", 1)
        with gateway(tmp_path, ["digits"], settings, environment(port)) as served:
            for number in range(150):
                # Rows that hardly compress, 256 KB a request: more than is put at once.
                pixels = rng.random(64 * 1000, "f4").tobytes()
                served.infer_raw("digits", pixels, [1000, 8, 8], f"request-{number}")
            assert served.metric("tidegate_capture_dropped_total") == 0
            served.wait("a file in parts", store.keys)
            assert served.end() == 0
        assert all(key.startswith("some/where/model=digits/date=") for key in store.keys())
        rows = store.rows()
        assert len(rows) == 150_000 and rows["request_id"].nunique() == 150
        left = [path for path in (tmp_path / "spool").rglob("*") if path.suffix == ".parquet"]
        assert left == []
    finally:
        store.server.stop()


def test_a_store_that_is_down_costs_nothing_and_is_caught_up_with(tmp_path, port):
    with gateway(tmp_path, ["digits"], SETTINGS, environment(port)) as served:
        for number in range(20):
            served.infer("digits", digits(PIXELS), f"early-{number}")
        served.wait("a failed upload",
                    lambda: served.metric('tidegate_capture_uploads_total{outcome="failed"}') > 0)
        assert served.metric("tidegate_capture_spool_bytes") > 0
        assert served.metric("tidegate_capture_dropped_total") == 0
        store = Store(port)
        try:
            served.infer("digits", digits(PIXELS), "late")
            served.wait("all rows", lambda: len(store.rows()) == 21)
            assert served.end() == 0
        finally:
            store.server.stop()


def test_what_a_killed_process_left_is_put_by_the_next(tmp_path, port):
    with gateway(tmp_path, ["digits"], SETTINGS, environment(port)) as served:
        for number in range(10):
            served.infer("digits", digits(PIXELS), f"early-{number}")
        served.wait("the rows on the disk",
                    lambda: served.metric("tidegate_capture_rows_total") == 10)
        served.end(signal.SIGKILL)
    store = Store(port)
    try:
        with gateway(tmp_path, ["digits"], SETTINGS, environment(port)) as served:
            served.wait("the rows of the last process", lambda: len(store.rows()) == 10)
            assert served.end() == 0
    finally:
        store.server.stop()
