"""Records that the broker will not take: what becomes of the job that they belong to, and of the others.

A job's end is written whole or not at all. If one record of it is refused, all of it is taken back, and its job becomes
a dead letter `unsendable` with its payload: nothing of it is half there (a parent that succeeded without its child, an
offset that is done without its copy). Three cases are different:

- The topic is one that every job needs (status, checkpoints, dead letters, ...), and it is the topic or a right that
  is missing: that is no job's fault. The partition is held, and tried again later; nothing of it is written.
- A status is too large for its result: the job has succeeded all the same, its status says so without the result.
- A dead letter is too large: it is cut, in stages, until it fits.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from processor import events
from processor.broker.base import OutRecord
from processor.dead_reasons import DeadReason
from processor.errors import BrokerError, RecordError, TopicRefused
from processor.job import ErrorInfo, Failure
from processor.states import TERMINAL, State
from processor.wire.codec import decode_dead_letter, decode_job, decode_status, encode
from processor.wire.records import DeadLetterRecord
from processor.wire.topics import alerts_topic

if TYPE_CHECKING:
    from processor.engine.attempt import Attempt
    from processor.engine.batch import Part
    from processor.engine.queue_partition import QueuePartition
    from processor.engine.state import EngineState

log = events.logger(__name__)

Refused = dict[int, BrokerError]
"""By the `id` of the record."""


class Refusals:
    """Sorts out what a refused record means. On the owning thread."""

    def __init__(self, engine: EngineState) -> None:
        self._engine = engine

    def missing(self, part: Part, refused: Refused) -> BrokerError | None:
        """A topic that every job needs, or the right to write to it, is not there; None: it is about single records."""
        own = _own_topics(part.number)
        for record in _records(part):
            error = refused.get(id(record))
            if error is not None and record.topic in own and isinstance(error, TopicRefused):
                return error
        return None

    def culprits(self, part: Part, refused: Refused) -> dict[str, tuple[OutRecord, BrokerError]]:
        """The jobs whose write sets fail: by id, the first record of each that was refused, and why."""
        found: dict[str, tuple[OutRecord, BrokerError]] = {}
        status = part.number.topics.status
        for record in _records(part):
            error = refused.get(id(record))
            if error is None or (record.topic == status and _result_of(record)):
                continue  # a status without its result is said in its place
            owner = self.owner(part, record)
            if owner is not None and self.attempt(part, owner) is not None:
                found.setdefault(owner, (record, error))
        return found

    def owner(self, part: Part, record: OutRecord) -> str | None:
        """The job that has put a record into the outbox; None: nobody knows."""
        saved = next((save.record.id for save in part.saves if save.out is record), None)
        if saved is not None:
            return saved
        if record.topic in _own_topics(part.number):
            return None if record.key is None else record.key.partition(b"#")[0].decode("utf-8", "replace")
        try:
            job = decode_job(record.value or b"")
        except RecordError:
            return None
        # A copy of the job itself on its way, or a child of it.
        return job.id if job.parent is None or self.attempt(part, job.id) is not None else job.parent

    @staticmethod
    def attempt(part: Part, job_id: str) -> Attempt | None:
        """The attempt whose end is in the batch, or which is under way."""
        return part.ending.get(job_id) or part.number.jobs.attempts.get(job_id)

    def without_result(self, record: OutRecord, error: BrokerError) -> OutRecord:
        """In place of a status that the broker refused: whoever waits for the job must hear how it ended."""
        status = decode_status(record.value or b"")
        why = ErrorInfo("unsendable", f"its status of {len(record.value or b'')} bytes was refused: {error}")
        self._tell(record, error)
        if status.state in TERMINAL and status.state is not State.SUCCEEDED:
            status = status._replace(state=State.DEAD)
        return OutRecord(record.topic, record.key, encode(status._replace(result=None, error=why, note=None)))

    def fail(self, part: Part, attempt: Attempt, record: OutRecord, error: BrokerError) -> None:
        """End the job whose write set was taken back."""
        self._tell(record, error)
        attempt.refusals += 1
        if record.topic == part.number.topics.dlq and record.value is not None:
            letter = decode_dead_letter(record.value)
            if letter.progress is None and not letter.steps:
                attempt.refusals = max(attempt.refusals, CUT_AT)  # it is the job itself that does not fit
        what = f"a record of {len(record.value or b'')} bytes for {record.topic} was refused: {error}"
        self._engine.guard.unsendable(attempt, what, attempt.refusals)

    def small_letter(self, number: QueuePartition, record: OutRecord, error: BrokerError) -> OutRecord:
        """A small dead letter in place of a record of nobody's that the broker will never take."""
        self._tell(record, error)
        self._engine.counters.events["dead_letter.unsendable"] += 1
        now, slot = self._engine.clock.now_ms(), self._engine.config.slot
        small = None
        if record.topic == number.topics.dlq and record.value is not None:
            letter = decode_dead_letter(record.value)
            small = letter._replace(raw=_cut(letter.raw), job=None, progress=None, steps=None)
        if small is None:
            job_id = (record.key or b"").decode(errors="replace")
            small = DeadLetterRecord(job_id, DeadReason.UNSENDABLE, now, slot, record.topic, number.partition, -1)
        what = f"{len(record.value or b'')} bytes for {record.topic}: {error}"
        failures = [f._replace(traceback="", message=f.message[:300]) for f in small.failures or ()][-3:]
        small = small._replace(failures=[*failures, Failure("unsendable", what[:500], worker=slot, at=now)])
        return OutRecord(number.topics.dlq, record.key, encode(small), [("reason", b"unsendable")])

    @staticmethod
    def _tell(record: OutRecord, error: BrokerError) -> None:
        log.error("flush.unsendable", extra={"topic": record.topic, "error": str(error)})


def _records(part: Part) -> Iterable[OutRecord]:
    yield from part.creates
    yield from part.announces
    yield from part.seals


def _own_topics(number: QueuePartition) -> frozenset[str]:
    topics = number.topics
    return frozenset((topics.status, topics.dlq, topics.checkpoints, topics.dedupe, alerts_topic(topics.namespace)))


def _result_of(record: OutRecord) -> bytes | None:
    return None if record.value is None else decode_status(record.value).result


CUT_AT = 3
"""A dead letter of refused records carries the whole job at first, then its bytes alone, from the third on cut."""
CUT = 10_000
"""Bytes left of a raw record that does not fit into a dead letter; the whole lies in its lane until the replay time."""


def _cut(raw: bytes | None) -> bytes | None:
    return None if raw is None else raw[:CUT]
