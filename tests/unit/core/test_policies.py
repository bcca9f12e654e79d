"""Policies are checked when they are made: one of a wrong type would cost a job at its first failure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from processor.core.retry import SHORTEST, GiveUp, TryAgain, judge
from processor.errors import DefinitionError, RetryableError, TerminalError
from processor.policies import After, Backoff, Dead, Discard, JobOptions, Park, Retry

ANY = cast("Any", object())


@pytest.mark.parametrize(
    "make",
    [
        lambda: Retry(3, cast("Any", "5s")),
        lambda: Retry(cast("Any", 2.5)),
        lambda: Retry(True),
        lambda: Retry(cast("Any", "3")),
        lambda: Retry(0),
        lambda: Retry().on(ValueError, backoff=cast("Any", "5s")),
        lambda: Retry().on(ValueError, times=cast("Any", "3")),
        lambda: Retry().on(ValueError, cast("Any", "dead")),
        lambda: Retry().on(cast("Any", KeyboardInterrupt), Dead()),
        lambda: Park(cast("Any", 5)),
        lambda: Dead("x" * 501),
        lambda: Discard(ANY),
        lambda: Backoff(10**400),
        lambda: After(10**400),
        lambda: Backoff("5s", jitter=cast("Any", "0.2")),
        lambda: Backoff("5s", jitter=cast("Any", None)),
        lambda: Backoff("5s", jitter=True),
        lambda: Backoff("5s", jitter=float("nan")),
        lambda: Backoff("5s", jitter=1.01),
        lambda: Backoff.exponential("5s", factor=cast("Any", "2")),
        lambda: Backoff.exponential("5s", factor=float("inf")),
        lambda: Backoff.exponential("5s", factor=10**400),
        lambda: Backoff.exponential(0),
        lambda: Backoff.exponential("2h", cap="1h"),
        lambda: JobOptions(retry=cast("Any", 5)),
        lambda: JobOptions(retry=cast("Any", Backoff("5s"))),
        lambda: JobOptions(retry=cast("Any", 0)),
    ],
)
def test_what_is_no_policy_is_refused_when_it_is_made(make: Callable[[], object]) -> None:
    with pytest.raises(DefinitionError):
        make()


def test_a_handler_that_asks_for_too_much_gets_the_waits_of_the_policy() -> None:
    error = RetryableError("busy", after=10**400)
    verdict = judge(Retry(3, Backoff("7s")), error, attempt=1, age=0.0, draw=lambda: 0.0)
    assert verdict == TryAgain(7.0)


BUSY, NO = RetryableError("busy"), TerminalError("no")


@pytest.mark.parametrize(
    ("policy", "error", "verdict"),
    [
        (Retry(3).on(RetryableError, Dead("never")), BUSY, GiveUp("dead", "never")),
        (Retry(3).on(TerminalError, Discard()), NO, Discard()),
        (Retry(3).on(RetryableError, After("5s")), BUSY, TryAgain(5.0)),
        (Retry(3).on(RetryableError, After("5s")), RetryableError("busy", after="9s"), TryAgain(9.0)),
        (Retry(3, Backoff("7s")).on(TerminalError, times=4), NO, TryAgain(7.0)),
        (Retry(3, Backoff("7s")).on(Exception, Dead()), BUSY, TryAgain(7.0)),
        (Retry(1, Backoff("7s")).on(Exception, times=4), BUSY, TryAgain(7.0)),
        (Retry(3).on(Exception, Park("ask")), NO, GiveUp("dead")),
        (Retry(3).on(Exception, times=4), NO, GiveUp("dead")),
    ],
)
def test_a_rule_decides_on_the_handlers_own_word_if_it_names_it(
    policy: Retry, error: Exception, verdict: object
) -> None:
    """One for `Exception` is about faults: of it a `RetryableError` takes the number of attempts alone."""
    assert judge(policy, error, attempt=1, age=0.0, draw=lambda: 0.0) == verdict


def test_after_nothing_still_waits() -> None:
    """Else a job that always fails is tried as fast as it fails, for ever."""
    policy = Retry().on(ValueError, After(0))
    verdict = judge(policy, ValueError(), attempt=50, age=0.0, draw=lambda: 0.0)
    assert verdict == TryAgain(SHORTEST)
