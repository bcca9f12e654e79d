"""The rules of resuming, written once; `Context` and `AsyncContext` are thin skins over them.

A handler always runs from the top. What makes that cheap and right:

*Names are scoped.* A step `refund` is `refund` at the top and `rows[501]/refund` inside the item 501 of the loop
`rows`; a loop `parts` in there is `rows[501]/parts`, its steps `rows[501]/parts[2]/x`. Cursors stand in names as JSON,
and the characters `%`, `/` and `[` of a name are escaped, so a scoped name can be read in one way only. Each name may
be used once in its scope; a scope ends with its item.

*A step* that the log saw finish returns its saved result. *A `once`* whose start was written and whose end was not is
in doubt, and nobody but a person can tell.

*Progress* is one consistent value: cursor, state and loops as of one moment, always the start of an item (see
`context.loops`). It is replaced whole and never holds half an item.

*State* changes inside items only. The encoding of the state is compared at every boundary, so a change elsewhere is
found before it is saved: that change would be made twice after a resume.

*Code may grow.* New steps are fine. A saved step or loop that is never asked for means that the code changed under the
job: `StepChanged` at the end of its scope. A new `once` does not wait for that: while a saved step of its own or an
outer scope is still unasked for, it refuses to run what could not be undone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

from processor.context.ahead import Ahead
from processor.context.port import AttemptPort, Observer, StepFailed, StepInDoubt
from processor.context.running_step import RunningStep
from processor.context.scopes import OpenLoop, Scope, scope_of
from processor.context.values import (
    BIG,
    ResultCodec,
    byte_length,
    codec_of,
    decode_cursor,
    encode_cursor,
    restored_state,
    too_large,
)
from processor.errors import HandlerMistake, ResultType, StateChanged, StepChanged
from processor.job import LoopProgress, Progress, Step, StepPhase
from processor.texts import message_of, name_of_class, shown
from processor.typed_json import TypedJson, Unfaithful

M = TypeVar("M", bound=BaseModel)

SMALL_STATE = 4096
"""Up to this many bytes of state there is a snapshot per item; above, one per `every`."""
_NAMES_SHOWN = 10
_ERROR_SHOWN = 2000
_new_tuple = tuple.__new__


class StepCall(RunningStep):
    """One asked-for step: either found in the log, or to be run and saved."""

    __slots__ = ("_codec", "_rules", "found", "value")

    def __init__(self, rules: Rules, full: str, codec: ResultCodec) -> None:
        super().__init__(full)
        self._rules = rules
        self._codec = codec
        self.found = False
        self.value: Any = None

    def restore(self, saved: Step) -> None:
        """Take the saved result."""
        self.found = True
        self.value = self._codec.decode(saved.result if saved.result is not None else "null")

    def start(self) -> None:
        """Write that it starts (`once`); the caller waits until that is durable, or takes it back."""
        self._rules.port.save_step(Step(self.full, StepPhase.STARTED))

    def finish(self, result: object) -> None:
        """Write its result."""
        if self._rules.observer is not None:
            self._rules.observer.step_ran(self._rules.port.job, self.full)
        text = self._codec.encode(result)
        limit = self._rules.port.limits.checkpoint_max_bytes
        if len(text) > limit // 4 and byte_length(text) > limit:
            raise too_large(f"the result of step {self.full!r}", byte_length(text), limit)
        self._rules.port.save_step(Step(self.full, StepPhase.FINISHED, text))
        self._rules.ahead.wrote(len(text))

    def fail(self, error: BaseException) -> None:
        """Write that it raised (`once`): it is over, and must not run again."""
        text = f"{name_of_class(type(error))}: {message_of(error, _ERROR_SHOWN)}"
        self._rules.port.save_step(Step(self.full, StepPhase.FAILED, None, text[:_ERROR_SHOWN]))

    def take_back(self) -> None:
        """The attempt stops before the function was called: its start must not be found, it would mean doubt."""
        self._rules.port.forget_steps([self.full])
        self._rules.snapshot(write=False)

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Around the function of a `once`: no ordinary stop raises inside it."""
        if self._rules.observer is not None:
            self._rules.observer.step_begins(self._rules.port.job, self.full)
        self._rules.in_once += 1
        try:
            with self:
                yield
        finally:
            self._rules.in_once -= 1


