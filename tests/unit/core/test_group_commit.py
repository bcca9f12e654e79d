"""One flush for all who wait, and nobody waits for company that does not come."""

from __future__ import annotations

from processor.core.group_commit import PATIENCE, GroupCommit


def test_nothing_is_due_while_nobody_waits() -> None:
    group = GroupCommit()
    assert not group.due(0.0)
    group.let_go(3, 1.0)
    assert not group.due(1.0 + 10 * PATIENCE)


def test_a_lone_caller_never_waits_for_company() -> None:
    group = GroupCommit()
    for turn in range(3):
        group.waits()
        assert group.due(float(turn))
        group.began()
        assert not group.due(float(turn))
        group.let_go(1, float(turn))


def test_those_let_go_together_are_flushed_together() -> None:
    group = GroupCommit()
    group.let_go(3, 1.0)
    group.waits()
    group.waits()
    assert not group.due(1.0)
    group.waits()
    assert group.due(1.0)


def test_who_does_not_come_back_is_not_waited_for_long() -> None:
    group = GroupCommit()
    group.let_go(3, 1.0)
    group.waits()
    assert not group.due(1.0 + 0.9 * PATIENCE)
    assert group.due(1.0 + 1.1 * PATIENCE)


def test_those_of_a_failed_flush_are_due_again() -> None:
    group = GroupCommit()
    group.waits(4)
    group.began()
    group.waits(4)
    assert group.due(0.0)
