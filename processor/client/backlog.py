"""The limits of queues, as a producer keeps them: nothing is read for a single enqueue.

A thread looks at the limited queues twice a second, so a figure is never older than a second. Between two looks a
producer counts what it adds (`processor.core.backlog`), and looks again by itself once it has used its share of the
room: after everything that it sent is in the log, so that the figure holds it.

If the cluster does not answer, nothing is refused: the enqueue itself says what is wrong.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

from processor import events
from processor.broker.base import Broker, Isolation, TopicPartition
from processor.clock import Clock
from processor.core import offset_metadata
from processor.core.backlog import BacklogSample, retry_after, room, waiting
from processor.errors import EnqueueError, ProcessorError
from processor.job import Lane
from processor.texts import count
from processor.wire.groups import queue_group
from processor.wire.topics import jobs_topic

log = events.logger(__name__)

PERIOD = 0.5
"""Seconds between two looks."""
STALE = 1.0
RAISE, WAIT, PASS = "raise", "wait", "pass"
"""At the limit: `pass` is for jobs that were promised before."""


class QueueFull(EnqueueError):
    """The queue holds as many jobs as it may (`max_backlog`). The job was not enqueued: try again later, or wait."""

    code = "queue_full"

    def __init__(self, queue: str, backlog: int, limit: int, retry_after: float) -> None:
        super().__init__(
            f"queue {queue} is full: it holds {count(backlog, 'job')}, its limit is {limit:,}",
            hint=f'try again in {retry_after:.0f} s, or let the enqueue wait: when_full="wait"',
        )
        self.backlog = backlog
        """Jobs that wait."""
        self.limit = limit
        self.retry_after = retry_after
        """Seconds until there may be room again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """How many jobs a queue may hold."""

    max_backlog: int
    when_full: str = RAISE
    """What an enqueue beyond that does: `raise` or `wait`."""


class BacklogGate:
    """The limit of one queue. Thread-safe."""

    def __init__(self, queue: str, limit: Limit, look: Callable[[], BacklogSample], clock: Clock) -> None:
        self.queue = queue
        self.limit = limit
        self._look = look
        self._clock = clock
        self._lock = threading.Lock()
        self.left = 0
        """How many may be added before the next look."""
        self._sample: BacklogSample | None = None
        self._before: BacklogSample | None = None
        self.changed = threading.Condition()

    @property
    def seen_full(self) -> bool:
        """Whether there was no room at the last look."""
        known = self._sample
        return known is not None and known.backlog >= self.limit.max_backlog

    def admit(self, when_full: str, settle: Callable[[], object]) -> None:
        """One more job is about to be sent.

        Args:
            when_full: `raise` or `wait`.
            settle: sees that what was sent is in the log.

        Raises:
            QueueFull: there is no room, and nobody wants to wait.
        """
        if self.left > 0:
            self.left -= 1
            return
        while not self._has_room(settle):
            sample = self._sample
            assert sample is not None
            after = retry_after(self._before, sample, self.limit.max_backlog)
            if when_full != WAIT:
                raise QueueFull(self.queue, sample.backlog, self.limit.max_backlog, after)
            with self.changed:
                self.changed.wait(PERIOD)

    def _has_room(self, settle: Callable[[], object]) -> bool:
        with self._lock:
            if self.left > 0:
                self.left -= 1
                return True
            known = self._sample
            if (
                known is not None
                and known.backlog >= self.limit.max_backlog
                and self._clock.monotonic() - known.at < STALE
            ):
                return False
            settle()
            if not self.refresh():
                return True
            self.left -= 1
            return self.left >= 0

    def refresh(self, *, anew: bool = True) -> bool:
        """Look at the queue; False: the cluster did not answer.

        Args:
            anew: what was sent is in the log, so the room that is seen may be used; else only a full queue is noted.
        """
        try:
            sample = self._look()
        except ProcessorError as error:
            log.warning("client.backlog.unknown", extra={"queue": self.queue, "error": str(error)})
            return False
        if self._sample is None or sample.at - self._sample.at >= PERIOD / 2:
            self._before = self._sample
        self._sample = sample
        left = room(sample, self.limit.max_backlog)
        self.left = left if anew else min(self.left, left)
        with self.changed:
            self.changed.notify_all()
        return True


