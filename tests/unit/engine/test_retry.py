"""Jobs that fail: tried again in the right order, at the right time, with what they had saved, and given up at last."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from processor.broker.base import OutRecord
from processor.engine.way_home import WayHome
from processor.errors import BrokerUnavailable, RetryableError, TerminalError
from processor.job import Carried, Job, Lane
from processor.policies import After, Backoff, Dead, Discard, Park, Retry
from processor.states import State
from processor.wire import topics
from processor.wire.codec import decode_checkpoint, decode_job, encode
from processor.wire.headers import routing_headers
from tests.unit.engine.scene import NS, QUEUE, Scene

SOON = Retry(3, Backoff("1s", "2s"))


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene(seed=11, partitions=2)
    yield scene
    scene.close()


class Flaky:
    """Fails the first `failures` times, and remembers when it was called."""

    def __init__(self, scene: Scene, failures: int, error: Exception | None = None) -> None:
        self.scene = scene
        self.failures = failures
        self.error = error or ValueError("not yet")
        self.calls: list[tuple[int, float]] = []

    def __call__(self, ctx: Any, payload: Any) -> Any:
        self.calls.append((ctx.attempt, self.scene.runtime.clock.monotonic()))
        if len(self.calls) <= self.failures:
            raise self.error
        return payload

    def was_called(self, times: int) -> bool:
        return len(self.calls) >= times

    @property
    def attempts(self) -> list[int]:
        return [attempt for attempt, _ in self.calls]

    @property
    def waits(self) -> list[float]:
        moments = [moment for _, moment in self.calls]
        return [later - sooner for sooner, later in pairwise(moments)]


def test_failing_job_is_tried_again_after_its_waits(scene: Scene) -> None:
    flaky = Flaky(scene, 2)
    scene.define("flaky", flaky, retry=SOON)
    scene.start("w-0")
    scene.enqueue("flaky", "job-1", "paid")
    scene.until(lambda: scene.state_of("job-1") is State.RETRYING)
    status = scene.status_of("job-1")
    assert status.due_at is not None
    assert status.due_at - status.at == 1000
    assert status.error is not None
    assert status.error.message == "not yet"
    scene.settle()
    assert flaky.attempts == [1, 2, 3]
    assert [round(wait) for wait in flaky.waits] == [1, 2]
    assert all(wait >= wanted for wait, wanted in zip(flaky.waits, (1.0, 2.0), strict=True)), "never early"
    assert scene.ends() == {("job-1", 1): [State.SUCCEEDED]}
    assert scene.dead_letters() == []


def test_delays_are_walks_down_the_rungs(scene: Scene) -> None:
    """Never early, and late by at most 1 s + 1 %."""
    delays = (1.0, 1.5, 4.9, 5.0, 29.0, 31.5, 119.0, 200.0, 700.0)
    flaky = Flaky(scene, len(delays))
    scene.define("flaky", flaky, retry=Retry(len(delays) + 1, Backoff(*delays)))
    scene.start("w-0", idle_wait=0.1, idle_wait_max=0.1)
    scene.enqueue("flaky", "job-1")
    scene.until(lambda: len(flaky.calls) > len(delays), 3 * sum(delays))
    for wait, delay in zip(flaky.waits, delays, strict=True):
        assert delay <= wait <= delay * 1.01 + 1.0, (delay, wait)


def test_exhausted_job_becomes_a_dead_letter_with_all_its_failures(scene: Scene) -> None:
    flaky = Flaky(scene, 99)
    scene.define("flaky", flaky, retry=SOON)
    scene.start("w-0")
    scene.enqueue("flaky", "job-1", {"amount": 5})
    scene.settle()
    assert flaky.attempts == [1, 2, 3]
    assert scene.ends() == {("job-1", 1): [State.DEAD]}
    (letter,) = scene.dead_letters()
    assert letter.reason == "exhausted"
    assert letter.job is not None
    assert json.loads(decode_job(letter.job).payload) == {"amount": 5}
    failures = letter.failures or []
    assert [failure.attempt for failure in failures] == [1, 2, 3]
    assert {failure.message for failure in failures} == {"not yet"}
    assert "ValueError" in failures[-1].traceback
    assert all(failure.worker == "w-0" and failure.at for failure in failures)


def test_attempts_are_counted_over_restarts(scene: Scene) -> None:
    """The count travels in the record: killing the worker while the job waits resets nothing."""
    flaky = Flaky(scene, 99)
    scene.define("flaky", flaky, retry=SOON)
    for slot in ("w-0", "w-1", "w-2"):
        worker = scene.start(slot)
        if slot == "w-0":
            scene.enqueue("flaky", "job-1")
        before = len(flaky.calls)
        scene.until(partial(flaky.was_called, before + 1))
        scene.until(lambda: scene.state_of("job-1") is not State.RUNNING and scene.lag()[scene.lane(Lane.DUE)] == 0)
        scene.runtime.pass_time(0.3)
        worker.kill()
    scene.start("w-3")
    scene.settle()
    assert flaky.attempts == [1, 2, 3]
    assert scene.ends() == {("job-1", 1): [State.DEAD]}


def test_retried_job_goes_on_where_it_was(scene: Scene) -> None:
    """Rows that were done are not read again, on another worker, after each failure."""
    seen: list[int] = []

    def rows(ctx: Any, payload: Any) -> int:
        for row in ctx.each("rows", lambda after: range((after or 0) + 1, 31)):
            seen.append(row)
            ctx.step("pay", seen.copy)
            if row in (10, 20) and seen.count(row) == 1:
                raise ConnectionError(f"row {row}")
        return len(seen)

    scene.define("rows", rows, retry=SOON)
    first = scene.start("w-0")
    scene.enqueue("rows", "job-1")
    scene.until(lambda: scene.state_of("job-1") is State.RETRYING)
    scene.runtime.pass_time(0.2)
    first.kill()
    scene.start("w-1")
    scene.settle()
    assert seen == [*range(1, 11), *range(10, 21), *range(20, 31)]
    assert scene.ends() == {("job-1", 1): [State.SUCCEEDED]}


def test_step_that_finished_before_the_failure_is_not_run_again(scene: Scene) -> None:
    ran: list[str] = []

    def steps(ctx: Any, payload: Any) -> str:
        ctx.step("first", lambda: ran.append("first"))
        if ctx.attempt < 3:
            raise ValueError("second fails")
        ctx.step("second", lambda: ran.append("second"))
        return "done"

    scene.define("steps", steps, retry=SOON)
    scene.start("w-0")
    scene.enqueue("steps", "job-1")
    scene.settle()
    assert ran == ["first", "second"]


def test_progress_too_large_to_travel_stays_and_is_found(scene: Scene) -> None:
    """Over 256 KiB of steps: they wait in the checkpoint topic, at home in the retry chain, over a restart too."""
    ran: list[int] = []

    def large(index: int) -> str:
        ran.append(index)
        return "x" * 50_000

    def steps(ctx: Any, payload: Any) -> int:
        for index in range(8):
            ctx.step(f"s{index}", lambda index=index: large(index))
        if ctx.attempt == 1:
            raise ValueError("not yet")
        return len(ran)

    scene.define("steps", steps, retry=SOON)
    first = scene.start("w-0")
    scene.enqueue("steps", "job-1")
    scene.until(lambda: scene.state_of("job-1") is State.RETRYING)
    copies = list(scene.broker.records(topics.retry_topic(NS, "1s")))
    assert len(copies) == 1
    carried = decode_job(copies[0].value() or b"").carried
    assert carried is not None
    assert (carried.progress, carried.steps) == (None, None)
    scene.runtime.pass_time(0.2)
    first.kill()
    scene.start("w-1")
    scene.settle()
    assert ran == list(range(8))
    assert scene.ends() == {("job-1", 1): [State.SUCCEEDED]}


def test_promoted_job_fails_and_comes_back(scene: Scene) -> None:
    """It lived in the checkpoint topic; its copy takes its progress along, and nothing is left behind."""
    calls: list[Any] = []

    def long(ctx: Any, payload: Any) -> None:
        calls.append(ctx.cursor)
        if ctx.attempt == 1:
            ctx.checkpoint(7)
            scene.runtime.pass_time(2.0)
            raise ValueError("after its promotion")

    scene.define("long", long, retry=SOON)
    scene.start("w-0")
    scene.enqueue("long", "job-1")
    scene.settle()
    assert calls == [None, 7]
    assert scene.ends() == {("job-1", 1): [State.SUCCEEDED]}


@pytest.mark.parametrize(
    ("decision", "state", "reason"),
    [
        (Dead("bad file"), State.DEAD, "dead"),
        (Discard("nobody cares"), State.DISCARDED, None),
        (Park("ask Ada"), State.WAITING, None),
    ],
)
def test_policy_decides_by_exception(scene: Scene, decision: Any, state: State, reason: str | None) -> None:
    flaky = Flaky(scene, 99)
    scene.define("flaky", flaky, retry=SOON.on(ValueError, decision))
    scene.start("w-0")
    scene.enqueue("flaky", "job-1")
    scene.until(lambda: scene.state_of("job-1") is state)
    assert flaky.attempts == [1]
    letters = scene.dead_letters()
    assert [letter.reason for letter in letters] == ([reason] if reason else [])
    if reason:
        assert "bad file" in (letters[0].failures or [])[-1].message
    if state is State.WAITING:
        assert scene.status_of("job-1").note == "ask Ada"


def test_after_tries_again_however_often(scene: Scene) -> None:
    flaky = Flaky(scene, 6)
    scene.define("flaky", flaky, retry=Retry(2).on(ValueError, After("1s")))
    scene.start("w-0")
    scene.enqueue("flaky", "job-1")
    scene.settle()
    assert flaky.attempts == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("error", "attempts", "wait"), [(TerminalError("no"), [1], None), (RetryableError("busy", after="4s"), [1, 2], 4)]
)
def test_handler_may_say_itself(scene: Scene, error: Exception, attempts: list[int], wait: int | None) -> None:
    flaky = Flaky(scene, 1, error)
    scene.define("flaky", flaky, retry=SOON)
    scene.start("w-0")
    scene.enqueue("flaky", "job-1")
    scene.settle()
    assert flaky.attempts == attempts
    assert [int(found) for found in flaky.waits] == ([] if wait is None else [wait])


def test_failed_job_never_blocks_the_jobs_behind_it(scene: Scene) -> None:
    scene.define("flaky", Flaky(scene, 99), retry=Retry(5, Backoff("30s")))
    scene.define("plain", lambda ctx, payload: payload)
    scene.start("w-0")
    ids = [scene.id_for(0, f"behind{index}") for index in range(5)]
    scene.enqueue("flaky", scene.id_for(0))
    for job_id in ids:
        scene.enqueue("plain", job_id)
    scene.until(lambda: all(scene.state_of(job_id) is State.SUCCEEDED for job_id in ids), 5.0)
    assert scene.state_of(scene.id_for(0)) is State.RETRYING


@pytest.mark.parametrize("order", ["block", "release"])
def test_key_waits_for_the_retry_or_is_let_go(scene: Scene, order: str) -> None:
    """`block`: the next of the key runs after the retry, even if the worker is killed meanwhile. `release`: before."""
    ran: list[str] = []
    flaky = Flaky(scene, 1)

    def first(ctx: Any, payload: Any) -> None:
        ran.append("first")
        flaky(ctx, payload)

    scene.define("first", first, retry=Retry(3, Backoff("5s")))
    scene.define("second", lambda ctx, payload: ran.append("second"))
    worker = scene.start("w-0", order=order)
    scene.until(scene.active)
    scene.enqueue("first", "job-1", key="k")
    scene.enqueue("second", "job-2", key="k")
    scene.until(lambda: scene.state_of("job-1") is State.RETRYING)
    scene.runtime.pass_time(0.5)
    worker.kill()
    scene.start("w-1", order=order)
    scene.settle()
    assert ran == (["first", "first", "second"] if order == "block" else ["first", "second", "first"])
    assert {states[0] for states in scene.ends().values()} == {State.SUCCEEDED}


def test_stray_copy_of_a_moved_job_never_runs(scene: Scene) -> None:
    """The retry record once more in the due lane, after the job has ended: dropped by its mark."""
    flaky = Flaky(scene, 1)
    scene.define("flaky", flaky, retry=SOON)
    worker = scene.start("w-0")
    scene.enqueue("flaky", "job-1")
    scene.settle()
    due = topics.jobs_topic(NS, QUEUE, Lane.DUE)
    (copy,) = scene.broker.records(due)
    for _ in range(2):
        scene.append(OutAgain(due, copy))
        scene.settle()
        worker.kill()
        worker = scene.start("w-1" if worker.slot == "w-0" else "w-2")
    assert flaky.attempts == [1, 2]
    assert scene.ends() == {("job-1", 1): [State.SUCCEEDED]}


def OutAgain(topic: str, record: Any) -> Any:
    """A record as it was, to be appended once more."""
    return OutRecord(topic, record.key(), record.value(), record.headers(), record.partition() or 0)


def test_retry_copy_and_completion_are_one_transaction(scene: Scene) -> None:
    """Killed at any call of the flush that moves a job: it is moved once, or not at all and tried again."""
    flaky = Flaky(scene, 3)
    scene.define("flaky", flaky, retry=Retry(9, Backoff("1s")))
    scene.start("w-0")
    scene.until(scene.active)
    for call in ("append", "send_offsets", "commit"):
        from processor.errors import AbortRequired

        scene.broker.faults.fail_next(call, AbortRequired("planned"), process=scene.running[0].name)
    scene.enqueue("flaky", "job-1")
    scene.settle()
    assert flaky.attempts == [1, 2, 3, 4]
    assert scene.ends() == {("job-1", 1): [State.SUCCEEDED]}
    visible = [decode_job(r.value() or b"") for r in scene.broker.records(topics.retry_topic(NS, "1s"))]
    assert sorted((job.hop, job.attempt) for job in visible) == [(1, 1), (2, 2), (3, 3)]


def test_foreign_record_in_the_chain_becomes_a_dead_letter(scene: Scene) -> None:
    scene.start("w-0")
    scene.append(OutRecord(topics.retry_topic(NS, "1s"), b"k", b"garbage", [("due-at", b"x")]))
    lost = [("queue", b"gone"), ("number", b"1"), ("due-at", b"0")]
    scene.append(OutRecord(topics.retry_topic(NS, "1s"), b"k2", b"more", lost))
    scene.until(lambda: len(scene.dead_letters()) == 2)
    scene.settle()
    assert sorted((letter.reason, letter.raw) for letter in scene.dead_letters()) == [
        ("undecodable", b"garbage"),
        ("unknown_queue", b"more"),
    ]


def test_a_job_whose_queue_is_gone_is_dead_for_whoever_asks(scene: Scene) -> None:
    """It does not seem to wait for its retry for ever, and its dead letter is the whole job."""
    scene.start("w-0")
    kept = Carried([], b"progress", [b"a step"])
    job = Job("job-1", "plain", 1, "gone", b"{}", 5, hop=1, attempt=1, number=1, due_at=0, carried=kept)
    scene.append(OutRecord(topics.retry_topic(NS, "1s"), b"job-1", encode(job), routing_headers(job, derived=True)))
    scene.until(lambda: scene.state_of("job-1") is State.DEAD)
    (letter,) = scene.dead_letters()
    assert letter.job is not None
    assert (letter.reason, letter.raw, letter.progress, letter.steps) == (
        "unknown_queue",
        None,
        b"progress",
        [b"a step"],
    )
    assert decode_job(letter.job) == job._replace(carried=None)
    status = scene.status_of("job-1")
    assert status.error is not None
    assert status.error.message == "there is no lane gone number 1"


def test_large_progress_keeps_its_cursor_in_the_dead_letter(scene: Scene) -> None:
    def steps(ctx: Any, payload: Any) -> None:
        ctx.checkpoint(41)
        raise ValueError("never")

    scene.define("steps", steps, retry=SOON)
    scene.start("w-0")
    scene.enqueue("steps", "job-1")
    scene.settle()
    (letter,) = scene.dead_letters()
    assert letter.progress is not None
    assert decode_checkpoint(letter.progress).cursor == "41"


@pytest.mark.parametrize("fault", [BrokerUnavailable("away"), RuntimeError("a fault of ours")])
def test_nothing_is_passed_over_when_the_forwarder_is_disturbed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    """What it took out of a rung and could not send goes back: else a later flush would commit past it."""
    real, calls = WayHome.onward, []

    def disturbed(self: WayHome, record: Any, now_ms: int, announces: list[OutRecord]) -> Any:
        calls.append(record)
        if len(calls) in (2, 5):
            raise fault
        return real(self, record, now_ms, announces)

    monkeypatch.setattr(WayHome, "onward", disturbed)
    names = [f"job-{place}" for place in range(8)]
    for name in names:
        scene.define(name, Flaky(scene, 1), retry=SOON)
        scene.enqueue(name, name)
    scene.start("w-0")
    scene.settle()
    assert len(calls) > len(names)
    assert scene.ends() == {(name, 1): [State.SUCCEEDED] for name in names}
