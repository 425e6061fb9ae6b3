"""`tidegate alert test` against a real Alertmanager and the CloudEvents SDK."""

from __future__ import annotations

import os
import ssl
import subprocess
from pathlib import Path

import trustme
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from conftest import (
    LIMIT,
    Alertmanager,
    Message,
    Receiver,
    binary,
    eventually,
    free_port,
    start_receiver,
    write_config,
)


def alert_test(
    folder: Path, config: str, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    (folder / "models").mkdir(exist_ok=True)
    file = write_config(folder, config)
    return subprocess.run(
        [binary(), "alert", "test", "--config", str(file), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def event_of(message: Message) -> object:
    """The event as the SDK reads it, whichever mode it came in."""
    return from_http_event(HTTPMessage(headers=message.headers, body=message.body))


def test_everybody_is_told_and_the_table_says_so(
    tmp_path: Path, alertmanager: Alertmanager, receiver: Receiver
) -> None:
    outcome = alert_test(
        tmp_path,
        f"""
        [alerts]
        source = "/gateways/süd"
        [[alerts.webhooks]]
        name = "one-document"
        url = "{receiver.url}?key=do-not-show"
        bearer_env = "HOOK_TOKEN"
        [[alerts.webhooks]]
        name = "in-headers"
        url_env = "HOOK_URL"
        mode = "binary"
        headers_env = {{ x-api-key = "HOOK_TOKEN" }}
        [[alerts.alertmanagers]]
        url = "{alertmanager.url}"
        labels = {{ team = "risk" }}
        """,
        HOOK_TOKEN="do-not-tell",
        HOOK_URL=receiver.url,
    )
    said = outcome.stdout + outcome.stderr
    assert outcome.returncode == 0, said
    for expected in ("one-document", "in-headers", "alertmanager-1", "taken, status 204", "$HOOK_URL"):
        assert expected in said
    assert "do-not-" not in said
    structured, binary_mode = receiver.messages
    assert structured.path == "/hook?key=do-not-show"
    assert structured.headers["authorization"] == "Bearer do-not-tell"
    assert binary_mode.headers["x-api-key"] == "do-not-tell"
    for message in (structured, binary_mode):
        event = event_of(message)
        assert event.get_type() == "dev.tidegate.alert.test"
        assert event.get_source() == "/gateways/süd"
        assert event.get_datacontenttype() == "application/json"
        assert event.get_data()["change"] == "test"
        assert event.get_time() is not None
    # Alertmanager shows what it has taken in a moment later.
    [alert] = eventually("the alert", lambda: alertmanager.alerts(alertname="TidegateTest"))
    assert alert["labels"]["team"] == "risk"
    assert alert["receivers"] == [{"name": "nobody"}], "the shipped route keeps tests from people"


def test_what_does_not_work_is_said_with_what_may_help(tmp_path: Path, receiver: Receiver) -> None:
    receiver.statuses[:] = [403]
    config = f"""
        [[alerts.webhooks]]
        name = "forbidden"
        url = "{receiver.url}"
        [[alerts.alertmanagers]]
        name = "nobody-there"
        url = "http://127.0.0.1:{free_port()}"
        [[alerts.webhooks]]
        name = "without-secret"
        url_env = "NOT_SET_ANYWHERE"
        """
    outcome = alert_test(tmp_path, config)
    assert outcome.returncode == 1
    for expected in (
        "NOT TAKEN, status 403",
        "forbidden: it wants to know who asks",
        "Connection refused",
        "nobody-there: nothing listens there",
        "environment variable NOT_SET_ANYWHERE is not set",
    ):
        assert expected in outcome.stdout
    assert "3 of 3 targets did not take the test message" in outcome.stderr
    outcome = alert_test(tmp_path, config, "--target", "forbidden")
    assert outcome.returncode == 0, "the receiver takes it now"
    outcome = alert_test(tmp_path, config, "--target", "typo")
    assert outcome.returncode == 64
    assert "there are: forbidden, without-secret, nobody-there" in outcome.stderr
    outcome = alert_test(tmp_path, "")
    assert outcome.returncode == 64
    assert "[[alerts.alertmanagers]]" in outcome.stderr


def test_tls_is_checked_against_known_authorities(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    receiver = start_receiver(context)
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    config = f'[[alerts.webhooks]]\nurl = "{receiver.url}"\n'
    stranger = alert_test(tmp_path, config)
    assert stranger.returncode == 1
    assert "ca_file" in stranger.stdout
    assert not receiver.messages
    known = alert_test(tmp_path, config, SSL_CERT_FILE=str(tmp_path / "authority.pem"))
    assert known.returncode == 0, known.stdout
    own = alert_test(tmp_path, f'{config}ca_file = "authority.pem"\n')
    assert own.returncode == 0, own.stdout
    assert len(receiver.messages) == 2
    (tmp_path / "empty.pem").touch()
    for path, expected in (("empty.pem", "has no certificate"), ("none.pem", "none.pem")):
        wrong = alert_test(tmp_path, f'{config}ca_file = "{path}"\n')
        assert wrong.returncode == 1
        assert expected in wrong.stdout
    receiver.server.shutdown()
