"""Jobs that fail, die, overrun their time or come too early, on real workers and a real Kafka."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

import pytest

from processor.broker.base import Isolation, TopicPartition
from processor.job import Lane
from processor.states import State
from processor.wire.codec import decode_alert
from processor.wire.headers import HOP
from processor.wire.topics import alerts_topic
from tests.integration.fleet import Fleet
from tests.integration.jobs_app import PARTITIONS
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(180)


def states_of(fleet: Fleet, job_id: str) -> list[State]:
    return [status.state for status in fleet.statuses() if status.id == job_id]


def rows_of(fleet: Fleet, job_id: str) -> list[int]:
    return [line["item"] for line in fleet.ledger("item") if line["job"] == job_id]


def attempts_of(fleet: Fleet, job_id: str) -> list[int]:
    return [line["attempt"] for line in fleet.ledger("start") if line["job"] == job_id]


def open_gate(fleet: Fleet, name: str) -> None:
    (fleet.folder / f"gate-{name}").touch()


def read_all(fleet: Fleet, places: list[TopicPartition]) -> list[tuple[str, int]]:
    """(id, hop) of the committed records there."""
    reader = fleet.broker.reader()
    begins = fleet.broker.admin().begin_offsets(places)
    ends = fleet.broker.admin().end_offsets(places, Isolation.COMMITTED)
    reader.assign(begins)
    found: list[tuple[str, int]] = []
    while any(reader.position(place) < end for place, end in ends.items()):
        for record in reader.fetch(2000, 0.5).records:
            headers = dict(record.headers() or [])
            found.append(((record.key() or b"").decode(), int(headers.get(HOP, b"0"))))
    reader.close()
    return found


def test_failing_job_goes_on_at_its_row(fleet: Fleet) -> None:
    fleet.start_ready("a", "b")
    job = fleet.append("flaky", {"items": 60, "at": 40, "times": 2})
    fleet.flush()
    assert fleet.end_of(job.id).state is State.SUCCEEDED
    assert attempts_of(fleet, job.id) == [1, 2, 3]
    assert rows_of(fleet, job.id) == list(range(1, 61)), "no row twice, none left out"
    assert states_of(fleet, job.id).count(State.RETRYING) == 2
    waits = [s for s in fleet.statuses() if s.id == job.id and s.state is State.RETRYING]
    assert all(s.due_at is not None and s.due_at >= s.at + 990 for s in waits)
    assert all(s.error is not None and "does not answer" in s.error.message for s in waits)
    fleet.check_ends()
    fleet.settle()


def test_attempts_are_counted_over_the_death_of_every_worker(fleet: Fleet) -> None:
    (first,) = fleet.start_ready("a")
    job = fleet.append("flaky", {"items": 60, "at": 40, "times": 9})
    fleet.flush()
    eventually(lambda: State.RETRYING in states_of(fleet, job.id), 30, fleet.describe)
    first.kill()
    fleet.start("b")
    end = fleet.end_of(job.id)
    assert end.state is State.DEAD
    assert end.attempt == 3
    letter = fleet.dead_letter("exhausted")
    assert [failure.attempt for failure in letter.failures or []] == [1, 2, 3]
    assert {failure.kind for failure in letter.failures or []} == {"builtins.ConnectionError"}
    assert letter.progress is not None, "it can go on from there"
    assert sorted(set(rows_of(fleet, job.id))) == list(range(1, 40))
    fleet.check_ends()
    fleet.settle()


def test_no_retry_record_is_sent_twice_when_forwarders_are_killed(fleet: Fleet) -> None:
    fleet.start_ready("a", "b")
    ids = [fleet.append("flaky", {"items": 2, "at": 1, "times": 1}).id for _ in range(400)]
    fleet.flush()
    eventually(lambda: len({s.id for s in fleet.statuses() if s.state is State.RETRYING}) > 100, 40, fleet.describe)
    fleet.worker("a").kill()
    fleet.start("a")
    eventually(lambda: len(fleet.ledger("item")) > 20, 40, fleet.describe)
    fleet.worker("b").kill()
    fleet.finish(ids)
    due = read_all(fleet, [fleet.lane(Lane.DUE, number) for number in range(PARTITIONS)])
    assert Counter(due) == Counter((job_id, 1) for job_id in ids)
    assert {end.state for (job_id, _), ends in fleet.ends().items() if job_id in ids for end in ends} == {
        State.SUCCEEDED
    }
    fleet.check_ends(told_twice=True)
    fleet.settle()


def test_crash_loop_ends_as_a_dead_letter_and_its_neighbours_finish(fleet: Fleet) -> None:
    (worker,) = fleet.start_ready("a", supervised=True)
    walks = [fleet.append("walk", {"items": 300, "pause": 0.01}).id for _ in range(8)]
    fleet.flush()
    fleet.until_noted(40)
    job = fleet.append("poison")
    fleet.flush()
    letter = fleet.dead_letter("crash_loop", 90)
    assert letter.id == job.id
    assert fleet.end_of(job.id).state is State.DEAD
    fleet.finish(walks)
    pids = [line["pid"] for line in fleet.ledger("start") if line["job"] == job.id]
    assert 3 <= len(pids) <= 4
    assert len(set(pids)) == len(pids)
    workers = {line["pid"] for line in worker.events("supervisor.started")}
    assert pids[-1] not in workers, "the last time it ran alone, in a process of its own"
    assert len(worker.events("supervisor.started")) <= 4
    alerts = [decode_alert(value) for value in values(fleet, alerts_topic(fleet.namespace))]
    assert [(alert.kind, alert.job_id) for alert in alerts] == [("crash_loop", job.id)]
    assert {fleet.state_of(job_id) for job_id in walks} == {State.SUCCEEDED}
    fleet.check_ends(told_twice=True)
    fleet.settle()


def values(fleet: Fleet, topic: str) -> list[bytes]:
    place = TopicPartition(topic, 0)
    reader = fleet.broker.reader()
    reader.assign({place: 0})
    end = fleet.broker.admin().end_offsets([place], Isolation.COMMITTED)[place]
    found: list[bytes] = []
    while reader.position(place) < end:
        found += [value for record in reader.fetch(1000, 0.5).records if (value := record.value()) is not None]
    reader.close()
    return found


def test_thread_that_ignores_its_token_is_left_behind_and_the_process_starts_anew(fleet: Fleet) -> None:
    fleet.settings |= {"worker.stop_grace": "300ms", "worker.abandoned_max": "2"}
    (worker,) = fleet.start_ready("a")
    first = fleet.append("deaf", {"key": "one"})
    fleet.flush()
    assert fleet.end_of(first.id).state is State.DEAD
    [failure] = fleet.dead_letter("exhausted").failures or []
    assert failure.kind == "timeout"
    assert worker.alive
    walk = fleet.append("walk", {"items": 20})
    fleet.flush()
    assert fleet.end_of(walk.id).state is State.SUCCEEDED
    second = fleet.append("deaf", {"key": "two"})
    fleet.flush()
    assert worker.wait() == 5, worker.tail()
    assert worker.events("worker.recycles")
    fleet.start("a")
    assert fleet.end_of(second.id).state is State.DEAD
    fleet.check_ends()
    fleet.settle()


def test_late_end_of_an_attempt_that_was_given_up_changes_nothing(fleet: Fleet) -> None:
    fleet.settings |= {"worker.stop_grace": "300ms"}
    (worker,) = fleet.start_ready("a")
    job = fleet.append("deaf", {"key": "late"})
    fleet.flush()
    assert fleet.end_of(job.id).state is State.DEAD
    open_gate(fleet, "late")
    eventually(lambda: fleet.ledger("end"), 10, fleet.describe)
    walk = fleet.append("walk", {"items": 20})
    fleet.flush()
    assert fleet.end_of(walk.id).state is State.SUCCEEDED
    assert states_of(fleet, job.id)[-1] is State.DEAD
    assert len(fleet.dead_letters()) == 1
    worker.terminate()
    assert worker.wait() == 0, worker.tail()
    fleet.check_ends()


def test_child_process_that_overruns_is_killed_and_keeps_what_it_saved(fleet: Fleet) -> None:
    fleet.settings |= {"worker.stop_grace": "300ms"}
    fleet.start_ready("a")
    job = fleet.append("deaf-child")
    fleet.flush()
    assert fleet.end_of(job.id).state is State.DEAD
    letter = fleet.dead_letter("exhausted")
    assert [failure.kind for failure in letter.failures or []] == ["timeout"] * 2
    assert len(fleet.ledger("effect")) == 1, "its step was saved before"
    pids = [line["pid"] for line in fleet.ledger("start")]
    assert len(pids) == 2
    eventually(lambda: not any(_runs(pid) for pid in pids), 10, "the children are gone")
    fleet.check_ends()
    fleet.settle()


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_attempt_without_a_heartbeat_and_job_past_its_kill_date(fleet: Fleet) -> None:
    fleet.start_ready("a")
    silent = fleet.append("silent")
    fleet.flush()
    dated = fleet.app.enqueue("dated")
    assert fleet.end_of(silent.id).state is State.DEAD
    assert "no heartbeat" in (fleet.dead_letter("exhausted").failures or [])[-1].message
    end = fleet.end_of(dated.id)
    assert end.state is State.KILLED
    letter = fleet.dead_letter("killed")
    assert letter.id == dated.id
    starts = [line for line in fleet.ledger("start") if line["job"] == dated.id]
    assert len(starts) in (2, 3)
    alerts = [decode_alert(value) for value in values(fleet, alerts_topic(fleet.namespace))]
    assert [(alert.kind, alert.job_id) for alert in alerts] == [("killed", dated.id)]
    fleet.check_ends()
    fleet.settle()


def test_exception_that_the_policy_calls_dead_is_not_tried_again(fleet: Fleet) -> None:
    fleet.start_ready("a")
    job = fleet.append("hungry")
    fleet.flush()
    assert fleet.end_of(job.id).state is State.DEAD
    letter = fleet.dead_letter("dead")
    assert [failure.kind for failure in letter.failures or []] == ["builtins.MemoryError"]
    assert State.RETRYING not in states_of(fleet, job.id)


def test_rolling_deploy_loses_no_job_of_a_type_that_old_workers_do_not_know(fleet: Fleet) -> None:
    old = fleet.start_ready("a", "b")
    ids = [fleet.append("added", {"count": number}).id for number in range(40)]
    walks = [fleet.append("walk", {"items": 20}).id for _ in range(20)]
    fleet.flush()
    # They wait, and hold up nobody.
    fleet.finish(walks)
    eventually(lambda: {fleet.state_of(job_id) for job_id in ids} == {State.WAITING}, 30, fleet.describe)
    assert fleet.dead_letters() == []
    # One after the other is replaced, the last one while jobs go on being published.
    newer = {"JOBS_NEWER": "1"}
    for process in old:
        process.terminate()
        assert process.wait() == 0, process.tail()
        fleet.start(process.slot, env=newer)
        ids += [fleet.append("added", {"count": number}).id for number in range(20)]
        fleet.flush()
    fleet.finish(ids)
    assert {fleet.state_of(job_id) for job_id in ids} == {State.SUCCEEDED}
    assert Counter(line["job"] for line in fleet.ledger("start") if "count" in line) == Counter(ids)
    assert fleet.dead_letters() == []
    fleet.check_ends()
    fleet.settle()


@pytest.mark.slow
def test_one_poison_job_keeps_a_thousand_others_waiting_for_less_than_a_minute(fleet: Fleet) -> None:
    """Its process dies with all of them again and again, until it is found; the supervisor starts it anew."""
    fleet.start_ready("a", supervised=True)
    began = time.monotonic()
    poison = fleet.append("poison")
    others = [fleet.append("strict", {"amount": 1}).id for _ in range(1000)]
    fleet.flush()
    fleet.finish(others, 60.0)
    assert time.monotonic() - began < 60.0
    assert fleet.dead_letter("crash_loop").id == poison.id
    assert {letter.id for letter in fleet.dead_letters()} == {poison.id}
