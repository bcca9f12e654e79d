"""What operators do with the jobs of a bed that have ended: dead letters go back, history runs again."""

from __future__ import annotations

from dataclasses import replace
from typing import TypedDict

from processor.admin.dead_letters import LetterFilter, list_letters
from processor.admin.lag import queues_of
from processor.admin.redrive import redrive_letters
from processor.admin.replay import plan_replay, replays_of, run_replay
from processor.admin.transactions import Order
from processor.broker.base import Broker
from processor.core.dedupe import replayed_id
from processor.core.redrive import LetterState, Redrive
from processor.core.replay.spec import Spec
from processor.errors import ReplayError
from processor.runtime.stepping import SteppingRuntime
from processor.testing.fleet import TestbedError


class Again(TypedDict, total=False):
    """Which jobs run again, and how; as `core.replay.spec.Spec` has it."""

    types: tuple[str, ...]
    states: tuple[str, ...]
    where: tuple[str, ...]
    """Payload tests, `PATH=VALUE`."""
    same_ids: bool
    from_checkpoint: bool


def send_back(broker: Broker, runtime: SteppingRuntime, namespace: str, job_id: str, *, from_zero: bool) -> None:
    """Redrive the open dead letter of a job.

    Raises:
        TestbedError: there is none, or it cannot be sent back.
    """
    where = LetterFilter(names=frozenset({job_id}), states=frozenset({LetterState.OPEN}))
    rows = list_letters(broker, namespace, where)
    if not rows:
        raise TestbedError(f"job {job_id} has no open dead letter")
    result = redrive_letters(broker, namespace, rows, Redrive(from_zero=from_zero), _order(runtime))
    for _, error in result.refused:
        raise TestbedError(f"job {job_id} cannot be redriven: {error}") from error


def run_again(broker: Broker, runtime: SteppingRuntime, spec: Spec) -> list[str]:
    """Replay what is meant, whatever was replayed before; without ids all that the queues hold. The ids, in order.

    Raises:
        TestbedError: a job is not there, or cannot be replayed.
    """
    if not spec.ids:
        spec = replace(spec, everything=True, queues=tuple(queues_of(broker, spec.namespace)))
    name = f"bed-{len(replays_of(broker, spec.namespace).replays)}"
    try:
        plan = plan_replay(broker, spec, runtime.clock.now_ms(), name)
    except ReplayError as error:
        raise TestbedError(f"nothing can be replayed so: {error}") from error
    if plan.choice.missing or not plan.choice.jobs:
        left_out = ", ".join(f"{count} {reason}" for reason, count in plan.choice.left_out.items())
        raise TestbedError(f"no job to replay: missing {list(plan.choice.missing)}, left out {left_out or 'none'}")
    for job, fault in run_replay(broker, plan, _order(runtime)).refused:
        raise TestbedError(f"job {job.id} cannot be replayed: {fault}") from fault
    return [
        job.id if spec.same_ids else replayed_id(name, spec.namespace, job.queue, job.id) for job in plan.choice.jobs
    ]


def _order(runtime: SteppingRuntime) -> Order:
    return Order(by="testbed", clock=runtime.clock, pause=runtime.pass_time)
