"""Jobs in JSON on the real worker, over a log in memory: they live as any others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from processor.admin.jobs import list_jobs
from processor.broker.base import OutRecord
from processor.engine.intake import Intake
from processor.policies import Backoff, Retry
from processor.states import State
from processor.wire import topics
from tests.unit.engine.scene import NS, QUEUE, Scene


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene(seed=11, partitions=2)
    yield scene
    scene.close()


def write(scene: Scene, job_id: str, value: bytes | None = None, derived: bool = False, **fields: Any) -> None:
    """As another program does it: no header of ours is needed."""
    job = {"id": job_id, **fields}
    headers = [("derived", b"1")] if derived else [("content-type", b"application/json")]
    key = str(fields.get("key", job_id)).encode()
    lane = topics.jobs_topic(NS, QUEUE)
    scene.append(OutRecord(lane, key, json.dumps(job).encode() if value is None else value, headers))


def test_a_job_in_json_runs_with_its_payload(scene: Scene) -> None:
    seen: list[tuple[str, Any]] = []
    scene.define("mail", lambda ctx, payload: seen.append((ctx.id, payload)))
    write(scene, "order-7", type="mail", payload={"to": "ann"})
    row = list_jobs(scene.broker, NS)[0]
    assert (row.id, row.state, row.queue) == ("order-7", State.QUEUED, QUEUE)
    assert row.at > 0
    scene.start("w-0")
    scene.settle()
    assert seen == [("order-7", {"to": "ann"})]
    status = scene.status_of("order-7")
    assert (status.state, status.queue, status.type) == (State.SUCCEEDED, QUEUE, "mail")


def test_it_saves_is_tried_again_and_outlives_its_worker(scene: Scene) -> None:
    done: list[int] = []
    attempts: list[int] = []

    def loop(ctx: Any, payload: Any) -> None:
        attempts.append(ctx.attempt)
        for item in ctx.each("rows", lambda after: range(0 if after is None else after + 1, 20), cursor=lambda i: i):
            scene.runtime.wait_for(lambda: False, 0.5)
            if item == 15 and ctx.attempt == 1:
                raise ValueError("not yet")
            done.append(item)

    scene.define("loop", loop, retry=Retry(3, Backoff("5s")))
    first = scene.start("w-0")
    write(scene, "job-1", type="loop", payload=[], key="c-1")
    scene.until(lambda: len(done) >= 8)
    first.kill()
    scene.start("w-1")
    scene.settle()
    assert set(done) == set(range(20))
    assert len(done) < 30
    assert attempts[-1] == 2
    assert scene.ends()["job-1", 1] == [State.SUCCEEDED]


def test_what_is_no_job_is_a_dead_letter_and_the_lane_goes_on(scene: Scene) -> None:
    ran: list[str] = []
    scene.define("mail", lambda ctx, payload: ran.append(ctx.id))
    write(scene, "bad", type="mail", payloda={})
    write(scene, "cut", b'{"id": "cut", "type": "mail"')
    write(scene, "good", type="mail", payload=1)
    scene.start("w-0")
    scene.settle()
    assert ran == ["good"]
    letters = sorted(scene.dead_letters(), key=lambda letter: letter.raw or b"")
    assert [letter.reason for letter in letters] == ["undecodable", "undecodable"]
    assert "payloda" in (letters[0].failures or [])[0].message
    assert letters[1].raw == b'{"id": "cut", "type": "mail"'


def test_written_twice_it_runs_once_if_it_says_that_it_may_come_twice(scene: Scene) -> None:
    ran: list[str] = []
    scene.define("mail", lambda ctx, payload: ran.append(ctx.id))
    worker = scene.start("w-0")
    write(scene, "order-7", type="mail", payload=1, derived=True)
    scene.settle()
    worker.stop()
    scene.until(lambda: worker.over, 20)
    scene.start("w-0")
    write(scene, "order-7", type="mail", payload=1, derived=True)
    scene.settle()
    assert ran == ["order-7"]


def test_its_status_names_its_queue_also_when_the_engine_itself_is_at_fault(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raises(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(Intake, "_admit", raises)
    scene.define("mail", lambda ctx, payload: None)
    write(scene, "order-7", type="mail", payload={"to": "ann"})
    scene.start("w-0")
    scene.settle()
    status = scene.status_of("order-7")
    assert (status.state, status.queue) == (State.DEAD, QUEUE)
    (letter,) = scene.dead_letters()
    assert letter.reason == "internal_error"
