"""When schedules fire: the instants of cron expressions and intervals, what was missed, what overlaps. Pure.

An *instant* is a moment at which a schedule is to start a job, in milliseconds since the epoch. The instants of a
schedule follow from its record alone, so every worker knows the same ones, and the id of the job of an instant is
always the same (`processor.job_ids.scheduled_id`).

Daylight saving, as Debian's cron has it (`cronsim` decides): an expression of five fields that names minute and hour
(`30 2 * * *`) fires once a day, right after the gap where the clock jumps over its time, and the first time where the
clock shows it twice. One whose minute or hour begins with `*`, and one with seconds, goes by real time: what the clock
leaves out does not fire, what it shows twice fires twice.

An instant that is up to a minute late is on time: the next worker takes that long at most to take over from one that
died. Older ones are *missed*, and `catch_up` says what becomes of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, tzinfo
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b
from itertools import islice
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from processor.errors import DefinitionError, RecordError
from processor.job import Job
from processor.texts import shown
from processor.wire.codec import decode
from processor.wire.names import fault_of_id
from processor.wire.records import ScheduleFired, ScheduleRecord

LATE_MS = 60_000
"""How late an instant may be and still be on time."""
AT_ONCE = 1_000
"""Instants of one schedule that are dealt with at a time."""
CODE, CLI = "code", "cli"
"""Sources of a schedule."""
FIRED = "#fired"
"""End of the key under which the topic keeps how far a schedule is."""
SHORTEST_MS = 1_000
_LAST_MS = 253_370_764_800_000
"""The first moment of the year 9999: calendars end there."""


class Overlap(StrEnum):
    """What an instant does while the run of an earlier one has not ended."""

    SKIP = "skip"
    """Nothing: it passes."""
    QUEUE = "queue"
    """Its run waits: all runs share an ordering key, so they run one at a time, in order."""
    REPLACE = "replace"
    """It cancels the earlier run and starts its own."""


class CatchUp(StrEnum):
    """What becomes of missed instants."""

    NONE = "none"
    LAST = "last"
    """One run stands for all of them, unless the next instant is there already."""
    ALL = "all"


# --- instants ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def zone(name: str) -> tzinfo:
    """The time zone of that name.

    Raises:
        DefinitionError: this machine does not know it.
    """
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise DefinitionError(
            f"time zone {shown(name, 60)} is not known here",
            hint='use a name like "Europe/Berlin"; if it is right, this machine lacks the data: pip install tzdata',
        ) from error


def instants(plan: ScheduleRecord, after: int) -> Iterator[int]:
    """The instants of a schedule after a moment, in order.

    Raises:
        DefinitionError: the expression or the time zone cannot be read.
    """
    if plan.every > 0:
        at = (after // plan.every + 1) * plan.every
        while at < _LAST_MS:
            yield at
            at += plan.every
        return
    yield from _cron_instants(plan.cron, plan.tz, after)


def _cron_instants(expression: str, tz: str, after: int) -> Iterator[int]:
    from cronsim import CronSim, CronSimError  # only now: an app without schedules does without

    where = zone(tz)
    try:
        found = CronSim(expression, datetime.fromtimestamp(after / 1000, where))
    except CronSimError as error:
        raise DefinitionError(
            f"cron expression {shown(expression, 60)}: {error}",
            hint='five fields, "minute hour day month weekday", or six with the second first: "0 2 * * *" is at 2:00',
        ) from error
    last = after
    try:
        for moment in found:
            at = round(moment.timestamp() * 1000)
            # In the hour that the clock shows twice an expression goes by the first one, which may be over.
            if at > last:
                last = at
                yield at
    except (OverflowError, ValueError):
        return  # the calendar ends


def next_instant(plan: ScheduleRecord, after: int) -> int | None:
    """The first instant after a moment; None: there is none.

    Raises:
        DefinitionError: as `instants`.
    """
    return next(instants(plan, after), None)


def last_instant(plan: ScheduleRecord, after: int, until: int) -> int | None:
    """The last instant with `after` < instant <= `until`; None: there is none. It looks back in growing steps, so a
    schedule that rested for a year costs no more than one that rested for a day.
    """
    if plan.every > 0:
        at = until // plan.every * plan.every
        return at if at > after else None
    step = 2 * 60_000
    while True:
        start = max(after, until - step)
        found = None
        for at in instants(plan, start):
            if at > until:
                break
            found = at
        if found is not None or start == after:
            return found
        step *= 2


def delay_of(plan: ScheduleRecord, instant: int) -> int:
    """By how much the jitter delays an instant: drawn from name and instant, so it is the same for every worker."""
    if not plan.jitter:
        return 0
    digest = blake2b(f"{plan.name} {instant}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % (plan.jitter + 1)


def checked(plan: ScheduleRecord) -> ScheduleRecord:
    """The schedule, if it makes sense.

    Raises:
        DefinitionError: it does not; the message says what.
    """
    name = f"schedule {shown(plan.name, 60)}"
    fault = fault_of_id(plan.name) or ("it is longer than 100 characters" if len(plan.name) > 100 else None)
    if fault is not None:
        raise DefinitionError(f"{name}: the name is not allowed: {fault}", hint="use something like report.nightly")
    if bool(plan.cron) == bool(plan.every):
        raise DefinitionError(f"{name}: cron= or every=, one of the two", hint='cron="0 2 * * *" or every="10m"')
    if plan.every and plan.every < SHORTEST_MS:
        raise DefinitionError(f"{name}: every= is shorter than a second", hint="the shortest interval is 1s")
    for option, value, kinds in (("overlap", plan.overlap, Overlap), ("catch_up", plan.catch_up, CatchUp)):
        if value not in tuple(kinds):
            raise DefinitionError(f"{name}: {option}={value!r} is unknown", hint=f"use {', '.join(kinds)}")
    if plan.catch_up == CatchUp.ALL and plan.overlap != Overlap.QUEUE:
        raise DefinitionError(
            f"{name}: catch_up='all' with overlap={plan.overlap!r}: of many runs at once only one would be left",
            hint="use overlap='queue', or catch_up='last'",
        )
    if plan.every and plan.jitter >= plan.every:
        raise DefinitionError(f"{name}: the jitter is not shorter than the interval", hint="a tenth of it is usual")
    try:
        found = next_instant(plan, plan.since)
    except DefinitionError as error:
        raise DefinitionError(f"{name}: {error}", hint=error.hint) from error
    if found is None:
        raise DefinitionError(f"{name}: {plan.cron!r} never comes", hint="there is no such day in the next 50 years")
    return plan


# --- what is known ----------------------------------------------------------------------------------------------------


class Standing:
    """One schedule, and how far it is."""

    __slots__ = ("_fires", "_next", "_next_after", "fired", "plan")

    def __init__(self, plan: ScheduleRecord, fired: ScheduleFired | None) -> None:
        self.plan = plan
        self.fired = fired
        self._next: int | None = None
        self._fires: int | None = None
        """The same with its jitter."""
        self._next_after = -1

    @property
    def after(self) -> int:
        """All instants up to this one are dealt with, or do not count."""
        return max(self.plan.since, self.fired.instant if self.fired is not None else 0)

    def next(self) -> int | None:
        """The next instant; None: there is none, or the schedule rests.

        Raises:
            DefinitionError: this machine cannot read the expression or does not know the time zone.
        """
        if self.plan.paused:
            return None
        after = self.after
        if self._next_after != after:
            at = self._next = next_instant(self.plan, after)
            self._fires = None if at is None else at + delay_of(self.plan, at)
            self._next_after = after
        return self._next

    def next_fire(self) -> int | None:
        """When the next instant is fired, its jitter included; else as `next`."""
        return None if self.next() is None else self._fires


class ScheduleTable:
    """The schedules topic, folded. A record read twice changes nothing."""

    __slots__ = ("_fired", "changed", "standings")

    def __init__(self) -> None:
        self.changed = False
        """Set by whatever changes what is declared; who has looked at it takes it back."""
        self.standings: dict[str, Standing] = {}
        self._fired: dict[str, ScheduleFired] = {}

    def apply(self, key: bytes | None, value: bytes | None) -> None:
        """Fold one more record.

        Raises:
            RecordError: it cannot be read; nothing has changed.
        """
        name = (key or b"").decode("utf-8", "replace")
        record = None if value is None else decode(value)
        self.changed = True
        if name.endswith(FIRED):
            self._apply_fired(name.removesuffix(FIRED), record)
        elif record is None:
            self.standings.pop(name, None)
        elif isinstance(record, ScheduleRecord):
            known = self.standings.get(name)
            if known is not None and same_plan(known.plan, record) and not known.plan.paused:
                # Two workers declared it at the same time: no instant between the two is lost.
                record = record._replace(since=min(known.plan.since, record.since))
            self.standings[name] = Standing(record, self._fired.get(name))
        else:
            raise RecordError(f"a {type(record).__name__} lies in the schedules topic under {shown(name, 60)}")

    def _apply_fired(self, name: str, record: object) -> None:
        if record is None:
            self._fired.pop(name, None)
            if name in self.standings:
                self.standings[name].fired = None
        elif isinstance(record, ScheduleFired):
            self.fired(record)

    def fired(self, record: ScheduleFired) -> None:
        """A schedule got that far; what is known to be further already stays."""
        known = self._fired.get(record.name)
        if known is not None and known.instant > record.instant:
            return
        self._fired[record.name] = record
        standing = self.standings.get(record.name)
        if standing is not None:
            standing.fired = record

    def orphans(self) -> list[str]:
        """Schedules that were removed, and of which it is still known how far they were."""
        return [name for name in self._fired if name not in self.standings]

    def forget(self, name: str) -> None:
        """A removed schedule is forgotten whole."""
        self._fired.pop(name, None)


def same_plan(one: ScheduleRecord, other: ScheduleRecord) -> bool:
    """Whether two records of a name say the same, but for who wrote them and when."""
    return one._replace(at=0, by="", since=0, reason="") == other._replace(at=0, by="", since=0, reason="")


def carried_on(before: ScheduleRecord, record: ScheduleRecord) -> ScheduleRecord:
    """A schedule that takes the place of another one of its name: a pause stays; while it fires at the same instants,
    none of those that are due and not fired yet is lost.
    """
    same_instants = (before.cron, before.tz, before.every) == (record.cron, record.tz, record.every)
    since = before.since if same_instants and not before.paused else record.since
    return record._replace(paused=before.paused, since=since)


# --- decisions --------------------------------------------------------------------------------------------------------


class Due(NamedTuple):
    """What a schedule has to deal with now."""

    instants: Sequence[int]
    """To be fired, in order, as far as overlaps let them."""
    upto: int
    """With them everything up to this instant is dealt with."""
    missed: int
    """First instant that is passed over for good; 0: none is."""


def due(standing: Standing, now_ms: int, limit: int = AT_ONCE) -> Due | None:
    """The instants that are due, at most `limit`; None: none is.

    Raises:
        DefinitionError: as `Standing.next`.
    """
    plan = standing.plan
    first, fires = standing.next(), standing.next_fire()
    if first is None or fires is None or fires > now_ms:
        return None
    after, last, missed = standing.after, None, 0
    late = now_ms - LATE_MS - plan.jitter
    if first < late and plan.catch_up != CatchUp.ALL:
        last = last_instant(plan, after, late - 1)
        after, missed = last or after, first
    found: list[int] = []
    for at in islice(instants(plan, after), min(limit, AT_ONCE)):
        if at + delay_of(plan, at) > now_ms:
            break
        found.append(at)
    if last is not None and not found and plan.catch_up == CatchUp.LAST:
        return Due([last], last, missed if missed != last else 0)
    return Due(found, found[-1] if found else after, missed)


class Turn(NamedTuple):
    """What the overlap rule makes of due instants."""

    runs: Sequence[int]
    """Instants that start a job."""
    skipped: int
    """How many of the others there are."""
    replaces: bool
    """The earlier run is cancelled."""


def turn(overlap: str, due_instants: Sequence[int], going: bool) -> Turn:
    """Which of some due instants start a job; `going`: an earlier run has not ended. Several at once overlap too."""
    if overlap == Overlap.QUEUE or not due_instants:
        return Turn(due_instants, 0, False)
    others = len(due_instants) - 1
    if overlap == Overlap.REPLACE:
        return Turn(due_instants[-1:], others, going)
    return Turn([], others + 1, False) if going else Turn(due_instants[:1], others, False)


def run_of(plan: ScheduleRecord, job_id: str, now_ms: int) -> Job:
    """A job of a schedule, as it is started now."""
    kill_at = None if plan.kill_after is None else now_ms + plan.kill_after
    return Job(job_id, plan.type, plan.version, plan.queue, plan.payload, now_ms, plan.key, kill_at=kill_at)
