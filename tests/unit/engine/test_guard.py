"""The owner's guard: whatever call raises while one job is handled, its neighbours finish and the process goes on.

Each scenario runs once to see which functions the owning thread calls for one job. Then it runs again for each of them,
with that call raising: so a function that is added later is in the loop by itself.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import processor
from processor.core.completer import Completer
from processor.engine.attempt import Attempt
from processor.engine.outcomes import Outcomes
from processor.engine.queue_partition import PartitionPhase
from processor.job import Job
from processor.policies import Backoff, Retry
from processor.states import TERMINAL, State
from tests.unit.engine.scene import Scene, Simulated

PACKAGE = str(Path(processor.__file__).parent)
BROKER = str(Path(processor.__file__).parent / "broker")
BAD = "bad-job"
NEIGHBOURS = 6

# Each kind plays its story once for every function that is called: two minutes on a busy machine.
pytestmark = pytest.mark.timeout(400)


class Injected(Exception):
    """The fault."""


class Probe:
    """Follows the calls that the owning thread makes for one job; makes one of them raise."""

    def __init__(self, target: str | None = None, error: Callable[[str], Exception] = Injected) -> None:
        self.target = target
        self.error = error
        self.seen: dict[str, None] = {}
        """Functions called for the bad job, in the order of their first calls."""
        self.fired = False

    @contextmanager
    def watches(self, scene: Scene, name: str) -> Iterator[None]:
        """Watch the owning thread of the process of this name."""
        start = scene.runtime.start

        def start_watched(actor: str, run: Callable[[], None]) -> Any:
            def watched() -> None:
                sys.settrace(self._call)
                try:
                    run()
                finally:
                    sys.settrace(None)

            return start(actor, watched if actor == name else run)

        scene.runtime.start = start_watched  # type: ignore[method-assign,assignment]  # only its threads can set their trace
        yield

    def _call(self, frame: FrameType, event: str, arg: object) -> None:
        code = frame.f_code
        if event != "call" or self.fired or not code.co_filename.startswith(PACKAGE):
            return
        if code.co_filename.startswith(BROKER):
            return  # not ours to fail: on Kafka these are fields of a record
        if not _for_the_bad_job(frame):
            return
        name = f"{Path(code.co_filename).stem}.{code.co_qualname}"
        self.seen.setdefault(name)
        if name == self.target:
            self.fired = True
            raise self.error(name)


def _for_the_bad_job(frame: FrameType | None) -> bool:
    """Whether this call, or one that it is made by, was given the bad job."""
    while frame is not None:
        code = frame.f_code
        for name in code.co_varnames[: code.co_argcount]:
            value: Any = frame.f_locals.get(name)
            if isinstance(value, Attempt):
                value = getattr(value, "job", None)  # it has none while it is being made
            if isinstance(value, Job):
                if value.id == BAD:
                    return True
            elif callable(getattr(value, "headers", None)) and BAD.encode() in (value.value() or b""):
                return True
        frame = frame.f_back
    return False


class Story:
    """One scenario: a bad job among neighbours, of its number, of its key, and of another number."""

    def __init__(self, kind: str, probe: Probe) -> None:
        self.probe = probe
        self.scene = Scene(seed=3, partitions=2, concurrency=2)
        self._define()
        self.kind = kind
        key = "a-key" if kind == "rich" else None
        self.number = number = self.scene.number_of(key or BAD)
        with probe.watches(self.scene, "w-0.0"):
            self.worker = self.scene.start("w-0")
        self.scene.until(self.scene.active)
        mine = [self.scene.id_for(number, f"mine-{place}") for place in range(NEIGHBOURS)]
        others = [self.scene.id_for(1 - number, f"other-{place}") for place in range(2)]
        self.neighbours = [*mine, *others]
        for job_id in mine[:3]:
            self.scene.enqueue("plain", job_id)
        self.scene.enqueue(kind, BAD, key=key)
        if key is not None:
            self.neighbours.append("same-key")
            self.scene.enqueue("plain", "same-key", key=key)
        for job_id in [*mine[3:], *others]:
            self.scene.enqueue("plain", job_id)

    def _define(self) -> None:
        scene = self.scene
        child = scene.define("child", lambda ctx, p: None)

        def rich(ctx: Any, payload: Any) -> int:
            ctx.step("first", lambda: 1)
            ctx.progress(1, 3, "on its way")
            for row in ctx.each("rows", lambda after: range((after or 0) + 1, 7), every="100ms"):
                ctx.step("pay", lambda row=row: row)
                scene.runtime.pass_time(0.4)
            ctx.spawn(child, {})
            ctx.once("charge", lambda: 2)
            return 5

        def flaky(ctx: Any, payload: Any) -> int:
            ctx.step("first", lambda: 1)
            if ctx.attempt == 1:
                raise ConnectionError("not yet")
            return 1

        def failing(ctx: Any, payload: Any) -> None:
            ctx.checkpoint(5)
            raise ValueError("always")

        scene.define("plain", lambda ctx, p: None)
        scene.define("rich", rich)
        scene.define("flaky", flaky, retry=Retry(3, Backoff("1s")))
        scene.define("failing", failing, retry=Retry(1))
        scene.define("late", lambda ctx, p: scene.runtime.pass_time(20), retry=Retry(1), attempt_timeout=0.5)

    def held(self) -> bool:
        engine = self.worker.engine
        return engine is not None and any(n.phase is PartitionPhase.HELD for n in engine.state.numbers.values())

    def all_ended(self) -> bool:
        ends = self.scene.ends()
        return all(ends.get((job_id, 1)) for job_id in [BAD, *self.neighbours])

    def play(self) -> bool:
        """To the end; whether a number was held on the way, so that the next owner had to do the rest."""
        self.scene.until(lambda: self.all_ended() or self.held(), 60)
        held = self.held()
        if held:
            assert not self.worker.over
            self.worker.stop()
            self.scene.until(lambda: self.worker.over)
            self.scene.start("w-1")
        self.scene.until(self.all_ended, 60)
        if not held:
            assert not self.worker.over, self.scene.describe()
        self.scene.settle()
        self._judge()
        self.scene.close()
        assert not self.scene.runtime.failures
        return held

    def _judge(self) -> None:
        ends = self.scene.ends()
        assert len(ends[BAD, 1]) == 1, ends[BAD, 1]
        for job_id in self.neighbours:
            assert ends[job_id, 1] == [State.SUCCEEDED], job_id
        letters = [letter for letter in self.scene.dead_letters() if BAD.encode() in (letter.raw or letter.job or b"")]
        if ends[BAD, 1] == [State.DEAD] and self.probe.fired and self.kind not in DIES_ANYWAY:
            (letter,) = letters
            assert letter.reason == "internal_error"
            assert letter.failures
            assert "Injected" in letter.failures[-1].kind + letter.failures[-1].message


DIES_ANYWAY = ("failing", "late", "unknown")
KINDS = ("plain", "rich", "flaky", "failing", "late", "unknown")


def calls_of(kind: str) -> list[str]:
    """What the owning thread calls for the bad job when nothing goes wrong."""
    probe = Probe()
    Story(kind, probe).play()
    return list(probe.seen)


@pytest.mark.parametrize("kind", KINDS)
def test_one_bad_job_never_ends_the_owner(kind: str) -> None:
    calls = calls_of(kind)
    assert len(calls) > 15
    assert "intake.Intake._take" in calls
    held, fired = [], 0
    for name in calls:
        probe = Probe(name)
        story = Story(kind, probe)
        try:
            if story.play():
                held.append(name)
        except AssertionError as error:
            raise AssertionError(f"{kind}: with {name} raising: {error}") from error
        fired += probe.fired
    assert fired >= 0.9 * len(calls)  # the times of a few calls depend on what has run before in this process
    # A number is held only where what is behind a job, and not the job itself, is concerned: the line of its key.
    assert all(name.startswith(("ordering.KeyOrder.", "memory_budget.MemoryBudget.", "dispatch.")) for name in held), (
        held
    )


def broken_for_the_bad_job(monkeypatch: pytest.MonkeyPatch, owner: type, names: Mapping[str, int]) -> None:
    """These methods raise whenever they are called for the bad job; the value is the place of the job among its
    arguments.
    """
    for name, place in names.items():
        real = getattr(owner, name)

        def broken(*args: Any, _real: Any = real, _place: int = place, **kwargs: Any) -> Any:
            job = args[_place]
            if getattr(job, "job", job).id == BAD:
                raise Injected("always")
            return _real(*args, **kwargs)

        monkeypatch.setattr(owner, name, broken)


@pytest.mark.parametrize("kind", ["plain", "rich"])
def test_job_that_cannot_end_in_any_usual_way_is_kept_raw(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken_for_the_bad_job(monkeypatch, Outcomes, {"end": 1})
    broken_for_the_bad_job(monkeypatch, Completer, {"succeeded": 2})
    story = Story(kind, Probe())
    assert not story.play()
    (letter,) = story.scene.dead_letters()
    assert letter.reason == "internal_error"
    assert BAD.encode() in (letter.raw or b"")
    assert letter.failures
    assert "Injected: always" in letter.failures[-1].message
    assert story.scene.state_of(BAD) is State.DEAD
    assert not any(len(table) for table in story.scene.live().values())


def test_number_is_held_with_its_raw_record_if_even_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken_for_the_bad_job(broken, Outcomes, {"end": 1, "leave": 1})
        broken_for_the_bad_job(broken, Completer, {"succeeded": 2})
        broken.setattr(Completer, "undecodable", _raises)
        story = Story("plain", Probe())
        story.scene.until(story.held)
        number = story.number
        ends = story.scene.ends()
        assert (BAD, 1) not in ends
        others = [job_id for job_id in story.neighbours if story.scene.number_of(job_id) != number]
        story.scene.until(lambda: all(story.scene.ends().get((job_id, 1)) for job_id in others))
        assert not story.worker.over
        story.worker.stop()
        story.scene.until(lambda: story.worker.over)
    # The fault is mended: what was held is done by the next owner.
    story.scene.start("w-1")
    story.scene.until(story.all_ended)
    assert story.scene.state_of(BAD) is State.SUCCEEDED
    story.scene.close()


def _raises(*args: Any, **kwargs: Any) -> Any:
    raise Injected("always")


def test_no_job_ends_because_the_machine_has_no_more_to_give() -> None:
    probe = Probe("dispatch.Dispatch.ready", lambda name: OSError(24, "Too many open files"))
    story = Story("plain", probe)
    assert story.play()  # its number was held
    assert story.scene.state_of(BAD) is State.SUCCEEDED
    assert not story.scene.dead_letters()


@pytest.mark.parametrize(("how", "hears"), [("hold", "JobYielded"), ("hold_unwritten", "JobLost")])
def test_whoever_waits_for_the_log_hears_that_its_number_is_held(how: str, hears: str) -> None:
    """A handler that waits until something is durable must not wait for ever."""
    scene = Scene(partitions=1)
    told: list[str] = []

    def waits(ctx: Any, payload: Any) -> None:
        try:
            for place in range(1000):
                ctx.checkpoint(place, durable=True)
                scene.runtime.pass_time(0.05)
        except BaseException as error:
            told.append(type(error).__name__)
            raise

    scene.define("waits", waits)
    worker: Simulated = scene.start("w-0")
    scene.until(scene.active)
    scene.enqueue("waits", "job")
    scene.until(lambda: scene.state_of("job") is State.RUNNING)
    (number,) = worker.worker.state.numbers.values()
    getattr(worker.worker.ownership, how)(number, "a test")
    scene.until(lambda: told == [hears], 5)
    scene.until(lambda: number.jobs.running == 0, 5)
    worker.stop()
    scene.until(lambda: worker.over, 5)
    assert all(state not in TERMINAL for state in [scene.state_of("job")])
    scene.close()


def test_threads_that_trace_are_the_owners_alone() -> None:
    """The probe leaves other threads alone: else it would see handlers' calls as the owner's."""
    probe = Probe()
    Story("plain", probe).play()
    assert threading.gettrace() is None
    assert not any(name.startswith(("runner.", "context")) for name in probe.seen)
