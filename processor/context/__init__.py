"""What handlers touch: `Context` for `def`, `AsyncContext` for `async def`. The worker implements `AttemptPort`.

A handler runs from the top again after a crash, a stop or a retry. What it need not do again it says by name:

- `step(name, f, ...)`: runs `f` and saves its result; found in the log, it returns that. Write-behind: a crash within
  some milliseconds runs it again.
- `once(name, f, ...)`: must not run twice. Durable before it starts and after it ends; found half-done, the job waits
  for a person.
- `each(name, source, ...)`: a loop that goes on after the last finished item.
- `checkpoint(value)`: for loops of your own; `cursor` gives the value back.

`context_rules` tells the rules of names, progress and changed code; `context_loops` those of loops.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any, Generic, ParamSpec, TypeVar, overload

from processor.callables import refuse_async_items, refuse_awaitable
from processor.context.base import ContextBase, JobLogger, Spawnable
from processor.context.loops import Loop, LoopPlan
from processor.context.port import AttemptPort, ContextLimits, StepFailed, StepInDoubt
from processor.context.rules import Rules
from processor.errors import JobInterrupted, ProcessEnded

__all__ = [
    "AsyncContext",
    "AttemptPort",
    "Context",
    "ContextLimits",
    "JobLogger",
    "Spawnable",
    "StepFailed",
    "StepInDoubt",
]

P = ParamSpec("P")
T = TypeVar("T")


class Context(ContextBase):
    """Given to a `def` handler. Use it from the handler's own thread only."""

    def step(self, name: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function` and save its result; if the log saw it finish, return the saved result instead.

        The result travels as JSON and is restored through the function's return annotation, so annotate it.

        Raises:
            DuplicateName: the scope has that name already.
            ResultType: the result does not survive JSON.
            CheckpointTooLarge: the result is too long.
        """
        call = self._rules.ask_step(name, function)
        if call.found:
            saved: T = call.value  # restored through the function's annotation
            return saved
        with call:
            result = function(*args, **kwargs)
        refuse_awaitable(result, f"the function of step {call.full!r}")
        call.finish(result)
        self._keep_up()
        return result

    def once(self, name: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function` at most once in the life of this job. Waits for the log before and after (some milliseconds).

        An exception it raises is final too: a later attempt raises `StepFailed` with its text.

        Raises:
            StepChanged: it is new although saved steps before it were not asked for.
            DuplicateName, ResultType, CheckpointTooLarge: as `step`.
        """
        call = self._rules.ask_once(name, function)
        if call.found:
            saved: T = call.value  # restored through the function's annotation
            return saved
        call.start()
        try:
            self._port.sync()
        except JobInterrupted:
            call.take_back()
            raise
        try:
            with call.guarded():
                result = function(*args, **kwargs)
                refuse_awaitable(result, f"the function of once {call.full!r}")
            call.finish(result)
        except BaseException as error:
            # A panic has ended it as well; only the engine's own signals say nothing of it.
            if isinstance(error, JobInterrupted | StepInDoubt | ProcessEnded):
                raise
            call.fail(error)
            self._port.sync()
            raise
        self._port.sync()
        return result

    def each(
        self,
        name: str,
        source: Callable[[Any], Iterable[T]],
        *,
        cursor: Callable[[T], object] | None = None,
        every: str | float = "1s",
        total: int | None = None,
    ) -> Iterator[T]:
        """Loop over `source(after)`; asking for the next item marks the last one done, for good.

        Args:
            name: unique in its scope.
            source: gives the items after the cursor it is called with (None: all), in an order that does not change.
            cursor: an item's place in that order: a str, int, float or bool, or a flat list of them; by default the
                item itself. No two items have the same.
            every: how often progress is written while the loop runs; it is always written when the attempt ends.
            total: number of items, for progress.

        Raises:
            CursorType: a cursor would not come back from JSON as it is.
            DuplicateName: the scope has that name already, or two items have one cursor.
            StateChanged: the state was changed outside items.
        """
        loop = Loop(self._rules, LoopPlan(name, cursor, every, total))
        if loop.exhausted:
            return
        try:
            items = source(loop.after)
            refuse_async_items(items, loop.full)
            for item in items:
                loop.enter(item)
                yield item
                loop.leave()
                self._keep_up()
            loop.exhaust()
        finally:
            loop.close()

    def checkpoint(self, value: object, *, durable: bool = False) -> None:
        """Save `value` as `cursor`: at once with one of the next flushes; with `durable`, wait for the log.

        Raises:
            CursorType: it would not come back from JSON as it is.
            CheckpointTooLarge: it is too long.
        """
        self._rules.checkpoint(value)
        if durable:
            self._port.sync()

    def _keep_up(self) -> None:
        # Not inside a `once`: a stop there would leave it in doubt.
        if self._rules.ahead.too_far and not self._rules.in_once:
            self._port.sync()
            self._rules.ahead.caught_up()


class AsyncContext(ContextBase):
    """Given to an `async def` handler: `step`, `once` and `checkpoint` are awaited, `each` is an `async for`."""

    @overload
    async def step(self, name: str, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    async def step(self, name: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    async def step(self, name: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """As `Context.step`; `function` is a `def` (called on the event loop) or an `async def`."""
        call = self._rules.ask_step(name, function)
        if call.found:
            return call.value
        with call:
            result = await _awaited(function(*args, **kwargs))
        call.finish(result)
        await keep_up(self._rules)
        return result

    @overload
    async def once(self, name: str, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    async def once(self, name: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    async def once(self, name: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """As `Context.once`; `function` is a `def` (called on the event loop) or an `async def`."""
        call = self._rules.ask_once(name, function)
        if call.found:
            return call.value
        call.start()
        try:
            await self._port.async_sync()
        except JobInterrupted:
            call.take_back()
            raise
        try:
            with call.guarded():
                result = await _awaited(function(*args, **kwargs))
            call.finish(result)
        except BaseException as error:
            # Cut off in the middle by whoever stops the attempt: it is not known how far it came.
            cut_off = isinstance(error, asyncio.CancelledError) and self._port.interrupted
            if cut_off or isinstance(error, JobInterrupted | StepInDoubt | ProcessEnded):
                raise
            call.fail(error)
            await self._port.async_sync()
            raise
        await self._port.async_sync()
        return result

    def each(
        self,
        name: str,
        source: Callable[[Any], Iterable[T] | AsyncIterable[T] | Awaitable[Iterable[T] | AsyncIterable[T]]],
        *,
        cursor: Callable[[T], object] | None = None,
        every: str | float = "1s",
        total: int | None = None,
    ) -> AsyncIterator[T]:
        """As `Context.each`, for `async for`; the source gives a plain or an async iterable, or is an `async def` that
        returns one.
        """
        return _AsyncEach(self._rules, LoopPlan(name, cursor, every, total), source)

    async def checkpoint(self, value: object, *, durable: bool = False) -> None:
        """As `Context.checkpoint`."""
        self._rules.checkpoint(value)
        if durable:
            await self._port.async_sync()
        await keep_up(self._rules)


class _AsyncEach(Generic[T]):
    """An `async for` over a loop. Not an async generator: after `break` Python would close that only some time later,
    and until then names of the next step would belong to an item that is over. `__del__` runs at the `break`.
    """

    def __init__(
        self,
        rules: Any,
        plan: LoopPlan,
        source: Callable[[Any], Iterable[T] | AsyncIterable[T] | Awaitable[Iterable[T] | AsyncIterable[T]]],
    ) -> None:
        self._rules = rules
        self._plan = plan
        self._source = source
        self._loop: Loop | None = None
        self._items: AsyncIterator[T] | Iterator[T] | None = None

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        try:
            return await self._next()
        except BaseException:
            self._close()
            raise

    async def _next(self) -> T:
        loop = self._loop
        if loop is None:
            loop = self._loop = Loop(self._rules, self._plan)
            if not loop.exhausted:
                items = await _awaited(self._source(loop.after))
                self._items = aiter(items) if isinstance(items, AsyncIterable) else iter(items)
        elif self._items is not None:
            loop.leave()
            await keep_up(self._rules)
        if self._items is None:
            raise StopAsyncIteration
        try:
            item = await anext(self._items) if isinstance(self._items, AsyncIterator) else next(self._items)
        except (StopIteration, StopAsyncIteration):
            loop.exhaust()
            raise StopAsyncIteration from None
        loop.enter(item)
        return item

    def _close(self) -> None:
        self._items = None
        if self._loop is not None:
            self._loop.close()

    def __del__(self) -> None:
        self._close()


async def keep_up(rules: Rules) -> None:
    """As `Context._keep_up`, for the event loop."""
    if rules.ahead.too_far and not rules.in_once:
        await rules.port.async_sync()
        rules.ahead.caught_up()


async def _awaited(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result
