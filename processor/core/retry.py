"""What becomes of a job whose handler raised: decided by its policy, its attempts and its age. Pure.

In this order:

1. The first rule of the policy that fits the exception: its decision, or its own number of attempts and waits. What a
   handler says itself, by `TerminalError` or `RetryableError`, is decided by a rule only if the rule names that class:
   a rule for `Exception` is about faults.
2. `TerminalError` says that trying again is useless: dead.
3. `RetryableError` is tried again, after the time it names if it names one; it counts as an attempt like any other.
4. Else the policy's attempts and waits.

Attempts are counted in the job's record, so no restart resets them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from processor.dead_reasons import DeadReason
from processor.errors import DefinitionError, RetryableError, TerminalError
from processor.policies import ENDLESS, LONGEST_DELAY, After, Dead, Discard, Park, Retry, Rule
from processor.wire.durations import parse_duration

SHORTEST = 1.0
"""Seconds that is waited at least where attempts have no end."""
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
    rule = _rule(policy, error)
    if isinstance(error, TerminalError) and rule is None:
        return GiveUp(DeadReason.DEAD)
    wanted = _wanted(error)
    if rule is not None:
        if isinstance(rule.decision, Dead):
            return GiveUp(DeadReason.DEAD, rule.decision.reason)
        if isinstance(rule.decision, Discard | Park):
            return rule.decision
        if isinstance(rule.decision, After):
            # Without a wait it would be tried again without an end, as fast as it fails.
            delay = rule.decision.delay if wanted is None else wanted
            return _aged(policy, TryAgain(max(delay, SHORTEST)), age)
    if attempt >= _times(policy, rule):
        return GiveUp(DeadReason.EXHAUSTED)
    backoff = (rule.backoff if rule is not None else None) or policy.backoff
    delay = backoff.delay(attempt, draw()) if wanted is None else wanted
    if _times(policy, rule) >= ENDLESS:
        delay = max(delay, SHORTEST)  # as for After
    return _aged(policy, TryAgain(delay), age)


def _rule(policy: Retry, error: BaseException) -> Rule | None:
    """The first rule that is about this error. Of a broad one, a handler's own word takes the numbers alone."""
    own = next((kind for kind in (TerminalError, RetryableError) if isinstance(error, kind)), None)
    if own is None:
        return policy.rule(error)
    fitting = [rule for rule in policy.rules if isinstance(error, rule.exception)]
    naming = next((rule for rule in fitting if issubclass(rule.exception, own)), None)
    if naming is not None or own is TerminalError:
        return naming
    return next((rule for rule in fitting if rule.decision is None), None)


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
        return GiveUp(DeadReason.EXHAUSTED, "its next attempt would begin after its maximal age")
    return verdict
