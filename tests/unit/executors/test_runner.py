"""What becomes of an attempt by what its handler does: a table of ends, of a `def` and of an `async def`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import pytest

from processor.clock import ManualClock
from processor.context.port import ContextLimits, StepInDoubt
from processor.core.outcome import Discarded, Ended, Failed, Lost, Outcome, Parked, Retried, Succeeded, Yielded
from processor.core.write_set import Origin
from processor.dead_reasons import DeadReason
from processor.engine.attempt import Attempt, AttemptShared, Sync
from processor.engine.owned_partition import OwnedPartition
from processor.errors import CursorType, JobLost, JobYielded, NewerRecord, ProcessEnded, RetryableError, TerminalError
from processor.executors.local_port import LocalPort
from processor.executors.runner import outcome_of, run_async, run_sync, unread
from processor.job import Job
from processor.policies import Backoff, Dead, Discard, JobOptions, Park, Retry
from processor.runtime import Inbox, ThreadedRuntime
from processor.states import State

CLOCK = ManualClock()
POLICY = (
    Retry(3, backoff=Backoff("5s", jitter=0))
    .on(KeyError, Dead("no such order"))
    .on(LookupError, Discard("known"))
    .on(OSError, Park("the disk is full"))
)


class Kind:
    """A job type."""

    name = "x"
    kind = "sync"
    executor = "thread"

    def __init__(self, handler: Callable[..., Any], *, takes_payload: bool) -> None:
        self.handler = handler
        self.takes_payload = takes_payload
        self.options = JobOptions(retry=POLICY)

    def check(self) -> None:
        """Always well."""

    def decode_payload(self, data: bytes, version: int) -> Any:
        if version > 1:
            raise NewerRecord("a payload of version 2")
        return int(data)

    def encode_result(self, value: Any, max_bytes: int) -> bytes | None:
        return None if value is None else str(value).encode()


class _Number:
    assignment = 1
    epoch = 1


def attempt_of(handler: Callable[..., Any], *, takes_payload: bool = False, **job: Any) -> Attempt:
    runtime = ThreadedRuntime()
    inbox: Inbox[Any] = Inbox(runtime)
    shared = AttemptShared(inbox, CLOCK, ContextLimits(), runtime.signal, 60.0)
    made = Job("j", "x", 1, "q", b"", CLOCK.now_ms())._replace(**job)
    kind = Kind(handler, takes_payload=takes_payload)
    return Attempt(shared, cast(OwnedPartition[Attempt, Sync], _Number), None, Origin("t", 0, 0), made, b"", kind)


def run(attempt: Attempt, how: str) -> Outcome:
    """Run it as a `def`, or its handler as an `async def`."""
    if how == "def":
        return run_sync(LocalPort(attempt))
    kind = cast(Kind, attempt.job_type)
    handler = kind.handler

    async def coroutine(*arguments: Any) -> Any:
        await asyncio.sleep(0)
        return handler(*arguments)

    kind.handler = coroutine
    return asyncio.run(run_async(LocalPort(attempt)))


def raising(error: BaseException) -> Callable[..., Any]:
    def handler(ctx: Any, *_: Any) -> None:
        raise error

    return handler


both = pytest.mark.parametrize("how", ["def", "async def"])


@both
@pytest.mark.parametrize(
    ("error", "attempts", "kind", "word"),
    [
        (ValueError("no"), 0, Retried, ""),
        (ValueError("no"), 1, Retried, ""),
        (ValueError("no"), 2, Failed, DeadReason.EXHAUSTED),
        (TerminalError("never"), 0, Failed, DeadReason.DEAD),
        (KeyError("7"), 0, Failed, DeadReason.DEAD),
        (IndexError("7"), 0, Discarded, ""),
        (FileNotFoundError("x"), 0, Parked, ""),
        (CursorType("a set is no cursor"), 0, Failed, DeadReason.HANDLER_MISTAKE),
        (StepInDoubt("pay"), 0, Parked, ""),
        (SystemExit(3), 2, Failed, ""),
        (RecursionError("deep"), 0, Retried, ""),
    ],
)
def test_an_exception_becomes_an_end(how: str, error: BaseException, attempts: int, kind: type, word: str) -> None:
    outcome = run(attempt_of(raising(error), attempt=attempts), how)
    assert type(outcome) is kind, outcome
    if word:
        assert cast(Failed, outcome).reason == word


@both
def test_what_each_end_tells(how: str) -> None:
    retried = run(attempt_of(raising(ValueError("no"))), how)
    assert isinstance(retried, Retried)
    assert (retried.delay, retried.error.kind, retried.error.message) == (5.0, "builtins.ValueError", "no")
    asked = run(attempt_of(raising(RetryableError("later", after=90))), how)
    assert isinstance(asked, Retried)
    assert asked.delay == 90
    dead = run(attempt_of(raising(KeyError("7"))), how)
    assert isinstance(dead, Failed)
    assert dead.error.message == "'7' [no such order]"
    parked = run(attempt_of(raising(OSError("x"))), how)
    assert isinstance(parked, Parked)
    assert (parked.state, parked.reason, parked.until) == (State.WAITING, "the disk is full", None)
    doubt = run(attempt_of(raising(StepInDoubt("pay"))), how)
    assert isinstance(doubt, Parked)
    assert (doubt.state, doubt.until) == (State.IN_DOUBT, None)
    assert "'pay'" in doubt.reason


@both
@pytest.mark.parametrize("value", [None, 0, "", 7])
def test_what_a_handler_returns_is_its_result(how: str, value: Any) -> None:
    outcome = run(
        attempt_of(lambda ctx, payload: payload if value == 7 else value, takes_payload=True, payload=b"7"), how
    )
    assert outcome == Succeeded(None if value is None else str(value).encode())


@both
@pytest.mark.parametrize(
    ("payload", "version", "kind", "word"),
    [(b"x", 1, Failed, DeadReason.BAD_PAYLOAD), (b"", 1, Failed, DeadReason.BAD_PAYLOAD), (b"7", 2, Parked, "")],
)
def test_a_payload_that_cannot_be_read_never_reaches_the_handler(
    how: str, payload: bytes, version: int, kind: type, word: str
) -> None:
    calls: list[Any] = []
    attempt = attempt_of(lambda *found: calls.append(found), takes_payload=True, payload=payload, version=version)
    outcome = run(attempt, how)
    assert type(outcome) is kind
    assert not calls
    if isinstance(outcome, Parked):
        assert (outcome.state, outcome.until) == (State.WAITING, CLOCK.now_ms() + 60_000)
    else:
        assert cast(Failed, outcome).reason == word


@both
@pytest.mark.parametrize(
    ("interrupted", "lost", "kill_in", "outcome"),
    [
        (True, False, None, Yielded()),
        (True, True, None, Lost()),
        (True, False, -1, Yielded()),
        (False, False, -1, Ended(State.KILLED, "its kill date came before it started")),
        (False, False, 0, Ended(State.KILLED, "its kill date came before it started")),
        (False, False, 1000, Succeeded()),
        (False, False, None, Succeeded()),
    ],
)
def test_what_may_not_start_does_not(
    how: str, interrupted: bool, lost: bool, kill_in: int | None, outcome: Outcome
) -> None:
    calls: list[Any] = []
    kill_at = None if kill_in is None else CLOCK.now_ms() + kill_in
    attempt = attempt_of(lambda ctx: calls.append(ctx), kill_at=kill_at)
    attempt.mailbox.interrupted, attempt.mailbox.lost = interrupted, lost
    assert run(attempt, how) == outcome
    assert bool(calls) is (outcome == Succeeded())


@both
@pytest.mark.parametrize(
    ("stops", "error", "kind"),
    [
        ("interrupted", JobYielded("j"), Yielded),
        ("interrupted", asyncio.CancelledError(), Yielded),
        ("interrupted", ValueError("mine"), Retried),
        ("lost", ValueError("mine"), Lost),
        ("lost", JobLost("j"), Lost),
        ("", JobYielded("j"), Retried),
        ("", JobLost("j"), Retried),
        ("", asyncio.CancelledError(), Retried),
    ],
)
def test_a_stop_counts_only_if_the_engine_wants_it(how: str, stops: str, error: BaseException, kind: type) -> None:
    def handler(ctx: Any) -> None:
        if stops:
            setattr(attempt.mailbox, stops, True)
        raise error

    attempt = attempt_of(handler)
    if how == "async def" and isinstance(error, asyncio.CancelledError) and not stops:
        return  # `asyncio.run` itself would be cancelled: the pools' own tests have it
    assert type(run(attempt, how)) is kind


@both
def test_a_handler_that_swallows_its_stop_has_not_succeeded(how: str) -> None:
    def handler(ctx: Any) -> str:
        attempt.mailbox.interrupt()
        with suppress(BaseException):
            LocalPort(attempt).check()
        return "as if nothing had been"

    attempt = attempt_of(handler)
    assert run(attempt, how) == Yielded()


def test_the_end_of_the_process_is_nobodys_outcome() -> None:
    attempt = attempt_of(lambda ctx: None)
    for ask in (outcome_of, unread):
        with pytest.raises(ProcessEnded):
            ask(LocalPort(attempt), ProcessEnded())
    with pytest.raises(ProcessEnded):
        run_sync(LocalPort(attempt_of(raising(ProcessEnded()))))


class Spiteful(Exception):
    """Cannot be asked for anything."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


@both
def test_an_exception_that_cannot_be_shown_ends_its_attempt_like_others(how: str) -> None:
    outcome = run(attempt_of(raising(Spiteful())), how)
    assert isinstance(outcome, Retried)
    assert "cannot be shown" in outcome.error.message


def test_a_handler_that_gives_a_coroutine_to_a_thread_is_told(recwarn: pytest.WarningsRecorder) -> None:
    async def work() -> None: ...

    outcome = run_sync(LocalPort(attempt_of(lambda ctx: work())))
    assert isinstance(outcome, Failed | Retried)
    assert not [each for each in recwarn if "never awaited" in str(each.message)]
