"""From a record of a lane to an attempt: may it run, must it wait, or is it a copy of something already done?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from processor import events
from processor.broker.base import OutRecord, Record
from processor.core.idempotency import FINAL_HOP, content_check, life_of
from processor.core.live import LiveView
from processor.core.ordering import Again, Spilled
from processor.core.process_deaths import deaths_of
from processor.core.write_set import Origin
from processor.engine.attempt import Attempt, History
from processor.engine.dispatch import Dispatch
from processor.engine.partition_jobs import Successor
from processor.engine.precedents import may_be_second
from processor.engine.queue_partition import LaneState, PartitionPhase, QueuePartition
from processor.engine.refetch import Refetch
from processor.engine.settled_orders import settle
from processor.engine.state import EngineState
from processor.errors import RecordError
from processor.job import Job, Progress, Step, StepPhase
from processor.wire.codec import decode_checkpoint, decode_job, decode_step, encode
from processor.wire.headers import DERIVED, IDEMPOTENCY, header
from processor.wire.json_job import OPENS, completed
from processor.wire.records import CheckpointRecord

log = events.logger(__name__)

_new = tuple.__new__


class Intake:
    """Applies fetched records to their numbers."""

    def __init__(self, engine: EngineState, dispatch: Dispatch) -> None:
        self._engine = engine
        self._dispatch = dispatch

    def take(self, records: Sequence[Record]) -> None:
        """Records of one fetch, in their order."""
        lanes = self._engine.lanes
        for record in records:
            # A lane that was given up may still have a record on its way: nobody here works on it.
            lane = lanes.get((record.topic(), record.partition()))  # type: ignore[arg-type]  # None only for errors
            if lane is not None and lane.window.add(record.offset()):  # type: ignore[arg-type]  # as above
                try:
                    self._take(lane, record)
                except Exception as error:  # noqa: BLE001  (the owner's guard)
                    self._engine.guard.record(lane, record, error, lane.number.outbox.mark())

    def take_again(self, lane: LaneState, key: str, place: Spilled, record: Record) -> None:
        """A spilled record that was read again: its turn has come, or it waits whole from now on."""
        mark = lane.number.outbox.mark()
        try:
            again = lane.number.order.again(key, place, len(record.value() or b""))
            if again is not Again.STAYS:
                self._take(lane, record, again)
        except Exception as error:  # noqa: BLE001  (as above)
            self._engine.guard.record(lane, record, error, mark)

    def refetched(self, answer: Refetch, hold: Callable[[QueuePartition, str], None]) -> None:
        """Spilled records were read again; `hold` takes a number whose record is gone out of work."""
        number = answer.number
        if answer.assignment != number.assignment or number.phase is not PartitionPhase.ACTIVE:
            return
        for place, record in zip(answer.places, answer.records, strict=True):
            lane = self._engine.lanes.get((place.lane, number.partition))
            if lane is None:
                return
            if record is None:
                hold(number, f"{place} is no longer in the log though its job has not run")
                return
            self.take_again(lane, answer.key, place, record)

    def _take(self, lane: LaneState, record: Record, again: Again | None = None) -> None:
        number = lane.number
        raw = record.value() or b""
        offset: int = record.offset()  # type: ignore[assignment]  # None only for errors
        try:
            job = decode_job(raw)
        except RecordError as error:
            self._undecodable(lane, offset, record, error)
            return
        if raw[:1] == OPENS:
            job = completed(job, number.queue.name, record.timestamp()[1], record.headers())
            raw = encode(job)
        says_derived = header(record.headers(), DERIVED) is not None
        derived = says_derived or offset < lane.mark_below
        job_id = job.id
        # Recent: its own repeat, sent by another producer, may have overtaken it and ended already.
        if derived or job_id in number.jobs.attempts or job_id in number.live or job_id in number.jobs.recent:
            until = header(record.headers(), IDEMPOTENCY)
            if until is not None:
                job, raw = self._under_key(lane, offset, job, raw, until)
            attempt = self._engine.attempt(number, lane, Origin(lane.topic, lane.partition, offset), job, raw)
            repeated = says_derived and until is None and self._may_be_second(job, lane)
            attempt.history = History(derived=derived, repeated=repeated)
            self._take_known(lane, attempt, again)
            return
        # A named tuple's own constructor is a call more, and this is done for every record.
        origin = _new(Origin, (lane.topic, lane.partition, offset))
        self._admit(self._engine.attempt(number, lane, origin, job, raw), again)

    def _may_be_second(self, job: Job, lane: LaneState) -> bool:
        engine = self._engine
        return may_be_second(job, lane.lane, engine.clock.now_ms(), int(engine.config.dedupe_window * 1000))

    def _under_key(self, lane: LaneState, offset: int, job: Job, raw: bytes, until: bytes) -> tuple[Job, bytes]:
        """A record with an idempotency key, as the life that it begins; of the life that it is a copy of, if it is."""
        engine, number = self._engine, lane.number
        mark = number.marks.key(job.id, engine.clock.now_ms())
        running = number.jobs.attempts.get(job.id)
        view = number.live.view(job.id)
        if running is not None:
            life, same = running.job.life, content_check(running.job) == content_check(job)
        else:
            place = (lane.topic, lane.lane, offset)
            life = life_of(job, until.decode("ascii", "replace"), place, view, mark)
            same = mark is None or life > 0 or mark.check in (0, content_check(job))
        if not same:
            engine.counters.events["keys_reused"] += 1
            log.warning("job.key_reused", extra={"job_id": job.id, "type": job.type, "queue": job.queue})
        if life == job.life:
            return job, raw
        job = job._replace(life=life)
        # Life 0 never runs: below what is live or done, the drop rule finds a copy.
        return job, encode(job) if life else raw

    def _take_known(self, lane: LaneState, attempt: Attempt, again: Again | None) -> None:
        """A job that may have been seen before: dropped, resumed, or put behind its own earlier life."""
        number, job, offset = lane.number, attempt.job, attempt.origin.offset
        view = number.live.view(job.id)
        if not attempt.history.derived:
            self._gives_way(number.jobs.attempts.get(job.id), lane)
        if self._is_copy(number, job, view, attempt.history.derived):
            self._drop(lane, offset, job, view)
            if again is Again.NEXT:
                self._dispatch.release_key(number, job.key, None)
            elif again is Again.WAITS and job.key is not None:
                number.order.skip(job.key)
            return
        if again is Again.WAITS and job.id in number.jobs.attempts:
            return  # behind its own earlier life: it stays spilled until its turn
        resume(attempt, view)
        self._move_in(attempt, view)
        deaths = job.deaths
        if lane.deaths:
            deaths += deaths_of(lane.deaths, offset, number.live.saved_in(job.id))
        repeated = attempt.history.repeated and view is None
        attempt.history = attempt.history._replace(repeated=repeated, deaths=deaths)
        if job.id in number.jobs.attempts:
            self._follow(lane, attempt, again)
            return
        self._admit(attempt, again)

    def _gives_way(self, looked_for: Attempt | None, lane: LaneState) -> None:
        """A first record comes while its repeat in another lane waits to hear whether there is one: it is the job."""
        there = None if looked_for is None or not looked_for.history.repeated else looked_for.lane
        if looked_for is None or there is None or there is lane:
            return
        looked_for.settled = True
        there.complete(looked_for.origin.offset)
        self._engine.forget(looked_for)
        self._engine.counters.events["dropped_copies"] += 1

    def _move_in(self, attempt: Attempt, view: LiveView | None) -> None:
        """What was saved names another record of the same job as its home, in another lane. That one completes as a
        copy of this one: then the next restore would take what was saved for that of a job that is over, and bury it.
        """
        home, origin = view and view.home, attempt.origin
        if home is None or home.offset < 0 or home == (origin.topic, origin.offset):
            return
        if not attempt.logged.saved or attempt.logged.promoted:
            return
        engine, number, job = self._engine, attempt.number, attempt.job
        progress, version = attempt.logged.progress or Progress(), number.version(job)
        saved = engine.completer.checkpoint(number.topics, job, origin, False, progress, version, engine.clock.now_ms())
        number.outbox.save(saved)

    def _follow(self, lane: LaneState, attempt: Attempt, again: Again | None) -> None:
        """A later life of a job that is live waits for its end, at its own place among the jobs of its key."""
        number, job = lane.number, attempt.job
        waits, in_line = number.jobs.successors.get(job.id), False
        if waits is not None:
            earlier = waits.attempt
            if (earlier.job.life, earlier.job.hop) >= (job.life, job.hop):
                self._drop(lane, attempt.origin.offset, job, None)
                return
            self._drop_waiting(earlier)
            in_line = waits.in_line and number.order.replace(earlier.job.key or "", earlier, attempt)
        elif again is None and self._has_line(number, job):
            in_line = self._dispatch.queue_for_key(attempt)
            if not in_line:
                return  # kept as its place only: it is read again when its turn comes
        number.jobs.successors[job.id] = Successor(attempt, in_line)
        if again is Again.NEXT:
            self._dispatch.release_key(number, job.key, None)

    @staticmethod
    def _has_line(number: QueuePartition, job: Job) -> bool:
        """Whether an earlier life of a job holds the same key, or waits for it."""
        return job.key is not None and number.jobs.attempts[job.id].job.key == job.key and number.order.is_held(job.key)

    def _admit(self, attempt: Attempt, again: Again | None) -> None:
        self._engine.take(attempt)
        if attempt.job.key is None or self._gets_key(attempt, again):
            self._dispatch.ready(attempt, follows=again is Again.NEXT)

    def _gets_key(self, attempt: Attempt, again: Again | None) -> bool:
        """Whether the attempt may go on; else it waits for its key, in memory or as its place only."""
        number, job = attempt.number, attempt.job
        key: str = job.key  # type: ignore[assignment]  # asked only for jobs with a key
        order = number.order
        if again is Again.NEXT:
            order.hold(key, job.id)
            return True
        if again is Again.WAITS:
            order.refill(key, job.id, attempt, len(attempt.raw))
            return False
        return self._dispatch.offer_key(attempt, key)

    def _is_copy(self, number: QueuePartition, job: Job, view: LiveView | None, derived: bool) -> bool:
        """The drop rule on (id, life, hop): live with an equal or higher one, ended, promoted, or marked as done."""
        mine = (job.life, job.hop)
        running = number.jobs.attempts.get(job.id)
        if running is not None and (running.job.life, running.job.hop) >= mine:
            return True
        if view is not None:
            theirs = (view.life, view.hop)
            if theirs > mine or (theirs == mine and view.job is not None) or (view.ended and view.life == job.life):
                return True
        return number.jobs.recent.get(job.id) >= mine or (derived and number.marks.seen(job.id, job.life, job.hop))

    def _drop_waiting(self, attempt: Attempt) -> None:
        """A later life has come before this one could begin."""
        attempt.settled = True
        if attempt.lane is not None:
            self._drop(attempt.lane, attempt.origin.offset, attempt.job, None)

    def _drop(self, lane: LaneState, offset: int, job: Job, view: LiveView | None) -> None:
        """Complete a copy without running it. An end whose status may be missing sends it again."""
        engine = self._engine
        lane.complete(offset)
        engine.counters.events["dropped_copies"] += 1
        if lane.number.marks.seen(job.id, job.life, FINAL_HOP):
            settle(engine, lane.number, job.id, job.life)
        if view is not None and view.ended and view.progress is not None:
            final = decode_checkpoint(view.progress).final
            if final is not None:
                number = lane.number
                number.outbox.announce(OutRecord(number.topics.status, job.id.encode(), final))
                number.outbox.later.extend(number.live.keys_of(job.id))
        log.debug("job.copy_dropped", extra={"job_id": job.id, "topic": lane.topic, "offset": offset})

    def _undecodable(self, lane: LaneState, offset: int, record: Record, error: RecordError) -> None:
        """Keep the raw bytes as a dead letter; the partition goes on."""
        engine, number = self._engine, lane.number
        origin = Origin(lane.topic, lane.partition, offset)
        out = engine.completer.undecodable(
            number.topics.dlq, origin, record.key(), record.value(), error.code, str(error), engine.clock.now_ms()
        )
        number.outbox.create(out)
        lane.complete(offset)
        engine.counters.events[f"dead_letter.{error.code}"] += 1
        log.error(
            "record.undecodable",
            extra={"topic": lane.topic, "partition": lane.partition, "offset": offset, "error": str(error)},
        )


def resume(attempt: Attempt, view: LiveView | None) -> None:
    """Give an attempt what the log holds of its job: what its own record carries, and what the checkpoint topic has.

    What travels in the record was taken from the checkpoint topic when it left: so it counts more than what is there of
    an earlier hop, which only waits to be buried, and less than what this hop saved.
    """
    job, carried = attempt.job, attempt.job.carried
    progress: Progress | None = None
    steps: dict[str, Step] = {}
    if carried is not None and carried.progress is not None:
        progress = progress_of(decode_checkpoint(carried.progress))
        steps = {step.name: step for step in map(_step, carried.steps or ())}
    if view is not None and view.life == job.life:
        record = None if view.progress is None or view.ended else decode_checkpoint(view.progress)
        leftover = progress is not None and (record is None or record.hop < job.hop or _is_away(record))
        saved = {name: _step(value) for name, value in view.steps.items()}
        if leftover:
            steps = {**saved, **steps}
        else:
            steps = {**steps, **saved}
            progress = progress if record is None else progress_of(record)
            attempt.logged.saved = view.progress is not None or view.job is not None or bool(saved)
        attempt.logged.promoted = view.job is not None
    if progress is not None:
        attempt.resume(progress)
    if steps:
        attempt.logged.steps = steps
        attempt.logged.steps_now = dict(steps)


def _is_away(record: CheckpointRecord) -> bool:
    """Whether the progress was left by a job that is on its way through the retry chain."""
    return record.home_offset < 0 and record.home_topic != "" and ".retry." in record.home_topic


def progress_of(record: CheckpointRecord) -> Progress:
    """What a checkpoint record saved."""
    return Progress(record.cursor, record.state, record.loops or {}, record.done, record.total)


def _step(value: bytes) -> Step:
    record = decode_step(value)
    return Step(record.name, StepPhase(record.phase), record.result, record.error)
