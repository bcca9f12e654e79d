"""Each guarantee accepts a good history and rejects a bad one: a judge that never convicts proves nothing."""

from __future__ import annotations

import pytest

from processor.states import State
from tests.guarantees import (
    EVERY,
    ChildrenExist,
    Claimed,
    CommitsBehindUnfinished,
    Committed,
    Crashed,
    Effect,
    Ended,
    EpochGrows,
    Event,
    Guarantee,
    KeyOrdered,
    LifeOf,
    Moved,
    NoDoubledEffect,
    NoLoss,
    NoRegress,
    Partition,
    Produced,
    Saved,
    Started,
    StepSaved,
    Stopped,
    Violation,
    Waits,
    Watch,
)

A, B, C = LifeOf("a"), LifeOf("b"), LifeOf("c")
A2 = LifeOf("a", 2)
LANE = Partition("shop.jobs.bulk", 3)
DONE = State.SUCCEEDED
History = list[Produced | Event]

GOOD: dict[str, tuple[type[Guarantee], History]] = {
    "the same end told twice": (NoLoss, [Produced(A), Ended(A, State.RUNNING), Ended(A, DONE), Ended(A, DONE)]),
    "each life ends once": (NoLoss, [Produced(A), Ended(A, State.DEAD), Produced(A2), Ended(A2, DONE)]),
    "an unsaved step again after a crash": (
        NoDoubledEffect,
        [Started(A, "w1"), Effect(A, "s"), Crashed("w1"), Started(A, "w2"), Effect(A, "s"), StepSaved(A, "s")],
    ),
    "an unsaved step again after a retry": (NoDoubledEffect, [Effect(A, "s"), Stopped(A), Effect(A, "s")]),
    "a step again in the next life": (NoDoubledEffect, [Effect(A, "s"), StepSaved(A, "s"), Effect(A2, "s")]),
    "resumed at or after what was durable": (
        NoRegress,
        [Started(A, "w1"), Saved(A, 5), Started(A, "w2", 5), Saved(A, 9), Started(A, "w1", 10), Started(A2, "w1", 0)],
    ),
    "one after the other": (
        KeyOrdered,
        [Produced(A, "k"), Produced(B, "k"), Started(A, "w"), Ended(A, DONE), Started(B, "w"), Ended(B, DONE)],
    ),
    "a rewind after a crash": (
        KeyOrdered,
        [
            *(Produced(job, "k") for job in (A, B)),
            *(Started(A, "w1"), Ended(A, DONE), Started(B, "w1"), Crashed("w1")),
            *(Started(A, "w2"), Ended(A, DONE), Started(B, "w2"), Ended(B, DONE)),
        ],
    ),
    "a child on the key of its waiting parent": (
        KeyOrdered,
        [
            *(Produced(A, "k"), Produced(B, "k"), Started(A, "w"), Produced(C, "k", parent="a"), Waits(A)),
            *(Started(C, "w"), Ended(C, DONE), Started(A, "w"), Ended(A, DONE), Started(B, "w")),
        ],
    ),
    "other keys at once": (KeyOrdered, [Produced(A, "k"), Produced(B, "m"), Started(A, "w"), Started(B, "w")]),
    "the child is there": (ChildrenExist, [StepSaved(A, "s", ("b",)), Produced(B, parent="a")]),
    "committed behind the unfinished": (
        CommitsBehindUnfinished,
        [
            *(Produced(A, partition=LANE, offset=4), Produced(B, partition=LANE, offset=7), Ended(A, DONE)),
            *(Committed(LANE, 7), Committed(LANE, 7), Moved(B), Committed(LANE, 9)),
        ],
    ),
    "epochs of two numbers grow": (EpochGrows, [Claimed(1, 1, "w1"), Claimed(2, 1, "w1"), Claimed(1, 2, "w2")]),
}

