"""Handlers that do what no handler should: each kind for threads, for the event loop and for child processes.

`raise.KIND.EXECUTOR` raises what `RAISED` says; the others have a function of their own. None is tried twice.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Coroutine
from decimal import Decimal
from typing import Any, Literal, NoReturn

from pydantic import BaseModel, SecretStr, model_validator

from processor import App, AsyncContext, Context, Retry
from processor.errors import JobLost, JobYielded

EXECUTORS: tuple[Literal["thread", "async", "process"], ...] = ("thread", "async", "process")
ONCE = Retry(1)


class Panic(BaseException):
    """As the panics of Rust extensions: no Exception."""


class Speechless(Exception):
    """Its text raises."""

    def __str__(self) -> str:
        raise ZeroDivisionError

    __repr__ = __str__


class Mute(Exception):
    """Its text is no text."""

    def __str__(self) -> str:
        return 7  # type: ignore[return-value]  # that is what is wrong with it


class Chatty(Exception):
    """Its text is 50 MB long."""

    def __str__(self) -> str:
        return "x" * 50_000_000


class Odd(Exception):
    """A class that says nothing of itself."""

    __module__ = None  # type: ignore[assignment]  # as above


RAISED: dict[str, Callable[[], BaseException]] = {
    "panic": lambda: Panic("a Rust thread panicked"),
    "exit": lambda: SystemExit(3),
    "interrupt": KeyboardInterrupt,
    "generator-exit": GeneratorExit,
    "cancelled": lambda: asyncio.CancelledError("nobody asked"),
    "speechless": lambda: Speechless("?"),
    "mute": lambda: Mute("?"),
    "chatty": lambda: Chatty("?"),
    "odd": lambda: Odd("odd"),
    "surrogate": lambda: ValueError("half a pair: \udcff"),
    "group": lambda: BaseExceptionGroup("two", [Panic("one"), SystemExit(2)]),
    "yielded": lambda: JobYielded("not asked for"),
    "lost": lambda: JobLost("not lost"),
}
CAUSE = {
    "panic": "Panic",
    "exit": "SystemExit",
    "interrupt": "KeyboardInterrupt",
    "generator-exit": "GeneratorExit",
    "cancelled": "CancelledError",
    "speechless": "Speechless",
    "mute": "Mute",
    "chatty": "Chatty",
    "odd": "Odd",
    "surrogate": "ValueError",
    "group": "BaseExceptionGroup",
    "yielded": "JobYielded",
    "lost": "JobLost",
    "sub-task": "CancelledError",
    "sub-exit": "SystemExit",
    "self-cancel": "CancelledError",
    "coroutine": "HandlerMistake",
    "panicking-model": "Panic",
    "step-name": "NameNotAllowed",
    "no-figure": "NameNotAllowed",
    "child-key": "NameNotAllowed",
    "huge-cursor": "CursorType",
    "secret": "ResultType",
}
"""What the dead letter of each kind names."""


class Panicking(BaseModel):
    """A payload whose validator panics where `armed` is set: in the worker, not at the producer's."""

    number: int = 1

    @model_validator(mode="after")
    def checked(self) -> Panicking:
        if os.environ.get("JOBS_LEDGER"):
            raise Panic("a validator panicked")
        return self


def declare(app: App, queue: str) -> None:
    """All of them."""
    for executor in EXECUTORS:
        for kind, make in RAISED.items():
            _job(app, queue, f"raise.{kind}.{executor}", executor, _raiser(make))
        _job(app, queue, f"fine.{executor}", executor, lambda: None)
    for name, work in {"sub-task": _sub_task, "sub-exit": _sub_exit, "self-cancel": _self_cancel}.items():
        _coroutine(app, queue, f"raise.{name}.async", work)
    for name, work in {"cancel-later": _cancel_later, "stop-loop": _stop_loop, "swallow": _swallow}.items():
        _coroutine(app, queue, f"harmless.{name}.async", work)
    for plain in ("thread", "process"):
        _job(app, queue, f"raise.coroutine.{plain}", plain, _gives_a_coroutine)

    for executor in EXECUTORS:
        for kind, ask in GIVEN.items():
            _asks(app, queue, f"{'harmless' if kind in HARMLESS else 'raise'}.{kind}.{executor}", executor, ask)

    @app.job("raise.panicking-model.thread", queue=queue, payload=Panicking, retry=ONCE)
    def unread(ctx: Context, p: Panicking) -> None:
        return None


GIVEN: dict[str, Callable[[Any], Any]] = {
    "step-name": lambda ctx: ctx.step("load \udcff", int),
    "no-figure": lambda ctx: ctx.progress(float("nan")),
    "child-key": lambda ctx: ctx.spawn(None, key=7),
    "huge-cursor": lambda ctx: ctx.checkpoint(10**5000),
    "secret": lambda ctx: ctx.step("login", _login),
    "decimal": lambda ctx: ctx.progress(Decimal(1), Decimal(3), "half a pair: \udcff"),
}
"""What handlers give to their context that no record could hold; `HARMLESS`: that can be made plain."""
HARMLESS = ("decimal",)


def _login() -> SecretStr:
    return SecretStr("geheim")


def _asks(app: App, queue: str, name: str, executor: str, ask: Callable[[Any], Any]) -> None:
    if executor == "async":

        @app.job(name, queue=queue, retry=ONCE)
        async def coroutine(ctx: AsyncContext) -> None:
            given = ask(ctx)
            if given is not None:
                await given

        return

    @app.job(name, queue=queue, retry=ONCE, executor="process" if executor == "process" else "thread")
    def function(ctx: Context) -> None:
        ask(ctx)
        time.sleep(0.3)  # so that what it gave is written while it runs


def _raiser(make: Callable[[], BaseException]) -> Callable[[], Any]:
    def work() -> NoReturn:
        raise make()

    return work


def _job(app: App, queue: str, name: str, executor: str, work: Callable[[], Any]) -> None:
    if executor == "async":

        @app.job(name, queue=queue, retry=ONCE)
        async def coroutine(ctx: AsyncContext) -> None:
            work()

        return

    @app.job(name, queue=queue, retry=ONCE, executor="process" if executor == "process" else "thread")
    def function(ctx: Context) -> Any:
        return work()


def _coroutine(app: App, queue: str, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    @app.job(name, queue=queue, retry=ONCE)
    async def coroutine(ctx: AsyncContext) -> None:
        await work()


async def _sub_task() -> None:
    task = asyncio.create_task(asyncio.sleep(60))
    asyncio.get_running_loop().call_later(0.01, task.cancel)
    await task


async def _sub_exit() -> None:
    async def leave() -> None:
        sys.exit(4)

    await asyncio.create_task(leave())


async def _self_cancel() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


async def _cancel_later() -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_later(0.2, task.cancel)


async def _stop_loop() -> None:
    asyncio.get_running_loop().stop()


async def _swallow() -> None:
    """Cancels itself and makes nothing of it."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


async def _work() -> None:
    return None


def _gives_a_coroutine() -> Any:
    return _work()
