"""What the roles beside the jobs have in common: a group, a producer and a thread of their own, and one loop.

A role is built like the engine: consume, decide (pure), flush. In one turn it

1. takes what its flusher says, and replaces one that is stuck;
2. serves its group: partitions come (`_take`) and go (`_drop`);
3. makes its producer ready, if that is wanted and the pace allows it;
4. does its own work (`_work`), which may submit one flush.

A revoke waits for the flush under way: what the role has given out is committed, or dropped, before the next owner.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Generic

from processor import events
from processor.broker.base import Broker, GroupConsumer, Membership, TopicPartition
from processor.engine.batch import C, FlushBatch, FlushResult
from processor.engine.fence import Fence
from processor.engine.flush import Flusher
from processor.engine.pace import Pace
from processor.errors import BrokerError, MemberFenced, StaleMembership
from processor.runtime import Inbox, Runtime
from processor.wire.groups import instance_name

if TYPE_CHECKING:
    from processor.engine.config import WorkerConfig
    from processor.engine.counters import Counters

log = events.logger(__name__)

IDLE = 0.05
"""Seconds between two looks at most, of a role that has work."""
AGAIN = 0.2
"""Seconds after an error of the cluster."""
LET_GO = 5.0
"""Seconds that a revoke waits for the flush under way."""

Refused = dict[int, BrokerError]
"""By the `id` of the record that the broker would not take."""


class RoleFlush(Generic[C]):
    """The flushes of one role: its flusher, the fence of its group, and the batch under way."""

    def __init__(self, fence: Fence, pace: Pace) -> None:
        self.fence = fence
        self.in_flight: FlushBatch[C] | None = None
        self.prepared = False
        """The producer is ready: what a predecessor in this slot left open is ended."""
        self.flusher: Flusher[C] | None = None
        self._pace = pace
        self._prepares = False
        """A producer is to be made ready once the pace allows it: a successor in this slot is heard of before."""
        self._watch_all = False

    def begin(self, flusher: Flusher[C]) -> None:
        """Have a producer from now on."""
        self.flusher = flusher
        flusher.prepare()

    def prepare_if_due(self, now: float) -> None:
        """Make a producer ready if one is wanted, at `now` (monotonic seconds)."""
        if self._prepares and self.flusher is not None and self._pace.allows(now):
            self._prepares = False
            self.flusher.prepare()

    def replace_stuck(self, now: float) -> FlushResult[C] | None:
        """Leave a flusher behind that does not come back; how its batch went, None if there is none to speak of."""
        if self.flusher is None or not self.flusher.is_stuck(now):
            return None
        self.flusher, result = self.flusher.replaced()
        if result.batch.parts:
            return result
        self.flusher.prepare()
        return None

    def membership(self, now: float) -> Membership | None:
        """What a flush at `now` presents; None: none may go now."""
        if self.flusher is None or self.in_flight is not None or not self._pace.allows(now):
            return None
        return self.fence.snapshot(now)

    def submit(self, parts: list[C], membership: Membership, records: int) -> None:
        """Flush these, as the `membership` that was asked for."""
        assert self.flusher is not None
        self.in_flight = FlushBatch(
            parts=parts, memberships={self.fence.group: membership}, watch_all=self._watch_all, records=records
        )
        self.fence.froze()
        self.flusher.submit(self.in_flight)

    def ended(self, result: FlushResult[C], now: float) -> Refused | None:
        """A result has come; which records the broker refused, None: it says nothing of the batch under way.

        Raises:
            BrokerError: the producer could not be made ready; it will be tried again.
        """
        if not result.batch.parts:
            self.prepared = result.error is None
            self._prepares = not self.prepared
            if result.error is not None:
                self._pace.ended(result.error, now)
                raise result.error
            return None
        if result.batch is not self.in_flight:
            return None
        self.in_flight = None
        self._pace.ended(result.error, now)
        if isinstance(result.error, StaleMembership):
            self.fence.refused(now)
        refused = {id(failure.record): failure.error for failure in result.acks.failures}
        self._watch_all = result.error is not None and not refused
        return refused

    def renew(self) -> None:
        """Whether the last flush is committed must be known before the next one: a new producer ends it."""
        self.prepared, self._prepares = False, True


class Role(ABC, Generic[C]):
    """One role of a worker, on a thread of its own. Implements `RebalanceListener`."""

    name: ClassVar[str]

    def __init__(self, runtime: Runtime, broker: Broker, config: WorkerConfig, counters: Counters, group: str) -> None:
        self._runtime = runtime
        self._clock = runtime.clock
        self._broker = broker
        self._config = config
        self._counters = counters
        self._inbox: Inbox[FlushResult[C]] = Inbox(runtime)
        self._flush: RoleFlush[C] = RoleFlush(Fence(group), Pace(config.membership_proof))
        self._assignments = 0
        self._stopping = False

    def start(self) -> None:
        """Start the thread."""
        self._actor = self._runtime.start(self.name, self._run)

    def stop(self, timeout: float) -> bool:
        """End the thread in good order; whether it ended in time."""
        self._stopping = True
        self._inbox.wake()
        return self._actor.join(timeout)

    # --- what a role is ------------------------------------------------------------------------------------------

    @abstractmethod
    def _topics(self) -> Sequence[str]:
        """What its group subscribes to."""

    @abstractmethod
    def _open(self) -> None:
        """Open what it needs, on its thread."""

    @property
    def _may_subscribe(self) -> bool:
        """Whether it is ready for partitions."""
        return True

    @property
    @abstractmethod
    def _owns(self) -> bool:
        """Whether it has any partition now."""

    @abstractmethod
    def _take(self, place: TopicPartition, assignment: int) -> None:
        """A partition is its own now."""

    @abstractmethod
    def _work(self, now: float) -> int:
        """Its own part of a turn; how much happened."""

    @abstractmethod
    def _pause(self) -> float:
        """Seconds until there may be something to do."""

    @abstractmethod
    def _committed(self, load: C) -> None:
        """What it gave out for a partition that is still its own is in the log."""

    @abstractmethod
    def _failed(self, load: C, refused: Refused) -> None:
        """It is not, as far as is known."""

    @abstractmethod
    def _drop(self, partitions: Sequence[TopicPartition]) -> None:
        """These are its own no more."""

    @abstractmethod
    def _shut(self) -> None:
        """Close what was opened."""

    # --- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        config, group = self._config, self._flush.fence.group
        self._open()
        instance = instance_name(group, config.slot) if config.static else None
        self._member: GroupConsumer = self._broker.group_consumer(group, instance_id=instance)
        try:
            self._serve()
        except MemberFenced as error:
            # Another process has this slot: the engine hears of it as well, and ends the process.
            log.error("role.fenced", extra={"role": self.name, "error": str(error)})
        finally:
            if self._flush.flusher is not None:
                self._flush.flusher.stop(1.0)
            self._shut()
            self._member.close()

    def _serve(self) -> None:
        subscribed = False
        while not self._stopping:
            if not subscribed and self._may_subscribe:
                self._member.subscribe(list(self._topics()), self)
                subscribed = True
            try:
                if not self._turn(subscribed=subscribed):
                    self._inbox.wait(self._pause())
            except MemberFenced:
                raise
            except BrokerError as error:
                log.warning("role.retrying", extra={"role": self.name, "error": str(error)})
                self._inbox.wait(AGAIN)
            except Exception:
                # A whole namespace waits for it: it goes on, and says so.
                log.exception("role.failed", extra={"role": self.name})
                self._counters.events["internal_errors"] += 1
                self._inbox.wait(AGAIN)
        if subscribed:
            self._leave()

    def _turn(self, *, subscribed: bool) -> int:
        now = self._clock.monotonic()
        busy = self._take_results()
        result = self._flush.replace_stuck(now)
        if result is not None:
            self._flushed(result)
        if subscribed:
            self._member.poll(0.0)
        self._flush.prepare_if_due(now)
        return busy + self._work(now) if subscribed else busy

    def _leave(self) -> None:
        deadline = self._clock.monotonic() + 2.0
        self._member.unsubscribe()
        while self._owns and self._clock.monotonic() < deadline:
            self._member.poll(0.0)
            self._inbox.wait(0.005)

    # --- the group -----------------------------------------------------------------------------------------------

    def on_assigned(self, partitions: Sequence[TopicPartition], membership: Membership) -> None:
        self._flush.fence.heard(membership)
        for place in partitions:
            self._assignments += 1
            self._take(place, self._assignments)

    def on_revoked(self, partitions: Sequence[TopicPartition], membership: Membership) -> None:
        self._flush.fence.heard(membership)
        deadline = self._clock.monotonic() + LET_GO
        while partitions and self._flush.in_flight is not None and self._clock.monotonic() < deadline:
            if not self._take_results():
                self._inbox.wait(0.01)
        self._drop(partitions)

    def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        self._flush.fence.heard(None)
        self._drop(partitions)

    # --- results -------------------------------------------------------------------------------------------------

    def _take_results(self) -> int:
        results = self._inbox.take()
        for result in results:
            self._flushed(result)
        return len(results)

    def _flushed(self, result: FlushResult[C]) -> None:
        refused = self._flush.ended(result, self._clock.monotonic())
        if refused is None:
            return
        for load in result.batch.parts:
            if not load.wanted:
                continue
            if result.error is None:
                self._committed(load)
            else:
                self._failed(load, refused)
