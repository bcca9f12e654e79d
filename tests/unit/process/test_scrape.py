"""What `/metrics` says of a worker."""

from __future__ import annotations

import inspect

import pytest

from processor.process import metrics
from processor.process.metrics import Scrape
from processor.states import State
from processor.wire.metrics import BY_NAME
from tests.unit.engine.scene import Scene


@pytest.mark.parametrize("name", BY_NAME)
def test_every_metric_of_the_catalogue_is_fed(name: str) -> None:
    assert f'"{name}"' in inspect.getsource(metrics)


def test_scrape_tells_what_happened(scene: Scene) -> None:
    scene.define("plain", lambda ctx, payload: payload)
    scene.define("fails", lambda ctx, payload: 1 / 0)
    worker = scene.start("w-0")
    for number in range(3):
        scene.enqueue("plain", scene.id_for(number))
    scene.enqueue("fails", "bad")
    scene.settle()
    text = Scrape(worker.worker).render().decode()
    told = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    queue = scene.lane().topic.rpartition(".")[2]
    assert told[f'processor_jobs_started_total{{queue="{queue}",type="plain"}}'] == "3.0"
    assert told[f'processor_jobs_finished_total{{outcome="succeeded",queue="{queue}",type="plain"}}'] == "3.0"
    assert told[f'processor_jobs_finished_total{{outcome="dead",queue="{queue}",type="fails"}}'] == "1.0"
    assert float(told[f'processor_job_wait_seconds_count{{queue="{queue}"}}']) >= 1
    assert float(told["processor_flush_records_sum"]) >= 5
    assert told["processor_broker_up"] == "1.0"
    again = Scrape(worker.worker).render().decode()
    assert 'processor_producer_rebuilds_total{cause="stuck"} 0.0' in again


def test_scrape_counts_what_was_told_to_stop_and_what_was_left_behind(scene: Scene) -> None:
    scene.define("deaf", lambda ctx, payload: scene.runtime.pass_time(60.0), attempt_timeout=1.0)
    worker = scene.start("w-0", stop_grace=1.0)
    scene.enqueue("deaf", "job-1")

    def told() -> dict[str, str]:
        text = Scrape(worker.worker).render().decode()
        return dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))

    scene.until(lambda: scene.state_of("job-1") is State.DEAD, 20.0)
    assert told()['processor_attempts_stopped_total{why="timeout"}'] == "1.0"
    assert told()["processor_attempts_abandoned_total"] == "1.0"
    assert told()["processor_attempts_left_behind"] == "1.0"
    scene.until(lambda: told()["processor_attempts_left_behind"] == "0.0", 90.0)
    assert told()["processor_attempts_abandoned_total"] == "1.0"
