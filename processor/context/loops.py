"""`ctx.each`: a loop whose finished items never run again.

Asking for the next item marks the last one done. At that moment a snapshot is taken: the cursors of all open loops and
the state, *as of the start of the next item*. So whatever ends the attempt later, what is written describes whole
items.

- While the encoded state is small there is a snapshot per item (`note`), written once per `every` (`save`), on
  exceptions and on stops. A large state is encoded only once per `every`; between two snapshots the loop is `behind`.
- An inner loop starts with the state as its outer item found it, so its snapshots hold the outer item half done: the
  part before the inner loop runs again after a resume. Hence the state may not change in that part.
- An inner loop of an item that was not snapshotted (`behind`) cannot save: its outer item is redone as a whole. From
  then on the outer loop takes a snapshot of every item, so that this happens once.
- `break`, or an exception the handler catches, leaves the loop at the last marked item.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from processor import events
from processor.callables import refuse_awaitable
from processor.context.rules import SMALL_STATE, Rules
from processor.context.scopes import Scope
from processor.context.values import BIG, decode_cursor, encode_cursor, whole
from processor.errors import CursorType, DuplicateName, HandlerMistake
from processor.job import LoopProgress
from processor.wire.durations import parse_duration

_log = events.logger(__name__)
_new_tuple = tuple.__new__
"""A third of the time of the named constructor, which counts once per item."""


@dataclass(frozen=True, slots=True)
class LoopPlan:
    """What the handler asked for."""

    name: str
    cursor: Callable[[Any], object] | None
    """The cursor of an item; None: the item itself."""
    every: str | float
    """How often progress is written: seconds, or a text such as `5s`."""
    total: int | None


class Loop:
    """One open loop. Its driver calls enter, leave, enter, leave, ..., exhaust; and close in any case."""

    def __init__(self, rules: Rules, plan: LoopPlan) -> None:
        rules.stop_if_asked()
        scope = rules.scope
        outer = _innermost(rules)
        self._rules = rules
        self._port = rules.port
        self._monotonic = rules.port.clock.monotonic
        self._outer_scope = scope
        self.full = scope.ask(plan.name)
        scope.unasked_loops.discard(self.full)
        saved = rules.loops.get(self.full) or LoopProgress(None, 0, None, False)
        self.exhausted = saved.exhausted
        self._cursor_of = plan.cursor
        self._every = _seconds(plan.every)
        self._total = None if plan.total is None else whole(plan.total, f"total= of loop {self.full!r}")
        self._items = saved.items
        self._marked = saved.cursor
        """JSON of the cursor of the last finished item."""
        self._entered: str | None = None
        self._item_scope: Scope | None = None
        self.in_item = False
        self.has_inner = False
        self.behind = False
        self.saves: bool = not scope.frozen and (outer is None or (outer.saves and not outer.behind))
        if outer is not None:
            outer.has_inner = True
        if not self.exhausted:
            if self.saves:
                rules.refuse_changed_state(scope, f"before loop {self.full!r}")
            rules.frames.append(self)

    @property
    def after(self) -> Any:
        """The cursor to go on after; None at the beginning."""
        return decode_cursor(self._marked)

    def item_scope(self) -> Scope:
        """The scope of the item being worked on; made when first needed, most items have no names of their own."""
        if self._item_scope is None:
            self._item_scope = self._rules.enter_scope(self._item_path())
        return self._item_scope

    def _item_path(self) -> str:
        return f"{self.full}[{self._entered}]/"

    def enter(self, item: Any) -> None:
        """`item` is handed to the handler.

        Raises:
            CursorType: its cursor would not come back from JSON as it is.
            DuplicateName: its cursor is that of the item before.
        """
        value = item if self._cursor_of is None else self._cursor_of(item)
        text = str(value) if type(value) is int and -BIG < value < BIG else self._encode(value)
        if text == self._marked:
            raise self._same_cursor(text)
        self._entered = text
        self.in_item = True
        if self._rules.observer is not None:
            self._rules.observer.item_taken(self._port.job, self.full, text)

    def _encode(self, value: object) -> str:
        refuse_awaitable(value, f"cursor= of loop {self.full!r}", hint="make it a def: it is called for every item")
        if value is None:
            raise CursorType(
                f"an item of loop {self.full!r} has the cursor None, which cannot be told from the loop's start",
                hint="give every item a cursor of its own, in the order of the source",
            )
        return encode_cursor(value, self._port.limits.checkpoint_max_bytes)

    def _same_cursor(self, text: str) -> DuplicateName:
        if self._entered is None:
            return DuplicateName(
                f"the source of loop {self.full!r} began again with the item {text}, which is done",
                hint="the source is given the cursor of the last finished item: start with the item *after* it",
            )
        return DuplicateName(
            f"two items in a row of loop {self.full!r} have the cursor {text}",
            hint="after a resume the second would be skipped: a cursor must tell items apart, for instance "
            "[row.date, row.id]",
        )

    def leave(self) -> None:
        """The next item is asked for: the last one is done."""
        rules = self._rules
        if not rules.frames or rules.frames[-1] is not self:
            self._surface()
        self._end_scope()
        self.in_item = False
        self._items += 1
        self._marked = self._entered
        if self.saves:
            now = self._monotonic()
            interrupted = self._port.interrupted
            due = interrupted or now - rules.saved_at >= self._every
            if rules.model is None or due or self.has_inner or rules.state_size <= SMALL_STATE:
                if rules.model is not None:
                    rules.take_state()
                self._mark(now, exhausted=False, write=due)
            else:
                self.behind = True
        if rules.observer is not None:
            rules.observer.item_done(self._port.job, self.full, self._items)
        if self._port.interrupted:
            rules.stop_if_asked()

    def _end_scope(self) -> None:
        scope = self._item_scope
        if scope is not None:
            self._rules.leave_scope(scope)
            self._item_scope = None
        elif self._rules.holds(path := self._item_path()):
            self._rules.leave_scope(self._rules.enter_scope(path))

    def _mark(self, now: float, *, exhausted: bool, write: bool) -> None:
        """Take a snapshot: the state was just kept, so both describe the same moment."""
        rules = self._rules
        if self.has_inner:
            begin = self._item_path()
            loops = {name: loop for name, loop in rules.loops.items() if not name.startswith(begin)}
        else:
            loops = rules.loops.copy()  # progress is replaced whole: the port still holds the old one
        loops[self.full] = _new_tuple(LoopProgress, (self._marked, self._items, self._total, exhausted))
        rules.loops = loops
        self.behind = False
        rules.snapshot(write=write)
        if write:
            rules.saved_at = now
            if self._total is not None and len(rules.frames) == 1 and rules.done is None:
                self._port.progressed(self._items, self._total, None)

    def exhaust(self) -> None:
        """The source ended: this loop yields nothing any more."""
        rules = self._rules
        if not rules.frames or rules.frames[-1] is not self:
            self._surface()
        self.exhausted = True
        if not self.saves:
            return
        if rules.model is not None:
            if not self.behind:
                rules.refuse_changed_state(self._outer_scope, f"by the source of loop {self.full!r}")
            rules.take_state()
        outermost = len(rules.frames) == 1
        if outermost:
            rules.forget_below(self.full)
        now = self._monotonic()
        self._mark(now, exhausted=True, write=outermost or now - rules.saved_at >= self._every)

    def close(self) -> None:
        """The loop is over, or was left. Called once more if the loop is closed from outside; does nothing then."""
        frames = self._rules.frames
        if self not in frames:
            return
        del frames[frames.index(self) :]
        if self.exhausted or not self.in_item:
            return
        self.in_item = False
        self._outer_scope.left = self.full
        if self.behind:
            self._outer_scope.frozen = True
            _log.warning("loop.left.large_state", extra={"job_id": self._port.job.id, "loop": self.full})

    def _surface(self) -> None:
        """Close loops that were opened inside this one's item and not run to their end."""
        frames = self._rules.frames
        if self not in frames:
            raise HandlerMistake(
                f"loop {self.full!r} goes on after it was left",
                hint="nest the loops of a job, one inside an item of another; they cannot take turns or run at once",
            )
        for inner in frames[frames.index(self) + 1 :]:
            if isinstance(inner, Loop):
                inner.close()


def _innermost(rules: Rules) -> Loop | None:
    frame = rules.frames[-1] if rules.frames else None
    return frame if isinstance(frame, Loop) else None


@functools.lru_cache(maxsize=64)
def _seconds(every: str | float) -> float:
    return parse_duration(every)
