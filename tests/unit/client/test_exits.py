"""The end of a process: what is sent then, what is named, and what nobody need hear of once more."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator

import pytest

from processor.app import App
from processor.broker.base import TopicSpec
from processor.broker.memory import MemoryBroker, MemoryLimits
from processor.client import exits
from processor.client.sender import Client
from processor.errors import EnqueueUnconfirmed
from processor.wire.settings_sources import load_settings


class Program:
    """An app in a process that is about to end."""

    def __init__(self) -> None:
        self.broker = MemoryBroker(limits=MemoryLimits(delivery_seconds=0.05))
        times = dict.fromkeys(("client.enqueue_timeout", "client.close_timeout"), "20ms")
        self.app = App("shop", settings=load_settings(times, env={}), broker=self.broker)
        self.app.queue("q", partitions=1)
        self.pay = self.app.job("pay", queue="q")(lambda ctx: None)
        topics = [TopicSpec(name=spec.name, partitions=1) for spec in self.app.topic_plan()]
        self.broker.admin().create_topics(topics)
        self.app.client()

    def sent(self) -> int:
        return len(self.broker.records("shop.jobs.q"))


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    begun = threading.Event()
    monkeypatch.setattr(exits, "_begun", begun)
    monkeypatch.setattr(exits, "begun", begun.is_set)
    monkeypatch.setattr(exits, "_clients", weakref.WeakSet())
    monkeypatch.setattr(exits, "_over", False)
    made = Program()
    yield made
    made.broker.faults.outage(False)
    made.app.close()


def end(capsys: pytest.CaptureFixture[str]) -> str:
    """Both hooks of the interpreter's end; what stands on stderr."""
    exits._close_all()
    exits._close_all()
    return capsys.readouterr().err


def test_what_nobody_waited_for_is_sent_and_nothing_is_said(
    program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    program.broker.faults.buffer_appends(True)
    for _ in range(3):
        program.pay.enqueue(wait=False)
    assert end(capsys) == ""
    assert program.sent() == 3


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (1, "processor: 1 enqueued job of shop was not confirmed: j0\n"),
        (3, "processor: 3 enqueued jobs of shop were not confirmed: j0, j1, j2\n"),
    ],
)
def test_what_cannot_be_sent_is_named(
    program: Program, capsys: pytest.CaptureFixture[str], left: int, said: str
) -> None:
    program.pay.enqueue()
    program.broker.faults.outage(True)
    for number in range(left):
        program.pay.enqueue(id=f"j{number}", wait=False)
    assert end(capsys) == said


def test_a_job_that_its_caller_was_told_of_is_not_named_once_more(
    program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    program.pay.enqueue()
    program.broker.faults.outage(True)
    for job_id in ("told", "again"):
        with pytest.raises(EnqueueUnconfirmed):
            program.pay.enqueue(id=job_id)
    program.pay.enqueue(id="again", wait=False)
    program.pay.enqueue(id="left", wait=False)
    assert end(capsys) == "processor: 2 enqueued jobs of shop were not confirmed: again, left\n"


def test_what_may_be_dropped_is_not_named(program: Program, capsys: pytest.CaptureFixture[str]) -> None:
    offer = program.app.job("metric", queue="q", critical=False)(lambda ctx: None)
    program.pay.enqueue()
    program.broker.faults.outage(True)
    offer.enqueue()
    assert end(capsys) == ""


def test_after_the_end_an_enqueue_waits_for_its_confirmation(
    program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    assert end(capsys) == ""
    program.broker.faults.buffer_appends(True)
    program.pay.enqueue(wait=False)
    assert program.sent() == 1, "nobody would flush behind it"
    program.broker.faults.outage(True)
    with pytest.raises(EnqueueUnconfirmed):
        program.pay.enqueue(wait=False)


def test_an_interrupt_names_what_is_left_of_every_client(
    program: Program, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    program.pay.enqueue()
    program.broker.faults.outage(True)
    with pytest.raises(EnqueueUnconfirmed):
        program.pay.enqueue(id="told")
    program.pay.enqueue(id="left", wait=False)

    def interrupted(self: Client) -> list[str]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Client, "close", interrupted)
        said = end(capsys)
    assert said.splitlines() == ["processor: 1 enqueued job of shop was not confirmed: left", "processor: interrupted"]


def test_a_client_that_is_gone_is_not_watched(program: Program) -> None:
    client = program.app.client()
    assert exits.watched() == [client]
    other = Client(client.config, lambda: program.broker)
    assert set(exits.watched()) == {client, other}
    del other
    gc.collect()
    assert exits.watched() == [client]
