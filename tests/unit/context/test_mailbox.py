"""What lies between a handler and its worker: each kind of report in its order, and the wish to stop."""

from __future__ import annotations

import pytest

from processor.broker.base import OutRecord
from processor.context.mailbox import Mailbox
from processor.context.port import Forgotten
from processor.errors import JobLost, JobYielded
from processor.job import Step, StepPhase


def step(name: str) -> Step:
    return Step(name, StepPhase.FINISHED)


def test_reports_are_taken_once_and_each_kind_in_its_order() -> None:
    mailbox = Mailbox()
    assert mailbox.take() == ([], [], [])
    child = OutRecord("t", b"child", b"")
    for value in (step("a"), Forgotten(["x"]), child, step("b"), Forgotten(["y", "z"])):
        mailbox.report(value)
    taken = mailbox.take()
    assert ([one.name for one in taken.steps], taken.children, taken.forgotten) == (
        ["a", "b"],
        [child],
        ["x", "y", "z"],
    )
    assert mailbox.take() == ([], [], [])


def test_a_handler_that_hears_of_the_wish_to_stop_is_known_to_have_heard() -> None:
    mailbox = Mailbox()
    mailbox.check("j")
    mailbox.interrupt()
    assert not mailbox.told
    with pytest.raises(JobYielded):
        mailbox.check("j")
    assert mailbox.told


def test_a_job_whose_number_is_gone_is_lost_whatever_else_was_wanted() -> None:
    mailbox = Mailbox()
    mailbox.interrupt()
    mailbox.lose()
    with pytest.raises(JobLost):
        mailbox.check("j")


def test_what_one_mailbox_holds_no_other_does() -> None:
    one, other = Mailbox(), Mailbox()
    one.report(step("a"))
    one.lose()
    assert (other.reports, other.lost, other.interrupted) == (None, False, False)
