"""Alerts: what somebody should look at, as records of the alerts topic. Who hears of them: `processor.alerts`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from processor import events
from processor.alert_kinds import AlertKind
from processor.broker.base import OutRecord
from processor.core.outcome import Ended, Failed
from processor.dead_reasons import DeadReason
from processor.states import State
from processor.texts import plain
from processor.wire.codec import encode
from processor.wire.durations import format_duration
from processor.wire.records import AlertRecord
from processor.wire.topics import alerts_topic

if TYPE_CHECKING:
    from processor.engine.attempt import Attempt
    from processor.engine.queue_partition import QueuePartition
    from processor.engine.state import EngineState

log = events.logger(__name__)


def tell_of_end(engine: EngineState, attempt: Attempt, now: int) -> None:
    """Count a dead letter, and alert whoever should hear of this end; it goes out with the end itself."""
    number, job, outcome = attempt.number, attempt.job, attempt.outcome
    kind = text = ""
    if isinstance(outcome, Failed):
        engine.counters.events[f"dead_letter.{outcome.reason}"] += 1
        if outcome.reason == DeadReason.CRASH_LOOP:
            kind, text = AlertKind.CRASH_LOOP, f"job {job.id} ({job.type}) ended its process again and again"
        elif attempt.job_type is not None and attempt.job_type.options.critical:
            kind, text = (
                AlertKind.CRITICAL_DEAD,
                f"the critical job {job.id} ({job.type}) is dead: {outcome.error.message[:300]}",
            )
    elif isinstance(outcome, Ended) and outcome.state is State.KILLED:
        kind, text = AlertKind.KILLED, f"job {job.id} ({job.type}) was not done by its kill date"
    if kind:
        number.outbox.create(engine.completer.alert(number.topics, kind, job, text, now))
        log.error("job.alert", extra={"job_id": job.id, "job_type": job.type, "kind": kind})


def tell_of_kill_date(engine: EngineState, attempt: Attempt, now: int) -> None:
    """Alert that a running job may not be done by its kill date."""
    job, number = attempt.job, attempt.number
    assert job.kill_at is not None
    left = format_duration(max(1, (job.kill_at - now) // 1000))
    text = f"job {job.id} ({job.type}) runs, and its kill date comes in {left}"
    alert = engine.completer.alert(number.topics, AlertKind.KILL_DATE_NEAR, job, text, now)
    number.outbox.create(alert)
    log.warning("job.kill_date_near", extra={"job_id": job.id, "job_type": job.type, "left": left})


def tell_of_hold(engine: EngineState, held: QueuePartition, reason: str) -> None:
    """Alert that a partition stands still. Nothing of it is written, so it goes out with what another one writes; of a
    worker that has no other, the log line tells alone.
    """
    other = next((number for number in engine.active() if number is not held), None)
    if other is None:
        return
    queue, place = held.queue.name, f"{held.queue.name}-{held.partition}"
    text = f"partition {place} is held: {plain(reason, 300)}"
    slot, now = engine.config.slot, engine.clock.now_ms()
    value = encode(AlertRecord(AlertKind.HELD, f"partition:{place}", now, slot, text, queue=queue))
    other.outbox.create(OutRecord(alerts_topic(engine.config.namespace), place.encode(), value))
