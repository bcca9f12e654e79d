"""The seam between the engine and its threads: start, signal, post, wait, now, random.

Owner, flusher, restorer and executors meet only through inboxes and signals made here. The threaded runtime gives each
actor a thread of the operating system. The stepping one (`processor.runtime.stepping`) runs exactly one of them at a
time, picks the next by a seeded choice and moves a manual clock when all of them wait; all other code is the same.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from processor import events
from processor.clock import Clock, SystemClock

T = TypeVar("T")

log = events.logger(__name__)


class Signal(Protocol):
    """A binary flag that one actor waits for: `set` wakes it, a wait consumes the flag."""

    def set(self) -> None: ...

    def wait(self, timeout: float | None) -> bool:
        """Wait until set, at most `timeout` seconds (None: for ever); whether it was set."""
        ...


class Actor(Protocol):
    """A running thread of control."""

    @property
    def alive(self) -> bool: ...

    def join(self, timeout: float | None = None) -> bool:
        """Wait for its end; whether it ended."""
        ...


class Runtime(Protocol):
    """Where actors live."""

    @property
    def clock(self) -> Clock: ...
    @property
    def random(self) -> random.Random: ...

    def stopwatch(self) -> float:
        """Seconds that only grow, precise enough for microseconds: for measuring, not for deadlines."""
        ...

    def start(self, name: str, run: Callable[[], None]) -> Actor: ...
    def signal(self) -> Signal: ...


class Inbox(Generic[T]):
    """Many actors post, one waits and takes all. Posting costs one deque append while the reader is awake."""

    def __init__(self, runtime: Runtime) -> None:
        self._items: deque[T] = deque()
        self._signal = runtime.signal()
        self._asleep = False

    def post(self, item: T) -> None:
        self._items.append(item)
        if self._asleep:
            # The first one wakes the reader: it may be long in coming while the others post on (the interpreter lock).
            self._asleep = False
            self._signal.set()

    def wake(self) -> None:
        """Let a wait return, with or without items."""
        self._signal.set()

    def wait(self, timeout: float | None) -> None:
        """Return when something is there, or after `timeout` seconds."""
        # `_asleep` goes up before the look: a post after the look sees it and sets the signal.
        self._asleep = True
        try:
            if not self._items:
                self._signal.wait(timeout)
        finally:
            self._asleep = False

    def take(self, limit: int | None = None) -> list[T]:
        """What is there now, oldest first."""
        items = self._items
        count = len(items) if limit is None else min(limit, len(items))
        pop = items.popleft
        return [pop() for _ in range(count)]

    def __len__(self) -> int:
        return len(self._items)


def serve(requests: Inbox[T | None], handle: Callable[[T], None]) -> None:
    """The life of an actor that does one thing after the other: handle what is posted, until a None is."""
    while True:
        requests.wait(None)
        for request in requests.take():
            if request is None:
                return
            handle(request)


class _ThreadSignal:
    """A lock used as a flag: acquiring consumes it."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        try:
            self._lock.release()
        except RuntimeError:
            return  # already set

    def wait(self, timeout: float | None) -> bool:
        return self._lock.acquire(timeout=-1 if timeout is None else max(timeout, 0.0))


class _ThreadActor:
    def __init__(self, thread: threading.Thread) -> None:
        self._thread = thread

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def join(self, timeout: float | None = None) -> bool:
        self._thread.join(timeout)
        return not self._thread.is_alive()


class ThreadedRuntime:
    """Real threads, the machine's clock."""

    def __init__(self, *, clock: Clock | None = None, seed: int | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self.random = random.Random(seed)  # noqa: S311  (jitter, no secrets)

    stopwatch = staticmethod(time.perf_counter)

    def start(self, name: str, run: Callable[[], None]) -> Actor:
        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        return _ThreadActor(thread)

    def signal(self) -> Signal:
        return _ThreadSignal()