class Rules:
    """What one attempt has asked for and saved. Not thread-safe: one handler, one thread or event loop."""

    def __init__(self, port: AttemptPort) -> None:
        self.port = port
        self.observer: Observer | None = getattr(port, "observer", None)
        """Only ports inside a Testbed have one."""
        self.in_once = 0
        """While the function of a `once` runs nothing stops the handler: an ordinary stop would leave it in doubt."""
        saved = port.resumed or Progress()
        self.cursor = saved.cursor
        self.state = saved.state
        """JSON of the state as of the last boundary: what a snapshot saves."""
        self.state_size = 0 if saved.state is None else byte_length(saved.state)
        self.loops: dict[str, LoopProgress] = dict(saved.loops)
        self.done = saved.done
        self.total = saved.total
        self.saved_at = port.clock.monotonic()
        self.model: BaseModel | None = None
        self._state_json: TypedJson
        """Snapshots of the state."""
        self._forget: list[str] = []
        self._ran: list[str] = []
        self._saved_steps: dict[str, dict[str, Step]] = {}
        self._saved_loops: dict[str, set[str]] = {}
        for name, step in port.steps.items():
            self._saved_steps.setdefault(scope_of(name), {})[name] = step
        for name in self.loops:
            self._saved_loops.setdefault(scope_of(name), set()).add(name)
        self.top = self.enter_scope("")
        self.frames: list[OpenLoop] = []
        self.ahead = Ahead(port.limits)

    # -- scopes ----------------------------------------------------------------------------------------------------

    @property
    def scope(self) -> Scope:
        """The innermost scope."""
        for frame in reversed(self.frames):
            if frame.in_item:
                return frame.item_scope()
        return self.top

    def enter_scope(self, path: str) -> Scope:
        """A scope with what the log holds of it."""
        return Scope(path, self._saved_steps.pop(path, None), self._saved_loops.pop(path, None))

    def holds(self, path: str) -> bool:
        """Whether the log holds something of a scope that was not entered yet."""
        return path in self._saved_steps or path in self._saved_loops

    def leave_scope(self, scope: Scope) -> None:
        """An item is done: everything saved for it was asked for, and may be forgotten after the next snapshot."""
        if scope.unasked_steps or scope.unasked_loops:
            raise self._step_changed(scope.unasked())
        self._forget.extend(scope.steps)

    def forget_below(self, loop: str) -> None:
        """A loop of the top is exhausted: the steps still held of its items are left over from finished ones."""
        begin = loop + "["
        for path in [path for path in self._saved_steps if path.startswith(begin)]:
            self._forget.extend(self._saved_steps.pop(path))

    # -- steps -----------------------------------------------------------------------------------------------------

    def ask_step(self, name: str, function: Callable[..., Any]) -> StepCall:
        """A `step`: found, or to be run.

        Raises:
            DuplicateName: the scope has that name already.
        """
        self.stop_if_asked()
        call, saved = self._ask(name, function)
        if saved is not None and saved.phase is StepPhase.FINISHED:
            call.restore(saved)
        else:
            self._ran.append(call.full)
            if self.observer is not None:
                self.observer.step_begins(self.port.job, call.full)
        return call

    def ask_once(self, name: str, function: Callable[..., Any]) -> StepCall:
        """A `once`: found, or to be run for the only time.

        Raises:
            StepInDoubt: the log saw it start, and not end.
            StepFailed: the log saw it fail.
            StepChanged: it is new, and saved steps before it were not asked for.
        """
        self.stop_if_asked()
        call, saved = self._ask(name, function)
        if saved is None:
            self._refuse_new_once(call.full)
            self._ran.append(call.full)
        elif saved.phase is StepPhase.FINISHED:
            call.restore(saved)
        elif saved.phase is StepPhase.FAILED:
            raise StepFailed(call.full, saved.error or "no reason was recorded")
        else:
            raise StepInDoubt(call.full)
        return call

    def _ask(self, name: str, function: Callable[..., Any]) -> tuple[StepCall, Step | None]:
        scope = self.scope
        full = scope.ask(name)
        scope.steps.append(full)
        return StepCall(self, full, codec_of(function)), scope.unasked_steps.pop(full, None)

    def _refuse_new_once(self, full: str) -> None:
        unasked = [name for scope in self._open_scopes() for name in scope.unasked()]
        if unasked:
            raise self._step_changed(unasked, before=full)

    def _open_scopes(self) -> Iterator[Scope]:
        yield self.top
        yield from (frame.item_scope() for frame in self.frames if frame.in_item)

    def _step_changed(self, unasked: list[str], before: str | None = None) -> StepChanged:
        new = [name for name in self._ran if name != before]
        text = f"saved and never asked for: {_listed(unasked)}; new in this attempt: {_listed(new)}"
        if before is not None:
            text = f"{before!r} is new and must run only once, but the code has changed under this job: {text}"
        return StepChanged(
            text, hint="keep the old names while jobs are under way, or register the new code as another job type"
        )

    # -- progress --------------------------------------------------------------------------------------------------

    def progress(self) -> Progress:
        """Everything saved so far, except steps."""
        # tuple.__new__ takes a third of the time of the named constructor; a snapshot is made per item.
        return _new_tuple(Progress, (self.cursor, self.state, self.loops, self.done, self.total))

    def checkpoint(self, value: object) -> None:
        """Save the handler's own cursor, and the state as of the last boundary."""
        if type(value) is int and -BIG < value < BIG:
            text = str(value)
        else:
            text = encode_cursor(value, self.port.limits.checkpoint_max_bytes - self.state_size)
        if self.model is not None and not self.frames:
            self.refuse_changed_state(self.top, "before a checkpoint")
        self.cursor = text
        self.port.save(self.progress())
        if self.port.interrupted:
            self.stop_if_asked()

    def snapshot(self, *, write: bool) -> None:
        """Hand over the progress, then what it makes superfluous."""
        progress = self.progress()
        if write:
            self.port.save(progress)
        else:
            self.port.note(progress)
        if self._forget:
            self.port.forget_steps(self._forget)
            self._forget = []

    def read_cursor(self) -> Any:
        """The value of the last checkpoint."""
        return decode_cursor(self.cursor)

    def stop_if_asked(self) -> None:
        """Let the worker end the attempt here."""
        if self.port.interrupted and not self.in_once:
            self.port.check()

    # -- state -----------------------------------------------------------------------------------------------------

    def open_state(self, model: type[M]) -> M:
        """The live state: restored from the snapshot, or new."""
        if self.model is not None:
            if type(self.model) is model:
                return self.model
            raise HandlerMistake(
                f"the state of this job is a {type(self.model).__qualname__}, not a {model.__qualname__}",
                hint="a job has one state: put both models into one",
            )
        if not issubclass(_class_of(model), BaseModel):
            raise HandlerMistake(
                f"ctx.state({shown(model, 100)}): the state of a job is a pydantic model",
                hint="define a class State(BaseModel) whose fields all have defaults, and give the class",
            )
        self._state_json = TypedJson(model, f"the state {model.__qualname__}")
        state = restored_state(model, self._state_json, self.state)
        self.model = state
        self.take_state()
        return state

    def encode_state(self) -> str:
        """JSON of the state as it is now; only while there is one."""
        assert self.model is not None
        try:
            return self._state_json.dump(self.model).decode()
        except (PydanticSerializationError, ValueError, TypeError) as error:
            raise self._unfit_state(message_of(error)) from error

    def take_state(self) -> None:
        """Let the state as it is now be the one of the next snapshot, and see that it comes back as it is: whatever is
        kept may be what a resume begins with.

        Raises:
            ResultType: it would not.
            CheckpointTooLarge: it is too long.
        """
        try:
            data = self._state_json.encode(self.model)
        except Unfaithful as error:
            raise self._unfit_state(str(error)) from error
        self.keep_state(data.decode())

    def _unfit_state(self, why: str) -> ResultType:
        return ResultType(
            f"the state {type(self.model).__qualname__} does not survive JSON: {why}",
            hint="keep plain values, models and lists or dicts of them in the state",
        )

    def keep_state(self, text: str) -> None:
        """Let `text` be the state of the next snapshot."""
        size = byte_length(text)
        limit = self.port.limits.checkpoint_max_bytes
        if size + len(self.cursor or "") > limit:
            raise too_large("the state", size + len(self.cursor or ""), limit)
        self.state = text
        self.state_size = size

    def refuse_changed_state(self, scope: Scope, where: str) -> None:
        """Raise if the state is not as the last boundary left it: a snapshot from here on would save half an item."""
        if self.model is None or scope.frozen or self.encode_state() == self.state:
            return
        if scope.left is not None:
            raise StateChanged(
                f"loop {scope.left!r} was left inside an item that had changed the state; it cannot be saved {where}",
                hint="that item runs again after a resume and would be counted twice: leave the loop before changing "
                "the state, or let its source end it",
            )
        raise StateChanged(
            f"the state was changed outside the items of a loop, {where}",
            hint="change it only inside the items of the innermost ctx.each, or after the last inner loop of an item; "
            "in a loop of your own keep the numbers in the value given to ctx.checkpoint",
        )

    # -- the end ---------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """The handler returned: hold it to the rules.

        Raises:
            StepChanged: something saved was never asked for.
            StateChanged: the state was changed outside items.
        """
        unasked = self.top.unasked()
        for path, names in [*self._saved_steps.items(), *self._saved_loops.items()]:
            # Items of a loop that was asked for and not entered are left over from finished ones: their tombstones
            # leave after the progress that passed them, and can be lost.
            if path.partition("[")[0] not in self.top.asked:
                unasked.extend(names)
        if unasked:
            raise self._step_changed(sorted(set(unasked)))
        if self.top.left is None:
            self.refuse_changed_state(self.top, "before the handler's end")


def _class_of(value: object) -> type:
    """What a handler gave where a class belongs; `object` if it is none."""
    return value if isinstance(value, type) else object


def _listed(names: list[str]) -> str:
    if not names:
        return "nothing"
    shown = ", ".join(repr(name) for name in names[:_NAMES_SHOWN])
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} and {len(names) - _NAMES_SHOWN} more"
