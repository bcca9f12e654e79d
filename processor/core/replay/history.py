"""The history of queues: the records of their lanes, folded into jobs. Pure.

A job may have left many records: in the normal lane, after each retry in the due lane, and for each life. It is one job
all the same. It is meant if any of its records lies in the wanted range; it is replayed as its newest record has it
(a redrive may have given it another payload); and it is sent at the place of its oldest, so that jobs of one ordering
key come in the order in which they once ran.

Two kinds of jobs would run twice, and are left out: the children of jobs that are replayed, which start them anew, and
jobs that are themselves replays of replayed jobs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from processor.core.idempotency import is_keyed
from processor.core.replay.spec import UNKNOWN, Filters, Spec
from processor.job import Job, Place
from processor.states import TERMINAL, State

Time = tuple[int, Place]


class LeftOut(StrEnum):
    """Why a job that the filters mean is not sent."""

    CHILD = "child"
    """Its parent is replayed, and starts it anew."""
    COPY = "copy"
    """It is a replay of a job that is replayed."""
    UNENDED = "unended"
    """It has not ended, and would keep its id."""
    LATER_LIFE = "later_life"
    """It has begun another life since, and would keep its id."""

    @property
    def words(self) -> str:
        """As operators are told of several."""
        return _IN_WORDS[self]


_IN_WORDS = {
    LeftOut.CHILD: "their parents are replayed, and start them anew",
    LeftOut.COPY: "they are replays of jobs that are replayed",
    LeftOut.UNENDED: "they have not ended, and would keep their ids",
    LeftOut.LATER_LIFE: "they have begun a later life since, and would keep their ids",
}


class Known(NamedTuple):
    """What the status topic says of a job."""

    life: int
    state: State


class Chosen(NamedTuple):
    """A job that is to be replayed."""

    queue: str
    id: str
    type: str
    state: str
    """A `State`, or `unknown`."""
    life: int
    number: int
    """The partition number that it belongs to."""
    place: Place
    """Of its newest record."""
    time: Time
    """Where it comes in the order: milliseconds of its oldest record, and that record's place."""
    size: int
    """Bytes of its record."""

    @property
    def name(self) -> str:
        """What it is called in the journal."""
        return f"{self.queue}/{self.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What is to be replayed."""

    jobs: Sequence[Chosen]
    """In the order in which they are sent."""
    left_out: Mapping[LeftOut, int]
    missing: Sequence[str]
    """Ids that were asked for and of which there is no record."""

    def counts(self) -> dict[tuple[str, str, str], int]:
        """Jobs by queue, type and state."""
        return dict(sorted(Counter((job.queue, job.type, job.state) for job in self.jobs).items()))


class _Seen:
    """What is known of a job so far."""

    __slots__ = ("first", "in_range", "matches", "newest", "origin", "parent", "place", "size", "time", "type")

    def __init__(self, job: Job, place: Place, time: Time) -> None:
        self.type, self.parent, self.in_range = job.type, job.parent, False
        self.newest = self.first = (job.life, job.hop)
        self.time, self.place, self.size = time, place, 0
        self.matches, self.origin = False, origin_id(job)


