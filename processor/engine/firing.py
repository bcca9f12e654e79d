"""What a leader writes when schedules are due: the jobs, the cancels of runs that are replaced, how far each is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from processor import events
from processor.alert_kinds import AlertKind
from processor.broker.base import OffsetCommit, OutRecord
from processor.core.control import CANCEL, JOB
from processor.core.schedules import FIRED, Overlap, ScheduleTable, Standing, due, run_of, turn
from processor.engine.runs import RunWatch
from processor.errors import BrokerError, DefinitionError
from processor.job_ids import scheduled_id
from processor.texts import message_of
from processor.wire.codec import encode
from processor.wire.headers import routing_headers
from processor.wire.records import AlertRecord, ControlRecord, ScheduleFired
from processor.wire.topics import alerts_topic, control_topic, jobs_topic, schedules_topic

if TYPE_CHECKING:
    from processor.broker.base import Broker
    from processor.clock import Clock
    from processor.core.schedules import Due, Turn
    from processor.engine.config import WorkerConfig
    from processor.engine.counters import Counters
    from processor.wire.records import ScheduleRecord

log = events.logger(__name__)

FLUSH_RECORDS = 2_000
FLUSH_BYTES = 8 * 1024 * 1024
"""Of one flush, about."""
HOLD = 30.0
"""Seconds that a schedule rests which cannot be fired: its queue does not exist, its time zone is not known here."""
ASK_AGAIN = 0.005
"""Seconds until it is asked again whether a run has ended."""


class Leads(Protocol):
    """The leadership that a load belongs to."""

    assignment: int
    """-1: it is over."""


@dataclass(slots=True, kw_only=True)
class Load:
    """What one flush of the scheduler carries. Implements `processor.engine.batch.Cargo`."""

    lead: Leads
    group: str
    assignment: int
    offsets: list[OffsetCommit]
    creates: list[OutRecord] = field(default_factory=list)
    """Jobs, and cancels of the runs that they replace."""
    announces: list[OutRecord] = field(default_factory=list)
    """How far schedules are: after the jobs, so that no torn transaction shows an instant as done that is not."""
    seals: list[OutRecord] = field(default_factory=list)
    fired: list[ScheduleFired] = field(default_factory=list)
    """What `announces` says."""
    names: dict[int, str] = field(default_factory=dict)
    """The schedules of records in `creates`, by identity of the record."""
    buried: list[str] = field(default_factory=list)
    """Removed schedules that are forgotten."""
    size: int = 0
    watched: str = ""

    @property
    def wanted(self) -> bool:
        """Whether this worker still leads."""
        return self.assignment == self.lead.assignment

    @property
    def says_something(self) -> bool:
        """Whether it carries records."""
        return bool(self.creates or self.announces)


class Firing:
    """Fills the flushes of a leader. Used by the scheduler's thread alone."""

    def __init__(self, broker: Broker, config: WorkerConfig, clock: Clock, counters: Counters) -> None:
        self._broker = broker
        self._config = config
        self._clock = clock
        self._counters = counters
        self._runs = RunWatch(broker, config.namespace)
        self._held: dict[str, float] = {}
        """Schedules that rest, until when (monotonic seconds)."""
        self._queues: dict[str, float] = {}
        """Queues that exist, until when that is believed."""
        self._wake_ms: float = 0.0
        """Before then nothing is due."""

    def begin(self) -> None:
        """This worker leads from now on."""
        self._held.clear()
        self._wake_ms = 0.0

    def end(self) -> None:
        """It leads no longer."""
        self._runs.close()

    def read(self, table: ScheduleTable) -> int:
        """Take in which runs have ended, and which schedules have changed."""
        if table.changed:
            table.changed = False
            self._wake_ms = 0.0
        return self._runs.read()

    def seconds_left(self) -> float:
        """Until something may be due."""
        return max((self._wake_ms - self._clock.now_ms()) / 1000, ASK_AGAIN)

    def fill(self, load: Load, table: ScheduleTable) -> None:
        """Put into the load what is due now.

        Raises:
            BrokerError: the cluster did not answer a question; the load is not to be used.
        """
        now_ms = self._clock.now_ms()
        if now_ms < self._wake_ms:
            return
        wake = math.inf
        for standing in table.standings.values():
            if len(load.creates) >= FLUSH_RECORDS or load.size >= FLUSH_BYTES:
                wake = 0.0
                break
            wake = min(wake, self._guarded(load, standing, now_ms))
        topic = schedules_topic(self._config.namespace)
        for name in table.orphans():
            load.buried.append(name)
            load.announces.append(OutRecord(topic, f"{name}{FIRED}".encode(), None))
        self._wake_ms = wake

    def done(self, load: Load, table: ScheduleTable) -> None:
        """The load is committed."""
        for record in load.fired:
            table.fired(record)
            log.info(
                "schedule.fired",
                extra={"schedule": record.name, "instant": record.instant, "job_id": record.job_id},
            )
        for name in load.buried:
            table.forget(name)
        self._counters.events["schedules.fired"] += len(load.names)
        self._wake_ms = 0.0

    def failed(self, load: Load, refused: Mapping[int, BrokerError]) -> None:
        """The load is not committed: it is tried again, without what the broker will never take."""
        self._wake_ms = 0.0
        for record, error in refused.items():
            if record in load.names:
                self._hold(load.names[record], f"the broker refuses its job: {error}")

    def _guarded(self, load: Load, standing: Standing, now_ms: int) -> float:
        """As `_look_at`: what nobody thought of in one schedule holds up no other."""
        try:
            return self._look_at(load, standing, now_ms)
        except BrokerError:
            raise
        except Exception as error:
            log.exception("schedule.internal_error", extra={"schedule": standing.plan.name})
            self._counters.events["internal_errors"] += 1
            return self._hold(standing.plan.name, f"{type(error).__name__}: {message_of(error)}")

    # --- one schedule --------------------------------------------------------------------------------------------

    def _look_at(self, load: Load, standing: Standing, now_ms: int) -> float:
        """Fire a schedule if it is due; when to look at it again, milliseconds."""
        plan, now = standing.plan, self._clock.monotonic()
        held = self._held.get(plan.name, 0.0) - now
        if held > 0:
            return now_ms + held * 1000
        try:
            fires = standing.next_fire()
            if fires is None or fires > now_ms:
                return math.inf if fires is None else fires
            if not self._queue_exists(plan.queue, now):
                return self._hold(plan.name, f"queue {plan.queue} has no topics")
            room = max((FLUSH_BYTES - load.size) // (len(plan.payload) + 500), 1)
            found = due(standing, now_ms, room)
        except DefinitionError as error:
            return self._hold(plan.name, str(error))
        if found is None:
            return now_ms
        going = self._is_going(standing, now_ms)
        if going is None:
            return 0.0
        self._fire(load, standing, found, turn(plan.overlap, found.instants, going), now_ms)
        return now_ms

    def _is_going(self, standing: Standing, now_ms: int) -> bool | None:
        """Whether an earlier run has not ended, as far as that matters; None: not known yet."""
        plan, fired = standing.plan, standing.fired
        if plan.overlap == Overlap.QUEUE or fired is None or not fired.job_id:
            return False
        if now_ms - fired.job_at > self._config.status_retention * 1000:
            return False
        over = self._runs.is_over(plan.name, fired.job_id, fired.job_at)
        return None if over is None else not over

    def _fire(self, load: Load, standing: Standing, found: Due, chosen: Turn, now_ms: int) -> None:
        plan, config = standing.plan, self._config
        before = standing.fired or ScheduleFired(plan.name, 0, 0, "")
        if found.missed:
            log.warning(
                "schedule.missed",
                extra={"schedule": plan.name, "since": found.missed, "catch_up": plan.catch_up, "until": found.upto},
            )
            self._counters.events["schedules.missed"] += 1
            load.announces.append(self._alert(plan, found, now_ms))
        if chosen.skipped:
            log.info("schedule.skipped", extra={"schedule": plan.name, "instants": chosen.skipped})
        if chosen.replaces:
            load.creates.append(self._cancel(plan, before.job_id, now_ms))
        job_id, job_at = before.job_id, before.job_at
        for instant in chosen.runs:
            job_id, job_at = scheduled_id(plan.name, instant), now_ms
            self._start(load, plan, job_id, now_ms)
        if chosen.runs and plan.overlap != Overlap.QUEUE:
            self._runs.follow(plan.name, job_id, None)
        fired, skipped = before.fired + len(chosen.runs), before.skipped + chosen.skipped
        record = ScheduleFired(plan.name, found.upto, now_ms, config.slot, job_id, job_at, fired, skipped)
        load.fired.append(record)
        load.announces.append(
            OutRecord(schedules_topic(config.namespace), f"{plan.name}{FIRED}".encode(), encode(record))
        )

    def _start(self, load: Load, plan: ScheduleRecord, job_id: str, now_ms: int) -> None:
        job = run_of(plan, job_id, now_ms)
        key = (job.id if job.key is None else job.key).encode()
        topic = jobs_topic(self._config.namespace, job.queue)
        out = OutRecord(topic, key, encode(job), routing_headers(job, derived=True))
        load.creates.append(out)
        load.names[id(out)] = plan.name
        load.size += len(out.value or b"")

    def _cancel(self, plan: ScheduleRecord, job_id: str, now_ms: int) -> OutRecord:
        order = ControlRecord(
            f"{JOB}{job_id}",
            CANCEL,
            now_ms,
            f"schedule {plan.name}",
            "the next run replaces it",
            life=1,
            queue=plan.queue,
            type=plan.type,
        )
        return OutRecord(control_topic(self._config.namespace), order.target.encode(), encode(order))

    def _alert(self, plan: ScheduleRecord, found: Due, now_ms: int) -> OutRecord:
        first, last = (datetime.fromtimestamp(at / 1000, UTC).isoformat() for at in (found.missed, found.upto))
        subject = f"schedule:{plan.name}"
        text = f"nobody fired schedule {plan.name} from {first} to {last}; catch-up: {plan.catch_up}"
        record = AlertRecord(
            AlertKind.SCHEDULE_MISSED, subject, now_ms, self._config.slot, text, "", plan.type, plan.queue
        )
        return OutRecord(alerts_topic(self._config.namespace), subject.encode(), encode(record))

    def _queue_exists(self, queue: str, now: float) -> bool:
        """Whether a queue has topics: to one without, a flush would never be through."""
        if self._queues.get(queue, 0.0) > now:
            return True
        topic = jobs_topic(self._config.namespace, queue)
        if topic not in self._broker.admin().topics([topic]):
            return False
        self._queues[queue] = now + 60.0
        return True

    def _hold(self, name: str, why: str) -> float:
        """Let a schedule rest; until when, milliseconds."""
        log.error("schedule.held", extra={"schedule": name, "why": why, "seconds": HOLD})
        self._counters.events["schedules.held"] += 1
        self._held[name] = self._clock.monotonic() + HOLD
        return self._clock.now_ms() + HOLD * 1000
