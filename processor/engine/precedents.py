"""Whether a repeated enqueue comes second: its first record is looked for further up in its lane. On its own thread.

A caller whose enqueue was not confirmed repeats it with the same id. The first record may be there, and its job may
have ended long ago: plain jobs leave no mark when they end, since nearly none of them is ever repeated. So whoever
repeats pays: a record that says `derived`, with an id of the kind that clients make (it tells when it was made), starts
only when the lane was read from that time on up to the record itself. Jobs with ids of other kinds leave marks.

It may be repeated with another urgency, and then its first record lies in another lane, which has no order with this
one. So those that clients write to are read to their ends, and only a record that was no repeat itself counts there (of
two repeats neither would run). What comes there later is a copy of this one, which is promoted before it starts: after
a crash it must not be taken for the repeat of what was dropped as its own copy.

All that is asked for at a time is answered by one scan of each partition.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from processor import events
from processor.broker.base import Batch, Broker, Isolation, Reader, TopicPartition
from processor.errors import BrokerError
from processor.job import Job, Lane
from processor.job_ids import made_at
from processor.runtime import Inbox, Runtime
from processor.wire.headers import DERIVED, JOB_ID, header

if TYPE_CHECKING:
    from processor.engine.attempt import Attempt
    from processor.engine.dispatch import Dispatch
    from processor.engine.outcomes import Outcomes
    from processor.engine.queue_partition import QueuePartition
    from processor.engine.state import EngineState

log = events.logger(__name__)

SKEW_MS = 300_000
"""How far the clock of a client may be ahead of the one that gave the lane's records their times."""
AHEAD = 2_000
"""Records read at once."""


class Precedent(NamedTuple):
    """An ask, and its answer: whether an earlier record of the same id lies in a lane, None if that is not known."""

    attempt: Attempt
    assignment: int
    follows: bool
    """It has waited for its key."""
    found: bool | None = None

    @property
    def place(self) -> TopicPartition:
        """The lane partition of the record."""
        origin = self.attempt.origin
        return TopicPartition(origin.topic, origin.partition)

    @property
    def elsewhere(self) -> list[TopicPartition]:
        """The same partition of the other lanes that clients write to."""
        lanes = self.attempt.number.lanes.values()
        return [lane.key for lane in lanes if lane.lane is not Lane.DUE and lane.key != self.place]


def may_be_second(job: Job, lane: Lane, now_ms: int, window_ms: int) -> bool:
    """Whether a record that says `derived` may be the repeat of a plain one. Children, moved and delayed jobs leave
    marks, and so does what was repeated before; beyond the dedupe window one id is one job no more. A record that was
    made in the same call as its id is the first (an outbox sends such ones, derived each time).
    """
    if job.hop or job.life != 1 or job.parent is not None or lane is Lane.DUE:
        return False
    made = made_at(job.id)
    return made is not None and made != job.enqueued_at and made > now_ms - window_ms


class LaneScan:
    """What one scan reads: in each partition from the time of the oldest id to the last record in question. Pure.

    `lane_ends`: how far the lanes are read in which no record in question lies.
    """

    def __init__(
        self,
        asks: Sequence[Precedent],
        starts: dict[TopicPartition, int],
        lane_ends: Mapping[TopicPartition, int],
    ) -> None:
        self._asks: dict[tuple[TopicPartition, bytes], int] = {}
        self._elsewhere: dict[tuple[TopicPartition, bytes], tuple[TopicPartition, bytes]] = {}
        """What would answer an ask from another lane."""
        self.ends: dict[TopicPartition, int] = {}
        """Partitions that are not read to their end yet, and that end."""
        self.starts = starts
        self._found: set[tuple[TopicPartition, bytes]] = set()
        for ask in asks:
            offset, place = ask.attempt.origin.offset, ask.place
            if starts.get(place, offset) < offset:
                self.ends[place] = max(self.ends.get(place, 0), offset)
            name = _name(ask)
            self._asks[name] = max(self._asks.get(name, 0), offset)
            for other in ask.elsewhere:
                self._elsewhere[other, name[1]] = name
                end = lane_ends.get(other, 0)
                if starts.get(other, end) < end:
                    self.ends[other] = max(self.ends.get(other, 0), end)

    def take(self, batch: Batch) -> list[TopicPartition]:
        """What was read; returns the partitions that are done.

        Raises:
            BrokerError: one cannot be read now.
        """
        passed: dict[TopicPartition, int] = {}
        for record in batch.records:
            place = TopicPartition(record.topic() or "", record.partition() or 0)
            offset = record.offset() or 0
            passed[place] = offset + 1
            # Other programs need not write our headers; the key of a record is its id if it has no ordering key.
            name = (place, header(record.headers(), JOB_ID) or record.key() or b"")
            if offset < self._asks.get(name, 0):
                self._found.add(name)
            elif name in self._elsewhere and header(record.headers(), DERIVED) is None:
                self._found.add(self._elsewhere[name])
        passed.update(batch.ends)
        for fault in batch.faults:
            if fault.partition in self.ends:
                raise fault.error
        done = [place for place, offset in passed.items() if offset >= self.ends.get(place, offset + 1)]
        for place in done:
            del self.ends[place]
        return done

    def answer(self, ask: Precedent) -> Precedent:
        """What was found."""
        return ask._replace(found=_name(ask) in self._found)


