"""Settings: sources, precedence, origins, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from processor.broker.kafka.config import OWNED
from processor.errors import SettingsError
from processor.wire.settings import (
    GROUPS,
    REFUSED_CLIENT_PROPERTIES,
    Settings,
    format_size,
    parse_size,
)
from processor.wire.settings_sources import known_names, load_settings, origins
from processor.wire.topics import TopicShape


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def origin(settings: Settings, name: str) -> str:
    return next(row.origin for row in origins(settings) if row.name == name)


def test_every_setting_is_described_and_has_a_default() -> None:
    for model in GROUPS.values():
        for name, info in model.model_fields.items():
            assert info.description, name
            assert info.description.endswith("."), name
            assert not info.is_required(), name


def test_the_defaults_are_valid_and_agree_with_the_plan() -> None:
    settings = load_settings(env={})
    assert settings.worker.linger == 0.02
    assert settings.worker.outbox_max_bytes == 32 * 2**20
    assert settings.topics.shape() == TopicShape()
    assert {row.origin for row in origins(settings)} == {"default"}
    assert {row.name for row in origins(settings)} == set(known_names()) - {"kafka.client"}


def test_the_nearest_source_wins() -> None:
    Path("processor.toml").write_text('[worker]\nlinger = "1s"\ngrace = 1\nwatchdog = "1m"\nconcurrency = 7\n')
    Path("other.env").write_text(
        "PROCESSOR_WORKER__LINGER=2s\nPROCESSOR_WORKER__GRACE=2s\nPROCESSOR_WORKER__WATCHDOG=2m"
    )
    env = {"PROCESSOR_WORKER__LINGER": "3s", "PROCESSOR_WORKER__GRACE": "3s"}
    settings = load_settings({"worker.linger": "4s", "worker.grace": None}, env=env, dotenv_path="other.env")
    worker = settings.worker
    assert (worker.linger, worker.grace, worker.watchdog, worker.concurrency) == (4, 3, 120, 7)
    assert origin(settings, "worker.linger") == "argument"
    assert origin(settings, "worker.grace") == "PROCESSOR_WORKER__GRACE"
    assert origin(settings, "worker.watchdog") == ".env PROCESSOR_WORKER__WATCHDOG"
    assert origin(settings, "worker.concurrency") == "processor.toml"
    assert origin(settings, "worker.heartbeat") == "default"


def test_the_process_environment_and_dotenv_are_read_unless_others_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROCESSOR_WORKER__GRACE", "5s")
    Path(".env").write_text("PROCESSOR_WORKER__LINGER=6s\nPROCESSOR_LONELY\nOTHER=1\n")
    settings = load_settings()
    assert (settings.worker.grace, settings.worker.linger) == (5, 6)
    assert load_settings(env={}).worker.linger == 0.02


def test_arguments_may_be_nested() -> None:
    assert load_settings({"worker": {"linger": 1}}, env={}).worker.linger == 1


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("worker.lingr", "worker.linger"),
        ("kafka.bootstrap_servers", "kafka.bootstrap"),
        ("wrker.grace", "worker.grace"),
    ],
)
def test_an_unknown_name_names_the_nearest(name: str, near: str) -> None:
    with pytest.raises(SettingsError, match=f"unknown setting {name}") as caught:
        load_settings({name: 1}, env={})
    assert near in caught.value.hint


def test_unknown_variables_and_tables_are_errors() -> None:
    with pytest.raises(SettingsError, match="unknown setting speed"):
        load_settings(env={"PROCESSOR_SPEED": "1"})
    Path("processor.toml").write_text("[warker]\nlinger = 1\n")
    with pytest.raises(SettingsError, match=r"unknown setting warker.linger \(from processor.toml\)"):
        load_settings(env={})


def test_foreign_variables_are_left_alone() -> None:
    load_settings(env={"PROCESSOR_APP": "shop:app", "PROCESSOR_DEBUG": "1", "PATH": "/bin", "PROCESSOR_TEST_X": "1"})
    load_settings(env={"PROCESSOR_OUTBOX_DATABASE": "sqlite:///shop.db"})


def test_wrong_values_are_named_all_at_once_with_their_source() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({"worker.concurrency": 0}, env={"PROCESSOR_WORKER__LINGER": "soon"})
    text = str(caught.value)
    assert "worker.concurrency (from argument): " in text
    assert "worker.linger (from PROCESSOR_WORKER__LINGER): " in text
    assert '"1h30m"' in text


def test_a_group_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(SettingsError, match="a third of session_timeout"):
        load_settings({"worker.heartbeat": "5s"}, env={})


def test_secrets_are_masked_and_come_from_files() -> None:
    Path("secret").write_text("hunter2\n")
    settings = load_settings(env={"PROCESSOR_KAFKA__SASL_PASSWORD_FILE": "secret"})
    assert settings.kafka.sasl_password == SecretStr("hunter2")
    assert origin(settings, "kafka.sasl_password") == "PROCESSOR_KAFKA__SASL_PASSWORD_FILE (secret)"
    assert "hunter2" not in repr(settings) + repr(origins(settings))
    assert settings.kafka.client_config()["sasl.password"] == "hunter2"
    with pytest.raises(SettingsError, match="nowhere cannot be read"):
        load_settings(env={"PROCESSOR_KAFKA__SASL_PASSWORD_FILE": "nowhere"})


def test_client_properties_pass_through() -> None:
    Path("processor.toml").write_text('[kafka.client]\n"socket.timeout.ms" = 5000\n"ssl.key.pem" = "PRIVATE"\n')
    settings = load_settings(env={"PROCESSOR_KAFKA__CLIENT__SOCKET_KEEPALIVE_ENABLE": "true"})
    config = settings.kafka.client_config()
    assert config["socket.timeout.ms"] == 5000
    assert config["socket.keepalive.enable"] == "true"
    assert config["security.protocol"] == "PLAINTEXT"
    assert "PRIVATE" not in repr(origins(settings))
    assert origin(settings, "kafka.client.socket.timeout.ms") == "processor.toml"


@pytest.mark.parametrize("name", sorted(REFUSED_CLIENT_PROPERTIES))
def test_properties_that_the_guarantees_need_are_refused_with_the_reason(name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({"kafka": {"client": {name: "x"}}}, env={})
    assert f"{name} may not be set: {REFUSED_CLIENT_PROPERTIES[name]}" in str(caught.value)


def test_a_broken_or_missing_file_is_named() -> None:
    Path("bad.toml").write_text("[worker\n")
    with pytest.raises(SettingsError, match=r"bad.toml is not valid TOML"):
        load_settings(toml_path="bad.toml", env={})
    with pytest.raises(SettingsError, match=r"none.toml cannot be read"):
        load_settings(toml_path="none.toml", env={})


@given(st.integers(0, 2**40))
def test_sizes_read_back(size: int) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize("nonsense", ["", "big", "-1", -1, True, None, "1.5MB", "1XB"])
def test_nonsense_is_no_size(nonsense: object) -> None:
    with pytest.raises(ValueError, match="no size"):
        parse_size(nonsense)


def test_whatever_the_kafka_broker_owns_is_refused_here_already() -> None:
    assert set(REFUSED_CLIENT_PROPERTIES) >= OWNED


def test_what_kubernetes_sets_for_a_service_of_our_name_is_no_setting() -> None:
    injected = {
        "PROCESSOR_SERVICE_HOST": "10.0.0.7",
        "PROCESSOR_SERVICE_PORT": "9100",
        "PROCESSOR_SERVICE_PORT_HTTP_METRICS": "9100",
        "PROCESSOR_PORT": "tcp://10.0.0.7:9100",
        "PROCESSOR_PORT_9100_TCP": "tcp://10.0.0.7:9100",
        "PROCESSOR_PORT_9100_TCP_PROTO": "tcp",
        "PROCESSOR_PORT_9100_TCP_PORT": "9100",
        "PROCESSOR_PORT_9100_TCP_ADDR": "10.0.0.7",
        "PROCESSOR_WEB_SERVICE_HOST": "10.0.0.8",
        "PROCESSOR_WEB_PORT": "tcp://10.0.0.8:80",
    }
    assert {row.origin for row in origins(load_settings(env=injected))} == {"default"}


@pytest.mark.parametrize("name", ["PROCESSOR_WORKER__PORT", "PROCESSOR_SERVICE__PORT", "PROCESSOR_KAFKA_BOOTSTRAP"])
def test_what_looks_like_a_setting_and_is_none_stays_an_error(name: str) -> None:
    with pytest.raises(SettingsError, match="unknown setting"):
        load_settings(env={name: "tcp://10.0.0.7:9100"})