class History:
    """Folds records; those of one partition come in their order."""

    def __init__(
        self,
        spec: Spec,
        since: int | None,
        until: int | None,
        known: Mapping[str, Known],
        is_done: Callable[[Place], bool],
    ) -> None:
        """Made for one reading.

        Args:
            spec: what is wanted.
            since: milliseconds since the epoch, as `until`; None: no limit.
            until: the first moment that is not meant.
            known: what the status topic says, by id.
            is_done: whether a place in a lane was worked off.
        """
        self._spec = spec
        self._known, self._is_done = known, is_done
        self._filters = Filters(spec)
        self._since, self._until = since, until
        self._seen: dict[tuple[str, str], _Seen] = {}
        self._clocks: dict[tuple[str, int], int] = {}

    def add(self, queue: str, place: Place, at: int, job: Job, size: int, *, in_range: bool) -> None:
        """One more record.

        Args:
            queue: whose lane it lies in.
            place: where.
            at: its time in the log, milliseconds since the epoch.
            job: what it holds.
            size: its bytes.
            in_range: whether the wanted offsets hold it.
        """
        # Clocks of producers differ; within a partition the order of the log counts, so its time never goes back.
        lane = place[:2]
        self._clocks[lane] = at = max(at, self._clocks.get(lane, 0))
        if not self._filters.concerns(job) or self._is_one_more_wish(job, place):
            return
        time, version = (at, place), (job.life, job.hop)
        seen = self._seen.get((queue, job.id))
        if seen is None:
            seen = self._seen[queue, job.id] = _Seen(job, place, time)
        if version >= seen.newest:
            seen.newest, seen.place, seen.size = version, place, size
            seen.matches, seen.origin = self._filters.holds(job), origin_id(job)
        if (version, time) < (seen.first, seen.time):
            seen.first, seen.time = version, time
        seen.in_range |= in_range and self._in_time(job.enqueued_at)

    def _is_one_more_wish(self, job: Job, place: Place) -> bool:
        """Whether it is an enqueue under an idempotency key that was dropped, since the key's job was there already."""
        if not is_keyed(job.id):
            return False
        known = self._known.get(job.id)
        return known is not None and job.life > known.life and self._is_done(place)

    def _in_time(self, at: int) -> bool:
        return (self._since is None or at >= self._since) and (self._until is None or at < self._until)

    def choose(self, sent: Container[str] = ()) -> Choice:
        """The jobs that are meant.

        Args:
            sent: `Chosen.name` of those that were sent already: they stay meant, whatever became of them since.
        """
        known = self._known
        left_out: Counter[LeftOut] = Counter()
        meant = []
        for (queue, job_id), seen in self._seen.items():
            if seen.in_range and seen.matches:
                state = _state(seen, known.get(job_id), self._is_done)
                if self._filters.wants_state(state) or f"{queue}/{job_id}" in sent:
                    meant.append((queue, job_id, seen, state))
        selected = {job_id for _, job_id, *_ in meant}
        jobs = []
        for queue, job_id, seen, state in meant:
            why = _reason(seen, selected) or self._unfit(seen, known.get(job_id), state)
            if why is not None and f"{queue}/{job_id}" not in sent:
                left_out[why] += 1
                continue
            number = seen.place.partition
            jobs.append(
                Chosen(queue, job_id, seen.type, state, seen.newest[0], number, seen.place, seen.time, seen.size)
            )
        found = {job_id for _, job_id in self._seen}
        missing = [job_id for job_id in dict.fromkeys(self._spec.ids) if job_id not in found]
        return Choice(jobs=sorted(jobs, key=lambda job: job.time), left_out=left_out, missing=missing)

    def _unfit(self, seen: _Seen, known: Known | None, state: str) -> LeftOut | None:
        """Why a job cannot begin its next life; elsewhere it need not have ended."""
        if not self._spec.same_ids or self._spec.moves:
            return None
        if known is not None and known.life > seen.newest[0]:
            return LeftOut.LATER_LIFE
        return None if state == UNKNOWN or State(state) in TERMINAL else LeftOut.UNENDED


def _reason(seen: _Seen, selected: set[str]) -> LeftOut | None:
    if seen.parent in selected:
        return LeftOut.CHILD
    return LeftOut.COPY if seen.origin in selected else None


def _state(seen: _Seen, known: Known | None, is_done: Callable[[Place], bool]) -> str:
    if known is not None and known.life >= seen.newest[0]:
        return known.state.value
    return UNKNOWN if is_done(seen.place) else State.QUEUED.value


def origin_id(job: Job) -> str | None:
    """The id of the job that this one is a replay of, if it has another one."""
    text = job.redriven_from
    if text is None or text.count("/") < 2:
        return None
    job_id = text.split("/", 2)[2].rpartition("@")[0]
    return None if job_id == job.id else job_id
