"""What waits in the checkpoint topic takes next to no memory, and is there when it goes on."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any

import pytest

from processor.core.completer import Completer
from processor.core.live import LiveTable
from processor.core.write_set import Origin, Topics
from processor.engine.value_file import SMALL, StoredValue, ValueFile
from processor.job import Job, Version
from processor.states import State
from processor.wire.codec import encode
from tests.unit.engine.scene import Scene

LARGE = 100_000


def test_a_value_comes_back_and_its_room_serves_again(tmp_path: Path) -> None:
    file = ValueFile(str(tmp_path))
    small = b"x" * SMALL
    assert file.keep(small) is small
    assert file.size == 0
    values = [bytes([place]) * (SMALL + 1 + 1000 * place) for place in range(20)]
    kept = [file.keep(value) for value in values]
    assert [one.read() for one in kept if isinstance(one, StoredValue)] == values
    size = file.size
    for _ in range(50):
        kept = [file.keep(value) for value in values]
    assert file.size <= 2 * size
    assert list(tmp_path.iterdir()) == [], "it has no name: it goes with the process"
    assert [one.read() for one in kept if isinstance(one, StoredValue)] == values


def test_a_disk_that_takes_nothing_leaves_values_in_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = ValueFile(str(tmp_path / "is not there"))
    value = b"x" * LARGE
    assert file.keep(value) == value
    assert caplog.records[0].msg == "values.not_stored"


def test_parked_jobs_take_a_kilobyte_each() -> None:
    """Payloads of 100 KB each."""
    completer, topics = Completer("w"), Topics("s", "d", "c", "dd", 0, "ns")
    table = LiveTable(ValueFile().keep)
    count = 500

    def park(place: int) -> None:
        job = Job(f"job-{place}", "unknown", 1, "q", bytes(LARGE), 0)
        version, origin = Version(1, 0, 1, 2 * place), Origin("q", 0, place)
        saved = completer.promotion(topics, job, encode(job), origin, version, 0)
        table.put(saved.out.key or b"", saved.out.value or b"", place, saved.record)

    park(count)
    gc.collect()
    tracemalloc.start()
    for place in range(count):
        park(count + 1 + place)
    gc.collect()
    each = tracemalloc.get_traced_memory()[0] / count
    tracemalloc.stop()
    assert each <= 1024
    assert len(list(table.promoted())) == count + 1
    assert all(len(view.job or b"") > LARGE for view in table.promoted())


def reachable(*roots: object) -> int:
    """Bytes of all that these hold."""
    seen: set[int] = set()
    left: list[object] = list(roots)
    size = 0
    while left:
        one = left.pop()
        if id(one) in seen or isinstance(one, type | ModuleType | FunctionType | MethodType):
            continue
        seen.add(id(one))
        size += sys.getsizeof(one)
        left.extend(gc.get_referents(one))
    return size


@pytest.mark.parametrize("restart", [False, True], ids=["same owner", "next owner"])
def test_parked_jobs_are_not_in_memory_and_go_on_whole(restart: bool) -> None:
    scene = Scene(seed=1, partitions=1, settings={"unknown_type_patience": 600.0})
    worker = scene.start("w-0")
    scene.until(scene.active)
    count, got = 40, dict[str, int]()
    for place in range(count):
        scene.enqueue("later", f"job-{place}", f"{place}" + "x" * LARGE)
    number = worker.worker.state.numbers["q", 0]
    scene.until(lambda: len(number.jobs.parked) == len(number.live) == count)
    if restart:
        worker.kill()
        worker = scene.start("w-0")
        scene.until(scene.active)
        number = worker.worker.state.numbers["q", 0]
    scene.until(lambda: not (number.jobs.attempts or number.outbox))
    held = reachable(number.live, number.jobs.parked, number.order, number.jobs.attempts, number.outbox.ending)
    assert held / count < 4096, "what all of them share included"
    worker.kill()

    def later(ctx: Any, payload: str) -> None:
        got[ctx.id] = len(payload)

    scene.define("later", later)
    scene.start("w-0")
    scene.settle()
    assert got == {f"job-{place}": len(f"{place}") + LARGE for place in range(count)}
    assert all(states == [State.SUCCEEDED] for states in scene.ends().values())
    scene.close()
