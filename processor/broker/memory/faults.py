"""Faults of the memory broker, injected on purpose and as late as real ones.

A *held frame* is librdkafka's issue #5423: the connection breaks while a request is on its way, the client repeats it
on a new connection and succeeds, and the first request reaches the broker later. The old transaction protocol cannot
tell which transaction of a producer epoch a request belongs to, so it acts on whatever is open then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from processor.errors import BrokerError


class ProcessKilled(BaseException):
    """The process of this client was killed. Derives from BaseException: a dead process handles nothing."""


class Frame(StrEnum):
    """A request of a transactional producer that can be delayed."""

    COMMIT = "commit"
    ABORT = "abort"
    OFFSETS = "offsets"


class HeldFrame:
    """A request that is on its way, for as long as the test likes."""

    def __init__(self) -> None:
        self._deliver: Callable[[], bool] | None = None
        self._released = False

    @property
    def caught(self) -> bool:
        """Whether the producer has sent the request by now."""
        return self._deliver is not None

    def catch(self, deliver: Callable[[], bool]) -> None:
        """Called by the producer: how to deliver the request."""
        self._deliver = deliver

    def release(self) -> bool:
        """Let the request reach the broker now, once; whether the broker accepted it.

        Raises:
            ValueError: nothing was caught yet, or it was released before.
        """
        if self._deliver is None or self._released:
            raise ValueError("there is no held frame to release")
        self._released = True
        return self._deliver()


class HeldMarkers:
    """A transaction that the coordinator has ended and answered, while its markers are not written yet."""

    def __init__(self) -> None:
        self._finish: Callable[[], None] | None = None

    @property
    def caught(self) -> bool:
        """Whether a transaction has ended by now."""
        return self._finish is not None

    def catch(self, finish: Callable[[], None]) -> None:
        """Called by the coordinator: how to write the markers."""
        self._finish = finish

    def release(self) -> None:
        """Write the markers. Does nothing if there are none to write."""
        finish, self._finish = self._finish, None
        if finish is not None:
            finish()


@dataclass(slots=True, kw_only=True)
class PlannedError:
    """An error that the next matching call raises."""

    operation: str
    error: BrokerError
    after: bool
    process: str | None
    transactional_id: str | None
    times: int

    def matches(self, operation: str, process: str, transactional_id: str | None) -> bool:
        return (
            self.operation == operation
            and self.process in (None, process)
            and self.transactional_id in (None, transactional_id)
        )


@dataclass(slots=True, kw_only=True)
class FaultPlan:
    """What is to go wrong; asked by the clients. `Faults` on the broker is how a test writes it."""

    outage: bool = False
    buffer_appends: bool = False
    refused_topics: set[str] = field(default_factory=set)
    errors: list[PlannedError] = field(default_factory=list)
    frames: dict[tuple[str, Frame], HeldFrame] = field(default_factory=dict)
    markers: dict[str, HeldMarkers] = field(default_factory=dict)

    def take_error(self, operation: str, process: str, transactional_id: str | None) -> PlannedError | None:
        """The error planned for this call, if any; used up by asking."""
        for planned in self.errors:
            if planned.matches(operation, process, transactional_id):
                planned.times -= 1
                if planned.times <= 0:
                    self.errors.remove(planned)
                return planned
        return None

    def take_frame(self, transactional_id: str, frame: Frame) -> HeldFrame | None:
        return self.frames.pop((transactional_id, frame), None)

    def take_markers(self, transactional_id: str) -> HeldMarkers | None:
        return self.markers.pop(transactional_id, None)
