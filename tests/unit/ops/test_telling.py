"""What pages say of a job, by its state and what holds for it: every state, every order, every odd value."""

from __future__ import annotations

from typing import Any

import pytest

from processor.ops.queries import JobFacts
from processor.ops.telling import SIGNS, TONES, WORDS, plainly, possible, story, why
from processor.states import TERMINAL, State

NOW = 1_767_225_600_000
MINUTE = 60_000


def facts_of(state: State = State.QUEUED, **more: Any) -> JobFacts:
    """A job in a state; `more`: columns, or the lists beside them."""
    lists = {name: more.pop(name, []) for name in ("moves", "failures", "letters", "audit", "orders", "children")}
    job = {
        "id": "j",
        "queue": "bulk",
        "type": "mail.send",
        "state": state.value,
        "life": 1,
        "attempt": 2,
        "worker": "w-0",
        "changed_at": NOW - 5 * MINUTE,
        "due_at": None,
        "error_kind": "",
        "error_message": "",
        "note": "",
        "done": None,
        "total": None,
        **more,
    }
    return JobFacts(job=job, payload=None, payload_size=0, result=None, fields={}, **lists)


def order(action: str, target: str = "queue:bulk", reason: str = "", life: int = 1) -> dict[str, Any]:
    return {"action": action, "target": target, "by": "ana", "reason": reason, "life": life}


ERROR = {"error_kind": "shop.errors.BankAway", "error_message": "no answer.\nTraceback of 40 lines"}


def test_every_state_has_words_a_sign_and_sentences() -> None:
    assert set(WORDS) == set(SIGNS) == set(State)
    assert set(TONES) <= set(State)
    for state in State:
        (line,) = why(facts_of(state), NOW)
        assert line.endswith(".")
        assert len(plainly(facts_of(state), NOW)) == 1


@pytest.mark.parametrize(
    ("state", "more", "line"),
    [
        (State.QUEUED, {}, "It waits for its turn in queue bulk, since 5 minutes."),
        (State.QUEUED, {"changed_at": NOW + MINUTE}, "It waits for its turn in queue bulk, since 0 seconds."),
        (
            State.SCHEDULED,
            {"due_at": NOW + 120 * MINUTE},
            "It starts in 2 hours (2026-01-01 02:00:00 UTC).",
        ),
        (State.SCHEDULED, {"due_at": NOW}, "It starts now, as soon as a worker has room."),
        (State.SCHEDULED, {}, "It starts when its turn comes."),
        (State.RUNNING, {}, "Attempt 2 runs on w-0."),
        (
            State.RETRYING,
            {**ERROR, "due_at": NOW - 1},
            "Attempt 2 failed: BankAway: no answer. The next one begins now, as soon as a worker has room.",
        ),
        (State.RETRYING, {}, "Attempt 2 failed. The next one begins when its turn comes."),
        (State.WAITING, {}, "It is parked."),
        (State.WAITING, {"due_at": NOW}, "It is parked until 2026-01-01 00:00:00 UTC."),
        (State.SUCCEEDED, {}, "It succeeded 5 minutes ago, in attempt 2."),
        (State.SUCCEEDED, {"changed_at": NOW + MINUTE}, "It succeeded just now, in attempt 2."),
        (State.DEAD, ERROR, "It was given up 5 minutes ago after 2 attempts: BankAway: no answer."),
        (State.DEAD, {"attempt": 1}, "It was given up 5 minutes ago after 1 attempt."),
        (
            State.DEAD,
            {"letters": [{"attempts": 9}, {"attempts": 4}]},
            "It was given up 5 minutes ago after 4 attempts.",
        ),
        (State.KILLED, {}, "Its time was over 5 minutes ago."),
        (State.CANCELLED, {}, "It was cancelled 5 minutes ago."),
    ],
)
def test_where_a_job_stands(state: State, more: dict[str, Any], line: str) -> None:
    assert why(facts_of(state, **more), NOW) == [line]


@pytest.mark.parametrize(
    ("state", "orders", "more"),
    [
        (
            State.QUEUED,
            [order("pause", reason="the bank is down")],
            ["Its queue bulk is paused by ana: the bank is down."],
        ),
        (State.RETRYING, [order("pause", "type:mail.send")], ["Its job type mail.send is paused by ana."]),
        (State.WAITING, [order("pause")], ["Its queue bulk is paused by ana."]),
        (State.RUNNING, [order("pause")], []),
        (State.SUCCEEDED, [order("pause"), order("cancel")], []),
        (State.RUNNING, [order("cancel", "job:j", "wrong file")], ["ana asked for its cancel: wrong file."]),
        (State.RUNNING, [order("cancel", "job:j", life=0)], []),
    ],
)
def test_which_orders_hold_a_job(state: State, orders: list[dict[str, Any]], more: list[str]) -> None:
    assert why(facts_of(state, orders=orders), NOW)[1:] == more


