"""The spool file, and what critical and non-critical enqueues do when the log cannot be reached."""

from __future__ import annotations

import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from processor.app import App
from processor.broker.base import TopicPartition, TopicSpec
from processor.broker.memory import MemoryBroker
from processor.client.sender import Client, ClientConfig
from processor.client.spool import Spool, Spooled, SpoolFile
from processor.clock import ManualClock
from processor.errors import BrokerUnavailable, DefinitionError, EnqueueError
from processor.job import Job, Lane
from processor.policies import ENDLESS, Backoff, Discard, Retry
from processor.wire.headers import DERIVED, header
from processor.wire.settings_sources import load_settings
from tests.waiting import eventually


def a_job(number: int) -> Job:
    return Job(f"job-{number}", "pay", 1, "q", b"{}", number)


def taken(path: Path) -> SpoolFile:
    file = SpoolFile.take(path, create=True)
    assert file is not None
    return file


class Log:
    """Takes jobs, but only so many at first."""

    def __init__(self, takes: int = 10**9) -> None:
        self.takes = takes
        self.ids: list[str] = []

    def send(self, jobs: list[Spooled]) -> None:
        for spooled in jobs:
            if len(self.ids) >= self.takes:
                raise BrokerUnavailable("nobody answers")
            self.ids.append(spooled.job.id)


def test_a_spool_is_sent_in_order_and_emptied(tmp_path: Path) -> None:
    path, log = tmp_path / "ns.1.spool", Log()
    file = taken(path)
    for number in range(1200):
        file.append(a_job(number), Lane.NORMAL, "window" if number % 2 else None)
    assert file.send(log.send) == 1200
    assert log.ids == [f"job-{number}" for number in range(1200)]
    assert not file.waiting
    assert path.stat().st_size == 0
    file.append(a_job(9999), Lane.HIGH, None)
    assert file.send(log.send) == 1
    file.close()
    assert list(tmp_path.iterdir()) == []


def test_what_was_confirmed_is_not_sent_again_after_a_crash(tmp_path: Path) -> None:
    path, log = tmp_path / "ns.1.spool", Log(takes=700)
    file = taken(path)
    for number in range(1200):
        file.append(a_job(number), Lane.NORMAL, None)
    with pytest.raises(BrokerUnavailable):
        file.send(log.send)
    file.forget()  # the process is killed
    log.takes = 10**9
    again = taken(path)
    assert again.send(log.send) == 700, "a chunk whose end was not noted is sent once more"
    assert log.ids[:500] == [f"job-{number}" for number in range(500)]
    assert log.ids[700:] == [f"job-{number}" for number in range(500, 1200)]
    again.close()


def test_a_line_cut_by_a_crash_is_no_job(tmp_path: Path) -> None:
    path, log = tmp_path / "ns.1.spool", Log()
    file = taken(path)
    file.append(a_job(1), Lane.NORMAL, None)
    file.forget()
    with path.open("ab") as raw:
        raw.write(b'{"job": "abc')
    again = taken(path)
    again.append(a_job(2), Lane.NORMAL, None)
    assert again.send(log.send) == 2
    assert log.ids == ["job-1", "job-2"]
    again.close()


def test_a_damaged_line_is_kept_aside_and_the_rest_goes_on(tmp_path: Path) -> None:
    path, log = tmp_path / "ns.1.spool", Log()
    path.write_bytes(b"nonsense\n")
    file = taken(path)
    file.append(a_job(2), Lane.NORMAL, None)
    assert file.send(log.send) == 1
    assert path.with_suffix(".unreadable").read_bytes() == b"nonsense\n"
    file.close()


