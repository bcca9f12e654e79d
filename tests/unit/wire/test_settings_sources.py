"""Files of settings as people leave them behind: of another encoding, unreadable, half a table."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from processor.errors import SettingsError
from processor.wire.settings_sources import load_settings, origins


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("PROCESSOR_"):
            monkeypatch.delenv(name)


LATIN = "größe".encode("latin-1")
MARK = b"\xef\xbb\xbf"
"""What some editors write before a file in UTF-8."""


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (LATIN, "is no UTF-8 text: invalid start byte at byte 2"),
        (None, "cannot be read: No such file or directory"),
        ("folder", "cannot be read: Is a directory"),
    ],
)
@pytest.mark.parametrize(
    ("file", "read"),
    [
        ("other.env", lambda: load_settings(env={}, dotenv_path="other.env")),
        ("other.toml", lambda: load_settings(env={}, toml_path="other.toml")),
        ("pass", lambda: load_settings({"kafka.sasl_password_file": "pass"}, env={})),
        ("key", lambda: load_settings(env={"PROCESSOR_KAFKA__SSL_KEY_PASSWORD_FILE": "key"})),
    ],
)
def test_a_file_that_is_named_and_cannot_be_used_is_told(
    file: str, read: Any, data: bytes | str | None, told: str
) -> None:
    if isinstance(data, bytes):
        Path(file).write_bytes(data)
    elif data is not None:
        Path(file).mkdir()
    with pytest.raises(SettingsError) as caught:
        read()
    assert f"{file} {told}" in str(caught.value)


@pytest.mark.parametrize("file", [".env", "processor.toml"])
def test_files_that_nobody_named_may_be_missing_but_not_unreadable(file: str) -> None:
    assert load_settings().worker.concurrency == 100
    Path(file).mkdir()  # a container mounts a folder where the file is missing on the host
    assert load_settings().worker.concurrency == 100
    Path(file).rmdir()
    Path(file).write_bytes(LATIN)
    with pytest.raises(SettingsError, match=f"{file} is no UTF-8 text"):
        load_settings()


def test_a_secret_is_the_whole_line_and_its_source_says_the_file_and_who_named_it() -> None:
    Path("pass").write_bytes(b" p#ss=w0rd \r\n")
    settings = load_settings({"kafka": {"sasl_password_file": "pass"}}, env={})
    assert settings.kafka.client_config()["sasl.password"] == " p#ss=w0rd "
    told = {row.name: (row.value, row.origin) for row in origins(settings)}
    assert told["kafka.sasl_password"] == ("**********", "argument (pass)")
    with pytest.raises(SettingsError, match=r"^kafka\.sasl_password_file \(argument\): no\x00where cannot be read"):
        load_settings({"kafka.sasl_password_file": "no\0where"}, env={})


def test_a_mark_of_the_encoding_is_no_part_of_the_first_name() -> None:
    Path(".env").write_bytes(MARK + b"PROCESSOR_WORKER__CONCURRENCY=7\n")
    Path("processor.toml").write_bytes(MARK + b"[worker]\nprocesses = 3\n")
    Path("pass").write_bytes(MARK + b"hunter2")
    settings = load_settings({"kafka.sasl_password_file": "pass"})
    assert (settings.worker.concurrency, settings.worker.processes) == (7, 3)
    assert settings.kafka.client_config()["sasl.password"] == "hunter2"


TOLD_TWICE = {"PROCESSOR_KAFKA__CLIENT": "x", "PROCESSOR_KAFKA__CLIENT__SOCKET_NAGLE_DISABLE": "true"}


@pytest.mark.parametrize(
    ("env", "overrides"),
    [
        (TOLD_TWICE, {}),
        (dict(reversed(TOLD_TWICE.items())), {}),
        ({}, {"kafka.client": "socket.nagle.disable=true"}),
        ({}, {"kafka": {"client": ["socket.nagle.disable"]}}),
    ],
)
def test_a_table_is_no_value(env: dict[str, str], overrides: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"^kafka\.client \(from .+\) is a table, not one value") as caught:
        load_settings(overrides, env=env)
    assert caught.value.hint == "set kafka.client.PROPERTY, one by one"


def test_a_librdkafka_property_of_a_wrong_kind_is_named_once_with_its_source() -> None:
    Path("processor.toml").write_text('[kafka.client]\n"a.b" = [1]\n"c.d" = 2020-01-01\n"e.f" = 1.5\n')
    with pytest.raises(SettingsError) as caught:
        load_settings(env={})
    assert str(caught.value) == (
        "wrong settings: "
        "kafka.client.a.b (from processor.toml): a librdkafka property is a text, a number, true or false; "
        "kafka.client.c.d (from processor.toml): a librdkafka property is a text, a number, true or false"
    )


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("worker = 3", r"unknown setting worker \(from processor\.toml\)"),
        ("[worker.linger]\nms = 3", r"unknown setting worker\.linger\.ms"),
        ("[kafka.client.socket]\nkeepalive = true", None),
        (
            "[alerts]\nrules = [{name = 'UPPER', to = ['x']}]",
            r"alerts\.rules \(from .*\): String should match",
        ),
        ("[alerts]\nrules = [{name = 'a', to = []}]", r"alerts\.rules .*: Tuple should have at least 1 item"),
        ("[alerts]\nrules = [{name = 'a', to = ['x'], kinds = ['jobs.*']}]", r"no alert is of the kind 'jobs\.\*'"),
        ("[alerts]\nrules = [{name = 'a', to = ['x']}, {name = 'a', to = ['y']}]", "two rules have the name 'a'"),
        ("[worker]\nlinger = true", r"worker\.linger .*True is no length of time"),
        ("[topics]\nreplication = -2", r"topics\.replication .*greater than or equal to -1"),
        ("[worker]\nconcurrency = nan", r"worker\.concurrency "),
        ("[dashboard]\nport = 65536", r"dashboard\.port .*less than or equal to 65535"),
    ],
)
def test_what_a_file_says_wrongly_is_named(table: str, told: str | None) -> None:
    Path("processor.toml").write_text(table)
    if told is None:
        assert load_settings(env={}).kafka.client == {"socket.keepalive": True}
        return
    with pytest.raises(SettingsError, match=told):
        load_settings(env={})


def test_values_are_shown_as_they_can_be_written() -> None:
    given = {"worker.linger": 90, "worker.outbox_max_bytes": 2**20 * 3, "kafka.client": {"enable.x": True, "y": "z"}}
    rows = origins(load_settings(given, env={}))
    told = {row.name: row.value for row in rows if row.origin != "default"}
    assert told == {
        "worker.linger": "1m30s",
        "worker.outbox_max_bytes": "3MiB",
        "kafka.client.enable.x": "true",
        "kafka.client.y": "z",
    }
    again = load_settings({name: value for name, value in told.items() if name.startswith("worker")}, env={})
    assert (again.worker.linger, again.worker.outbox_max_bytes) == (90, 3 * 2**20)


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("ssl.key.pem", True),
        ("ssl.keystore.password", True),
        ("sasl.oauthbearer.client.secret", True),
        ("sasl.oauthbearer.token.endpoint.url", True),  # rather one too many
        ("client.rack", False),
        ("socket.timeout.ms", False),
    ],
)
def test_properties_that_may_hold_a_secret_are_masked(name: str, secret: bool) -> None:
    settings = load_settings({"kafka": {"client": {name: "hunter2"}}}, env={})
    (row,) = [row for row in origins(settings) if row.name == f"kafka.client.{name}"]
    assert row.value == ("**********" if secret else "hunter2")
    assert settings.kafka.client_config()[name] == "hunter2"
