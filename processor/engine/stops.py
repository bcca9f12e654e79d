"""What the outcome of an attempt means once somebody has told it to stop, and what the metrics call it."""

from __future__ import annotations

from processor.core.failures import error_info
from processor.core.outcome import Discarded, Ended, Failed, Lost, Outcome, Parked, Succeeded
from processor.core.verdict import judged
from processor.engine.attempt import Attempt, Stop
from processor.errors import AttemptTimedOut
from processor.states import State


def stopped(attempt: Attempt, stop: Stop, now: int) -> Outcome:
    """What an attempt that was told to stop means for its job. One that succeeded all the same has succeeded."""
    outcome = attempt.outcome
    if isinstance(outcome, Succeeded | Lost):
        return outcome
    if isinstance(outcome, Parked) and outcome.state is State.IN_DOUBT:
        return outcome
    if stop.kind == "killed":
        return Ended(State.KILLED, stop.reason, began=True)
    if stop.kind == "cancelled":
        return Ended(State.CANCELLED, stop.reason, began=True)
    error = AttemptTimedOut(stop.reason)
    info = error_info(error)._replace(kind=stop.kind, traceback=attempt.stack)
    return judged(attempt.runnable.options.retry, attempt.job, error, now, info)


def name_of(outcome: Outcome) -> str:
    """An end, as the metric has it."""
    if isinstance(outcome, Ended):
        return outcome.state.value
    return "discarded" if isinstance(outcome, Discarded) else "dead" if isinstance(outcome, Failed) else "succeeded"
