"""Event loops that wait for the ends of jobs: one thread for all of them, there only while somebody waits.

A thread per wait would fill asyncio's pool (six threads on two cores), and then nothing else that needs it goes on. And
a thread cannot be cancelled, but a future can: whoever waits no longer is forgotten at the next look.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import AbstractContextManager, ExitStack, suppress
from typing import Protocol

from processor.client.track import Track
from processor.clock import Clock

LOOK = 0.2
"""Seconds between two looks at who waits no longer, at most."""
CATCH_UP = 1.0
"""Seconds of one try to read what the log holds of a job so far; others wait as long for their turn."""


class _Wait:
    """One job that somebody waits for."""

    def __init__(self, track: Track, deadline: float) -> None:
        self.track = track
        self.deadline = deadline
        self.future: Future[bool] = Future()
        self.asked = ExitStack()
        """While it is open, the track's partition is read."""
        self.caught_up = not track.may_have_ended_before

    def over(self, now: float) -> bool:
        """Whether nothing is to be waited for any more."""
        return self.future.cancelled() or self.track.ended or now >= self.deadline


class SharedReader(Protocol):
    """Reads for all who wait: `processor.client.status.StatusTail`. Deadlines in monotonic seconds."""

    def asked(self, track: Track) -> AbstractContextManager[None]: ...
    def catch_up_by(self, track: Track, deadline: float) -> bool: ...
    def drive(self, done: Callable[[], bool], deadline: float) -> bool: ...


class AsyncWaits:
    """The waits of event loops on one tail. Thread-safe."""

    def __init__(self, tail: SharedReader, clock: Clock) -> None:
        self._tail = tail
        self._clock = clock
        self._guard = threading.Lock()
        self._new: list[_Wait] = []
        self._thread: threading.Thread | None = None

    def ended(self, track: Track, timeout: float) -> Future[bool]:
        """Whether the job has ended within `timeout` seconds. Cancel the future to wait no longer."""
        wait = _Wait(track, self._clock.monotonic() + timeout)
        with self._guard:
            self._new.append(wait)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="processor-status", daemon=True)
                self._thread.start()
        return wait.future

    def _run(self) -> None:
        waits: list[_Wait] = []
        while True:
            with self._guard:
                new, self._new = self._new, []
                waits += new
                if not waits:
                    self._thread = None
                    return
            try:
                for wait in new:
                    wait.asked.enter_context(self._tail.asked(wait.track))
                self._read(waits)
            except Exception as error:  # noqa: BLE001  (each of those who wait hears of it)
                for wait in waits:
                    _settle(wait, error)
                waits = []
                continue
            now = self._clock.monotonic()
            for wait in waits:
                if wait.over(now):
                    _settle(wait, wait.track.ended)
            waits = [wait for wait in waits if not wait.future.done()]

    def _read(self, waits: list[_Wait]) -> None:
        clock = self._clock
        for wait in waits:
            if not wait.caught_up and not wait.over(clock.monotonic()):
                deadline = min(wait.deadline, clock.monotonic() + CATCH_UP)
                wait.caught_up = self._tail.catch_up_by(wait.track, deadline)
        self._tail.drive(
            lambda: bool(self._new) or any(wait.over(clock.monotonic()) for wait in waits), clock.monotonic() + LOOK
        )


def _settle(wait: _Wait, answer: bool | Exception) -> None:
    wait.asked.close()
    with suppress(InvalidStateError):  # cancelled meanwhile
        if isinstance(answer, Exception):
            wait.future.set_exception(answer)
        else:
            wait.future.set_result(answer)