def _name(ask: Precedent) -> tuple[TopicPartition, bytes]:
    return ask.place, ask.attempt.job.id.encode()


class Precedents:
    """Looks for the first records of repeated jobs, on a thread of its own."""

    def __init__(self, runtime: Runtime, broker: Broker, reply: Callable[[Precedent], None]) -> None:
        self._runtime = runtime
        self._broker = broker
        self._reply = reply
        self._inbox: Inbox[Precedent | None] = Inbox(runtime)
        self._asks: list[Precedent] = []
        self._reader: Reader | None = None
        self._stopping = False
        self._actor = runtime.start("precedents", self._run)

    def ask(self, attempt: Attempt, follows: bool) -> None:
        """Look for an earlier record of its job; the answer goes to `reply`."""
        self._inbox.post(Precedent(attempt, attempt.assignment, follows))

    def stop(self, timeout: float) -> bool:
        """End the thread; whether it ended in time."""
        self._stopping = True
        self._inbox.post(None)
        return self._actor.join(timeout)

    def _run(self) -> None:
        try:
            while not self._stopping:
                if not self._asks:
                    self._inbox.wait(None)
                self._asks += [ask for ask in self._inbox.take() if ask is not None]
                self._asks = [ask for ask in self._asks if ask.assignment == ask.attempt.number.assignment]
                if self._asks:
                    self._serve()
        finally:
            if self._reader is not None:
                self._reader.close()

    def _serve(self) -> None:
        """One scan, and its answers."""
        try:
            scan = self._scan()
        except BrokerError as error:
            log.warning("precedents.retrying", extra={"error": str(error)})
            self._runtime.signal().wait(0.2)
            return
        except Exception:
            # The numbers of those who asked are held: to start their jobs now may be to run them twice.
            log.exception("precedents.failed")
            answers = self._asks
        else:
            if scan.ends:
                return  # the worker stops
            answers = [scan.answer(ask) for ask in self._asks]
        self._asks = []
        for answer in answers:
            self._reply(answer)

    def _scan(self) -> LaneScan:
        since: dict[TopicPartition, int] = {}
        for ask in self._asks:
            made = (made_at(ask.attempt.job.id) or 0) - SKEW_MS
            for place in (ask.place, *ask.elsewhere):
                since[place] = min(since.get(place, made), made)
        admin = self._broker.admin()
        others = {place for ask in self._asks for place in ask.elsewhere}
        lane_ends = admin.end_offsets(others, Isolation.COMMITTED) if others else {}
        scan = LaneScan(self._asks, admin.offsets_at(since), lane_ends)
        reader = self._reader = self._reader or self._broker.reader()
        assigned = set(scan.ends)
        if assigned:
            reader.assign({place: scan.starts[place] for place in assigned})
        try:
            while scan.ends and not self._stopping:
                done = scan.take(reader.fetch(AHEAD, 0.5))
                if done:
                    reader.unassign(done)
                    assigned.difference_update(done)
        finally:
            if assigned:
                reader.unassign(assigned)
        return scan


def answered(
    engine: EngineState,
    dispatch: Dispatch,
    outcomes: Outcomes,
    hold: Callable[[QueuePartition, str], None],
    answer: Precedent,
) -> None:
    """The owner hears whether a job is a repeat: then its record is done, else it starts. `hold` takes a number out of
    work of which that could not be found out.
    """
    attempt = answer.attempt
    if attempt.settled or answer.assignment != attempt.number.assignment:
        return
    if answer.found is None:
        hold(attempt.number, f"whether job {attempt.job.id} is a repeat could not be read in {answer.place}")
        return
    attempt.history = attempt.history._replace(repeated=False)
    if not answer.found:
        if answer.elsewhere:
            outcomes.promote(attempt)
        dispatch.ready(attempt, follows=answer.follows)
        return
    attempt.settled = True
    outcomes.complete(attempt)
    engine.counters.events["dropped_copies"] += 1
    log.info("job.repeat_dropped", extra={"job_id": attempt.job.id})
    # Its first record may lie in a lane that is not read so far: that one is to run.
    outcomes.leave(attempt, ended=not answer.elsewhere)
    engine.outbox_load.request_flush()
