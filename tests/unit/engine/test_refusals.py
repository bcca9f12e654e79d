"""Refused records lose nothing: a job's end is written whole, or its payload is kept. On the memory log."""

from __future__ import annotations

import json
from typing import Any

import pytest

from processor.broker.base import OutRecord
from processor.broker.memory import MemoryLimits
from processor.policies import Backoff, Retry
from processor.states import State
from processor.wire import topics
from processor.wire.codec import decode_job
from processor.wire.records import DeadLetterRecord
from tests.unit.engine.scene import NS, QUEUE, Scene

SMALL = MemoryLimits(session_seconds=3.0, record_bytes=20_000)


def payload_of(letter: DeadLetterRecord) -> Any:
    """What the handler was given."""
    raw = letter.job if letter.job is not None else letter.raw
    assert raw is not None
    return json.loads(decode_job(raw).payload)


def neighbours_end(scene: Scene, count: int = 5) -> None:
    """Others of the partition go on."""
    for place in range(count):
        scene.enqueue("plain", f"after-{place}")
    scene.until(lambda: all(scene.state_of(f"after-{n}") is State.SUCCEEDED for n in range(count)))


def test_parent_whose_child_is_refused_has_not_succeeded() -> None:
    scene = Scene(partitions=1)
    scene.define("plain", lambda ctx, p: p)
    child = scene.define("child", lambda ctx, p: p)
    real = child.child_record

    def elsewhere(payload: Any, **how: Any) -> OutRecord:
        return real(payload, **how)._replace(topic=topics.jobs_topic(NS, "no-such-queue"))

    child.child_record = elsewhere  # type: ignore[method-assign]  # a queue whose topic is not there

    def parent(ctx: Any, payload: Any) -> str:
        ctx.step("first", lambda: 1)
        scene.runtime.pass_time(0.3)
        made: str = ctx.spawn(child, {"row": 77})
        return made

    scene.define("parent", parent)
    scene.start("w-0")
    scene.enqueue("parent", "job-1", {"file": "a.csv"})
    scene.until(lambda: scene.state_of("job-1") is State.DEAD)
    (letter,) = scene.dead_letters()
    assert (letter.id, letter.reason) == ("job-1", "unsendable")
    assert payload_of(letter) == {"file": "a.csv"}
    assert letter.failures
    assert "no-such-queue" in letter.failures[-1].message
    neighbours_end(scene)
    scene.settle()
    assert scene.ends()["job-1", 1] == [State.DEAD]
    scene.close()


@pytest.mark.parametrize("steps", [6, 40])
def test_dead_letter_that_is_too_large_is_cut_and_keeps_the_job(steps: int) -> None:
    scene = Scene(partitions=1, limits=SMALL)
    scene.define("plain", lambda ctx, p: p)

    def fails(ctx: Any, payload: Any) -> None:
        for place in range(steps):
            ctx.step(f"s{place}", lambda: "x" * 2500)
        raise ValueError("no")

    scene.define("fails", fails, retry=Retry(1))
    scene.start("w-0")
    scene.enqueue("fails", "job-1", "p" * 8000)
    scene.until(lambda: scene.state_of("job-1") is State.DEAD)
    (letter,) = scene.dead_letters()
    assert payload_of(letter) == "p" * 8000
    neighbours_end(scene)
    scene.settle()
    scene.close()


def test_job_that_fits_into_no_dead_letter_is_cut_and_loops_nowhere() -> None:
    scene = Scene(partitions=1, limits=SMALL)
    scene.define("plain", lambda ctx, p: p)

    def fails(ctx: Any, payload: Any) -> None:
        raise ValueError("no")

    scene.define("fails", fails, retry=Retry(1))
    scene.start("w-0")
    scene.enqueue("fails", "job-1", "p" * 19_700)
    scene.until(lambda: scene.state_of("job-1") is State.DEAD)
    (letter,) = scene.dead_letters()
    assert letter.raw is not None
    assert len(letter.raw) == 10_000
    neighbours_end(scene)
    scene.settle()
    scene.close()


@pytest.mark.parametrize("kind", ["unknown", "long"])
def test_job_whose_promotion_is_refused_is_kept(kind: str) -> None:
    """The lane takes its record, the checkpoint topic does not: the record there is larger."""
    scene = Scene(partitions=1, limits=SMALL)
    scene.define("plain", lambda ctx, p: p)
    scene.define("long", lambda ctx, p: scene.runtime.pass_time(5.0))
    worker = scene.start("w-0")
    scene.enqueue(kind, "job-1", "p" * 19_850)
    scene.until(lambda: scene.state_of("job-1") is State.DEAD, 20)
    worker.kill()
    scene.start("w-0")
    neighbours_end(scene)
    scene.settle()
    assert scene.ends()["job-1", 1] == [State.DEAD]
    (letter,) = scene.dead_letters()
    assert letter.reason == "unsendable"
    assert (letter.raw or letter.job or b"").find(b"job-1") > 0
    scene.close()


def test_retry_whose_copy_is_refused_is_kept() -> None:
    scene = Scene(partitions=1, limits=SMALL)
    scene.define("plain", lambda ctx, p: p)

    def flaky(ctx: Any, payload: Any) -> None:
        raise ConnectionError("x" * 1900)

    scene.define("flaky", flaky, retry=Retry(3, Backoff("1s")))
    scene.start("w-0")
    scene.enqueue("flaky", "job-1", "p" * 17_000)
    scene.until(lambda: scene.state_of("job-1") is State.DEAD, 30)
    assert {letter.id for letter in scene.dead_letters()} == {"job-1"}
    neighbours_end(scene)
    scene.settle()
    scene.close()


@pytest.mark.parametrize("which", ["checkpoints", "status"])
def test_topic_that_refuses_for_a_while_loses_nothing(which: str) -> None:
    """Its rights are missing, say: the partition is held, and goes on when they are back."""
    scene = Scene(partitions=2)
    scene.define("plain", lambda ctx, p: p)

    def steps(ctx: Any, payload: Any) -> int:
        for place in range(4):
            ctx.step(f"s{place}", lambda: scene.runtime.pass_time(0.3))
        return 5

    scene.define("steps", steps)
    worker = scene.start("w-0")
    scene.until(scene.active)
    topic = topics.checkpoints_topic(NS, QUEUE) if which == "checkpoints" else topics.status_topic(NS)
    scene.enqueue("steps", "job-1", {"amount": 5})
    scene.runtime.pass_time(0.4)
    scene.broker._cluster.plan.refused_topics.add(topic)
    scene.until(lambda: worker.worker.state.counters.events["held"] > 0, 20)
    scene.runtime.pass_time(4.0)
    scene.broker._cluster.plan.refused_topics.discard(topic)
    scene.settle(120)
    assert scene.ends() == {("job-1", 1): [State.SUCCEEDED]}
    assert scene.dead_letters() == []
    assert not worker.over
    scene.close()
