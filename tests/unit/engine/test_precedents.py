"""A repeated enqueue runs once, however much has happened in between. Simulated, on the memory log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from processor.broker.base import Reader
from processor.broker.memory.admin import MemoryAdmin
from processor.engine.partition_jobs import RECENT
from processor.engine.precedents import may_be_second
from processor.errors import BrokerUnavailable
from processor.job import Job, Lane
from processor.job_ids import uuid7
from processor.states import State
from tests.unit.engine.scene import QUEUE, Scene

DAY = 24 * 3_600_000


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene(seed=5, partitions=1)
    yield scene
    scene.close()


@pytest.fixture
def runs(scene: Scene) -> Counter[str]:
    runs: Counter[str] = Counter()
    scene.define("plain", lambda ctx, payload: runs.update([ctx.id]))
    return runs


def fresh(scene: Scene) -> str:
    """An id as a client makes it."""
    return uuid7(scene.runtime.clock.now_ms())


@pytest.mark.parametrize("how", ["stop", "kill", "thousands"])
@pytest.mark.parametrize("key", [None, "k"])
def test_a_repeat_runs_once_after_a_restart_and_after_thousands(
    scene: Scene, runs: Counter[str], how: str, key: str | None
) -> None:
    job_id = fresh(scene)
    worker = scene.start("w-0")
    scene.enqueue("plain", job_id, key=key)
    scene.settle()
    if how == "thousands":
        for _ in range(2 * RECENT + 1):
            scene.enqueue("plain", fresh(scene))
        scene.settle()
    else:
        getattr(worker, how)()
        scene.until(lambda: worker.over, 20)
        worker = scene.start("w-0")
    scene.enqueue("plain", job_id, key=key, derived=True)
    scene.enqueue("plain", "after", key=key)
    scene.settle()
    assert (runs[job_id], runs["after"]) == (1, 1)
    assert scene.ends()[job_id, 1] == [State.SUCCEEDED]
    assert worker.worker.state.numbers[QUEUE, 0].jobs.attempts == {}
    assert worker.worker.state.loads[QUEUE].records == 0


def test_repeats_of_what_did_not_arrive_run_once(scene: Scene, runs: Counter[str]) -> None:
    """Sent several times, and asked for together; others in between."""
    scene.start("w-0")
    ids = [fresh(scene) for _ in range(20)]
    for job_id in ids:
        scene.enqueue("plain", fresh(scene))
        for _ in range(2):
            scene.enqueue("plain", job_id, derived=True)
    scene.settle()
    assert [runs[job_id] for job_id in ids] == [1] * 20
    assert set(runs.values()) == {1}


def test_a_repeat_goes_on_where_its_dead_worker_was(scene: Scene, runs: Counter[str]) -> None:
    """It is not taken for its own first record."""
    done: list[int] = []

    def loop(ctx: object, payload: object) -> None:
        for item in ctx.each("rows", lambda after: range(0 if after is None else after + 1, 20), cursor=lambda i: i):  # type: ignore[attr-defined]  # a context
            scene.runtime.wait_for(lambda: False, 0.5)
            done.append(item)

    scene.define("loop", loop)
    worker = scene.start("w-0")
    scene.enqueue("loop", fresh(scene), derived=True)
    scene.until(lambda: len(done) >= 8)
    worker.kill()
    scene.start("w-0")
    scene.settle()
    assert set(done) == set(range(20))
    assert len(done) < 30


@pytest.mark.parametrize("fault", [BrokerUnavailable("away"), RuntimeError("a fault of ours")])
def test_a_repeat_waits_until_it_is_known_whether_it_is_one(
    scene: Scene, runs: Counter[str], monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    """The number of a repeat that cannot be judged is held, and taken up again; nothing runs twice."""
    real, calls = MemoryAdmin.offsets_at, []

    def disturbed(self: MemoryAdmin, times: dict[object, int]) -> object:
        calls.append(times)
        if len(calls) <= 3:
            raise fault
        return real(self, times)  # type: ignore[arg-type]  # passed on as it is

    job_id = fresh(scene)
    worker = scene.start("w-0")
    scene.enqueue("plain", job_id)
    scene.settle()
    worker.stop()
    scene.until(lambda: worker.over, 20)
    monkeypatch.setattr(MemoryAdmin, "offsets_at", disturbed)
    scene.enqueue("plain", job_id, derived=True)
    scene.enqueue("plain", "other")
    scene.start("w-0")
    scene.settle(200.0)
    assert len(calls) > 3
    assert (runs[job_id], runs["other"]) == (1, 1)


def test_plain_jobs_are_not_looked_for(scene: Scene, runs: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def never(self: MemoryAdmin, times: object) -> object:
        raise AssertionError("nobody repeats anything here")

    monkeypatch.setattr(MemoryAdmin, "offsets_at", never)
    worker = scene.start("w-0")
    for _ in range(10):
        scene.enqueue("plain", fresh(scene))
    scene.enqueue("plain", "chosen", derived=True)
    scene.settle()
    worker.kill()
    scene.start("w-0")
    scene.enqueue("plain", "chosen", derived=True)
    scene.settle()
    assert set(runs.values()) == {1}


def test_what_may_be_a_repeat() -> None:
    now = 1_767_225_600_000
    job = Job(uuid7(now - 1000), "plain", 1, QUEUE, b"", now)
    assert may_be_second(job, Lane.NORMAL, now, DAY)
    assert not may_be_second(job, Lane.DUE, now, DAY)
    assert not may_be_second(job, Lane.NORMAL, now + DAY, DAY), "one id is one job only within the window"
    for other in (
        job._replace(id="order-7"),
        job._replace(hop=1),
        job._replace(life=2),
        job._replace(parent="p"),
        job._replace(enqueued_at=now - 1000),
    ):
        assert not may_be_second(other, Lane.NORMAL, now, DAY)


def test_the_reader_is_free_again(scene: Scene, runs: Counter[str]) -> None:
    """Each scan gives back what it was assigned: the next one may be of the same partition."""
    worker = scene.start("w-0")
    for _ in range(3):
        job_id = fresh(scene)
        scene.enqueue("plain", job_id)
        scene.enqueue("plain", "x" + job_id, derived=True)
        scene.settle()
        scene.enqueue("plain", job_id, derived=True)
        scene.settle()
        assert runs[job_id] == 1
    reader: Reader | None = worker.worker.background.precedents._reader
    assert reader is None or reader.fetch(1, 0.0).records == []


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_job_sent_twice_as_derived_runs_once(scene: Scene, runs: Counter[str], how: str) -> None:
    """What an outbox or a spool sends: made in the call that made the id, both times."""
    job_id = fresh(scene)
    worker = scene.start("w-0")
    scene.enqueue("plain", job_id, derived=True)
    scene.settle()
    getattr(worker, how)()
    scene.until(lambda: worker.over, 20)
    scene.start("w-0")
    scene.enqueue("plain", job_id, derived=True)
    scene.settle()
    assert runs[job_id] == 1


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("key", [None, "k"])
def test_a_first_record_that_its_repeat_has_overtaken_does_not_run(
    scene: Scene, runs: Counter[str], key: str | None, waits: bool
) -> None:
    """Not confirmed by one producer and repeated by another: the log may get the repeat first."""
    job_id = fresh(scene)
    scene.start("w-0")
    scene.enqueue("plain", job_id, key=key, derived=True)
    if not waits:
        scene.settle()
    scene.enqueue("plain", job_id, key=key)
    scene.enqueue("plain", "after", key=key)
    scene.settle()
    assert (runs[job_id], runs["after"]) == (1, 1)
    assert scene.ends()[job_id, 1] == [State.SUCCEEDED]


URGENT = (Lane.HIGH, Lane.DUE, Lane.NORMAL, Lane.LOW)


@pytest.fixture
def urgencies() -> Iterator[Scene]:
    """A queue with a lane for each urgency."""
    scene = Scene(seed=5, partitions=1, lanes=URGENT)
    yield scene
    scene.close()


def define_long(scene: Scene) -> list[str]:
    """Job type `long`, three seconds; who has begun."""
    begun: list[str] = []

    def long(ctx: object, payload: object) -> None:
        begun.append(ctx.id)  # type: ignore[attr-defined]  # a context
        scene.runtime.pass_time(3.0)

    scene.define("long", long)
    return begun


ANOTHER = pytest.mark.parametrize(
    ("first", "second"), [(Lane.NORMAL, Lane.HIGH), (Lane.LOW, Lane.NORMAL), (Lane.HIGH, Lane.LOW)]
)


@ANOTHER
@pytest.mark.parametrize("how", ["at once", "stop", "kill", "thousands"])
def test_a_repeat_in_another_lane_runs_once(urgencies: Scene, how: str, first: Lane, second: Lane) -> None:
    """Repeated with another urgency; also when its first record is forgotten, or not read so far."""
    scene, runs = urgencies, Counter[str]()
    scene.define("plain", lambda ctx, payload: runs.update([ctx.id]))
    job_id = fresh(scene)
    scene.enqueue("plain", job_id, lane=first)
    if how != "at once":
        worker = scene.start("w-0")
        scene.settle()
        if how == "thousands":
            for _ in range(2 * RECENT + 1):
                scene.enqueue("plain", fresh(scene))
            scene.settle()
        else:
            getattr(worker, how)()
            scene.until(lambda: worker.over, 20)
    scene.runtime.pass_time(0.1)
    scene.enqueue("plain", job_id, lane=second, derived=True)
    scene.enqueue("plain", "after", lane=second)
    if how != "thousands":
        worker = scene.start("w-0")
    scene.settle()
    assert (runs[job_id], runs["after"]) == (1, 1)
    assert scene.ends()[job_id, 1] == [State.SUCCEEDED]
    assert worker.worker.state.numbers[QUEUE, 0].jobs.attempts == {}
    assert worker.worker.state.loads[QUEUE].records == 0


@ANOTHER
@pytest.mark.parametrize("killed", [False, True])
def test_of_two_repeats_in_two_lanes_one_runs(urgencies: Scene, first: Lane, second: Lane, killed: bool) -> None:
    """What they repeat has never arrived."""
    scene = urgencies
    begun = define_long(scene)
    job_id = fresh(scene)
    scene.runtime.pass_time(0.1)
    worker = scene.start("w-0")
    for lane in (first, second):
        scene.enqueue("long", job_id, lane=lane, derived=True)
    scene.until(lambda: job_id in begun)
    if killed:
        worker.kill()
        scene.start("w-0")
    scene.settle()
    assert begun == [job_id] * (2 if killed else 1)
    assert list(scene.ends().values()) == [[State.SUCCEEDED]]


@ANOTHER
@pytest.mark.parametrize("crash", ["never", "while it is looked for", "while it runs"])
def test_a_first_record_that_comes_after_its_repeat_in_another_lane(
    urgencies: Scene, monkeypatch: pytest.MonkeyPatch, first: Lane, second: Lane, crash: str
) -> None:
    """Whatever a crash leaves of the two, the job runs to its end, once."""
    scene, real = urgencies, MemoryAdmin.offsets_at
    begun = define_long(scene)
    looks: list[str] = []

    def slow(self: MemoryAdmin, times: dict[object, int]) -> object:
        found = real(self, times)  # type: ignore[arg-type]  # passed on as it is
        if crash == "while it is looked for" and not looks:
            looks.append("once")
            scene.runtime.pass_time(2.0)
        return found

    monkeypatch.setattr(MemoryAdmin, "offsets_at", slow)
    job_id = fresh(scene)
    scene.runtime.pass_time(0.1)
    worker = scene.start("w-0")
    scene.until(scene.active)
    scene.enqueue("long", job_id, lane=second, derived=True)
    scene.until(lambda: bool(looks if crash == "while it is looked for" else begun))
    scene.enqueue("long", job_id, lane=first)
    scene.runtime.pass_time(0.5)
    if crash != "never":
        worker.kill()
        worker = scene.start("w-0")
    scene.settle()
    assert begun == [job_id] * (1 if crash == "never" else 2)
    assert list(scene.ends().values()) == [[State.SUCCEEDED]]
    assert worker.worker.state.loads[QUEUE].records == 0
