"""A handle: an enqueued job, as whoever waits for it sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, overload

from processor.client.async_waits import LOOK
from processor.client.interrupts import told_in_one_line
from processor.client.status import StatusTail
from processor.client.track import BEGINNING, Track
from processor.errors import DefinitionError, JobFailed, JobNotFinished, OtherJobType, ResultUnavailable
from processor.signals import stop_if_asked, waits_for
from processor.states import TERMINAL, State
from processor.wire.durations import Duration, parse_duration
from processor.wire.records import StatusRecord

R = TypeVar("R")
_A_YEAR = 365 * 86_400.0
_READ_TIMEOUT = 30.0
"""Seconds to read what the status topic holds by now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """Where a job stood when it was asked."""

    id: str
    state: State
    life: int = 1
    attempt: int = 0
    """Attempts that were made in this life."""
    at: int | None = None
    """When it came to this state, milliseconds since the epoch; None while it is queued."""
    worker: str = ""
    error: str = ""
    """Why it failed, if it did; of a job that waits for its retry, why its last attempt did."""
    attempts: int | None = None
    """Attempts that the retry policy of its type allows; None: they depend on the error, or the type is not known here.
    """
    due_at: int | None = None
    """When its next attempt may begin, milliseconds since the epoch; None unless it waits for that."""
    ends_at: int | None = None
    """When it is told to stop at the latest, milliseconds since the epoch: its kill date, or the end of the time that
    the attempt which runs has. None: never, or nobody has said so yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProgress:
    """How far a job said it is."""

    done: float | None = None
    total: float | None = None
    note: str | None = None

    @property
    def fraction(self) -> float | None:
        """Between 0 and 1; None while the job has not said of how much."""
        if self.done is None or not self.total:
            return None
        return min(1.0, max(0.0, self.done / self.total))


class Handle(Generic[R]):
    """An enqueued job. Made by `enqueue`, or from its id by `app.handle` and `JobType.handle`, anywhere and later."""

    def __init__(
        self,
        job_id: str,
        tail: Callable[[], StatusTail],
        decode: Callable[[bytes | None], R],
        track: Track | None = None,
        cancel: Callable[[str, StatusRecord | None, str], bool] | None = None,
        attempts: int | None = None,
        job_type: str | None = None,
        due_at: int | None = None,
    ) -> None:
        self.id = job_id
        self._tail = tail
        self._decode = decode
        self._track = track
        self._cancel = cancel
        self._attempts = attempts
        self._type = job_type
        self._due_at = due_at
        """What the job must be, if that is known."""

    def __repr__(self) -> str:
        return f"Handle({self.id!r})"

    def status(self) -> JobStatus:
        """Where the job stands now. A job the status topic knows nothing of counts as queued.

        Raises:
            OtherJobType: the id is that of a job of another type; so do all methods here.
        """
        record = self._read()
        if record is None:
            # Nobody says anything of a job before it starts: only who has enqueued it knows that it is to wait.
            state = State.QUEUED if self._due_at is None else State.SCHEDULED
            return JobStatus(id=self.id, state=state, attempts=self._attempts, due_at=self._due_at)
        return JobStatus(
            id=self.id,
            state=record.state,
            life=record.life,
            attempt=record.attempt,
            at=record.at,
            worker=record.worker,
            error=_error(record),
            attempts=self._attempts,
            due_at=record.due_at,
            ends_at=min((at for at in (record.kill_at, record.ends_at) if at is not None), default=None),
        )

    def progress(self) -> JobProgress:
        """How far the job said it is."""
        record = self._read()
        return JobProgress() if record is None else JobProgress(done=record.done, total=record.total, note=record.note)

    def wait(self, timeout: Duration | None = None) -> JobStatus:
        """Wait until the job has ended, well or not.

        Raises:
            JobNotFinished: it has not within `timeout` (None: wait on).
        """
        self._ended(timeout)
        return self.status()

    def result(self, timeout: Duration | None = None) -> R:
        """What the handler returned.

        Raises:
            JobNotFinished: the job has not ended within `timeout` (None: wait on).
            JobFailed: it ended without success.
        """
        return self._outcome(self._ended(timeout))

    def _outcome(self, record: StatusRecord) -> R:
        if record.state is not State.SUCCEEDED:
            raise JobFailed(self.id, record.state.value, _error(record) or record.note or "no reason was given")
        if record.error is not None:
            raise ResultUnavailable(
                f"job {self.id} has succeeded, and its result could not be kept: {record.error.message}",
                hint="return less: put the data into a file, bucket or table and return its name",
            )
        return self._decode(record.result)

    async def astatus(self) -> JobStatus:
        """`status` for the event loop."""
        return await asyncio.to_thread(self.status)

    async def aprogress(self) -> JobProgress:
        """`progress` for the event loop."""
        return await asyncio.to_thread(self.progress)

    async def await_end(self, timeout: Duration | None = None) -> JobStatus:
        """`wait` for the event loop."""
        await self._async_ended(timeout)
        return await self.astatus()

    async def aresult(self, timeout: Duration | None = None) -> R:
        """`result` for the event loop."""
        return self._outcome(await self._async_ended(timeout))

    def cancel(self, reason: str = "") -> bool:
        """Cancel the job, wherever it is; False: it has ended already. `reason` stays with it.

        It returns once the order is in the log. A running job hears of it at its next checkpoint, step or item; see
        `wait` for its end. A later life of the same job is not meant.

        Raises:
            BrokerError: the order was not confirmed; giving it again is harmless.
        """
        if self._cancel is None:
            raise DefinitionError(f"the handle of job {self.id} was made by hand", hint="use app.handle(id)")
        return self._cancel(self.id, self._read(), reason)

    async def acancel(self, reason: str = "") -> bool:
        """`cancel` for the event loop."""
        return await asyncio.to_thread(self.cancel, reason)

    def _tracked(self) -> Track:
        tail, track = self._tail(), self._track
        if track is None or track.tail is not tail:
            floor = 0 if track is None else track.floor
            track = self._track = tail.track(self.id, BEGINNING if track is None else track.origin)
            track.forget_before(floor)
        return track

    def _read(self) -> StatusRecord | None:
        track = self._tracked()
        if not track.tail.catch_up(track, _READ_TIMEOUT):
            raise JobNotFinished(
                f"the status of job {self.id} could not be read within {_READ_TIMEOUT:g} s",
                hint="the job is not affected; ask again",
            )
        return None if track.latest is None else self._own(track.latest)

    def _own(self, record: StatusRecord) -> StatusRecord:
        if self._type is not None and record.type not in ("", self._type):
            raise OtherJobType(self.id, self._type, record.type)
        return record

    def _ended(self, timeout: Duration | None) -> StatusRecord:
        seconds = _seconds(timeout)
        track = self._begun()
        with waits_for(self.id), told_in_one_line(f"job {self.id} goes on without being waited for"):
            ended = track.tail.wait_end(track, seconds)
        return self._last(track, ended, seconds)

    async def _async_ended(self, timeout: Duration | None) -> StatusRecord:
        """As `_ended`, without a thread of its own: many may wait, and a wait that is cancelled is over at once."""
        seconds = _seconds(timeout)
        track = await asyncio.to_thread(self._begun)
        wait = asyncio.wrap_future(track.tail.waits.ended(track, seconds))
        try:
            with waits_for(self.id):
                while not wait.done():
                    stop_if_asked()  # a waiting handler can be stopped
                    await asyncio.wait([wait], timeout=LOOK)
        finally:
            wait.cancel()
        return self._last(track, wait.result(), seconds)

    def _begun(self) -> Track:
        track = self._tracked()
        if track.latest is not None and track.latest.state in TERMINAL - {State.SUCCEEDED}:
            self._read()  # it may have been sent back since: then a later life counts
        return track

    def _last(self, track: Track, ended: bool, seconds: float) -> StatusRecord:
        if not ended:
            raise JobNotFinished(
                f"job {self.id} has not ended within {seconds:g} s",
                hint="the job goes on: call result() again, or look at status()",
            )
        assert track.latest is not None
        return self._own(track.latest)


def _seconds(timeout: Duration | None) -> float:
    return _A_YEAR if timeout is None else parse_duration(timeout, name="timeout")


def _error(record: StatusRecord) -> str:
    if record.error is None:
        return ""
    told = f"{record.error.kind}: {record.error.message}"
    place = record.error.traceback.strip().rpartition("\n")[2]
    return f"{told} ({place})" if place else told


class Enqueued(Sequence[Handle[R]]):
    """Many jobs that were enqueued together and are confirmed, in their order; their handles are made when asked for.

    `ids` gives the ids. A fresh id takes 16 bytes here, one that was chosen the text that it is.
    """

    def __init__(self, handle: Callable[[str], Handle[R]]) -> None:
        self._handle = handle
        self._fresh = bytearray()
        self._chosen: list[str] = []

    def add(self, job_id: str, *, chosen: bool) -> None:
        """One more; all of them are chosen, or none is."""
        if chosen:
            self._chosen.append(job_id)
        else:
            self._fresh += bytes.fromhex(job_id.replace("-", ""))

    @property
    def ids(self) -> Iterator[str]:
        """The ids, in the order of the payloads."""
        return (self._id(place) for place in range(len(self)))

    def _id(self, place: int) -> str:
        if self._chosen:
            return self._chosen[place]
        text = self._fresh[place * 16 : place * 16 + 16].hex()
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def __len__(self) -> int:
        return len(self._chosen) or len(self._fresh) // 16

    @overload
    def __getitem__(self, place: int) -> Handle[R]: ...
    @overload
    def __getitem__(self, place: slice) -> list[Handle[R]]: ...
    def __getitem__(self, place: int | slice) -> Handle[R] | list[Handle[R]]:
        places = range(len(self))[place]
        if isinstance(places, range):
            return [self._handle(self._id(each)) for each in places]
        return self._handle(self._id(places))

    def __repr__(self) -> str:
        return f"<{len(self):,} enqueued jobs>"
