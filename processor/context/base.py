"""What a handler can ask and tell without waiting: the same for `Context` and `AsyncContext`."""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel

from processor import events
from processor.broker.base import OutRecord
from processor.context.port import AttemptPort
from processor.context.rules import Rules
from processor.context.running_step import running_step
from processor.context.scopes import allowed_name, escaped
from processor.context.values import figure
from processor.core.dedupe import child_id
from processor.errors import DuplicateName
from processor.job import Job
from processor.texts import message_of
from processor.tracing import inside
from processor.wire.trace_context import own_trace

M = TypeVar("M", bound=BaseModel)
NOTE = 500
"""Characters of a progress note."""
P_contra = TypeVar("P_contra", contravariant=True)
ModelClass = type[M]
"""Named here, because inside the class `type` is the job's."""


class Spawnable(Protocol[P_contra]):
    """A job type, as far as spawning a child of it goes; `JobType` is one."""

    @property
    def name(self) -> str: ...

    def child_record(self, payload: P_contra, *, child_id: str, parent: Job, now_ms: int, max_bytes: int) -> OutRecord:
        """The record of a child, ready to be appended.

        Raises:
            PayloadInvalid, PayloadTooLarge: it cannot be a job.
        """
        ...


class JobLogger(logging.LoggerAdapter[logging.Logger]):
    """Adds the job's fields to every record and keeps those the caller gives."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Merge the fields; the standard adapter would drop the caller's. Whatever they are, nothing is raised."""
        given = events.checked_fields(kwargs.get("extra"))
        kwargs["extra"] = {**(self.extra or {}), **given}
        return msg, kwargs


class ContextBase:
    """Facts about the job, its state, and what is reported without waiting."""

    _log: JobLogger | None = None
    _asked = False
    """Something of the rules was asked for."""

    def __init__(self, port: AttemptPort) -> None:
        self._port = port

    @functools.cached_property
    def _rules(self) -> Rules:
        # Made at the first use: most short jobs never ask for anything, and rules cost more than they do.
        self._asked = True
        return Rules(self._port)

    def _stop_if_asked(self) -> None:
        """For what waits for something else than this context."""
        if self._port.interrupted:
            self._rules.stop_if_asked()

    # -- facts -----------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The job's id."""
        return self._port.job.id

    @property
    def type(self) -> str:
        """The name of its job type."""
        return self._port.job.type

    @property
    def attempt(self) -> int:
        """Which attempt of this life this is, counted from 1. A stop, a rebalance or a crash burns none."""
        return self._port.job.attempt + 1

    @property
    def resumed(self) -> bool:
        """Whether an earlier run of this job saved anything."""
        return self._port.resumed is not None or bool(self._port.steps)

    @property
    def cursor(self) -> Any:
        """The last value given to `checkpoint`, also by an earlier attempt; None if there is none."""
        return self._rules.read_cursor()

    @property
    def cancelled(self) -> bool:
        """Whether the worker wants this attempt to stop; the next checkpoint, step, item or heartbeat raises."""
        return self._port.interrupted

    @property
    def deadline(self) -> datetime | None:
        """The moment this attempt is told to stop at the latest: the end of its `attempt_timeout`, or the job's kill
        date if that comes first. None if there is neither.
        """
        ends_at = self._port.ends_at
        return None if ends_at is None else datetime.fromtimestamp(ends_at / 1000, UTC)

    @property
    def fencing_token(self) -> tuple[int, int, int]:
        """Grows with each worker that takes the job over. Give it to a store that refuses older ones."""
        return self._port.fencing_token

    @property
    def log(self) -> JobLogger:
        """A logger whose records carry job_id, job_type and attempt, and trace_id if the attempt is traced."""
        if self._log is None:
            fields = {"job_id": self.id, "job_type": self.type, "attempt": self.attempt}
            if inside() is not None:
                fields["trace_id"] = f"{own_trace(self.id).trace_id:032x}"
            self._log = JobLogger(logging.getLogger("processor.job"), fields)
        return self._log

    def idempotency_key(self, step: str) -> str:
        """A key for an outside effect: the same in every attempt, on every worker and after a redrive.

        It depends on the job's id, the scope (the item of a loop) and `step`, on nothing else.
        """
        text = f"{self._port.job.id}\n{self._rules.scope.path}{escaped(allowed_name(step))}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    # -- telling ---------------------------------------------------------------------------------------------------

    def state(self, model: ModelClass[M]) -> M:
        """The job's state: restored as of the last snapshot, or new. Change its fields inside items of `each` only.

        Raises:
            ResultType: the model cannot be made without values, or does not survive JSON.
        """
        return self._rules.open_state(model)

    def heartbeat(self) -> None:
        """Say that the handler is alive while it saves nothing; also stops it if the worker wants that."""
        self._rules.stop_if_asked()
        self._port.heartbeat()

    def progress(self, done: float, total: float | None = None, note: str | None = None) -> None:
        """Say how far the job is, for whoever looks. `each(total=...)` does it by itself.

        Args:
            done: any number.
            total: of the same unit.
            note: for a person; cut to 500 characters.

        Raises:
            NameNotAllowed: a figure is no number, or not finite.
        """
        self._rules.done = figure(done, "done")
        self._rules.total = None if total is None else figure(total, "total")
        told = None if note is None else message_of(note, NOTE)
        self._port.progressed(self._rules.done, self._rules.total, told)

    def spawn(self, job_type: Spawnable[P_contra], payload: P_contra = None, *, key: str | None = None) -> str:  # type: ignore[assignment]  # None is the payload of job types without one
        """Start a child job; returns its id. It leaves with this job's next flush, or not at all.

        The same call makes the same child after a resume: its id is a digest of this job, the scope, the job type and
        the index of the call in its scope; the function of a step is a scope of its own. Give `key` where the order of
        the calls may differ.

        Raises:
            DuplicateName: `key` was used before for this job type in this scope.
            PayloadInvalid, PayloadTooLarge: it cannot be a job.
        """
        port = self._port
        job = port.job
        step = running_step.get()
        scope = self._rules.scope
        path, spawned = (scope.path, scope.spawned) if step is None else (f"{step.full}/", step.spawned)
        index: int | str
        if key is None:
            index = spawned.get(job_type.name, 0)
            spawned[job_type.name] = index + 1
        else:
            index = key = allowed_name(key, "a child (spawn's key=)")
            name = f"{job_type.name}\n{key}"
            if spawned.setdefault(name, 0):
                raise DuplicateName(
                    f"a {job_type.name} with key {key!r} was spawned before in {path or 'this handler'!r}",
                    hint="children with one key are one child: give each a key of its own",
                )
            spawned[name] = 1
        child = child_id(job.id, job.children_life or job.life, path, job_type.name, index)
        if job.carried is not None and job.carried.children and child in job.carried.children:
            return child  # an earlier attempt, or the life that this one goes on from, has started it
        record = job_type.child_record(
            payload, child_id=child, parent=job, now_ms=port.clock.now_ms(), max_bytes=port.limits.payload_max_bytes
        )
        port.spawn(record, child)
        self._rules.ahead.wrote(len(record.value or b""))
        self._keep_up()
        return child

    def _keep_up(self) -> None:
        """Wait for the log if too much is on its way there; one that cannot wait here does so at its next `await`."""

    # -- the worker's ------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Called by the worker after the handler returned, before the job counts as succeeded.

        Raises:
            StepChanged: something saved was never asked for.
            StateChanged: the state was changed outside items.
        """
        if not self._asked and self._port.resumed is None and not self._port.steps:
            return
        self._rules.finish()
