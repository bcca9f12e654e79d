"""Delivers the alerts of one rule, in their order, each until it has arrived.

The rule's consumer group has one partition, so of several alerters one delivers; another goes on when it dies. What has
arrived is committed afterwards: an alerter that dies in between delivers once more, under the same name.

1. The owner of the partition goes on at the committed offset; a new rule begins with what comes from now on.
2. It reads what has come, leaves out what does not concern the rule, and folds the rest.
3. It delivers to every address, ever more seldom while one does not answer; those that took it do not get it again.
   One that keeps refusing is given up after a while, and other rules are told: what it refuses holds nobody else up.
4. It commits, and waits until the fold time is over: so whoever is told hears at most once in that time, and of the
   first alert after a quiet while at once.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from typing import NamedTuple

from processor import events
from processor.alert_kinds import AlertKind
from processor.alerts.delivery import AlertRefused, AlertUndelivered, deliver, shown
from processor.alerts.routing import concerns, folded, subject_of
from processor.broker.base import (
    Broker,
    GroupConsumer,
    Membership,
    OffsetCommit,
    OutRecord,
    PartitionFault,
    Reader,
    TopicPartition,
    TransactionalProducer,
)
from processor.clock import Clock, SystemClock
from processor.errors import BrokerError, BrokerUnavailable, ProcessorError, RecordError
from processor.wire.codec import decode_alert, encode
from processor.wire.records import AlertRecord
from processor.wire.settings import AlertRule
from processor.wire.topics import alerts_topic

log = events.logger(__name__)

MOST = 1_000
"""Alerts of one delivery."""
IDLE = 0.2
"""Seconds between two looks."""
AGAIN = (1.0, 2.0, 5.0, 15.0, 60.0)
"""Seconds until an address that did not answer is tried again."""
CALL = 10.0
PATIENCE = 900.0
"""Seconds that a recipient may refuse (a deploy of its own, a lost permission) before it is given up."""


class Pending(NamedTuple):
    """What was read and has not arrived everywhere."""

    delivery: str
    """Its name, of the offsets of the first record and behind the last: the same alerts have the same."""
    alerts: list[AlertRecord]
    end: int


def alerter_group(namespace: str, rule: str) -> str:
    """The consumer group of a rule."""
    return f"{namespace}.alerters.{rule}"


class Alerter:
    """One rule. `run` on a thread of its own. Implements `RebalanceListener`."""

    def __init__(
        self,
        broker: Broker,
        namespace: str,
        rule: AlertRule,
        *,
        clock: Clock | None = None,
        pause: float = IDLE,
        patience: float = PATIENCE,
    ) -> None:
        self._broker = broker
        self._namespace = namespace
        self._rule = rule
        self._clock = clock or SystemClock()
        self._pause = pause
        self._patience = patience
        self._group = alerter_group(namespace, rule.name)
        self._place = TopicPartition(alerts_topic(namespace), 0)
        self._member: GroupConsumer | None = None
        self._membership: Membership | None = None
        self._reader: Reader | None = None
        self._pending: Pending | None = None
        self._arrived: set[str] = set()
        """Addresses that took it, while others have not."""
        self._refused_since: dict[str, float] = {}
        """Addresses that refuse, and since when (monotonic seconds), until they take something."""
        self.given_up = 0
        """Alerts that a recipient did not get since it refused them."""
        self._wait_until = 0.0

    @property
    def delivers(self) -> bool:
        """Whether this is the one that does, of all alerters."""
        return self._membership is not None

    # --- the group -----------------------------------------------------------------------------------------------

    def on_assigned(self, partitions: Sequence[TopicPartition], membership: Membership) -> None:
        # Every rebalance is a new generation, also one that moves nothing here: commits of an older one are refused.
        if partitions or self._membership is not None:
            self._membership = membership

    def on_revoked(self, partitions: Sequence[TopicPartition], membership: Membership) -> None:
        if partitions:
            self._let_go()

    def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        self._let_go()

    def _let_go(self) -> None:
        self._membership = None
        self._pending = None
        self._arrived.clear()
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    # --- the thread ----------------------------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Deliver until `stop`. Neither Kafka nor a recipient that is away ends it.

        Raises:
            ExtraMissing: the rule needs a library that is not installed.
        """
        self._member = self._broker.group_consumer(self._group)
        try:
            self._member.subscribe([self._place.topic], self)
            failures = 0
            while not stop.is_set():
                self._member.poll(0.0)
                try:
                    wait = self._turn()
                    failures = 0
                except (AlertUndelivered, BrokerError) as error:
                    wait = AGAIN[min(failures, len(AGAIN) - 1)]
                    failures += 1
                    told = {"rule": self._rule.name, "error": str(error), "again_in": wait}
                    log.warning("alerts.undelivered", extra=told)
                self._sleep(stop, wait)
        finally:
            self._let_go()
            self._member.unsubscribe()
            with contextlib.suppress(ProcessorError):
                self._member.poll(0.5)
            self._member.close()

    def _sleep(self, stop: threading.Event, seconds: float) -> None:
        """Serving the group: a member that does not poll for minutes is put out of it."""
        until = self._clock.monotonic() + seconds
        while not stop.wait(min(self._pause, max(until - self._clock.monotonic(), 0.001))):
            assert self._member is not None
            self._member.poll(0.0)
            if self._clock.monotonic() >= until:
                return

    def _turn(self) -> float:
        """Read, deliver, commit; seconds until the next time."""
        membership = self._membership
        if membership is None:
            return self._pause
        left = self._wait_until - self._clock.monotonic()
        if left > 0:
            return left
        pending = self._pending = self._pending or self._read()
        if pending is None:
            return self._pause
        if pending.alerts:
            self._deliver(pending)
        self._commit(pending.end, membership)
        self._pending = None
        self._arrived.clear()
        if pending.alerts:
            self._wait_until = self._clock.monotonic() + self._rule.fold
        return self._pause

    def _begun(self) -> Reader:
        admin, place = self._broker.admin(), self._place
        offset = admin.committed(self._group, [place])[place].offset
        if offset is None:
            offset = admin.end_offsets([place])[place]
            assert self._membership is not None
            self._commit(offset, self._membership)
        reader = self._broker.reader()
        reader.assign({place: max(offset, admin.begin_offsets([place])[place])})
        return reader

    def _read(self) -> Pending | None:
        """What has come, at most `MOST`; None: nothing."""
        reader = self._reader = self._reader or self._begun()
        start = reader.position(self._place)
        found: list[AlertRecord] = []
        faults: list[PartitionFault] = []
        while len(found) < MOST:
            batch = reader.fetch(MOST - len(found), 0.2)
            for record in batch.records:
                try:
                    found.append(decode_alert(record.value() or b""))
                except RecordError as error:
                    log.error("alerts.unreadable", extra={"offset": record.offset(), "error": str(error)})
            faults += batch.faults
            if faults or not batch.records:
                break
        end = reader.position(self._place)
        if end == start:
            # Only now: what came before a fault is read, and the reader will not give it again.
            for fault in faults:
                raise fault.error
            return None
        mine = [alert for alert in found if concerns(self._rule, alert)]
        return Pending(f"{self._rule.name}-{start}-{end}", mine, end)

    def _deliver(self, pending: Pending) -> None:
        failed: AlertUndelivered | None = None
        rule, digests = self._rule, folded(pending.alerts)
        secret = rule.secret.get_secret_value() if rule.secret is not None else ""
        for address in rule.addresses():
            if address in self._arrived:
                continue
            try:
                deliver(
                    address,
                    digests,
                    namespace=self._namespace,
                    rule=rule.name,
                    delivery=pending.delivery,
                    secret=secret,
                )
            except AlertRefused as error:
                if not self._is_over(address):
                    failed = error
                    continue
                self._give_up(address, pending, error)
                self._arrived.add(address)
            except AlertUndelivered as error:
                failed = error
            else:
                self._arrived.add(address)
                self._refused_since.pop(address, None)
                log.info("alerts.delivered", extra={"rule": rule.name, "alerts": len(pending.alerts)})
        if failed is not None:
            raise failed

    def _is_over(self, address: str) -> bool:
        """Whether an address that refuses again has done so for too long. Then it is asked once per delivery."""
        now = self._clock.monotonic()
        return now - self._refused_since.setdefault(address, now) >= self._patience

    def _give_up(self, address: str, pending: Pending, error: AlertRefused) -> None:
        """The others of the rule, and what comes next, wait no longer for this address."""
        count, name = len(pending.alerts), self._rule.name
        told = {"rule": name, "delivery": pending.delivery, "alerts": count, "given_up": self.given_up + count}
        log.error("alerts.given_up", extra={**told, "error": str(error)})
        if any(alert.kind != AlertKind.UNDELIVERED for alert in pending.alerts):
            # Not of such alerts alone: two rules that refuse would tell each other for ever.
            text = f"{shown(address)}, of alert rule {name}, does not get {count} alerts: {error}"
            alert = AlertRecord(AlertKind.UNDELIVERED, subject_of(name), self._clock.now_ms(), "", text)
            self._tell(OutRecord(self._place.topic, name.encode(), encode(alert)))
        self.given_up += count

    def _tell(self, record: OutRecord) -> None:
        answers: list[BrokerError | None] = []
        producer = self._broker.producer()
        try:
            producer.append(record, answers.append)
            producer.flush(CALL)
            producer.poll(0)
        finally:
            producer.close()
        if answers != [None]:
            # The delivery is tried again with it.
            raise answers[0] if answers and answers[0] is not None else BrokerUnavailable("an alert was not confirmed")

    def _commit(self, offset: int, membership: Membership) -> None:
        producer: TransactionalProducer = self._broker.transactional_producer(self._group)
        try:
            producer.init(CALL)
            producer.begin()
            producer.send_offsets([OffsetCommit(self._place, offset)], self._group, membership, CALL)
            producer.commit(CALL)
        finally:
            producer.close()
