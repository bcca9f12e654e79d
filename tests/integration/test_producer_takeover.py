"""Taking over a killed producer's transactional id: whoever gave up trying does not fence who succeeded."""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from processor.broker.base import OutRecord, TopicSpec, TransactionalProducer
from processor.broker.kafka import KafkaBroker, KafkaConfig
from processor.engine.producers import initialised
from processor.errors import BrokerUnavailable, RetriableBrokerError
from tests.conftest import Kafka
from tests.waiting import eventually

VICTIM = """
import sys, time
from processor.broker.base import OutRecord
from processor.broker.kafka import KafkaBroker, KafkaConfig
producer = KafkaBroker(KafkaConfig(bootstrap=sys.argv[1])).transactional_producer(sys.argv[2])
producer.init(30)
producer.begin()
producer.append([OutRecord(sys.argv[2], b"k", b"v")])
producer.wait_acks(10)
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def _no_collector() -> Iterator[None]:
    """The collector would free by chance what must be freed by design."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collector")
def test_a_producer_that_gave_up_initialising_never_fences_its_successor(kafka: Kafka, unique: str) -> None:
    broker = KafkaBroker(KafkaConfig(bootstrap=kafka.bootstrap))
    broker.admin().create_topics([TopicSpec(name=unique, partitions=1)])
    command = [sys.executable, "-c", VICTIM, kafka.bootstrap, unique]
    folder = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == b"open\n"
        victim.kill()

    def take_over() -> list[TransactionalProducer]:
        with suppress(RetriableBrokerError, BrokerUnavailable):
            return [initialised(broker, unique, 0.12)]
        return []

    (producer,) = eventually(take_over, 20.0)
    # librdkafka tries again after 500 ms, so a client that is still there would be heard by then.
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        producer.begin()
        producer.append([OutRecord(unique, b"k", b"v")])
        producer.wait_acks(5)
        producer.commit(5)
    producer.close()