class OpenGate:
    """A queue without a limit: there is always room."""

    def __init__(self) -> None:
        self.left = math.inf
        """As a `BacklogGate` has it; taking one away changes nothing."""
        self.seen_full = False


class BacklogGates:
    """The limited queues of one client, and the thread that looks at them."""

    def __init__(
        self,
        namespace: str,
        broker: Callable[[], Broker],
        clock: Clock,
        limit_of: Callable[[str], Limit | None],
        settle: Callable[[], object],
    ) -> None:
        self._namespace = namespace
        self._broker = broker
        self._clock = clock
        self._limit_of = limit_of
        self._settle = settle
        self._gates: dict[str, BacklogGate | OpenGate] = {}
        self._places: dict[str, list[TopicPartition]] = {}
        self._lock = threading.Lock()
        self._stop: threading.Event | None = None

    def admit(self, queue: str, when_full: str | None = None) -> None:
        """One more job is about to be sent to a queue. `when_full`: as the queue says, if None.

        Raises:
            QueueFull: there is no room, and nobody wants to wait.
        """
        gate = self._gates.get(queue) or self._opened(queue)
        # With or without a limit: one comparison. Not under a lock: two threads may count one for two, and the next
        # look puts that right.
        if gate.left > 0:
            gate.left -= 1
        elif isinstance(gate, BacklogGate):
            gate.admit(gate.limit.when_full if when_full is None else when_full, self._settle)

    def is_full(self, queue: str) -> bool:
        """Whether a queue was full when it was last looked at; nobody waits for a look here."""
        return (self._gates.get(queue) or self._opened(queue)).seen_full

    def looks_next(self, queue: str) -> bool:
        """Whether the next `admit` may look at the queue: what was sent should be in the log by then."""
        gate = self._gates.get(queue)
        return gate is not None and gate.left <= 0

    def _opened(self, queue: str) -> BacklogGate | OpenGate:
        limit = self._limit_of(queue)
        with self._lock:
            if queue in self._gates:
                return self._gates[queue]
            if limit is None:
                return self._gates.setdefault(queue, OpenGate())
            gate = self._gates[queue] = BacklogGate(queue, limit, lambda: self._look(queue), self._clock)
            if self._stop is None:
                self._stop = threading.Event()
                # A daemon: the end of a process does not wait for it, and nothing is lost with it.
                threading.Thread(target=self._run, args=(self._stop,), name="processor-backlog", daemon=True).start()
            return gate

    def close(self) -> None:
        """End the thread; the next `admit` starts another one."""
        with self._lock:
            if self._stop is not None:
                self._stop.set()
            self._stop = None
            self._gates.clear()
            self._places.clear()

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(PERIOD):
            for gate in list(self._gates.values()):
                if isinstance(gate, BacklogGate) and not stop.is_set():
                    gate.refresh(anew=False)

    def _look(self, queue: str) -> BacklogSample:
        admin = self._broker().admin()
        places = self._places.get(queue)
        if places is None:
            found = admin.topics([jobs_topic(self._namespace, queue, lane) for lane in Lane])
            places = [TopicPartition(name, p) for name, info in found.items() for p in range(info.partitions)]
            self._places[queue] = places
        at = self._clock.monotonic()
        # Ends last: what is completed and added between the two questions makes the backlog larger, never smaller.
        committed = admin.committed(queue_group(self._namespace, queue), places, stable=False)
        begins = admin.begin_offsets(places)
        ends = admin.end_offsets(places, Isolation.UNCOMMITTED)
        backlog = completed = 0
        for place in places:
            entry = committed.get(place)
            offset = None if entry is None else entry.offset
            start = begins[place] if offset is None else max(offset, begins[place])
            meta = None if entry is None or offset is None else offset_metadata.decode(entry.metadata, offset)
            backlog += waiting(start, ends[place], () if meta is None else meta.ranges)
            completed += start
        return BacklogSample(at=at, backlog=backlog, completed=completed)
