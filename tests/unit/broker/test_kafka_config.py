"""What librdkafka is told, and what its errors are to us: no code may be met that nobody thought of."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError
from hypothesis import given
from hypothesis import strategies as st

from processor.broker.kafka import KafkaConfig, config, faults
from processor.broker.kafka.health import HealthWatch
from processor.errors import (
    AbortRequired,
    BrokerError,
    BrokerRefused,
    BrokerUnavailable,
    ProducerFatal,
    ProducerFenced,
    RecordRefused,
    RetriableBrokerError,
    SettingsError,
    StaleMembership,
    TopicRefused,
)
from processor.wire.settings_sources import load_settings

AT = "kafka.example:9092"
CODES = sorted({code for name, code in vars(KafkaError).items() if name.lstrip("_").isupper() and type(code) is int})


def test_the_codes_of_kafka_are_known() -> None:
    assert len(CODES) > 100
    assert KafkaError.NO_ERROR in CODES


@pytest.mark.parametrize("flags", [{}, {"retriable": True}, {"fatal": True}, {"txn_requires_abort": True}])
def test_every_error_of_a_transaction_says_what_to_do(flags: dict[str, bool]) -> None:
    for code in CODES:
        error = faults.transactional(KafkaError(code, "why", **flags), "commit", AT)
        told = str(error)
        assert "commit" in told, code
        assert "why" in told, code
        assert isinstance(error, RetriableBrokerError | AbortRequired | ProducerFatal | BrokerRefused), code
        if flags.get("txn_requires_abort") and code not in faults.FENCED:
            assert isinstance(error, AbortRequired), code
        if code in faults.STALE:
            assert type(error) is StaleMembership


def test_every_error_of_a_call_is_told_with_its_name_and_only_silence_is_absence() -> None:
    for code in CODES:
        error = faults.plain(KafkaError(code, "why"), "asking", AT)
        assert isinstance(error, BrokerError)
        assert (type(error) is BrokerUnavailable) is (code in faults.AWAY), code
        assert (type(error) is BrokerRefused) is (code in faults.REFUSED), code
        if code not in faults.AWAY:
            assert KafkaError(code).name() in str(error)


def test_a_fatal_error_ends_the_producer_whatever_it_is() -> None:
    for code in set(CODES) - faults.FENCED:
        assert type(faults.plain(KafkaError(code, fatal=True), "append", AT)) is ProducerFatal, code
    for code in faults.FENCED:
        assert type(faults.plain(KafkaError(code, fatal=True), "append", AT)) is ProducerFenced, code


def test_only_errors_of_the_record_itself_give_it_up() -> None:
    """What is refused becomes a dead letter; a broker that is away must never do that."""
    for code in CODES:
        error = faults.of_record(KafkaError(code), "append", AT)
        assert isinstance(error, RecordRefused) is (code in faults.BAD_RECORD | faults.NO_TOPIC), code
        assert isinstance(error, TopicRefused) is (code in faults.NO_TOPIC), code
        if code in faults.AWAY | faults.RETRIABLE - faults.NO_TOPIC:
            assert isinstance(error, BrokerUnavailable | RetriableBrokerError), code


# -- properties --------------------------------------------------------------------------------------------------------


@given(st.integers(1, 500), st.integers(1, 3_000), st.integers(9_000, 60_000))
def test_many_memberships_send_no_more_heartbeats_than_a_few_and_lose_no_session(
    peers: int, heartbeat: int, session: int
) -> None:
    chosen = KafkaConfig(bootstrap=AT, heartbeat_interval_ms=heartbeat, session_timeout_ms=session)
    each = config.heartbeat_ms(chosen, peers)
    assert each * 3 <= session
    assert heartbeat <= each, "never more often than configured"
    if each < session // 3:
        assert peers / each <= config.HEARTBEATS / heartbeat + 1e-9, "in all"
    if peers <= config.HEARTBEATS:
        assert each == heartbeat


@pytest.mark.parametrize(
    ("ahead", "expected"),
    [
        (None, {"queued.max.messages.kbytes": 16_384}),
        (64, {"queued.max.messages.kbytes": 64, "fetch.message.max.bytes": 8_192}),
    ],
)
def test_a_reader_that_keeps_little_asks_for_little(ahead: int | None, expected: dict[str, int]) -> None:
    made = config.reader(KafkaConfig(bootstrap=AT), "g", "read_committed", ahead)
    told = {name: made[name] for name in ("queued.max.messages.kbytes", "fetch.message.max.bytes") if name in made}
    assert told == expected


@pytest.mark.parametrize(("linger", "bulk"), [(0.0, 5.0), (2.0, 5.0), (20.0, 20.0)])
def test_batches_fill_before_they_leave(linger: float, bulk: float) -> None:
    chosen = KafkaConfig(bootstrap=AT, linger_ms=linger)
    assert config.producer(chosen)["linger.ms"] == linger
    assert config.bulk_producer(chosen)["linger.ms"] == bulk
    assert "delivery.report.only.error" not in config.producer(chosen)


def test_what_is_for_members_alone_is_given_to_members_alone() -> None:
    chosen = KafkaConfig(bootstrap=AT, properties={"max.poll.interval.ms": 60_000, "client.rack": "a"})
    assert config.group(chosen, "g", None)["max.poll.interval.ms"] == 60_000
    for made in (
        config.reader(chosen, "g", "read_committed"),
        config.producer(chosen),
        config.bulk_producer(chosen),
        config.transactional(chosen, "t"),
        config.common(chosen),
    ):
        assert "max.poll.interval.ms" not in made
        assert made["client.rack"] == "a"


@pytest.mark.parametrize(("instance", "expected"), [(None, None), ("3f.host-0", "3f.host-0")])
def test_only_a_static_member_has_an_instance(instance: str | None, expected: str | None) -> None:
    assert config.group(KafkaConfig(bootstrap=AT), "g", instance).get("group.instance.id") == expected


def test_settings_become_milliseconds() -> None:
    given = {
        "kafka.bootstrap": "a:1,b:2",
        "kafka.request_timeout": "2.5s",
        "kafka.client": {"client.rack": "x"},
        "worker.session_timeout": "12s",
        "worker.heartbeat": "300ms",
        "worker.group_protocol": "consumer",
        "client.linger": "1.5ms",
        "client.compression": "zstd",
    }
    made = config.from_settings(load_settings(given, env={}))
    assert (made.bootstrap, made.request_timeout_ms, made.properties["client.rack"]) == ("a:1,b:2", 2_500, "x")
    assert (made.session_timeout_ms, made.heartbeat_interval_ms) == (12_000, 300)
    assert (made.group_protocol, made.linger_ms, made.compression) == ("consumer", 1.5, "zstd")
    assert config.from_settings(load_settings(given, env={}), "c:3").bootstrap == "c:3"


@pytest.mark.parametrize(
    ("wrong", "told", "hint"),
    [
        ({"bootstrap": ""}, "bootstrap address is empty", "give host:port"),
        ({"group_protocol": "new"}, "group protocol 'new' is unknown", "use classic or consumer"),
        ({"heartbeat_interval_ms": 4_000}, "heartbeat 4000 ms is too long for a session of 10000 ms", "three heart"),
        ({"properties": {"acks": 1, "group.id": "x"}}, "Kafka property acks, group.id cannot be set", "remove it"),
    ],
)
def test_what_makes_no_sense_is_told_with_what_to_do(wrong: dict[str, Any], told: str, hint: str) -> None:
    with pytest.raises(SettingsError, match=told) as caught:
        KafkaConfig(**{"bootstrap": AT, **wrong})
    assert hint in caught.value.hint


# -- health ------------------------------------------------------------------------------------------------------------


def test_an_old_answer_takes_back_neither_a_newer_one_nor_a_refusal() -> None:
    now = [100.0]
    watch = HealthWatch(lambda: now[0])
    assert watch.now().silent_s == 0, "before the first client nothing is silent"
    watch.started()
    now[0] += 10
    watch.started()  # another client: the silence goes on
    assert watch.now().silent_s == 10
    watch.answered(2.0)
    watch.answered(5.0)
    assert watch.now().silent_s == pytest.approx(2.0)
    watch.refused("wrong password")
    watch.answered(3.0)  # statistics of a connection that has not been refused yet
    assert watch.now().refused == "wrong password"
    now[0] += 1
    watch.answered()
    assert (watch.now().refused, watch.now().ok) == ("", True)
