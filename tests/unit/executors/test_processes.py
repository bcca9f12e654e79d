"""Child processes of the process executor, before there is work for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from processor.engine.config import QueueConfig, WorkerConfig
from processor.executors.processes import ProcessPool
from processor.runtime import Inbox, ThreadedRuntime
from tests.waiting import eventually

Make = Callable[[bool], ProcessPool]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """A pool of two children, of an app without jobs."""
    module = tmp_path / "empty.py"
    module.write_text('from processor import App\n\napp = App("empty")\n', "utf-8")
    made: list[ProcessPool] = []

    def pool(warm: bool) -> ProcessPool:
        config = WorkerConfig(namespace="empty", slot="w-0", queues=(QueueConfig(name="q"),), app_path=f"{module}:app")
        runtime = ThreadedRuntime()
        made.append(ProcessPool(runtime, Inbox(runtime), "children", 2, config, warm=warm))
        return made[-1]

    yield pool
    for each in made:
        assert each.stop(10.0)


def test_children_of_a_warm_pool_start_before_there_is_work(make: Make) -> None:
    """Whoever is said to run alone begins at once: else it is blamed for deaths of its worker meanwhile."""
    pool = make(True)
    assert pool.warmed(0) == 0
    eventually(lambda: pool.warmed(1) == 1, 30)
    assert pool.warmed(1) == 1, "no more than are wanted"
    eventually(lambda: pool.warmed(5) == 2, 30)


def test_other_pools_start_a_child_when_its_first_job_comes(make: Make) -> None:
    pool = make(False)
    assert pool.warmed(2) == pool.slots == 2
    assert pool._slots == []
