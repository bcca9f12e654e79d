"""The transactional producer: one atomic write set after the other, for one transactional id.

Why `disturbed` exists: librdkafka speaks the old transaction protocol (its issue #5423). When a connection breaks, it
silently sends the frame again on a new one, while the old frame may still be on its way to the broker; arriving late, a
commit makes the *next, still open* transaction visible, an abort removes records of it that then "commit", an offset
commit moves an offset back. Only a new producer epoch makes such a frame harmless.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import NoReturn

from confluent_kafka import KafkaError, Message
from confluent_kafka import Producer as Client
from confluent_kafka import TopicPartition as KafkaTopicPartition

from processor.broker.base import Acks, Failure, Membership, OffsetCommit, OutRecord, TopicPartition
from processor.broker.kafka import faults
from processor.broker.kafka.config import Properties
from processor.broker.kafka.health import ClientWatch
from processor.broker.kafka.producer import connect, headers_out
from processor.errors import (
    AbortRequired,
    BrokerError,
    BrokerRefused,
    ProducerFatal,
    RecordRefused,
    RetriableBrokerError,
)


class KafkaTransactionalProducer:
    """Implements `base.TransactionalProducer`."""

    def __init__(self, properties: Properties, watch: ClientWatch, bootstrap: str) -> None:
        self._watch = watch
        self._bootstrap = bootstrap
        self._client: Client | None = Client({**properties, "error_cb": watch.on_error}, logger=watch)
        self._breaks_before = 0
        self._offsets: dict[TopicPartition, int] = {}
        self._failures: list[Failure] = []
        self._begun = False
        self._fatal: KafkaError | None = None
        self._poisoned = ""
        """Why the open transaction cannot commit, although librdkafka would let it."""

    def init(self, timeout: float) -> None:
        """Fence predecessors and end what they left open."""
        client = self._open()
        deadline = time.monotonic() + timeout
        connect(client, min(1.0, timeout / 2))
        try:
            client.init_transactions(max(0.1, deadline - time.monotonic()))
        except faults.RAISED as exception:
            self._fail(exception, "init_transactions")
        self._serve(0)
        self._breaks_before = self._watch.breaks
        self._watch.answered()

    def begin(self) -> None:
        """Open a transaction: a local act."""
        client = self._open()
        self._serve(0)
        self._breaks_before = self._watch.breaks
        self._offsets, self._failures, self._poisoned = {}, [], ""
        try:
            client.begin_transaction()
        except faults.RAISED as exception:
            self._fail(exception, "begin_transaction")
        self._begun = True

    def append(self, records: Iterable[OutRecord], *, watch: bool = False) -> None:
        """Append to the open transaction."""
        client = self._open()
        produce = client.produce
        for record in records:
            topic, key, value, headers, number = record
            report = partial(self._reported, record) if watch else None
            while True:
                try:
                    if headers is None:
                        produce(topic, value, key, number, report)
                    else:
                        produce(topic, value, key, number, report, headers=headers_out(headers))
                    break
                except BufferError:
                    self._serve(0.05)
                except faults.RAISED as exception:
                    self._refused_here(record, faults.cause(exception), watch)
                    break
                except (TypeError, ValueError, OverflowError) as exception:
                    # Not even a record: a topic or header that is no text, a partition that is no number.
                    self._poisoned = f"append to {record.topic!r}: {exception}"
                    self._failures.append(Failure(record, RecordRefused(self._poisoned)))
                    break

    def wait_acks(self, timeout: float) -> Acks:
        """Wait until everything appended was acknowledged or refused."""
        client = self._open()
        try:
            waiting = client.flush(timeout)
        except faults.RAISED as exception:
            self._fail(exception, "append")
        if waiting:
            reason = self._watch.reason("append")
            raise reason or RetriableBrokerError(f"append: {waiting} records not acknowledged in {timeout:g} s")
        return Acks(offsets=dict(self._offsets), failures=tuple(self._failures))

    def send_offsets(self, offsets: Sequence[OffsetCommit], group: str, membership: Membership, timeout: float) -> None:
        """Commit offsets with the transaction, fenced by `membership`. `group` is named for the messages only: the
        membership carries it.
        """
        client = self._open()
        self._check_poison("send_offsets")
        positions = [
            KafkaTopicPartition(topic, number, offset, metadata) for (topic, number), offset, metadata in offsets
        ]
        try:
            client.send_offsets_to_transaction(positions, membership, timeout)
        except faults.RAISED as exception:
            self._fail(exception, f"send_offsets of group {group}")

    def commit(self, timeout: float) -> None:
        """Commit. After a RetriableBrokerError call it again: the commit may have happened already."""
        client = self._open()
        self._check_poison("commit")
        try:
            client.commit_transaction(timeout)
        except faults.RAISED as exception:
            self._fail(exception, "commit")
        self._begun = False
        self._serve(0)
        self._watch.answered()

    def abort(self, timeout: float) -> None:
        """Abort. After a RetriableBrokerError call it again."""
        client = self._open()
        try:
            client.abort_transaction(timeout)
        except faults.RAISED as exception:
            self._fail(exception, "abort")
        self._begun = False
        self._serve(0)

    @property
    def disturbed(self) -> bool:
        """Whether a connection of this producer broke since `begin`."""
        self._serve(0)
        return self._watch.breaks != self._breaks_before

    def close(self) -> None:
        """Let go at once. An open transaction stays open until its successor's `init` or its timeout."""
        client, self._client = self._client, None
        if client is not None:
            # Freeing the client joins its threads, which may wait for a dead broker: that must not hold anybody up.
            threading.Thread(target=_free, args=([client],), name="kafka-free", daemon=True).start()

    def _open(self) -> Client:
        if self._client is None:
            raise ProducerFatal("the transactional producer is closed")
        return self._client

    def _reported(self, record: OutRecord, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._note(record, faults.of_record(error, f"append to {record.topic}", self._bootstrap))
            return
        topic, number, offset = message.topic(), message.partition(), message.offset()
        if topic is None or number is None or offset is None:
            return
        where = TopicPartition(topic, number)
        if offset > self._offsets.get(where, -1):
            self._offsets[where] = offset

    def _note(self, record: OutRecord, failure: BrokerError) -> None:
        """Only culprits: one bad record makes librdkafka purge all others of its transaction."""
        if isinstance(failure, RecordRefused | BrokerRefused):
            self._failures.append(Failure(record, failure))

    def _refused_here(self, record: OutRecord, error: KafkaError, watch: bool) -> None:
        """librdkafka would commit without a record that it refused on the spot: it dooms only what a broker refused."""
        doing = f"append to {record.topic}"
        if error.code() == KafkaError._STATE:
            # The transaction is doomed already, or the producer is: only its callbacks tell.
            self._serve(0)
            if self._begun and self._fatal is None:
                raise AbortRequired(faults.explain(error, doing))
            error = self._fatal or error
        if error.fatal() or error.code() in faults.FENCED or error.code() == KafkaError._STATE:
            raise faults.transactional(error, doing, self._bootstrap)
        failure = faults.of_record(error, doing, self._bootstrap)
        if watch:
            self._note(record, failure)
        self._poisoned = self._poisoned or str(failure)

    def _check_poison(self, doing: str) -> None:
        if self._poisoned:
            raise AbortRequired(f"{doing}: {self._poisoned}")

    def _serve(self, timeout: float) -> None:
        """Run callbacks. A fatal error that shows up here is raised again by the next call of the transaction."""
        if self._client is not None:
            try:
                self._client.poll(timeout)
            except faults.RAISED as exception:
                self._fatal = faults.cause(exception)

    def _fail(self, exception: BaseException, doing: str) -> NoReturn:
        cause = faults.cause(exception)
        if cause.fatal():
            self._fatal = cause
        self._serve(0)
        error = faults.transactional(cause, doing, self._bootstrap)
        if isinstance(error, RetriableBrokerError):
            raise self._watch.reason(doing) or error from exception
        raise error from exception


def _free(clients: list[Client]) -> None:
    client = clients.pop()
    client.purge(in_queue=True, in_flight=True, blocking=False)
    del client
