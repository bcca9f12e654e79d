"""Seeded chaos, as in `test_simulation`, while operators cancel, pause, resume, let go on and redrive what they meet.

Judged by the same guarantees: whatever an order meets, a job ends once, and nothing of it runs twice or is lost.
"""

from __future__ import annotations

import os
from contextlib import suppress

import pytest

from processor.admin.dead_letters import LetterFilter, list_letters
from processor.admin.orders import Operator, cancel, go_on, pause, resume
from processor.admin.redrive import Order, redrive_letters
from processor.broker.base import TopicSpec
from processor.core.redrive import LetterState, Redrive
from processor.errors import OrderRefused
from processor.states import State
from processor.wire import topics
from tests.guarantees import LifeOf, Violation
from tests.unit.engine.history import History
from tests.unit.engine.scene import NS, QUEUE, Scene
from tests.unit.engine.test_simulation import Chaos

QUICK = range(10)
OPEN = LetterFilter(states=frozenset({LetterState.OPEN}))
TARGETS = (f"queue:{QUEUE}", "type:rows", "type:flaky", "type:parent", "type:child")


def seeds() -> list[int]:
    """The quick set, or what the environment asks for: `0-999` or `7,8`."""
    asked = os.environ.get("PROCESSOR_ORDER_SEEDS")
    if not asked:
        return list(QUICK)
    first, dash, last = asked.partition("-")
    return list(range(int(first), int(last) + 1)) if dash else [int(seed) for seed in asked.split(",")]


class Judged(History):
    """Leaves out what the guarantee of order cannot know; that jobs of one key run one at a time holds for all.

    A cancelled job ends without its handler: the next one of its key may start, and nobody has said so yet. A life that
    a redrive begins comes in another lane than the fresh jobs of its key, and has no place among them.
    """

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self.cancelled: set[str] = set()
        self.redriven: set[LifeOf] = set()

    def verdict(self) -> list[Violation]:
        anew = {life.id for life in self.redriven}
        before = tuple(f"started before {job_id} " for job_id in self.cancelled | anew)
        return [
            found
            for found in super().verdict()
            if not found.detail.startswith(before)
            and not (found.job_id in anew and found.detail.startswith("started before "))
        ]


class Orders(Chaos):
    """Also what operators do."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.history: Judged = Judged(self.scene)
        self.handlers.history = self.history
        self.scene.broker.admin().create_topics([TopicSpec(name=topics.audit_topic(NS), partitions=1)])
        self.who = Operator(reason="because", by="ada@desk", clock=self.scene.runtime.clock)
        self.desk = Order(by="ada@desk", reason="fixed", clock=self.scene.runtime.clock)
        self.actions += [*[self.cancel] * 4, self.pause, *[self.resume] * 2, *[self.let_go_on] * 2, *[self.redrive] * 2]

    def _known(self, *, ended: bool = False) -> list[str]:
        self.history.read()
        lives = {*self.history.open, *self.history.ended} if ended else set(self.history.open)
        return sorted({life.id for life in lives})

    def cancel(self) -> None:
        known = self._known(ended=self.random.random() < 0.2)
        if known:
            job_id = self.random.choice(known)
            with suppress(OrderRefused):
                cancel(self.scene.broker, NS, job_id, self.who)
                self.history.cancelled.add(job_id)

    def pause(self) -> None:
        pause(self.scene.broker, NS, self.random.choice(TARGETS), self.who)

    def resume(self) -> None:
        with suppress(OrderRefused):
            resume(self.scene.broker, NS, self.random.choice(TARGETS), self.who)

    def let_go_on(self) -> None:
        """Not what is in doubt: then a step that must not run twice does, because a person says so."""
        doubtful = {life.id for life in self.history.in_doubt}
        known = [job_id for job_id in self._known() if job_id not in doubtful]
        if known:
            with suppress(OrderRefused):
                go_on(self.scene.broker, NS, self.random.choice(known), self.who)

    def redrive(self) -> None:
        rows = list_letters(self.scene.broker, NS, OPEN)
        rows = [row for row in rows if row.id and not row.id.startswith("unknown")]
        chosen = self.random.sample(rows, min(2, len(rows)))
        if chosen:
            how = Redrive(from_zero=self.random.random() < 0.3)
            redrive_letters(self.scene.broker, NS, chosen, how, self.desk)
            self.history.redriven |= {LifeOf(row.id, row.life + 1) for row in chosen}

    def drain(self) -> None:
        for target in TARGETS:
            with suppress(OrderRefused):
                resume(self.scene.broker, NS, target, self.who)
        super().drain()

    def judge(self) -> None:
        super().judge()
        for status in self.scene.statuses():
            assert status.state is not State.CANCELLED or status.id in self.history.cancelled, status
        states = self.scene.ends()
        for life in self.history.redriven:
            assert states.get((life.id, life.life)) or life in self.history.in_doubt, f"{life} was redriven and lost"


@pytest.mark.parametrize("seed", seeds())
def test_guarantees_hold_whatever_operators_order(seed: int) -> None:
    chaos = Orders(seed)
    try:
        chaos.run()
    except BaseException as error:
        error.add_note(f"PROCESSOR_ORDER_SEEDS={seed}")
        raise
    finally:
        chaos.scene.close()
