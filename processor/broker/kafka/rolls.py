"""Who is in a group, and what each owns.

By librdkafka's old synchronous call (DescribeGroups), not by AdminClient.describe_consumer_groups: when a coordinator
goes away while that call is under way, librdkafka 2.16 aborts the whole process (an assertion in
rd_kafka_enq_once_del_source_return). The old call gives a member's assignment as the bytes of Kafka's consumer protocol
and no instance id; but a static member's id is its instance id and a UUID (GroupCoordinator, all supported versions).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from processor.broker.base import Member, TopicPartition
from processor.broker.kafka import faults
from processor.errors import BrokerError, RetriableBrokerError

_UUID = re.compile(r"(.+)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.DOTALL)


def members_of(client: AdminClient, group: str, timeout: float, bootstrap: str) -> list[Member]:
    """Present members of a group; none if no coordinator knows it (now: it may be moving).

    Raises:
        RetriableBrokerError: not all brokers answered.
    """
    doing = f"members of group {group}"
    try:
        # Deprecated in favour of the one that aborts. Its stubs say None for every field that is filled in later.
        found: list[Any] = list(client.list_groups(group, timeout))
    except KafkaException as exception:
        reason = faults.cause(exception)
        if reason.code() in faults.REFUSED:
            raise faults.refused(faults.explain(reason, doing), bootstrap) from exception
        raise RetriableBrokerError(faults.explain(reason, doing)) from exception
    for described in found:
        if described.id == group:
            if described.error is not None:
                raise RetriableBrokerError(faults.explain(described.error, doing))
            return [
                Member(
                    member_id=member.id,
                    instance_id=_instance(member.id, member.client_id),
                    client_id=member.client_id,
                    partitions=tuple(assigned(member.assignment)),
                )
                for member in described.members
            ]
    return []


def assigned(data: bytes) -> Sequence[TopicPartition]:
    """The partitions in a consumer-protocol assignment (version, topics with their partitions, user data).

    Raises:
        BrokerError: the bytes are not one.
    """
    if not data:
        return []
    try:
        (count,) = struct.unpack_from(">i", data, 2)
        at = 6
        found: list[TopicPartition] = []
        for _ in range(count):
            (size,) = struct.unpack_from(">h", data, at)
            topic = data[at + 2 : at + 2 + size].decode()
            at += 2 + size
            (partitions,) = struct.unpack_from(">i", data, at)
            found += [TopicPartition(topic, p) for p in struct.unpack_from(f">{partitions}i", data, at + 4)]
            at += 4 + 4 * partitions
    except (struct.error, UnicodeDecodeError) as error:
        raise BrokerError(f"a member's assignment does not read as the consumer protocol's: {error}") from error
    return found


def _instance(member_id: str, client_id: str) -> str | None:
    match = _UUID.fullmatch(member_id)
    return match[1] if match and match[1] != client_id else None
