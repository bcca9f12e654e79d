"""The owner's guard: an exception while one job is handled ends that job or holds its number, never the process.

It should not come to this: what handlers give was checked and encoded where they ran. But a fault of the engine, or a
record that nobody thought of, must not take everybody's work down, again and again after each restart. So whatever is
done here for one job is done under a guard. In this order:

1. What the job has put into the outbox in this act is taken back; unless its end is complete there, then it stays.
2. It becomes a dead letter `internal_error` with its progress and the traceback, as any failed job does.
3. If that fails as well: a dead letter with its raw bytes.
4. If even that fails, or if it is the machine that has no more to give: its number is held, with an alarm. Of a held
   number nothing is written, so nothing is lost: the next owner begins with what the log says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from processor import events
from processor.broker.base import OutRecord, Record
from processor.core.dedupe import end_mark
from processor.core.failures import brief, error_info
from processor.core.idempotency import FINAL_HOP, is_keyed
from processor.core.outcome import Failed
from processor.core.write_set import Origin
from processor.dead_reasons import DeadReason
from processor.engine.refusals import CUT, CUT_AT
from processor.errors import BrokerError, RecordError
from processor.job import ErrorInfo, Job
from processor.states import State
from processor.texts import plain
from processor.wire.codec import decode_job, encode
from processor.wire.json_job import completed
from processor.wire.records import StatusRecord

if TYPE_CHECKING:
    from processor.engine.attempt import Attempt
    from processor.engine.dispatch import Dispatch
    from processor.engine.partition_outbox import OutboxMark
    from processor.engine.queue_partition import LaneState, QueuePartition
    from processor.engine.state import EngineState

log = events.logger(__name__)

REASON = DeadReason.INTERNAL_ERROR
NOT_A_JOBS_FAULT = (OSError, MemoryError)
"""The machine has no more files, threads or memory: no job is to end for that."""


class Ends(Protocol):
    """What ends a job in the usual way; `processor.engine.outcomes.Outcomes`."""

    def end(self, attempt: Attempt) -> None: ...
    def complete(self, attempt: Attempt) -> None: ...
    def leave(self, attempt: Attempt) -> None: ...


class Guard:
    """Ends the one job, or holds the one partition, whose handling raised. On the owning thread."""

    def __init__(
        self, engine: EngineState, dispatch: Dispatch, ends: Ends, hold: Callable[[QueuePartition, str], None]
    ) -> None:
        self._engine = engine
        self._dispatch = dispatch
        self._ends = ends
        self._hold = hold

    def job(self, attempt: Attempt, error: Exception, mark: OutboxMark, *, runs: bool = False) -> None:
        """Something went wrong while this job was handled.

        Args:
            attempt: of the job.
            error: what was raised.
            mark: of the number's outbox, from before this act.
            runs: a pool has it in its hands, and gives it back later.
        """
        number = attempt.number
        self._tell(number, attempt.job.id, error)
        attempt.settled = True
        if attempt.assignment != number.assignment:
            if not runs:
                self._dispatch.give_back(attempt)
            return
        if isinstance(error, NOT_A_JOBS_FAULT):
            self.number(number, f"job {attempt.job.id}", error)
            return
        try:
            if not attempt.over:
                number.outbox.roll_back(mark)
                self._end(attempt, error)
            if runs:
                attempt.mailbox.lose()
            else:
                self._dispatch.give_back(attempt)
            self._ends.leave(attempt)
        except Exception as second:  # noqa: BLE001  (the guard's own last word)
            self.number(number, f"job {attempt.job.id}", second)

    def record(self, lane: LaneState, record: Record, error: Exception, mark: OutboxMark) -> None:
        """Something went wrong while a record was admitted."""
        number, offset = lane.number, record.offset() or 0
        waiting = [successor.attempt for successor in number.jobs.successors.values()]
        known = [*number.jobs.attempts.values(), *waiting]
        attempt = next((a for a in known if a.origin.topic == lane.topic and a.origin.offset == offset), None)
        if attempt is not None:
            if attempt in waiting:
                del number.jobs.successors[attempt.job.id]
            self.job(attempt, error, mark)
            return
        raw = record.value() or b""
        job = _decoded(raw, number, record.timestamp()[1])
        self._tell(number, "" if job is None else job.id, error)
        if isinstance(error, NOT_A_JOBS_FAULT):
            self.number(number, f"the record at {lane.topic}-{lane.partition}@{offset}", error)
            return
        if lane.window.is_complete(offset):
            return  # all that it was to write is in the outbox
        try:
            number.outbox.roll_back(mark)
            origin = Origin(lane.topic, lane.partition, offset)
            self._keep_raw(number, job, origin, record.key(), raw, error_info(error))
            lane.complete(offset)
            if job is not None and job.key is not None:
                self._dispatch.release_key(number, job.key, job.id)
        except Exception as second:  # noqa: BLE001  (as above)
            self.number(number, f"the record at {lane.topic}-{lane.partition}@{offset}", second)

    def live(self, number: QueuePartition, job_id: str, raw: bytes, error: Exception) -> None:
        """Something went wrong with a job that lives in the checkpoint topic and does not run."""
        self._tell(number, job_id, error)
        if isinstance(error, NOT_A_JOBS_FAULT):
            self.number(number, f"job {job_id}", error)
            return
        try:
            job = _decoded(raw, number, self._engine.clock.now_ms()) or Job(job_id, "", 0, number.queue.name, b"", 0)
            number.jobs.attempts.pop(job_id, None)
            self._keep_raw(number, job, Origin(*number.checkpoints, -1), job_id.encode(), raw, error_info(error))
            number.jobs.parked.leave(job_id)
            if job.key is not None:
                self._dispatch.release_key(number, job.key, job_id)
        except Exception as second:  # noqa: BLE001  (as above)
            self.number(number, f"job {job_id}", second)

    def unsendable(self, attempt: Attempt, what: str, times: int) -> None:
        """Records of a job's end were refused and taken back: a dead letter with its payload ends it instead, cut more
        each time that this is refused too.
        """
        number, job = attempt.number, attempt.job
        if isinstance(attempt.outcome, Failed):
            what = f"{what}; it had ended with {attempt.outcome.error.kind}: {attempt.outcome.error.message}"
        info = ErrorInfo("unsendable", plain(what))
        runs = attempt.outcome is None and not attempt.settled
        attempt.settled = attempt.over = True
        attempt.moved = None
        raw = attempt.raw if times < CUT_AT else attempt.raw[:CUT]
        self._keep_raw(number, job, attempt.origin, job.id.encode(), raw, info, whole=times == 1)
        number.outbox.ending[job.id] = attempt
        self._ends.complete(attempt)
        number.jobs.parked.leave(job.id)
        if runs:
            attempt.mailbox.lose()
        self._ends.leave(attempt)

    def number(self, number: QueuePartition, doing: str, error: Exception) -> None:
        """Something went wrong that is nobody's alone: this number rests until it is assigned anew, with an alarm."""
        info = error_info(error)
        log.error("number.internal_error", extra={"number": number.partition, "doing": doing}, exc_info=error)
        self._hold(number, f"{doing}: {info.kind}: {info.message}")

    def number_act(self, number: QueuePartition, doing: str, act: Callable[[], object]) -> None:
        """Do something with a number; if that goes wrong, only this number is held.

        Raises:
            BrokerError: the cluster's fault is not the number's.
        """
        try:
            act()
        except BrokerError:
            raise
        except Exception as error:  # noqa: BLE001  (the guard itself)
            self.number(number, doing, error)

    def _end(self, attempt: Attempt, error: Exception) -> None:
        number, job = attempt.number, attempt.job
        mark = number.outbox.mark()
        attempt.outcome, attempt.moved = Failed(error_info(error), REASON), None
        try:
            self._ends.end(attempt)
        except Exception as second:  # noqa: BLE001  (as above)
            if attempt.over:
                return
            self._tell(number, job.id, second)
            number.outbox.roll_back(mark)
            self._keep_raw(number, job, attempt.origin, job.id.encode(), attempt.raw, error_info(error))
            self._ends.complete(attempt)
            attempt.over = True
        number.jobs.parked.leave(job.id)

    def _keep_raw(
        self,
        number: QueuePartition,
        job: Job | None,
        origin: Origin,
        key: bytes | None,
        raw: bytes,
        info: ErrorInfo,
        *,
        whole: bool = False,
    ) -> None:
        """A dead letter with the bytes as they are (`whole`: as the job that it is), and the end of the job."""
        engine = self._engine
        now = engine.clock.now_ms()
        reason = DeadReason.UNSENDABLE if info.kind == "unsendable" else REASON
        if whole and job is not None:
            version = number.version(job)
            letter = engine.completer.dead_letter(
                number.topics, job, raw, origin, Failed(info, reason), saved=None, version=version, now=now
            )
        else:
            text = f"{info.kind}: {info.message}\n{info.traceback}"
            job_id = "" if job is None else job.id
            letter = engine.completer.undecodable(number.topics.dlq, origin, key, raw, reason, text, now, job_id)
        outbox = number.outbox
        outbox.create(letter)
        engine.counters.events[f"dead_letter.{reason}"] += 1
        if job is None:
            return
        place = (job.id, job.life, job.type, job.queue)
        status = StatusRecord(*place, State.DEAD, now, job.attempt, engine.config.slot, error=brief(info))
        outbox.announce(OutRecord(number.topics.status, job.id.encode(), encode(status)))
        number.jobs.recent.add(job.id, job.life, FINAL_HOP)
        if is_keyed(job.id):
            mark = end_mark(job, now, origin)
            outbox.create(engine.completer.mark(number.topics, mark))
            number.marks.put(mark)
        # Nothing of it that is still to be written may bring it back; what is written is buried with its letter.
        outbox.drop_saves(job.id)
        outbox.burials.extend(number.live.keys_of(job.id))

    def _tell(self, number: QueuePartition, job_id: str, error: Exception) -> None:
        self._engine.counters.events["internal_errors"] += 1
        log.error(
            "job.internal_error",
            extra={"job_id": job_id, "queue": number.queue.name, "number": number.partition},
            exc_info=error,
        )


def _decoded(raw: bytes, number: QueuePartition, at_ms: int) -> Job | None:
    try:
        return completed(decode_job(raw), number.queue.name, at_ms)
    except RecordError:
        return None
