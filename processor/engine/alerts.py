"""Alerts: what the end of a job tells those who are to look at it, as records of the alerts topic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from processor import events
from processor.core.outcome import Ended, Failed
from processor.states import State

if TYPE_CHECKING:
    from processor.engine.attempt import Attempt
    from processor.engine.state import EngineState

log = events.logger(__name__)


def tell_of_end(engine: EngineState, attempt: Attempt, now: int) -> None:
    """Count a dead letter, and alert whoever should hear of this end; it goes out with the end itself."""
    number, job, outcome = attempt.number, attempt.job, attempt.outcome
    kind = text = ""
    if isinstance(outcome, Failed):
        engine.counters.events[f"dead_letter.{outcome.reason}"] += 1
        if outcome.reason == "crash_loop":
            kind, text = "crash_loop", f"job {job.id} ({job.type}) ended its process again and again"
        elif attempt.job_type is not None and attempt.job_type.options.critical:
            kind, text = (
                "critical_dead",
                f"the critical job {job.id} ({job.type}) is dead: {outcome.error.message[:300]}",
            )
    elif isinstance(outcome, Ended) and outcome.state is State.KILLED:
        kind, text = "killed", f"job {job.id} ({job.type}) was not done by its kill date"
    if kind:
        number.creates.append(engine.completer.alert(number.topics, kind, job, text, now))
        log.error("job.alert", extra={"job_id": job.id, "job_type": job.type, "kind": kind})
