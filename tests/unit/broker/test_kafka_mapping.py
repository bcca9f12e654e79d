"""The pure parts of the Kafka broker: settings, errors, health."""

from __future__ import annotations

import json
import logging

import pytest
from confluent_kafka import KafkaError, KafkaException

from processor.broker.kafka import KafkaConfig, config, faults
from processor.broker.kafka.health import ClientWatch, HealthWatch
from processor.errors import (
    AbortRequired,
    BrokerError,
    BrokerRefused,
    BrokerUnavailable,
    OffsetOutOfRange,
    ProducerFatal,
    ProducerFenced,
    RecordRefused,
    RetriableBrokerError,
    SettingsError,
    StaleMembership,
    TopicRefused,
)

AT = "kafka.example:9092"


@pytest.mark.parametrize("name", ["enable.idempotence", "acks", "group.id", "isolation.level", "partitioner"])
def test_properties_that_carry_a_guarantee_are_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        KafkaConfig(bootstrap=AT, properties={name: "x"})


def test_every_property_that_carries_a_guarantee_is_owned() -> None:
    chosen = KafkaConfig(bootstrap=AT)
    passed_on = {
        *config.transactional(chosen, "t"),
        *config.producer(chosen),
        *config.group(chosen, "g", "i"),
        *config.reader(chosen, "g", "read_committed"),
    }
    ours = {name for name in passed_on if name in config.OWNED}
    assert {"transactional.id", "auto.offset.reset", "enable.idempotence", "session.timeout.ms"} <= ours


def test_security_passes_through_and_stays_out_of_repr() -> None:
    chosen = KafkaConfig(bootstrap=AT, properties={"sasl.password": "secret"})
    assert config.producer(chosen)["sasl.password"] == "secret"
    assert "secret" not in repr(chosen)


@pytest.mark.parametrize(
    "wrong", [{"bootstrap": " "}, {"group_protocol": "x"}, {"session_timeout_ms": 500, "heartbeat_interval_ms": 200}]
)
def test_settings_without_sense_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(SettingsError):
        KafkaConfig(**{"bootstrap": AT, **wrong})  # type: ignore[arg-type]  # wrong on purpose


def test_the_new_protocol_gets_no_session_of_ours() -> None:
    properties = config.group(KafkaConfig(bootstrap=AT, group_protocol="consumer"), "g", None)
    assert not {"session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy"} & set(properties)


def test_records_time_out_before_their_transaction() -> None:
    properties = config.transactional(KafkaConfig(bootstrap=AT, transaction_timeout_ms=5_000), "t")
    assert int(properties["message.timeout.ms"]) < 5_000
    assert int(properties["socket.timeout.ms"]) <= 5_000


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (KafkaError(KafkaError._TIMED_OUT), BrokerUnavailable),
        (KafkaError(KafkaError._ALL_BROKERS_DOWN), BrokerUnavailable),
        (KafkaError(KafkaError._AUTHENTICATION), BrokerRefused),
        (KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED), BrokerRefused),
        (KafkaError(KafkaError.UNSTABLE_OFFSET_COMMIT), RetriableBrokerError),
        (KafkaError(KafkaError.OFFSET_OUT_OF_RANGE), OffsetOutOfRange),
        (KafkaError(KafkaError._AUTO_OFFSET_RESET), OffsetOutOfRange),
        (KafkaError(KafkaError._FENCED, fatal=True), ProducerFenced),
        (KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART), BrokerError),
    ],
)
def test_errors_of_calls(error: KafkaError, expected: type[BrokerError]) -> None:
    assert type(faults.plain(error, "call", AT)) is expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (KafkaError(KafkaError._TIMED_OUT, retriable=True), RetriableBrokerError),
        (KafkaError(KafkaError.MSG_SIZE_TOO_LARGE, txn_requires_abort=True), AbortRequired),
        (KafkaError(KafkaError.ILLEGAL_GENERATION, txn_requires_abort=True), StaleMembership),
        (KafkaError(KafkaError.UNKNOWN_MEMBER_ID, txn_requires_abort=True), StaleMembership),
        (KafkaError(KafkaError._FENCED, fatal=True), ProducerFenced),
        (KafkaError(KafkaError.PRODUCER_FENCED), ProducerFenced),
        (KafkaError(KafkaError._STATE), ProducerFatal),
        (KafkaError(KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, fatal=True), BrokerRefused),
    ],
)
def test_errors_of_transactions(error: KafkaError, expected: type[BrokerError]) -> None:
    assert type(faults.transactional(error, "commit", AT)) is expected


