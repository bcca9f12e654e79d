"""Membership in a consumer group, without reading anything: the lanes are read by a `Reader`.

The partitions of the group are assigned to librdkafka (it must believe that it owns them) and paused at once, so that
nothing is ever fetched here: a normal lane with a backlog would otherwise share a queue with the group's own events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaTopicPartition

from processor import events
from processor.broker.base import Membership, RebalanceListener, TopicPartition
from processor.broker.kafka import faults
from processor.broker.kafka.config import Properties
from processor.broker.kafka.health import ClientWatch
from processor.errors import BrokerError, MemberFenced

log = events.logger("processor.broker.kafka")

INSTANCE_FENCED = frozenset(
    {KafkaError.FENCED_INSTANCE_ID, KafkaError.UNRELEASED_INSTANCE_ID, KafkaError.FENCED_MEMBER_EPOCH}
)


def ours(partitions: Sequence[KafkaTopicPartition]) -> list[TopicPartition]:
    """librdkafka's partitions as ours."""
    return [TopicPartition(item.topic, item.partition) for item in partitions]


class KafkaGroupConsumer:
    """Implements `base.GroupConsumer`."""

    def __init__(self, properties: Properties, watch: ClientWatch, bootstrap: str) -> None:
        self._watch = watch
        self._bootstrap = bootstrap
        self._consumer = Consumer({**properties, "error_cb": watch.on_error, "stats_cb": watch.on_stats}, logger=watch)
        self._closed = False

    def subscribe(self, topics: Sequence[str], listener: RebalanceListener) -> None:
        """Join the group at the next polls."""
        on_assigned, on_revoked, on_lost = _callbacks(listener)
        self._consumer.subscribe(list(topics), on_assign=on_assigned, on_revoke=on_revoked, on_lost=on_lost)

    def poll(self, timeout: float) -> None:
        """Serve the group; what the listener raises comes out here."""
        try:
            message = self._consumer.poll(timeout)
        except faults.RAISED as exception:
            raise self._over(faults.cause(exception)) from exception
        if message is not None:
            self._event(message)
        if self._watch.fatal is not None:
            raise self._over(self._watch.fatal)
        if self._watch.refused:
            reason, self._watch.refused = self._watch.refused, ""
            raise faults.refused(reason, self._bootstrap)

    def membership(self) -> Membership:
        """The group metadata of this moment."""
        return Membership(self._consumer.consumer_group_metadata())

    def unsubscribe(self) -> None:
        """Leave for good. A static member that only closes keeps its partitions until its session times out."""
        self._consumer.unsubscribe()

    def close(self) -> None:
        """Close; a dynamic member that has not left yet leaves, which runs `on_revoked`."""
        if not self._closed:
            self._closed = True
            try:
                self._consumer.close()
            except faults.RAISED as exception:
                # A fenced member that learns of it only now. confluent_kafka 2.16.1 trips over its own error here:
                # "SystemError: _PyErr_SetObject: exception <class 'str'> is not a BaseException subclass".
                log.warning("kafka.group_close_failed", extra={"error": str(exception)})

    def _event(self, message: Message) -> None:
        error = message.error()
        if error is None:
            # Fetched in the instant between assign and pause; the reader delivers it.
            return
        code = error.code()
        if code in INSTANCE_FENCED or error.fatal() or code == KafkaError._FATAL:
            raise self._over(error)
        if code in faults.REFUSED:
            raise faults.refused(faults.explain(error, "poll group"), self._bootstrap)
        log.warning("kafka.group_event", extra={"error": error.name(), "text": error.str(), "topic": message.topic()})

    def _over(self, error: KafkaError) -> BrokerError:
        text = faults.explain(error, "poll group")
        if error.code() in INSTANCE_FENCED or "fenced" in error.str().lower():
            return MemberFenced(text, hint="another process runs with this instance id: stop one of them")
        return BrokerError(text)


Callback = Callable[[Consumer, list[KafkaTopicPartition]], None]


def _callbacks(listener: RebalanceListener) -> tuple[Callback, Callback, Callback]:
    """Each hands librdkafka's bookkeeping its due even when the listener raises: otherwise the member stays in the
    middle of a rebalance for ever and holds up the whole group.
    """

    def on_assigned(consumer: Consumer, partitions: list[KafkaTopicPartition]) -> None:
        membership = Membership(consumer.consumer_group_metadata())
        # Any absolute offset may be out of range, and is fetched now and then before the pause has arrived (measured:
        # one Fetch request in three assignments). The end must be looked up first, and by then the pause is there.
        consumer.incremental_assign([KafkaTopicPartition(p.topic, p.partition, OFFSET_END) for p in partitions])
        if partitions:
            consumer.pause(partitions)
        listener.on_assigned(ours(partitions), membership)

    def on_revoked(consumer: Consumer, partitions: list[KafkaTopicPartition]) -> None:
        # The generation has moved on before this runs: an older membership could not commit any more.
        membership = Membership(consumer.consumer_group_metadata())
        try:
            listener.on_revoked(ours(partitions), membership)
        finally:
            consumer.incremental_unassign(partitions)

    def on_lost(consumer: Consumer, partitions: list[KafkaTopicPartition]) -> None:
        try:
            listener.on_lost(ours(partitions))
        finally:
            # Refused once librdkafka has dropped the assignment itself (fenced instance): nothing is left to do then.
            with suppress(KafkaException):
                consumer.incremental_unassign(partitions)

    return on_assigned, on_revoked, on_lost
