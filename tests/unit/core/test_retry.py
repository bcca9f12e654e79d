"""What becomes of a job whose handler raised: attempts, waits and ages."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.core.retry import ONE_ATTEMPT, SHORTEST, GiveUp, TryAgain, judge
from processor.errors import RetryableError, TerminalError
from processor.policies import ENDLESS, LONGEST_DELAY, After, Backoff, Dead, Discard, Park, Retry, unlimited


def verdict(policy: Retry | None, error: BaseException, attempt: int = 1, age: float = 0.0, draw: float = 0.5) -> Any:
    return judge(policy, error, attempt=attempt, age=age, draw=lambda: draw)


EXHAUSTED = GiveUp("exhausted")
TOO_OLD = GiveUp("exhausted", "its next attempt would begin after its maximal age")
FIXED = Backoff("5s", "30s", jitter=0.0)


@pytest.mark.parametrize(
    ("policy", "attempt", "expected"),
    [
        (None, 1, EXHAUSTED),
        (ONE_ATTEMPT, 1, EXHAUSTED),
        (Retry(3, FIXED), 1, TryAgain(5.0)),
        (Retry(3, FIXED), 2, TryAgain(30.0)),
        (Retry(3, FIXED), 3, EXHAUSTED),
        (Retry(3, FIXED), 99, EXHAUSTED),
        (Retry(9, FIXED), 8, TryAgain(30.0)),
    ],
)
def test_attempts_are_counted_with_the_first(policy: Retry | None, attempt: int, expected: object) -> None:
    assert verdict(policy, ValueError(), attempt) == expected


class Broken(ConnectionError): ...


POLICY = (
    Retry(2, FIXED)
    .on(Broken, times=4)
    .on(ConnectionError, backoff=Backoff("7s", jitter=0.0))
    .on(KeyError, Dead("no such row"))
    .on(LookupError, Discard())
    .on(OSError, Park("ask the bank"))
    .on(TimeoutError, After("9s"))
)


@pytest.mark.parametrize(
    ("error", "attempt", "expected"),
    [
        (Broken(), 3, TryAgain(30.0)),
        (Broken(), 4, EXHAUSTED),
        (ConnectionError(), 1, TryAgain(7.0)),
        (ConnectionError(), 2, EXHAUSTED),
        (KeyError(), 1, GiveUp("dead", "no such row")),
        (IndexError(), 1, Discard()),
        (FileNotFoundError(), 1, Park("ask the bank")),
        (TimeoutError(), 1, Park("ask the bank")),  # an OSError: the first rule that fits decides
        (ValueError(), 1, TryAgain(5.0)),
        (ValueError(), 2, EXHAUSTED),
    ],
)
def test_the_first_rule_that_fits_decides(error: BaseException, attempt: int, expected: object) -> None:
    assert verdict(POLICY, error, attempt) == expected


@pytest.mark.parametrize(
    ("after", "wait"),
    [
        (None, 5.0),
        ("2m", 120.0),
        (90, 90.0),
        (timedelta(minutes=3), 180.0),
        (0, 0.0),
        (10**9, LONGEST_DELAY),
        ("soon", 5.0),
        (-1, 5.0),
        (float("nan"), 5.0),
        ([], 5.0),
    ],
)
def test_a_handler_may_name_the_wait_if_that_is_one(after: Any, wait: float) -> None:
    assert verdict(Retry(3, FIXED), RetryableError("busy", after=after)) == TryAgain(wait)
    assert verdict(Retry(3, FIXED), RetryableError("busy", after=after), 3) == EXHAUSTED, "it counts as an attempt"


@pytest.mark.parametrize(
    ("policy", "age", "expected"),
    [
        (Retry(3, FIXED, max_age="1h"), 3_594.0, TryAgain(5.0)),
        (Retry(3, FIXED, max_age="1h"), 3_595.0, TryAgain(5.0)),
        (
            Retry(3, FIXED, max_age="1h"),
            3_595.1,
            TOO_OLD,
        ),
        (Retry(3, FIXED).on(ValueError, After("9s")), 10**9, TryAgain(9.0)),
        (
            Retry(3, FIXED, max_age="1h").on(ValueError, After("9s")),
            3_592.0,
            TOO_OLD,
        ),
        (Retry(3, FIXED, max_age=0), 0.0, TOO_OLD),
    ],
)
def test_no_attempt_begins_after_the_maximal_age(policy: Retry, age: float, expected: object) -> None:
    assert verdict(policy, ValueError(), age=age) == expected


def test_a_decision_does_not_age() -> None:
    policy = Retry(3, max_age=0).on(ValueError, Park("ask")).on(TerminalError, Discard())
    assert verdict(policy, ValueError(), age=10**9) == Park("ask")
    assert verdict(policy, TerminalError("no"), age=10**9) == Discard()
    assert verdict(Retry(3, max_age=0), TerminalError("no"), age=10**9) == GiveUp("dead")


@given(st.integers(1, 60), st.floats(0, 1, exclude_max=True), st.integers(1, 50), st.floats(0, 10**7))
def test_whatever_is_drawn_a_wait_is_bounded_and_attempts_end(
    times: int, draw: float, attempt: int, age: float
) -> None:
    backoff = Backoff("5s", "30s", "10m", jitter=0.5)
    told = verdict(Retry(times, backoff, max_age="30d"), ValueError(), attempt, age, draw)
    delay = backoff.delay(attempt, draw)
    assert (5.0, 30.0, 600.0)[min(attempt, 3) - 1] / 2 <= delay <= 600.0
    expected = TryAgain(delay) if age + delay <= 30 * 86_400 else TOO_OLD
    assert told == (expected if attempt < times else EXHAUSTED)


@given(st.integers(1, 10**6), st.sampled_from([ValueError(), KeyError(), RetryableError("x", after=0), OSError()]))
def test_a_critical_job_is_never_exhausted(attempt: int, error: BaseException) -> None:
    policy = unlimited("pay", Retry(2, Backoff(0)).on(KeyError, times=1).on(OSError, After(0)))
    told = verdict(policy, error, attempt)
    assert isinstance(told, TryAgain)
    assert attempt < ENDLESS
    assert told.delay >= SHORTEST, "else it is tried as fast as it fails, for ever"
