"""What becomes of a job whose handler raised: decided by its policy, its attempts and its age. Pure.

In this order:

1. `TerminalError` says that trying again is useless: dead.
2. `RetryableError` is tried again, after the time it names if it names one; it counts as an attempt like any other.
3. The first rule of the policy that fits the exception: its decision, or its own number of attempts and waits.
4. Else the policy's attempts and waits.

Attempts are counted in the job's record, so no restart resets them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from processor.errors import DefinitionError, RetryableError, TerminalError
from processor.policies import LONGEST_DELAY, After, Dead, Discard, Park, Retry, Rule
from processor.wire.durations import parse_duration

SHORTEST = 1.0
"""Seconds that `After` waits at least."""
ONE_ATTEMPT = Retry(1)
"""Of a job type without a policy."""


class TryAgain(NamedTuple):
    """Another attempt, not before `delay` seconds from now."""

    delay: float


class GiveUp(NamedTuple):
    """A dead letter. `reason` is its reason, `note` what the policy said of it."""

    reason: str
    note: str = ""


Verdict = TryAgain | GiveUp | Discard | Park


def judge(
    policy: Retry | None, error: BaseException, *, attempt: int, age: float, draw: Callable[[], float]
) -> Verdict:
    """What becomes of the job.

    Args:
        policy: of its job type; None: one attempt.
        error: what the handler raised.
        attempt: attempts made in this life, this one included.
        age: seconds since the job was enqueued, or redriven.
        draw: random numbers from 0 up to 1.
    """
    policy = policy or ONE_ATTEMPT
    if isinstance(error, TerminalError):
        return GiveUp("dead")
    rule = policy.rule(error)
    wanted = _wanted(error)
    if rule is not None and not isinstance(error, RetryableError):
        if isinstance(rule.decision, Dead):
            return GiveUp("dead", rule.decision.reason)
        if isinstance(rule.decision, Discard | Park):
            return rule.decision
        if isinstance(rule.decision, After):
            # Without a wait it would be tried again without an end, as fast as it fails.
            return _aged(policy, TryAgain(max(rule.decision.delay, SHORTEST)), age)
    if attempt >= _times(policy, rule):
        return GiveUp("exhausted")
    backoff = (rule.backoff if rule is not None else None) or policy.backoff
    delay = backoff.delay(attempt, draw()) if wanted is None else wanted
    return _aged(policy, TryAgain(delay), age)


def _times(policy: Retry, rule: Rule | None) -> int:
    return policy.times if rule is None or rule.times is None else rule.times


def _wanted(error: BaseException) -> float | None:
    """The wait that a handler asked for; one that makes no sense is as if it had not asked."""
    after = error.after if isinstance(error, RetryableError) else None
    if after is None:
        return None
    try:
        return min(parse_duration(after, name="after"), LONGEST_DELAY)
    except (DefinitionError, TypeError, OverflowError):
        return None


def _aged(policy: Retry, verdict: TryAgain, age: float) -> TryAgain | GiveUp:
    if isinstance(policy.max_age, float) and age + verdict.delay > policy.max_age:
        return GiveUp("exhausted", "its next attempt would begin after its maximal age")
    return verdict
