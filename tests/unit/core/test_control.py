"""Orders fold to the same table in whatever pieces they are read, and are about what their giver saw."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core.control import CANCEL, HOLDS_MS, JOB, PAUSE, QUEUE, RETRY, TYPE, Change, ControlTable, why
from processor.wire.records import ControlRecord

NOW = 1_767_225_600_000
quick = settings(max_examples=150, derandomize=True, deadline=None)


def order(target: str, action: str, **fields: object) -> Change:
    return Change(target, ControlRecord(target, action, NOW, "ann@desk", **fields))  # type: ignore[arg-type]


def table(*changes: Change) -> ControlTable:
    made = ControlTable()
    for change in changes:
        made.apply(change)
    return made


def test_a_queue_and_a_type_rest_until_a_tombstone() -> None:
    paused = table(order("queue:mails", PAUSE, reason="deploy"), order("type:mail.send", PAUSE))
    assert paused.paused_queues == {"mails"}
    assert paused.paused_types() == {"mail.send": "by ann@desk"}
    pause = paused.queue_pause("mails")
    assert pause is not None
    assert why(pause) == "deploy (by ann@desk)"
    paused.apply(Change("queue:mails", None))
    paused.apply(Change("type:mail.send", None))
    assert paused.queue_pause("mails") is None
    assert paused.type_pause("mail.send") is None
    assert not paused.paused_queues


@pytest.mark.parametrize("target", [QUEUE, TYPE, JOB])
def test_an_order_of_a_newer_version_takes_the_place_of_the_one_before(target: str) -> None:
    known = {QUEUE: PAUSE, TYPE: PAUSE, JOB: CANCEL}[target]
    made = table(order(f"{target}x", known, life=9), order(f"{target}x", "of-tomorrow", life=9))
    assert not made.paused_queues
    assert not made.paused_types()
    assert made.cancelled("x", 1, NOW) is None


@pytest.mark.parametrize("target", ["", "x", "tenant:x", "Queue:x", "job"])
def test_a_target_that_is_not_known_is_passed_over(target: str) -> None:
    made = table(order(target, PAUSE), order(target, CANCEL, life=9))
    assert not made.paused_queues
    assert not made.concerns("x", "x")


def test_actions_that_do_not_fit_their_target_do_nothing() -> None:
    made = table(order("queue:mails", CANCEL), order("type:t", RETRY), order("job:j", PAUSE, life=9))
    assert not made.paused_queues
    assert not made.concerns("j", "t")


def test_a_cancel_is_about_lives_up_to_its_own() -> None:
    made = table(order("job:j", CANCEL, life=2))
    assert made.cancelled("j", 1, NOW) is not None
    assert made.cancelled("j", 2, NOW) is not None
    assert made.cancelled("j", 3, NOW) is None
    assert made.cancelled("other", 1, NOW) is None
    assert made.concerns("j", "t")


def test_a_cancel_is_not_about_the_same_id_given_again_a_day_later() -> None:
    made = table(order("job:j", CANCEL, life=1))
    assert made.cancelled("j", 1, NOW + HOLDS_MS) is not None
    assert made.cancelled("j", 1, NOW + HOLDS_MS + 1) is None


def test_going_on_is_about_the_wait_that_was_seen() -> None:
    made = table(order("job:j", RETRY, life=1, seen=500))
    assert made.retried("j", 1, 500) is not None
    assert made.retried("j", 1, 501) is None, "it waits anew since then"
    assert made.retried("j", 2, 500) is None
    assert made.cancelled("j", 1, NOW) is None


def test_the_last_order_about_a_job_counts() -> None:
    made = table(order("job:j", RETRY, life=1, seen=500), order("job:j", CANCEL, life=1))
    assert made.retried("j", 1, 1) is None
    assert made.cancelled("j", 1, NOW) is not None


names = st.sampled_from(["queue:a", "queue:b", "type:a", "type:t", "job:1", "job:2"])
actions = st.sampled_from([PAUSE, CANCEL, RETRY, "of-tomorrow", None])


def change(target: str, action: str | None) -> Change:
    return Change(target, None) if action is None else order(target, action, life=1, seen=NOW)


def told(made: ControlTable) -> object:
    jobs = [(made.cancelled(j, 1, NOW), made.retried(j, 1, NOW)) for j in ("1", "2")]
    return made.paused_queues, made.paused_types(), jobs


@quick
@given(st.lists(st.builds(change, names, actions), max_size=20))
def test_compaction_changes_nothing(history: list[Change]) -> None:
    last = {one.target: one for one in history}
    compacted = [one for one in history if last[one.target] is one]
    assert told(table(*compacted)) == told(table(*history))
    without_graves = [one for one in last.values() if one.record is not None]
    assert told(table(*without_graves)) == told(table(*history))
