"""`app.schedule`: jobs that the clock starts, declared in code.

    app.schedule("nightly", nightly, cron="0 2 * * *", tz="Europe/Berlin")
    app.schedule("poll", poll, every="30s", payload=Poll(url="..."), overlap="queue")

Declaring has no effect by itself. A worker of the app writes what is declared into the schedules topic when it starts,
and from then on some worker of the namespace fires it. What the command line says of the same name wins over code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeVar, overload

from processor.core.schedules import CODE, CatchUp, Overlap, checked
from processor.errors import DefinitionError
from processor.job import OVERTAKING_LANES, Job, Lane
from processor.job_types import JobType
from processor.texts import shown
from processor.wire.durations import Duration, parse_duration
from processor.wire.records import ScheduleRecord

P = TypeVar("P")
R = TypeVar("R")
_PROBE = "schedule"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """When a schedule fires, and what it does when runs overlap or instants were missed."""

    cron: str = ""
    every: Duration | None = None
    tz: str = "UTC"
    overlap: str = Overlap.SKIP
    catch_up: str = CatchUp.LAST
    jitter: Duration = 0

    def record(self, name: str, job: Job, *, now_ms: int, by: str, source: str, reason: str = "") -> ScheduleRecord:
        """The schedule that starts jobs like this one from now on.

        Raises:
            DefinitionError: it makes no sense; the message says what.
        """
        key = job.key
        if key is None and self.overlap == Overlap.QUEUE:
            key = f"schedule {name}"  # jobs of one key run one at a time, in order
        return checked(
            ScheduleRecord(
                name=name,
                type=job.type,
                queue=job.queue,
                version=job.version,
                payload=job.payload,
                at=now_ms,
                by=by,
                since=now_ms,
                cron=self.cron,
                tz=self.tz,
                every=0 if self.every is None else _millis(name, "every", self.every),
                overlap=str(self.overlap),
                catch_up=str(self.catch_up),
                jitter=_millis(name, "jitter", self.jitter),
                key=key,
                kill_after=None if job.kill_at is None else job.kill_at - job.enqueued_at,
                source=source,
                reason=reason,
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A schedule, as declared in code."""

    name: str
    job_type: JobType[Any, Any]
    payload: Any
    timing: Timing

    def record(self, *, now_ms: int, by: str, max_bytes: int) -> ScheduleRecord:
        """As it is written into the schedules topic.

        Raises:
            PayloadInvalid, PayloadTooLarge, NameInvalid: the payload cannot be a job's.
            DefinitionError: it makes no sense; the message says what.
        """
        job = self.job_type._made(self.payload, _PROBE, now_ms, max_bytes)
        return self.timing.record(self.name, job, now_ms=now_ms, by=by, source=CODE)


class Schedules:
    """The schedules of an app: the part of `App` that declares them."""

    def __init__(self) -> None:
        self.schedules: dict[str, Schedule] = {}

    @overload
    def schedule(
        self,
        name: str,
        job_type: JobType[None, R],
        *,
        cron: str = "",
        every: Duration | None = None,
        tz: str = "UTC",
        overlap: Literal["skip", "queue", "replace"] = "skip",
        catch_up: Literal["none", "last", "all"] = "last",
        jitter: Duration = 0,
    ) -> Schedule: ...
    @overload
    def schedule(
        self,
        name: str,
        job_type: JobType[P, R],
        *,
        payload: P,
        cron: str = "",
        every: Duration | None = None,
        tz: str = "UTC",
        overlap: Literal["skip", "queue", "replace"] = "skip",
        catch_up: Literal["none", "last", "all"] = "last",
        jitter: Duration = 0,
    ) -> Schedule: ...
    def schedule(self, name: str, job_type: JobType[Any, Any], *, payload: Any = None, **timing: Any) -> Schedule:
        """Declare that the clock starts jobs: at each instant one, whatever happens to workers meanwhile.

        Args:
            name: unique in the namespace, at most 100 characters, without `#`.
            job_type: what `@app.job` made of the handler.
            payload: what the handler gets, the same each time.
            timing: `cron`: five fields, minute hour day month weekday, or six with the second first; `tz`: its time
                zone; or `every`: an interval from 1 s on, counted from the epoch. `overlap`: what happens at an instant
                while an earlier run goes on: `skip` it, `queue` its run behind, or cancel the earlier one (`replace`).
                `catch_up`: which of the instants that all workers missed by over a minute are made up for: `none`,
                the `last`, or `all`. `jitter`: each instant is fired up to so much later.

        Raises:
            DefinitionError: the name is taken, or something makes no sense.
        """
        if name in self.schedules:
            raise DefinitionError(f"schedule {shown(name, 60)} is declared twice", hint="give each a name of its own")
        if not isinstance(job_type, JobType):
            raise DefinitionError(
                f"schedule {shown(name, 60)}: {shown(job_type, 60)} is no job type",
                hint='give it what @app.job made of the handler: app.schedule("nightly", nightly, cron="0 2 * * *")',
            )
        made = Schedule(name=name, job_type=job_type, payload=payload, timing=Timing(**timing))
        _check_timing(made)
        self.schedules[name] = made
        return made


def typed_job(job_type: JobType[Any, Any], value: object, *, now_ms: int, max_bytes: int) -> Job:
    """A job like those that a schedule is to start, of data that the payload's model is to check first.

    Raises:
        PayloadInvalid, PayloadTooLarge, NameInvalid: it cannot be one.
    """
    return job_type._made(job_type._payloads.checked(value), _PROBE, now_ms, max_bytes)


def _check_timing(schedule: Schedule) -> None:
    """Whatever can be told without the payload, whose model may not be complete at import."""
    job_type = schedule.job_type
    probe = Job(_PROBE, job_type.name, job_type.version, job_type.queue, b"", 0)
    record = schedule.timing.record(schedule.name, probe, now_ms=0, by="", source=CODE)
    refuse_unordered(record.name, record.overlap, job_type.queue, job_type._declared.queue.lanes)


def refuse_unordered(name: str, overlap: str, queue: str, lanes: tuple[Lane, ...]) -> None:
    """Runs that queue up share an ordering key, and a queue with keys has no high or low lane.

    Raises:
        DefinitionError: this one has.
    """
    if overlap == Overlap.QUEUE and OVERTAKING_LANES & set(lanes):
        raise DefinitionError(
            f"schedule {shown(name, 60)}: overlap='queue' in queue {queue}, which has a high or low lane",
            hint="runs that wait for each other share an ordering key: use a queue without such lanes",
        )


def _millis(name: str, option: str, value: Duration) -> int:
    return round(parse_duration(value, name=f"schedule {shown(name, 60)}: {option}") * 1000)
