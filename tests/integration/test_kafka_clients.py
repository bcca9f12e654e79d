"""What only the Kafka clients have: how little a group consumer reads, and what is said when no broker answers."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from processor.broker.base import OutRecord, TopicPartition, TopicSpec
from processor.broker.kafka import KafkaBroker, KafkaConfig
from processor.errors import BrokerError, BrokerRefused, BrokerUnavailable, RetriableBrokerError, SettingsError
from tests.conftest import Kafka
from tests.contract.scene import Member
from tests.proxy import FrameProxy
from tests.waiting import eventually

FETCH, HEARTBEAT = 1, 12
"""API keys."""


@pytest.fixture
def proxy(kafka: Kafka) -> Iterator[FrameProxy]:
    host, port = kafka.bootstrap.split(",")[0].rsplit(":", 1)
    with FrameProxy((host, int(port))) as proxy:
        yield proxy


@pytest.fixture
def nowhere() -> Iterator[str]:
    """An address where nothing listens, and nothing will during the test."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def hasty(bootstrap: str, **properties: str) -> KafkaBroker:
    return KafkaBroker(KafkaConfig(bootstrap=bootstrap, request_timeout_ms=1_000, properties=properties))


def test_a_group_consumer_fetches_nothing_and_minds_no_missing_offset(
    kafka: Kafka, proxy: FrameProxy, unique: str
) -> None:
    admin = KafkaBroker(KafkaConfig(bootstrap=kafka.bootstrap)).admin()
    where = [TopicPartition(unique, number) for number in range(8)]
    admin.create_topics([TopicSpec(name=unique, partitions=8, replication=1)])
    direct = KafkaBroker(KafkaConfig(bootstrap=kafka.bootstrap))
    producer = direct.producer()
    for number in range(80):
        producer.append(OutRecord(unique, None, b"x", None, number % 8))
    assert producer.flush(10) == 0
    producer.close()
    # Reading from offset 0 would be an error.
    admin.delete_records(dict.fromkeys(where, 5))
    config = KafkaConfig(bootstrap=proxy.bootstrap, session_timeout_ms=6_000, heartbeat_interval_ms=50)
    consumer = KafkaBroker(config).group_consumer(f"{unique}-group")
    member = Member(consumer)
    consumer.subscribe([unique], member)
    eventually(lambda: len(member.owned) == 8, 20, step=lambda: consumer.poll(0.05))
    eventually(lambda: proxy.seen[HEARTBEAT] > 20, 20, step=lambda: consumer.poll(0.05))
    assert proxy.seen[FETCH] == 0
    assert member.times("lost") == 0
    consumer.close()


def test_an_absent_broker_is_named_within_the_time_limit(nowhere: str) -> None:
    broker = hasty(nowhere)
    started = time.monotonic()
    with pytest.raises(BrokerUnavailable, match=nowhere) as caught:
        broker.admin().cluster()
    assert nowhere in caught.value.hint
    with pytest.raises(BrokerUnavailable, match=nowhere):
        broker.admin().topics()
    with pytest.raises((BrokerUnavailable, RetriableBrokerError)):
        broker.transactional_producer("x").init(1.0)
    assert time.monotonic() - started < 10
    eventually(lambda: not broker.health().ok, 10)


def test_a_broker_that_speaks_otherwise_is_not_called_absent_for_ever(kafka: Kafka) -> None:
    security = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN"}
    broker = hasty(kafka.bootstrap, **security, **{"sasl.username": "u", "sasl.password": "p"})
    with pytest.raises(BrokerError) as caught:
        broker.admin().cluster()
    assert isinstance(caught.value, BrokerRefused | BrokerUnavailable)


def test_closing_a_transactional_producer_waits_for_no_broker(kafka: Kafka, proxy: FrameProxy, unique: str) -> None:
    KafkaBroker(KafkaConfig(bootstrap=kafka.bootstrap)).admin().create_topics(
        [TopicSpec(name=unique, partitions=1, replication=1)]
    )
    writer = KafkaBroker(KafkaConfig(bootstrap=proxy.bootstrap)).transactional_producer(unique)
    writer.init(20)
    writer.begin()
    proxy.freeze()
    writer.append([OutRecord(unique, b"k", b"v")])
    with pytest.raises(RetriableBrokerError):
        writer.wait_acks(0.2)
    started = time.monotonic()
    writer.close()
    assert time.monotonic() - started < 0.5


def test_health_follows_the_brokers(kafka: Kafka, proxy: FrameProxy) -> None:
    broker = KafkaBroker(KafkaConfig(bootstrap=proxy.bootstrap))
    assert broker.health().ok
    reader = broker.reader()
    broker.admin().cluster()
    proxy.refusing = True
    proxy.cut()
    eventually(lambda: not broker.health().ok, 20, step=lambda: reader.fetch(1, 0.1))
    proxy.refusing = False
    eventually(lambda: broker.health().ok, 20, step=lambda: reader.fetch(1, 0.1))
    reader.close()


def test_an_unknown_property_is_a_settings_error(nowhere: str) -> None:
    with pytest.raises(SettingsError, match="no\\.such"):
        hasty(nowhere, **{"no.such": "x"}).producer()