BAD: dict[str, tuple[type[Guarantee], History]] = {
    "a lost job": (NoLoss, [Produced(A), Ended(A, State.RUNNING)]),
    "two different ends of a life": (NoLoss, [Produced(A), Ended(A, State.DEAD), Ended(A, DONE)]),
    "the redriven life is lost": (NoLoss, [Produced(A), Ended(A, State.DEAD), Produced(A2)]),
    "an end of nothing": (NoLoss, [Ended(A, DONE)]),
    "a finished step ran again": (
        NoDoubledEffect,
        [Started(A, "w1"), Effect(A, "s"), StepSaved(A, "s"), Crashed("w1"), Effect(A, "s")],
    ),
    "a step ran twice without a reason": (NoDoubledEffect, [Effect(A, "s"), Effect(A, "s")]),
    "another worker's crash is no reason": (
        NoDoubledEffect,
        [Started(A, "w1"), Effect(A, "s"), Crashed("w2"), Effect(A, "s")],
    ),
    "one crash excuses one repetition": (
        NoDoubledEffect,
        [Effect(A, "s"), Stopped(A), Effect(A, "s"), Effect(A, "s")],
    ),
    "a once ran twice after a crash": (
        NoDoubledEffect,
        [Started(A, "w1"), Effect(A, "s", once=True), Crashed("w1"), Effect(A, "s", once=True)],
    ),
    "resumed before what was durable": (NoRegress, [Saved(A, 5), Started(A, "w2", 4)]),
    "an older checkpoint overwrote a newer one": (NoRegress, [Saved(A, 5), Saved(A, 3)]),
    "two at once": (KeyOrdered, [Produced(A, "k"), Produced(B, "k"), Started(A, "w1"), Started(B, "w2")]),
    "the later one first": (KeyOrdered, [Produced(A, "k"), Produced(B, "k"), Started(B, "w"), Ended(B, DONE)]),
    "a retried job was overtaken": (
        KeyOrdered,
        [Produced(A, "k"), Produced(B, "k"), Started(A, "w"), Stopped(A), Started(B, "w")],
    ),
    "a stranger on a lent key": (
        KeyOrdered,
        [Produced(A, "k"), Produced(B, "k"), Started(A, "w"), Waits(A), Started(B, "w")],
    ),
    "two children on a lent key": (
        KeyOrdered,
        [
            *(Produced(A, "k"), Started(A, "w"), Produced(B, "k", parent="a"), Produced(C, "k", parent="a")),
            *(Waits(A), Started(B, "w"), Started(C, "w")),
        ],
    ),
    "a crash elsewhere frees nothing": (
        KeyOrdered,
        [Produced(A, "k"), Started(A, "w1"), Crashed("w2"), Produced(B, "k"), Started(B, "w2")],
    ),
    "the child is missing": (ChildrenExist, [Produced(A), StepSaved(A, "s", ("b",))]),
    "committed past an unfinished job": (
        CommitsBehindUnfinished,
        [Produced(A, partition=LANE, offset=4), Committed(LANE, 5)],
    ),
    "a committed offset went back": (CommitsBehindUnfinished, [Committed(LANE, 5), Committed(LANE, 4)]),
    "two owners with one epoch": (EpochGrows, [Claimed(1, 2, "w1"), Claimed(1, 2, "w2")]),
    "an epoch went back": (EpochGrows, [Claimed(1, 2, "w1"), Claimed(1, 1, "w1")]),
}


def judged(kinds: list[type[Guarantee]], history: History) -> list[Violation]:
    watch = Watch(kinds)
    for event in history:
        if isinstance(event, Produced):
            watch.on_produce(event)
        else:
            watch.on_process(event)
    return watch.verify()


@pytest.mark.parametrize("name", GOOD)
def test_a_good_history_is_accepted(name: str) -> None:
    kind, history = GOOD[name]
    assert judged([kind], history) == []


@pytest.mark.parametrize("name", BAD)
def test_a_bad_history_is_rejected(name: str) -> None:
    kind, history = BAD[name]
    violations = judged([kind], history)
    assert violations
    assert {violation.guarantee for violation in violations} == {kind.__name__}


def test_every_guarantee_has_a_good_and_a_bad_history() -> None:
    assert {kind for kind, _ in GOOD.values()} == {kind for kind, _ in BAD.values()} == set(EVERY)


def test_a_promise_can_be_left_out_by_name() -> None:
    watch = Watch(without=[NoLoss])
    watch.on_produce(Produced(A))
    assert watch.verify() == []


def test_a_whole_run_breaks_nothing() -> None:
    history: History = [
        Claimed(3, 1, "w1"),
        Produced(A, "k", partition=LANE, offset=0),
        Produced(B, "k", partition=LANE, offset=1),
        *(Started(A, "w1"), Effect(A, "s"), Produced(C, parent="a"), StepSaved(A, "s", ("c",)), Saved(A, 3)),
        *(Crashed("w1"), Claimed(3, 2, "w2"), Committed(LANE, 0)),
        *(Started(A, "w2", 3), Saved(A, 6), Ended(A, DONE), Committed(LANE, 1)),
        *(Started(C, "w2"), Ended(C, DONE), Started(B, "w2"), Ended(B, State.DEAD), Committed(LANE, 2)),
    ]
    assert judged(list(EVERY), history) == []
