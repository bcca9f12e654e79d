"""Time limits: what a handler hears, what is ended by force, and in which state its job ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from processor.core.deadlines import is_near
from processor.errors import AttemptTimedOut, TerminalError
from processor.job import Job
from processor.policies import Backoff, Dead, Retry
from processor.states import State
from processor.wire.codec import decode_checkpoint
from tests.unit.engine.scene import Scene, lane_record


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene(seed=5, partitions=2, settings={"stop_grace": 1.0})
    yield scene
    scene.close()


def endless(scene: Scene, seen: list[Any], *, polite: bool = True) -> Any:
    """A handler that counts rows for ever, or one that never looks at its context."""

    def rows(ctx: Any, payload: Any) -> None:
        seen.append(("began", ctx.attempt))
        if not polite:
            scene.runtime.pass_time(60.0)
            seen.append(("woke", ctx.attempt))
            return
        for row in ctx.each("rows", lambda after: range((after or 0) + 1, 1000), every="100ms"):
            seen.append(row)
            scene.runtime.pass_time(0.2)

    return rows


def test_attempt_that_takes_too_long_is_tried_again_from_what_it_saved(scene: Scene) -> None:
    seen: list[Any] = []
    scene.define("rows", endless(scene, seen), attempt_timeout=2.0, retry=Retry(2, Backoff("1s")))
    scene.start("w-0")
    scene.enqueue("rows", "job-1")
    scene.until(lambda: scene.state_of("job-1") is State.DEAD)
    rows = [row for row in seen if isinstance(row, int)]
    assert [entry for entry in seen if isinstance(entry, tuple)] == [("began", 1), ("began", 2)]
    assert rows == list(range(1, len(rows) + 1)), "no row twice: the second attempt went on"
    (letter,) = scene.dead_letters()
    assert letter.reason == "exhausted"
    assert {failure.kind for failure in letter.failures or []} == {"timeout"}
    assert letter.progress is not None
    loops = decode_checkpoint(letter.progress).loops or {}
    assert loops["rows"].items == len(rows)


def test_policy_may_have_a_rule_for_timeouts(scene: Scene) -> None:
    seen: list[Any] = []
    retry = Retry(5, Backoff("1s")).on(AttemptTimedOut, Dead("too slow"))
    scene.define("rows", endless(scene, seen), attempt_timeout=1.0, retry=retry)
    scene.start("w-0")
    scene.enqueue("rows", "job-1")
    scene.until(lambda: scene.state_of("job-1") is State.DEAD)
    assert scene.dead_letters()[0].reason == "dead"


def test_handler_that_goes_silent_is_stopped_and_one_that_beats_is_not(scene: Scene) -> None:
    def beats(ctx: Any, payload: Any) -> str:
        for _ in range(20):
            scene.runtime.pass_time(0.3)
            ctx.heartbeat()
        return "done"

    def silent(ctx: Any, payload: Any) -> str:
        scene.runtime.pass_time(6.0)
        ctx.heartbeat()
        return "done"

    scene.define("beats", beats, stall_timeout=1.0)
    scene.define("silent", silent, stall_timeout=1.0)
    scene.start("w-0")
    scene.enqueue("beats", "job-1")
    scene.enqueue("silent", "job-2")
    scene.until(lambda: len(scene.ends()) == 2 and all(scene.ends().values()))
    assert scene.state_of("job-1") is State.SUCCEEDED
    assert scene.state_of("job-2") is State.DEAD
    assert "no heartbeat" in (scene.dead_letters()[0].failures or [])[-1].message


def test_thread_that_ignores_its_token_is_left_behind_and_replaced(scene: Scene) -> None:
    seen: list[Any] = []
    scene.define("deaf", endless(scene, seen, polite=False), attempt_timeout=1.0)
    scene.define("plain", lambda ctx, payload: payload)
    worker = scene.start("w-0", order="release")
    scene.concurrency = 1
    scene.until(scene.active)
    for index in range(4):
        scene.enqueue("deaf", f"deaf-{index}")
    scene.enqueue("plain", "plain-1")
    scene.until(lambda: scene.state_of("plain-1") is State.SUCCEEDED, 20.0)
    scene.until(lambda: all(scene.state_of(f"deaf-{index}") is State.DEAD for index in range(4)), 20.0)
    assert worker.worker.state.counters.events["abandoned"] == 4
    assert worker.worker.housekeeping.timers.too_many_abandoned is False
    scene.until(lambda: len([entry for entry in seen if entry[0] == "woke"]) == 4, 90.0)
    scene.runtime.pass_time(1.0)
    assert all(states == [State.DEAD] for job, states in scene.ends().items() if job[0].startswith("deaf"))


def test_process_starts_anew_when_too_many_threads_were_left_behind(scene: Scene) -> None:
    seen: list[Any] = []
    scene.define("deaf", endless(scene, seen, polite=False), attempt_timeout=1.0)
    worker = scene.start("w-0", abandoned_max=2)
    for index in range(4):
        scene.enqueue("deaf", f"deaf-{index}")
    scene.until(lambda: worker.over, 30.0)
    assert worker.worker.recycled


def test_job_that_waited_too_long_is_expired_without_running(scene: Scene) -> None:
    ran: list[str] = []
    scene.define("quote", lambda ctx, payload: ran.append(ctx.id), queue_timeout=5.0)
    scene.enqueue("quote", "late")
    scene.runtime.pass_time(6.0)
    scene.enqueue("quote", "fresh")
    scene.start("w-0")
    scene.settle()
    assert ran == ["fresh"]
    assert scene.state_of("late") is State.EXPIRED
    assert "5 s after it was due" in (scene.status_of("late").note or "")


def test_kill_date_before_the_start(scene: Scene) -> None:
    ran: list[str] = []
    scene.define("plain", lambda ctx, payload: ran.append(ctx.id))
    scene.enqueue("plain", "late", kill_at=scene.runtime.clock.now_ms() + 1000)
    scene.runtime.pass_time(2.0)
    scene.start("w-0")
    scene.settle()
    assert ran == []
    assert scene.ends() == {("late", 1): [State.KILLED]}
    (letter,) = scene.dead_letters()
    assert letter.reason == "killed"
    (alert,) = scene.alerts()
    assert (alert.kind, alert.job_id) == ("killed", "late")


def test_kill_date_while_it_runs_and_while_it_retries(scene: Scene) -> None:
    seen: list[Any] = []
    scene.define("rows", endless(scene, seen), retry=Retry(3, Backoff("1s")))
    scene.define("flaky", lambda ctx, payload: 1 / 0, retry=Retry(3, Backoff("50s")))
    scene.start("w-0")
    scene.until(scene.active)
    now = scene.runtime.clock.now_ms()
    scene.enqueue("rows", "job-1", kill_at=now + 3000)
    scene.enqueue("flaky", "job-2", kill_at=now + 3000)
    scene.until(lambda: {scene.state_of("job-1"), scene.state_of("job-2")} == {State.KILLED}, 6.0)
    assert {alert.job_id for alert in scene.alerts()} == {"job-1", "job-2"}
    letters = {letter.id: letter for letter in scene.dead_letters()}
    assert letters["job-1"].progress is not None, "what it had saved is kept"
    assert [failure.kind for failure in letters["job-2"].failures or []] == ["builtins.ZeroDivisionError", "killed"]


def test_parked_job_is_killed_on_its_date(scene: Scene) -> None:
    from processor.policies import Park

    scene.define("flaky", lambda ctx, payload: 1 / 0, retry=Retry(3).on(ZeroDivisionError, Park("ask")))
    scene.start("w-0")
    scene.enqueue("flaky", "job-1", kill_at=scene.runtime.clock.now_ms() + 5000)
    scene.until(lambda: scene.state_of("job-1") is State.WAITING)
    scene.until(lambda: scene.state_of("job-1") is State.KILLED, 10.0)
    scene.settle()


def test_a_job_that_has_begun_expires_no_more_though_it_saved_nothing(scene: Scene) -> None:
    ran: list[str] = []

    def waits(ctx: Any, payload: Any) -> None:
        ran.append(ctx.id)
        for _ in range(len(ran) * 10):
            scene.runtime.pass_time(0.2)
            if ran.count("job-1") == 1:
                ctx.heartbeat()

    scene.define("waits", waits, queue_timeout=3.0)
    first = scene.start("w-0")
    scene.enqueue("waits", "job-1")
    scene.until(lambda: ran == ["job-1"])
    first.stop()
    scene.until(lambda: first.over)
    scene.runtime.pass_time(5.0)
    scene.start("w-1")
    scene.until(lambda: scene.state_of("job-1") is State.SUCCEEDED, 20.0)
    assert ran == ["job-1", "job-1"]


def test_the_death_of_a_critical_job_alerts(scene: Scene) -> None:
    def fails(ctx: Any, payload: Any) -> None:
        raise TerminalError("no such account")

    scene.define("pay", fails, critical=True)
    scene.define("other", fails)
    scene.start("w-0")
    scene.until(scene.active)
    scene.enqueue("pay", "job-1")
    scene.enqueue("other", "job-2")
    scene.settle()
    assert scene.state_of("job-1") is scene.state_of("job-2") is State.DEAD
    assert [(alert.kind, alert.job_id) for alert in scene.alerts()] == [("critical_dead", "job-1")]


def test_somebody_is_told_before_the_kill_date_and_at_it(scene: Scene) -> None:
    seen: list[Any] = []
    scene.define("rows", endless(scene, seen))
    scene.start("w-0")
    scene.until(scene.active)
    now = scene.runtime.clock.now_ms()
    job = scene.enqueue("rows", "job-1", kill_at=now + 5_000)
    assert not is_near(job, now + 4_900), "of five seconds nobody is warned"
    long = job._replace(id="job-2", enqueued_at=now - 995_000)
    scene.append(lane_record(long))
    scene.until(lambda: scene.state_of("job-2") is State.KILLED, 20.0)
    told = [(alert.kind, alert.job_id) for alert in scene.alerts()]
    assert told.count(("kill_date_near", "job-2")) == 1
    assert told.index(("kill_date_near", "job-2")) < told.index(("killed", "job-2"))
    assert ("kill_date_near", "job-1") not in told


@pytest.mark.parametrize(
    ("given", "left", "near"),
    [(599, 10, False), (600, 61, False), (600, 60, True), (600, 0, False), (10**6, 3601, False), (10**6, 3600, True)],
)
def test_when_a_kill_date_is_near(given: int, left: int, near: bool) -> None:
    job = Job("j", "t", 1, "q", b"", 1_000_000, kill_at=1_000_000 + given * 1000)
    assert is_near(job, 1_000_000 + (given - left) * 1000) is near
    assert not is_near(job._replace(kill_at=None), 0)