def test_errors_of_records() -> None:
    for code in (KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION, KafkaError.TOPIC_AUTHORIZATION_FAILED):
        assert type(faults.of_record(KafkaError(code), "append", AT)) is TopicRefused
    assert type(faults.of_record(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE), "append", AT)) is RecordRefused
    assert type(faults.of_record(KafkaError(KafkaError._MSG_TIMED_OUT), "append", AT)) is BrokerUnavailable


def test_the_cause_is_found_behind_a_system_error() -> None:
    kafka = KafkaException(KafkaError(KafkaError._FENCED))
    system = SystemError("returned a result with an exception set")
    system.__cause__ = kafka
    assert faults.cause(system).code() == KafkaError._FENCED
    with pytest.raises(SystemError):
        faults.cause(SystemError("another"))


def test_absence_names_the_address_and_what_to_do() -> None:
    error = faults.away("commit", AT)
    assert AT in str(error)
    assert AT in error.hint


def watched() -> tuple[list[float], HealthWatch, ClientWatch]:
    now = [100.0]
    health = HealthWatch(lambda: now[0])
    return now, health, ClientWatch(health, AT)


def test_silence_is_counted_from_the_last_answer() -> None:
    now, health, watch = watched()
    now[0] += 3
    assert health.now().ok
    now[0] += 3
    assert not health.now().ok
    stats = {"brokers": {"a": {"state": "UP", "rxidle": 500_000}, "b": {"state": "DOWN", "rxidle": 1}}}
    watch.on_stats(json.dumps(stats))
    assert health.now().silent_s == pytest.approx(0.5)
    watch.on_stats(json.dumps({"brokers": {"a": {"state": "INIT", "rxidle": 0}}}))
    assert health.now().silent_s == pytest.approx(0.5)


def test_a_refusal_is_told_until_a_broker_answers() -> None:
    now, health, watch = watched()
    watch.on_error(KafkaError(KafkaError._AUTHENTICATION, "wrong password"))
    assert health.now().refused == "wrong password"
    assert isinstance(watch.reason("call"), BrokerRefused)
    now[0] += 1
    watch.answered()
    assert health.now().ok
    assert watch.reason("call") is None


def test_all_brokers_down_is_the_reason_of_a_timeout() -> None:
    _, _, watch = watched()
    watch.on_error(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    assert isinstance(watch.reason("call"), BrokerUnavailable)


def test_a_broker_that_has_just_started_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    _, _, watch = watched()
    failed = "[thrd:main]: Failed to acquire transactional PID from broker TxnCoordinator/0: Broker:"
    watch.log(logging.WARNING, "", "GETPID", "c", f"{failed} Not coordinator: retrying")
    assert caplog.text == ""
    watch.log(logging.WARNING, "", "GETPID", "c", f"{failed} Producer fenced")
    assert "kafka.client" in caplog.text


def test_breaks_are_counted_once_and_not_for_the_clients_own_doing() -> None:
    _, _, watch = watched()
    watch.log(logging.DEBUG, "", "FAIL", "c", "TxnCoordinator/1: Disconnected (after 5ms in state UP) (_TRANSPORT)")
    watch.log(logging.INFO, "", "FAIL", "c", "TxnCoordinator/1: Disconnected (after 5ms in state UP)")
    watch.log(logging.DEBUG, "", "FAIL", "c", "h/bootstrap: Decommissioning this broker (_DESTROY_BROKER)")
    watch.log(logging.DEBUG, "", "STATE", "c", "Broker changed state")
    assert watch.breaks == 1