def test_a_job_that_the_log_refuses_holds_up_no_other_and_is_tried_by_the_next_process(tmp_path: Path) -> None:
    log, nowhere = Log(), {"job-1", "job-3"}

    def send(jobs: list[Spooled]) -> None:
        for spooled in jobs:
            if spooled.job.id in nowhere:
                raise EnqueueError(f"job {spooled.job.id} was refused")
        log.send(jobs)

    file = taken(tmp_path / "ns.1.spool")
    for number in range(5):
        file.append(a_job(number), Lane.NORMAL, None)
    assert file.send(send) == 5
    assert log.ids == ["job-0", "job-2", "job-4"]
    assert not file.waiting
    file.close()
    nowhere.clear()
    spool = Spool(tmp_path, "ns", send)
    spool.open()
    eventually(lambda: not spool.waiting, 60, "the refused are tried again")
    spool.close()
    assert log.ids[3:] == ["job-1", "job-3"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change", [{"until": 7}, {"until": "never"}, {"lane": "none"}, {"lane": []}, {"job": 7}, {"job": "e30="}]
)
def test_a_line_with_bad_values_is_kept_aside(tmp_path: Path, change: dict[str, Any]) -> None:
    path, log = tmp_path / "ns.1.spool", Log()
    file = taken(path)
    file.append(a_job(1), Lane.NORMAL, None)
    line = json.dumps({**json.loads(path.read_bytes()), **change}).encode() + b"\n"
    file.forget()
    path.write_bytes(line)
    path.with_suffix(".sent").write_text("-5")
    again = taken(path)
    again.append(a_job(2), Lane.NORMAL, None)
    again.send(log.send)
    assert log.ids == ["job-2"]
    assert path.with_suffix(".unreadable").read_bytes() == line
    again.close()


def test_an_unforeseen_error_does_not_end_the_thread_that_sends(tmp_path: Path) -> None:
    log, failures = Log(), [AttributeError("an int has no encode"), RuntimeError("x")]

    def send(jobs: list[Spooled]) -> None:
        if failures:
            raise failures.pop()
        log.send(jobs)

    spool = Spool(tmp_path, "ns", send)
    spool.append(a_job(1), Lane.NORMAL, None)
    eventually(lambda: log.ids == ["job-1"], 60, "it is sent")
    spool.close()


def test_a_file_that_may_not_be_opened_is_no_reason_to_refuse_a_job(tmp_path: Path) -> None:
    (tmp_path / "ns.0.spool").mkdir()  # refused to whoever it is, as another user's file is to us
    log = Log()
    spool = Spool(tmp_path, "ns", log.send)
    spool.open()
    spool.append(a_job(1), Lane.NORMAL, None)
    eventually(lambda: log.ids == ["job-1"], 60, "it is sent")
    spool.close()


def test_a_critical_job_that_may_be_sent_twice_says_so_at_once(tmp_path: Path) -> None:
    """Not confirmed in time it goes into the file as well, and then the log may get both, in either order."""
    clock = ManualClock()
    app = App("shop")
    broker = MemoryBroker(clock, lambda ready, timeout: ready())
    broker.admin().create_topics([TopicSpec(name="shop.jobs.default", partitions=1)])
    app.bind(broker, Client(ClientConfig(namespace="shop", spool_dir=str(tmp_path)), lambda: broker, clock=clock))
    pay = app.job("pay", critical=True)(lambda ctx: None)
    pay.enqueue()
    reader = broker.reader()
    reader.assign({TopicPartition("shop.jobs.default", 0): 0})
    (record,) = reader.fetch(10, 1.0).records
    assert header(record.headers(), DERIVED) is not None
    reader.close()
    assert app.close() == []


def test_a_file_belongs_to_one_process(tmp_path: Path) -> None:
    path = tmp_path / "ns.1.spool"
    file = taken(path)
    assert SpoolFile.take(path) is None
    file.append(a_job(1), Lane.NORMAL, None)
    file.close()
    other = SpoolFile.take(path)
    assert other is not None
    other.close()


def test_who_opens_a_spool_sends_what_the_dead_left(tmp_path: Path) -> None:
    for name in ("ns.1", "ns.2", "other.1"):
        file = taken(tmp_path / f"{name}.spool")
        file.append(a_job(int(name[-1]) + 10 * name.startswith("other")), Lane.NORMAL, None)
        file.close()
    log = Log()
    spool = Spool(tmp_path, "ns", log.send)
    spool.open()
    while spool.waiting:
        pass
    spool.close()
    assert log.ids == ["job-1", "job-2"]
    assert [path.name for path in tmp_path.glob("*.spool")] == ["other.1.spool"]


