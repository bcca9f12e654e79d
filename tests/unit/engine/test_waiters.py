"""All slots hold handlers that wait for jobs without one: told once, at the second look, until it is over."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest

from processor.context.mailbox import Mailbox
from processor.engine.ready_queue import ReadyQueue
from processor.engine.waiters import Waiters


class Told:
    """As much of an attempt as is looked at."""

    def __init__(self, **facts: Any) -> None:
        vars(self).update(facts)


def attempt(job_id: str, *, awaits: str = "", started: bool = True) -> Any:
    job = SimpleNamespace(id=job_id, type="outer")
    mailbox = Mailbox()
    mailbox.awaits = awaits
    return Told(job=job, mailbox=mailbox, started_at=1.0 if started else None, outcome=None, lane=None)


def ready_queue(*running: Any, waiting: Any = (), slots: int = 1) -> ReadyQueue:
    made = ReadyQueue(cast("Any", SimpleNamespace(slots=slots)))
    made.running.update(dict.fromkeys(running))
    made.waiting.extend(waiting)
    return made


def told(queue: ReadyQueue, caplog: pytest.LogCaptureFixture, looks: int = 3) -> list[str]:
    waiters = Waiters()
    with caplog.at_level(logging.INFO, "processor.engine.waiters"):
        for look in range(looks):
            waiters.look({("q", "thread"): queue}, 1.0 + look)
    return [str.__str__(record.msg) for record in caplog.records]


def test_it_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    outer = attempt("outer-1", awaits="inner-1")
    assert told(ready_queue(outer, waiting=[attempt("inner-1", started=False)]), caplog) == ["slots.all_wait"]
    assert caplog.records[0].__dict__["awaits"] == "inner-1"
    assert outer.mailbox.progressed[2] == "it waits for job inner-1, which waits for a slot"


def test_a_pool_that_holds_the_awaited_job_ahead_of_its_slots_is_no_better(caplog: pytest.LogCaptureFixture) -> None:
    held = ready_queue(attempt("outer-1", awaits="inner-1"), attempt("inner-1", started=False))
    assert told(held, caplog) == ["slots.all_wait"]


@pytest.mark.parametrize(
    "fine",
    [
        ready_queue(attempt("outer-1", awaits="elsewhere"), waiting=[attempt("inner-1", started=False)]),
        ready_queue(attempt("outer-1", awaits="inner-1"), slots=2, waiting=[attempt("inner-1", started=False)]),
        ready_queue(
            attempt("outer-1", awaits="inner-1"),
            attempt("works"),
            slots=2,
            waiting=[attempt("inner-1", started=False)],
        ),
    ],
    ids=["waits elsewhere", "a free slot", "another works"],
)
def test_what_may_go_on_is_not_told(fine: ReadyQueue, caplog: pytest.LogCaptureFixture) -> None:
    assert told(fine, caplog) == []


def test_its_end_is_told(caplog: pytest.LogCaptureFixture) -> None:
    outer = attempt("outer-1", awaits="inner-1")
    queue, waiters = ready_queue(outer, waiting=[attempt("inner-1", started=False)]), Waiters()
    with caplog.at_level(logging.INFO, "processor.engine.waiters"):
        for look in range(2):
            waiters.look({("q", "thread"): queue}, 1.0 + look)
        outer.mailbox.awaits = ""
        waiters.look({("q", "thread"): queue}, 4.0)
    assert [str.__str__(record.msg) for record in caplog.records] == ["slots.all_wait", "slots.go_on"]
    assert waiters.found == {}
