"""What goes on beside the work, on a thread of its own: old records are deleted, and the ends of lanes are looked up.

Lanes have no retention by time, since the broker cannot know which jobs are unfinished. So the owner of a number
deletes what lies below its *committed* low watermark and is older than the replay time. The committed one is asked of
the group each time: what a flush still carries does not count. How old records are, `processor.core.retention` knows
from where the watermark stood when; after a restart from one record in the middle, which is read for that.

The owning thread never waits for any of this: it hands over chores and takes answers from its inbox.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from processor import events
from processor.broker.base import Isolation, Member, TopicPartition
from processor.core.retention import Retention
from processor.errors import BrokerError
from processor.runtime import Actor, Inbox, Runtime

if TYPE_CHECKING:
    from processor.broker.base import Broker, Reader
    from processor.engine.config import WorkerConfig

log = events.logger(__name__)

FIRST_TENDING = 60.0
"""Seconds after the start for the first deletion, so that a worker that restarts often deletes too."""
PROBE_WAIT = 5.0
"""Seconds a record whose age is wanted may take to arrive."""


class Tend(NamedTuple):
    """Delete what is old and done in these lanes of a group."""

    group: str
    lanes: Sequence[TopicPartition]


class Look(NamedTuple):
    """Say where these lanes end."""

    lanes: Sequence[TopicPartition]


class AskMembers(NamedTuple):
    """Say who is in a group and owns what."""

    group: str


class Members(NamedTuple):
    """The members of a group a moment ago."""

    group: str
    members: Sequence[Member]


class LaneEnds(NamedTuple):
    """Where lanes ended a moment ago: last stable offsets, so everything below can be read."""

    ends: dict[TopicPartition, int]


class Upkeep:
    """Asks the cluster and deletes old records on a thread of its own; `ask` and `turn` belong to the owner."""

    def __init__(
        self,
        runtime: Runtime,
        broker: Broker,
        config: WorkerConfig,
        reply: Callable[[LaneEnds | Members], None],
    ) -> None:
        self._runtime = runtime
        self._broker = broker
        self._config = config
        self._reply = reply
        self._requests: Inbox[Tend | Look | AskMembers | None] = Inbox(runtime)
        self._actor: Actor | None = None
        self._next = runtime.clock.monotonic() + min(FIRST_TENDING, config.tend_every)
        self._known: dict[str, dict[TopicPartition, Retention]] = {}
        """By group."""

    def turn(self, now: float, lanes: Callable[[], Mapping[str, Sequence[TopicPartition]]]) -> None:
        """Called every turn of the loop; hands over the lanes, by group, when it is time. `now`: monotonic seconds."""
        if now >= self._next:
            self._next = now + self._config.tend_every
            for group, owned in lanes().items():
                self.ask(Tend(group, owned))

    def ask(self, chore: Tend | Look | AskMembers) -> None:
        """Hand over a chore."""
        if not isinstance(chore, AskMembers) and not chore.lanes:
            return
        if self._actor is None:
            self._actor = self._runtime.start("janitor", self._run)
        self._requests.post(chore)

    def stop(self, timeout: float) -> bool:
        """End the thread; whether it ended in time."""
        self._requests.post(None)
        return self._actor is None or self._actor.join(timeout)

    def _run(self) -> None:
        while True:
            self._requests.wait(None)
            for chore in self._requests.take():
                if chore is None:
                    return
                try:
                    self._do(chore)
                except BrokerError as error:
                    # Nothing depends on it: the next round asks again.
                    log.info("janitor.skipped", extra={"chore": type(chore).__name__, "error": str(error)})
                except Exception:
                    log.exception("janitor.failed", extra={"chore": type(chore).__name__})

    def _do(self, chore: Tend | Look | AskMembers) -> None:
        if isinstance(chore, AskMembers):
            self._reply(Members(chore.group, self._broker.admin().members(chore.group)))
            return
        if isinstance(chore, Look):
            self._reply(LaneEnds(self._broker.admin().end_offsets(chore.lanes, Isolation.COMMITTED)))
        else:
            self.tend(chore.group, chore.lanes)

    def tend(self, group: str, lanes: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Delete what is old and done; below which offsets that was."""
        admin = self._broker.admin()
        committed = admin.committed(group, list(lanes))
        begins = admin.begin_offsets(lanes)
        now = self._runtime.clock.now_ms()
        # Lanes of numbers that moved away: their new owner takes its own samples.
        self._known[group] = {lane: self._retention(group, lane) for lane in lanes}
        before: dict[TopicPartition, int] = {}
        with _Ages(self._runtime, self._broker) as ages:
            for lane in lanes:
                low, begin = committed[lane].offset, begins.get(lane)
                if low is None or begin is None:
                    continue
                retention = self._known[group][lane]
                probe = retention.probe(low, begin)
                if probe is not None and (found := ages.of(lane, probe)) is not None and found[0] < low:
                    retention.observe(*found)
                # Everything below the watermark was appended before this moment.
                retention.observe(low, now)
                offset = retention.deletable(low, begin, now)
                if offset is not None:
                    before[lane] = offset
        if before:
            admin.delete_records(before)
            log.info(
                "lanes.deleted", extra={"lanes": len(before), "records": sum(before[p] - begins[p] for p in before)}
            )
        return before

    def _retention(self, group: str, lane: TopicPartition) -> Retention:
        return self._known.get(group, {}).get(lane) or Retention(int(self._config.replay_time * 1000))


class _Ages:
    """Reads single records to learn when they were appended; makes its reader when first asked."""

    def __init__(self, runtime: Runtime, broker: Broker) -> None:
        self._runtime = runtime
        self._broker = broker
        self._reader: Reader | None = None

    def __enter__(self) -> _Ages:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._reader is not None:
            self._reader.close()

    def of(self, lane: TopicPartition, offset: int) -> tuple[int, int] | None:
        """Offset and append time (milliseconds) of the first record from `offset` on; None: none came in time."""
        reader = self._reader = self._reader or self._broker.reader()
        clock = self._runtime.clock
        deadline = clock.monotonic() + PROBE_WAIT
        reader.assign({lane: offset})
        try:
            while clock.monotonic() < deadline:
                batch = reader.fetch(1, 0.2)
                for record in batch.records:
                    found = record.offset()
                    if found is not None:
                        return found, record.timestamp()[1]
                if batch.ends or batch.faults:
                    return None
            return None
        finally:
            reader.unassign([lane])