def test_a_critical_type_is_tried_without_end_and_never_dropped() -> None:
    app = App("shop")
    retry = Retry(3, Backoff("5s")).on(ConnectionError, times=2)
    pay = app.job("pay", critical=True, retry=retry)(lambda ctx: None)
    assert pay.options.retry is not None
    assert pay.options.retry.times == ENDLESS
    assert [rule.times for rule in pay.options.retry.rules] == [None]
    assert pay.attempts is None
    for how, what in (
        ({"queue_timeout": "5m"}, "has a queue_timeout"),
        ({"retry": Retry(3).on(ValueError, Discard())}, "has a rule that discards it"),
        ({"retry": Retry(3, max_age="1h")}, "has a max_age"),
    ):
        with pytest.raises(DefinitionError, match=what):
            app.job("x", critical=True, **how)
    with pytest.raises(DefinitionError, match="wait=False"):
        pay.enqueue(wait=False)


def test_a_non_critical_enqueue_raises_nothing_and_counts() -> None:
    clock = ManualClock()
    app = App("shop")
    broker = MemoryBroker(clock, lambda ready, timeout: ready())
    app.bind(broker, Client(ClientConfig(namespace="shop"), lambda: broker, clock=clock))
    hint = app.job("hint", critical=False)(lambda ctx: None)
    for _ in range(3):
        assert hint.enqueue().id  # there is no topic
    assert app.client().flush(0) == []
    assert hint.not_sent == 3
    assert app.close() == []


def test_a_close_is_not_held_up_by_what_the_spool_holds(tmp_path: Path) -> None:
    """Nobody answers: the jobs are in the file, so nobody waits for them, and they are not told as left."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nowhere = f"127.0.0.1:{taken.getsockname()[1]}"
    told = {"kafka.bootstrap": nowhere, "client.spool_dir": str(tmp_path), "client.critical_timeout": "300ms"}
    app = App("shop", settings=load_settings(told, env={}))
    pay = app.job("pay", critical=True)(lambda ctx: None)
    for _ in range(3):
        pay.enqueue()
    thread = next(thread for thread in threading.enumerate() if thread.name == "processor-spool")
    began = time.monotonic()
    assert app.close() == []
    assert time.monotonic() - began < app.settings().client.close_timeout / 2, "30 s, twice, if it waits for them"
    assert not thread.is_alive()
    (file,) = tmp_path.glob("*.spool")
    assert len(file.read_bytes().splitlines()) == 3


def test_a_job_enqueued_while_the_client_closes_is_kept_by_the_next_spool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a thread that has the old spool in its hands, and looked for the log when that was away."""
    clock = ManualClock()
    broker = MemoryBroker(clock, lambda ready, timeout: ready())
    broker.admin().create_topics([TopicSpec(name="shop.jobs.default", partitions=1)])
    client = Client(ClientConfig(namespace="shop", spool_dir=str(tmp_path)), lambda: broker, clock=clock)
    closing = client.reliability
    monkeypatch.setattr(MemoryBroker, "answers", False)
    assert client.close() == []
    closing.send_critical(a_job(1)._replace(queue="default"), Lane.NORMAL, derived=False, until=None)
    assert client.reliability is not closing
    monkeypatch.undo()
    reader = broker.reader()
    place = TopicPartition("shop.jobs.default", 0)
    reader.assign({place: 0})
    eventually(lambda: reader.fetch(10, 0.0).records, 60, "the next spool sends it")
    reader.close()
    assert client.close() == []
    assert list(tmp_path.iterdir()) == []


def test_a_closed_spool_takes_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "ns", Log().send)
    assert spool.append(a_job(1), Lane.NORMAL, None)
    spool.close()
    assert not spool.append(a_job(2), Lane.NORMAL, None)