@pytest.mark.parametrize(
    ("state", "note", "told"),
    [
        (State.RUNNING, "page 7\nof many", ["Note: page 7"]),
        (State.RUNNING, "", []),
        (State.SUCCEEDED, "all done", []),
        (State.DEAD, "x" * 400, ["Note: " + "x" * 300 + "…"]),
    ],
)
def test_a_note_is_told_until_it_is_of_no_use(state: State, note: str, told: list[str]) -> None:
    assert why(facts_of(state, note=note), NOW)[1:] == told


@pytest.mark.parametrize(
    ("state", "more", "lines"),
    [
        (
            State.RUNNING,
            {"done": 3.0, "total": 12000.0},
            ["This is being worked on right now. 3 of 12\u202f000 are done."],
        ),
        (State.RUNNING, {"done": 3.0, "total": 0.0}, ["This is being worked on right now."]),
        (State.RUNNING, {"done": None, "total": 5.0}, ["This is being worked on right now."]),
        (
            State.DEAD,
            {**ERROR, "attempt": 1},
            ["This did not work after 1 try and is not tried again by itself.", "The reason: no answer."],
        ),
        (
            State.DEAD,
            {"letters": [{"attempts": 3}]},
            ["This did not work after 3 tries and is not tried again by itself."],
        ),
        (State.SUCCEEDED, {**ERROR, "orders": [order("pause")]}, ["This is done, 5 minutes ago."]),
        (
            State.QUEUED,
            {"orders": [order("pause")]},
            ["This waits for its turn and begins by itself.", "Jobs of this kind are paused at the moment."],
        ),
    ],
)
def test_the_same_in_plain_words(state: State, more: dict[str, Any], lines: list[str]) -> None:
    assert plainly(facts_of(state, **more), NOW) == lines


LETTER = {"state": "open", "life": 1, "attempts": 1}


@pytest.mark.parametrize(
    ("state", "letters", "actions"),
    [
        (State.QUEUED, [], ["cancel"]),
        (State.RUNNING, [], ["cancel"]),
        (State.RETRYING, [], ["retry", "cancel"]),
        (State.SCHEDULED, [], ["retry", "cancel"]),
        (State.WAITING, [], ["retry", "cancel"]),
        (State.IN_DOUBT, [], ["retry", "cancel"]),
        (State.SUCCEEDED, [LETTER], []),
        (State.DEAD, [], []),
        (State.DEAD, [LETTER], ["redrive"]),
        (State.DEAD, [{**LETTER, "state": "discarded"}], ["redrive"]),
        (State.DEAD, [{**LETTER, "state": "redriven"}], []),
        (State.DEAD, [{**LETTER, "life": 2}], []),
        (State.KILLED, [LETTER], ["redrive"]),
        (State.EXPIRED, [LETTER], ["redrive"]),
        (State.CANCELLED, [LETTER], ["redrive"]),
    ],
)
def test_what_can_be_done_to_it(state: State, letters: list[dict[str, Any]], actions: list[str]) -> None:
    assert possible(facts_of(state, letters=letters)) == actions


def test_nothing_can_be_cancelled_that_has_ended() -> None:
    for state in State:
        assert ("cancel" in possible(facts_of(state, letters=[LETTER]))) is (state not in TERMINAL)


def moved(at: int, state: State, **more: Any) -> dict[str, Any]:
    plain = {"attempt": 1, "life": 1, "worker": "w-0", "note": "", "error_kind": "", "error_message": ""}
    return {"at": at, "state": state.value, **plain, **more}


def test_its_story_is_what_happened_and_what_people_did_in_one_line_of_time() -> None:
    moves = [
        moved(10, State.RUNNING, note="begun"),
        moved(20, State.RETRYING, **ERROR),
        moved(40, State.QUEUED, life=2),
        moved(50, State.SUCCEEDED, life=2),
    ]
    audit = [
        {"at": 30, "action": "redrive", "by": "ana", "reason": "", "detail": "from zero"},
        {"at": 35, "action": "pause", "by": "ben", "reason": "look first", "detail": "x"},
    ]
    told = story(facts_of(moves=moves, audit=audit))
    assert [(step["at"], step["text"], step["tone"], step["by"], step["detail"]) for step in told] == [
        (10, "attempt 1 runs", "good", "w-0", "begun"),
        (20, "attempt 1 failed", "warn", "w-0", "BankAway: no answer"),
        (30, "redrive asked for", "", "ana", "from zero"),
        (35, "pause asked for", "", "ben", "look first"),
        (40, "queued, life 2", "", "w-0", ""),
        (50, "succeeded, life 2", "good", "w-0", ""),
    ]
