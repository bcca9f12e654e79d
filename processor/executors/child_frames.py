"""What a worker and its child processes say to each other: frames over a socket pair.

A frame is a length and a tuple in Python's marshal format: plain tuples, strings, bytes and numbers, made and read by
the same interpreter on both ends. Nothing is pickled: what comes from the log (payload, cursors, results) travels as
the bytes and JSON texts that it is, and no bytes of anybody's can become code.

Worker to child: ("job", ...), ("stop", lost), ("synced", how). Child to worker: ("ready",), ("refused", why),
("news", ...), ("sync", ...) and ("end", ..., outcome, told), where the dots are everything reported since the last
frame.
"""

from __future__ import annotations

import marshal
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from processor.broker.base import OutRecord
from processor.core.outcome import Crashed, Discarded, Ended, Failed, Lost, Outcome, Parked, Retried, Succeeded, Yielded
from processor.job import ErrorInfo, Job, LoopProgress, Progress, Step, StepPhase
from processor.states import State

Frame = tuple[Any, ...]

_LENGTH = struct.Struct("!I")
_CHUNK = 65_536


class Channel:
    """One end of the socket pair. Sending is whole frames under the caller's lock; one thread receives."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._buffer = bytearray()

    def fileno(self) -> int:
        """For select."""
        return self._end.fileno()

    def send(self, frame: Frame) -> None:
        """Send; waits while the other end is slow.

        Raises:
            OSError: nobody is at the other end.
        """
        data = marshal.dumps(frame)
        self._end.sendall(_LENGTH.pack(len(data)) + data)

    def receive(self) -> Frame | None:
        """The next frame; None when the other end is closed. Waits."""
        while True:
            frame = self.next_buffered()
            if frame is not None:
                return frame
            if not self.fill():
                return None

    def fill(self) -> bool:
        """Take what has arrived, waiting for something; False when the other end is closed."""
        try:
            data = self._end.recv(_CHUNK)
        except ConnectionError:
            return False
        self._buffer += data
        return bool(data)

    def next_buffered(self) -> Frame | None:
        """The next frame that has arrived whole."""
        buffer = self._buffer
        if len(buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(buffer)
        end = _LENGTH.size + length
        if len(buffer) < end:
            return None
        frame: Frame = marshal.loads(bytes(buffer[_LENGTH.size : end]))  # noqa: S302  (from our own child process)
        del buffer[:end]
        return frame

    def close(self) -> None:
        """Let go."""
        self._end.close()


class Report(NamedTuple):
    """What a handler in a child reported since the last frame; see `processor.context.mailbox.Reports`."""

    steps: Sequence[Step] = ()
    children: Sequence[OutRecord] = ()
    progress: Progress | None = None
    """The newest, if there is a newer one."""
    save: bool = False
    """Whether it is to be written now; else only noted."""
    forgotten: Sequence[str] = ()
    reported: tuple[float | None, float | None, str | None] | None = None
    beat: bool = False


class Assigned(NamedTuple):
    """A job as it is given to a child."""

    job: Job
    fencing_token: tuple[int, int, int]
    resumed: Progress | None
    steps: Mapping[str, Step]
    limits: Mapping[str, int]
    """The fields of `ContextLimits`."""
    patience: float
    trace: str = ""
    """The span of the attempt, as W3C trace context; empty: it has none."""


def pack_assigned(assigned: Assigned) -> Frame:
    """The frame of a job."""
    return (
        "job",
        # What it carries along is in `resumed` and `steps` already.
        tuple(assigned.job._replace(carried=None)),
        tuple(assigned.fencing_token),
        _plain_progress(assigned.resumed),
        [_plain_step(step) for step in assigned.steps.values()],
        dict(assigned.limits),
        assigned.patience,
        assigned.trace,
    )


def unpack_assigned(frame: Frame) -> Assigned:
    """The job of a frame."""
    _, job, token, resumed, steps, *others = frame
    saved = {step.name: step for step in map(_step, steps)}
    return Assigned(Job(*job), token, _progress(resumed), saved, *others)


def pack_report(report: Report) -> Frame:
    """The part of a frame that carries a report."""
    return (
        [_plain_step(step) for step in report.steps],
        [(*record[:3], _plain_headers(record.headers), record.partition) for record in report.children],
        _plain_progress(report.progress),
        report.save,
        list(report.forgotten),
        report.reported,
        report.beat,
    )


def unpack_report(part: Frame) -> Report:
    """The report of a frame."""
    steps, children, progress, save, forgotten, reported, beat = part
    return Report(
        [_step(step) for step in steps],
        [OutRecord(*record) for record in children],
        _progress(progress),
        save,
        forgotten,
        reported,
        beat,
    )


def pack_outcome(outcome: Outcome) -> Frame:
    """An outcome as plain values."""
    if isinstance(outcome, Failed):
        return ("Failed", tuple(outcome.error), str(outcome.reason))  # a member of an enum cannot be marshalled
    if isinstance(outcome, Retried):
        return ("Retried", tuple(outcome.error), outcome.delay)
    if isinstance(outcome, Discarded):
        return ("Discarded", tuple(outcome.error))
    if isinstance(outcome, Ended):
        return ("Ended", outcome.state.value, outcome.reason, outcome.began)
    if isinstance(outcome, Parked):
        error = None if outcome.error is None else tuple(outcome.error)
        return ("Parked", outcome.state.value, outcome.reason, outcome.until, error)
    return (type(outcome).__name__, *outcome)


def unpack_outcome(part: Frame) -> Outcome:
    """The outcome of plain values."""
    kind, *values = part
    if kind == "Failed":
        return Failed(ErrorInfo(*values[0]), values[1])
    if kind == "Retried":
        return Retried(ErrorInfo(*values[0]), values[1])
    if kind == "Discarded":
        return Discarded(ErrorInfo(*values[0]))
    if kind == "Ended":
        return Ended(State(values[0]), values[1], values[2])
    if kind == "Parked":
        error = None if values[3] is None else ErrorInfo(*values[3])
        return Parked(State(values[0]), values[1], values[2], error)
    return _PLAIN[kind](*values)


_PLAIN: dict[str, type[Succeeded] | type[Yielded] | type[Lost] | type[Crashed]] = {
    "Succeeded": Succeeded,
    "Yielded": Yielded,
    "Lost": Lost,
    "Crashed": Crashed,
}


def _plain_headers(headers: list[tuple[str, bytes]] | None) -> list[tuple[str, bytes]] | None:
    return None if headers is None else [(name, value) for name, value in headers]


def _plain_step(step: Step) -> Frame:
    return (step.name, step.phase.value, step.result, step.error)


def _step(values: Frame) -> Step:
    name, phase, result, error = values
    return Step(name, StepPhase(phase), result, error)


def _plain_progress(progress: Progress | None) -> Frame | None:
    if progress is None:
        return None
    loops = {name: tuple(loop) for name, loop in progress.loops.items()}
    return (progress.cursor, progress.state, loops, _plain_number(progress.done), _plain_number(progress.total))


def _plain_number(value: float | None) -> float | None:
    """Whatever number type a handler counts in."""
    return None if value is None else float(value)


def _progress(values: Frame | None) -> Progress | None:
    if values is None:
        return None
    cursor, state, loops, done, total = values
    return Progress(cursor, state, {name: LoopProgress(*loop) for name, loop in loops.items()}, done, total)
