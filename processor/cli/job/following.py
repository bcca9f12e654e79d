"""Following one job to its end: a bar on a terminal, a line per change elsewhere.

All of it is one reader of the status topic. Whoever waits drives it, a slice at a time, and looks at the newest record
after each slice; no question is asked of the cluster while nothing happens.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from processor.cli.output import Output, moment, show
from processor.cli.wording import progress
from processor.errors import JobFailed, JobNotFinished
from processor.states import State

if TYPE_CHECKING:
    from processor.app import App
    from processor.client.track import Track
    from processor.wire.records import StatusRecord

SLICE = 0.2
"""Seconds between two looks: how soon a bar moves."""
CATCH_UP = 30.0
"""Seconds to read what the status topic holds by now."""
LINE_STEP = 0.1
"""Where no terminal is, progress is told in such steps of the whole."""

Shown = Callable[["StatusRecord | None"], None]


class Followed:
    """One job, watched through the status topic."""

    def __init__(self, app: App, job_id: str) -> None:
        self.id = job_id
        self._tail = app.client().tail()
        self._track: Track = self._tail.track(job_id)
        self._clock = app.client().clock

    def now(self) -> StatusRecord | None:
        """Its latest status.

        Raises:
            BrokerError: the cluster did not answer.
            JobNotFinished: it answers, but not fast enough.
        """
        if not self._tail.catch_up(self._track, CATCH_UP):
            raise JobNotFinished(
                f"the status of job {self.id} could not be read within {CATCH_UP:g} s",
                hint="the job is not affected; ask again",
            )
        return self._track.latest

    def until_end(self, timeout: float | None, shown: Shown) -> StatusRecord:
        """Its end; `shown` is called with the latest status every now and then, and once with the last.

        Raises:
            JobNotFinished: not within `timeout` seconds (None: wait on).
        """
        deadline = self._clock.monotonic() + (math.inf if timeout is None else timeout)
        while not self._tail.wait_end(self._track, min(SLICE, max(0.0, deadline - self._clock.monotonic()))):
            shown(self._track.latest)
            if self._clock.monotonic() >= deadline:
                raise JobNotFinished(
                    f"job {self.id} has not ended within {timeout:g} s: {told(self._track.latest)}",
                    hint=f"the job goes on: processor job watch {self.id}",
                )
        assert self._track.latest is not None
        shown(self._track.latest)
        return self._track.latest


def state_of(status: StatusRecord | None) -> State:
    """A job without a status is queued."""
    return State.QUEUED if status is None else status.state


def told(status: StatusRecord | None) -> str:
    """Where a job that has not ended stands, in a sentence."""
    return "it has no status yet" if status is None else f"it is {status.state}"


def ended_well(status: StatusRecord) -> None:
    """Raise if it did not.

    Raises:
        JobFailed: with the class and the message of the job's error.
    """
    if status.state is not State.SUCCEEDED:
        raise JobFailed(status.id, status.state.value, error_of(status) or "no reason was given")


def error_of(status: StatusRecord | None) -> str:
    """The class and message of the last error; empty if there is none."""
    if status is None or status.error is None:
        return ""
    return f"{status.error.kind}: {status.error.message}"


def described(job_id: str, status: StatusRecord | None) -> dict[str, Any]:
    """A status for machines."""
    return {
        "id": job_id,
        "state": state_of(status),
        "life": status.life if status else 1,
        "attempt": status.attempt if status else 0,
        "at": status.at if status else None,
        "worker": status.worker if status else "",
        "done": status.done if status else None,
        "total": status.total if status else None,
        "note": status.note if status else None,
        "error": error_of(status),
        "due_at": status.due_at if status else None,
        "kill_at": status.kill_at if status else None,
        "ends_at": status.ends_at if status else None,
    }


@contextmanager
def bar(job_id: str) -> Iterator[Shown]:
    """A bar on stderr that vanishes at the end; nothing where stderr is no terminal or rich is not installed."""
    if not (sys.stderr.isatty() and find_spec("rich")):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[told]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as drawn:
        task = drawn.add_task(str(State.QUEUED), total=None, told="")

        def shown(status: StatusRecord | None) -> None:
            told = "" if status is None or status.done is None else progress(status.done, status.total)
            if status is not None and status.note:
                told += f" {show(status.note)}"
            attempt = f" (attempt {status.attempt})" if status is not None and status.attempt > 1 else ""
            drawn.update(
                task,
                description=f"{state_of(status)}{attempt}",
                total=status.total if status else None,
                completed=(status.done or 0) if status else 0,
                told=told,
            )

        yield shown


def lines(out: Output, job_id: str) -> Shown:
    """A line, or a JSON object, for each change of the state and each tenth of the way."""
    last: tuple[Any, ...] | None = None

    def shown(status: StatusRecord | None) -> None:
        nonlocal last
        row = described(job_id, status)
        tenth = None if not row["total"] else int((row["done"] or 0) / row["total"] / LINE_STEP)
        mark = (row["life"], row["state"], row["attempt"], tenth, row["note"])
        if mark == last:
            return
        last = mark
        out.record(row, _line(row))

    return shown


def _line(row: dict[str, Any]) -> str:
    parts = ["-" if row["at"] is None else moment(row["at"]), str(row["state"])]
    if row["attempt"] > 1:
        parts.append(f"attempt {row['attempt']}")
    if row["done"] is not None:
        parts.append(progress(row["done"], row["total"]))
    parts += [show(row[name]) for name in ("note", "worker") if row[name]]
    return "  ".join(parts)
