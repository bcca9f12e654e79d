"""Who is in a group, read from the bytes of Kafka's consumer protocol."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from hypothesis import given
from hypothesis import strategies as st

from processor.broker.base import TopicPartition
from processor.broker.kafka.rolls import assigned, members_of
from processor.errors import BrokerError, BrokerRefused, RetriableBrokerError

TOPICS = st.dictionaries(st.text("abö.-_9", min_size=1, max_size=20), st.lists(st.integers(0, 2**31 - 1), max_size=5))


def protocol(topics: dict[str, list[int]], version: int = 1, user_data: bytes = b"") -> bytes:
    """ConsumerProtocolAssignment: version, [topic, [partition]], user data."""
    out = struct.pack(">hi", version, len(topics))
    for topic, partitions in topics.items():
        name = topic.encode()
        out += struct.pack(">h", len(name)) + name
        out += struct.pack(f">i{len(partitions)}i", len(partitions), *partitions)
    return out + struct.pack(">i", len(user_data)) + user_data


@given(TOPICS, st.integers(0, 3), st.binary(max_size=10))
def test_every_partition_of_every_topic_is_read(topics: dict[str, list[int]], version: int, user_data: bytes) -> None:
    wanted = [TopicPartition(topic, number) for topic, numbers in topics.items() for number in numbers]
    assert list(assigned(protocol(topics, version, user_data))) == wanted


def test_a_member_without_an_assignment_owns_nothing() -> None:
    assert list(assigned(b"")) == []
    assert list(assigned(protocol({}))) == []


@given(TOPICS.filter(bool), st.data())
def test_bytes_that_end_early_are_no_assignment(topics: dict[str, list[int]], data: st.DataObject) -> None:
    whole = protocol(topics)[:-4]
    cut = data.draw(st.integers(1, len(whole) - 1))
    with pytest.raises(BrokerError, match="does not read as the consumer protocol's"):
        assigned(whole[:cut])


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">hih", 1, 1, 2) + b"\xff\xff" + struct.pack(">ii", 1, 0),
        struct.pack(">hih", 1, 1, 1) + b"t" + struct.pack(">i", -1),
        struct.pack(">hih", 1, 1, 1) + b"t" + struct.pack(">i", 2**31 - 1),
        struct.pack(">hi", 1, 2**31 - 1),
    ],
    ids=["no UTF-8", "a negative count", "a huge count", "huge topics"],
)
def test_bytes_of_another_kind_are_no_assignment(data: bytes) -> None:
    with pytest.raises(BrokerError, match="does not read as the consumer protocol's"):
        assigned(data)


def group(name: str, members: list[Any], error: KafkaError | None = None) -> Any:
    return SimpleNamespace(id=name, error=error, members=members)


def answering(answer: object) -> Any:
    """An admin client: what librdkafka answers to the question for a group."""

    def list_groups(name: str, timeout: float) -> object:
        assert (name, timeout) == ("shop.jobs.q", 5.0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return SimpleNamespace(list_groups=list_groups)


UUID = "-8f2c1a90-1b2c-4d5e-8f90-0123456789ab"


@pytest.mark.parametrize(
    ("member_id", "instance"),
    [
        ("3f.host-0" + UUID, "3f.host-0"),
        ("a\nb" + UUID, "a\nb"),
        ("processor" + UUID, None),  # of a dynamic member: its client's id
        ("3f.host-0", None),
        (UUID, None),
    ],
)
def test_the_instance_of_a_member_stands_in_its_id(member_id: str, instance: str | None) -> None:
    told = SimpleNamespace(id=member_id, client_id="processor", assignment=protocol({"shop.jobs.q": [2, 0]}))
    (member,) = members_of(answering([group("shop.jobs.q", [told])]), "shop.jobs.q", 5.0, "k:1")
    assert (member.member_id, member.instance_id, member.client_id) == (member_id, instance, "processor")
    assert list(member.partitions) == [("shop.jobs.q", 2), ("shop.jobs.q", 0)]


def test_a_group_that_no_coordinator_knows_is_empty() -> None:
    assert members_of(answering([]), "shop.jobs.q", 5.0, "k:1") == []
    assert members_of(answering([group("shop.jobs.q2", [object()])]), "shop.jobs.q", 5.0, "k:1") == []


@pytest.mark.parametrize(
    ("answer", "kind", "told"),
    [
        (KafkaException(KafkaError(KafkaError._TIMED_OUT)), RetriableBrokerError, "members of group shop.jobs.q"),
        (KafkaException(KafkaError(KafkaError._PARTIAL)), RetriableBrokerError, "members of group shop.jobs.q"),
        (
            KafkaException(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)),
            BrokerRefused,
            "Kafka at k:1 refused: members of group shop.jobs.q",
        ),
        (
            [group("shop.jobs.q", [], KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS))],
            RetriableBrokerError,
            "COORDINATOR_LOAD_IN_PROGRESS",
        ),
    ],
)
def test_silence_is_not_an_empty_group(answer: object, kind: type[BrokerError], told: str) -> None:
    """Else a living slot would count as gone, and its open transaction would be ended."""
    with pytest.raises(kind, match=told) as caught:
        members_of(answering(answer), "shop.jobs.q", 5.0, "k:1")
    assert type(caught.value) is kind
