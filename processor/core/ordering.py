"""Per-key order within a number, across job types and lanes: jobs of one key run one at a time, in order of arrival.

Every key that is held has a *line*: who holds it, and who waits behind. A free key has none, so memory is bounded by
the live keys. Every call is O(1), whatever waits (amortised for entries that left their line early, see below).

*Depth.* A line is kept whole at its front, as far as the `MemoryBudget` goes. Behind that only (lane, offset) of each
job is kept, as one integer: it is spilled. So reading never has to stop for a blocked key, and a blocked key blocks no
other key, at any depth. When the whole part of a moving line gets short, `wants` names the next spilled ones, many at a
time; the worker reads them again and puts them back with `refill`. A spilled job whose turn comes first is read alone.

*Lending.* A job that waits for its children lends its key to them, else a child of the same key would wait for its
parent for ever. So holders form a stack: the parent below, one child at a time on top. Only children of the lender may
take a lent key: strangers keep waiting, or another job of the key would run in the middle of the parent. A child that
starts before its turn in the line leaves a hole there, which is skipped later.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

from processor.core.memory_budget import MemoryBudget

E = TypeVar("E")


class Spilled(NamedTuple):
    """The place of a job that is not kept whole. From `finished`: its turn has come, it runs once read again."""

    lane: str
    offset: int


class Reclaimed(NamedTuple):
    """The next to go on is the lender itself, which had asked for its key back."""

    holder: str


class Again(Enum):
    """What a record that was read again is."""

    NEXT = "next"
    """Its turn has come: `hold` the key in its name, or call `finished` with None."""
    WAITS = "waits"
    """The first of the spilled ones: `refill` its line, or `skip` it."""
    STAYS = "stays"
    """There is no room for it, or it is not the first: its line asks again."""


@dataclass(slots=True)
class _Waiting(Generic[E]):
    id: str
    entry: E | Spilled | None
    """None once it has left the line early."""
    size: int
    """Bytes counted against the room; -1 for one that is spilled."""
    parent: str | None


@dataclass(slots=True)
class _Holder:
    id: str | None
    """None: a spilled job that is being read again."""
    place: int = -1
    """Of a spilled job, packed."""
    lent: bool = False
    wanted_back: bool = False


@dataclass(slots=True)
class _Line(Generic[E]):
    holders: list[_Holder]
    """The job that runs last, those that lent it the key below."""
    waiting: deque[_Waiting[E]] | None = None
    """The front, whole, in order of arrival."""
    spilled: deque[_Waiting[E] | int] | None = None
    """What arrived after those in `waiting`; an integer is the packed place of a job without a parent."""
    children: dict[str, deque[_Waiting[E]]] | None = None
    """The same entries once more, those that have a parent, by its id."""
    asked: set[int] | None = None
    """Packed places that `wants` has named and that `again` has not seen."""
    kept: int = 0
    kept_bytes: int = 0


class KeyOrder(Generic[E]):
    """The held keys of one number. `E` is whatever the worker starts a job from.

    A job asks with `offer`; when it is over, is retried elsewhere and *not* to block its key, or turns out to be gone,
    `finished` says who is next, and `wants` what should be read again. Jobs without a key never come here.
    """

    __slots__ = ("_budget", "_lanes", "_lines", "_spilled", "_waiting", "_waiting_bytes")

    def __init__(self, budget: MemoryBudget | None = None) -> None:
        self._budget = budget or MemoryBudget()
        """Shared with the other numbers of a worker."""
        self._lines: dict[str, _Line[E]] = {}
        self._lanes: list[str] = []
        self._waiting = 0
        self._waiting_bytes = 0
        self._spilled = 0

    def offer(self, key: str, job_id: str, entry: E, place: Spilled, size: int, parent: str | None = None) -> bool:
        """A job was read. True: start it now, it holds its key; False: it waits, and comes back from `finished`.

        Args:
            place: where its record lies, for the case that it is spilled.
            size: bytes it holds in memory.
            parent: id of the job that spawned it; the child of a lender starts on the lent key.
        """
        line = self._lines.get(key)
        if line is None:
            self._lines[key] = _Line([_Holder(job_id)])
            return True
        if any(holder.id == job_id for holder in line.holders):
            return True  # back from its retry: the key has waited for it
        top = line.holders[-1]
        if top.lent and parent is not None and parent == top.id:
            line.holders.append(_Holder(job_id))
            return True
        self._wait(line, _Waiting(job_id, entry, size, parent), place)
        return False

    def queue(self, key: str, job_id: str, entry: E, place: Spilled, size: int) -> None:
        """As `offer` for a later life of a job that holds the key or waits for it: it waits behind that in any case."""
        self._wait(self._lines[key], _Waiting(job_id, entry, size, None), place)

    def replace(self, key: str, old: E, new: E) -> bool:
        """An entry that waits whole becomes another one; whether it was there."""
        line = self._lines.get(key)
        for waiting in (line.waiting if line is not None else None) or ():
            if waiting.entry is old:
                waiting.entry = new
                return True
        return False

    def block(self, key: str, holder: str) -> None:
        """A restored live job holds its key. Before fetching resumes; a lender before the children it lent to."""
        line = self._lines.get(key)
        if line is None:
            self._lines[key] = _Line([_Holder(holder)])
        elif all(known.id != holder for known in line.holders):
            line.holders.append(_Holder(holder))

    def hold(self, key: str, holder: str) -> None:
        """The spilled job that `finished` named has been read again; this is its id."""
        line = self._lines.get(key)
        if line and line.holders[-1].id is None:
            line.holders[-1].id, line.holders[-1].place = holder, -1

    def finished(self, key: str, holder: str | None) -> E | Spilled | Reclaimed | None:
        """A holder is done with the key. Returns who goes on now; that one holds the key already.

        Args:
            holder: its id; None for a spilled job whose record turned out to need no run.
        """
        line = self._lines.get(key)
        found = self._find(line, holder)
        if line is None or found is None:
            return None
        line.holders.remove(found)
        return self._advance(key, line)

    def lend(self, key: str, holder: str) -> E | Spilled | Reclaimed | None:
        """A holder waits for its children now. Returns the first of them that already waits, to be started."""
        line = self._lines.get(key)
        found = self._find(line, holder)
        if line is None or found is None:
            return None
        found.lent, found.wanted_back = True, False
        return self._advance(key, line)

    def reclaim(self, key: str, holder: str) -> bool:
        """A lender waits no more. True: it goes on now; False: a child still runs, `finished` will say `Reclaimed`."""
        line = self._lines.get(key)
        found = self._find(line, holder)
        if line is None or found is None:
            return False
        if line.holders[-1] is found:
            found.lent = False
            return True
        found.wanted_back = True
        return False

    def wants(self, key: str) -> list[Spilled]:
        """Spilled jobs of a key to be read again now, in their order; each is named once, until `again` has seen it."""
        line = self._lines.get(key)
        if line is None:
            return []
        places: list[int] = []
        top = line.holders[-1]
        asked = line.asked
        if top.id is None and not (asked and top.place in asked):
            places.append(top.place)
        if line.spilled and not asked:
            target = min(self._budget.share(), REFILL)
            if line.kept <= target // 2:
                places += self._front(line, target - line.kept)
        if not places:
            return []
        line.asked = (asked or set()).union(places)
        return [self._unpack(place) for place in places]

    def again(self, key: str, place: Spilled, size: int) -> Again:
        """A record that `wants` named has been read again: what it is for its key now."""
        line = self._lines.get(key)
        packed = self._pack(place)
        if line is None:
            return Again.STAYS
        if line.asked:
            line.asked.discard(packed)
        top = line.holders[-1]
        if top.id is None and top.place == packed:
            return Again.NEXT
        if self._front(line, 1) == [packed] and self._budget.fits(line.kept, line.kept_bytes, size):
            return Again.WAITS
        return Again.STAYS

    def refill(self, key: str, job_id: str, entry: E, size: int) -> None:
        """The first spilled job of a key, which `again` said waits, is whole again."""
        line = self._lines[key]
        waiting = self._pop_spilled(line)
        if not isinstance(waiting, _Waiting):
            waiting = _Waiting(job_id, entry, size, None)
        waiting.entry, waiting.size = entry, size
        self._keep(line, waiting)

    def skip(self, key: str) -> None:
        """The first spilled job of a key, which `again` said waits, needs no run."""
        line = self._lines[key]
        waiting = self._pop_spilled(line)
        if isinstance(waiting, _Waiting):
            waiting.entry = None
            self._leave_siblings(line, waiting)

    def is_held(self, key: str) -> bool:
        """Whether a job of this key runs, waits or is blocked."""
        return key in self._lines

    @property
    def held_keys(self) -> int:
        """Keys that are not free."""
        return len(self._lines)

    @property
    def waiting_count(self) -> int:
        """Entries that are kept whole."""
        return self._waiting

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the entries that are kept whole."""
        return self._waiting_bytes

    @property
    def spilled_count(self) -> int:
        """Entries that are kept as their place only."""
        return self._spilled

    def drop_all(self) -> None:
        """The number is given up: forget everything."""
        self._lines.clear()
        self._budget.give(self._waiting_bytes, self._waiting)
        self._waiting = self._waiting_bytes = self._spilled = 0

    def _wait(self, line: _Line[E], waiting: _Waiting[E], place: Spilled) -> None:
        # Behind a spilled one everything is spilled: it could not start before that one anyway.
        if not line.spilled and self._budget.fits(line.kept, line.kept_bytes, waiting.size):
            self._keep(line, waiting)
        else:
            if line.spilled is None:
                line.spilled = deque()
            self._spilled += 1
            if waiting.parent is None:
                line.spilled.append(self._pack(place))
                return
            waiting.entry, waiting.size = place, -1
            line.spilled.append(waiting)
        if waiting.parent is not None:
            if line.children is None:
                line.children = {}
            line.children.setdefault(waiting.parent, deque()).append(waiting)

    def _keep(self, line: _Line[E], waiting: _Waiting[E]) -> None:
        if line.waiting is None:
            line.waiting = deque()
        line.waiting.append(waiting)
        line.kept += 1
        line.kept_bytes += waiting.size
        self._waiting += 1
        self._waiting_bytes += waiting.size
        self._budget.take(waiting.size)

    def _front(self, line: _Line[E], count: int) -> list[int]:
        """Packed places of the first spilled jobs of a line."""
        spilled = line.spilled
        while spilled and isinstance(spilled[0], _Waiting) and spilled[0].entry is None:
            spilled.popleft()
        places = []
        for waiting in islice(spilled or (), count):
            if isinstance(waiting, int):
                places.append(waiting)
            elif isinstance(waiting.entry, Spilled):
                places.append(self._pack(waiting.entry))
        return places

    def _pop_spilled(self, line: _Line[E]) -> _Waiting[E] | int | None:
        self._spilled -= 1
        return line.spilled.popleft() if line.spilled else None

    @staticmethod
    def _find(line: _Line[E] | None, holder: str | None) -> _Holder | None:
        if line is None:
            return None
        return next((known for known in reversed(line.holders) if known.id == holder), None)

    def _advance(self, key: str, line: _Line[E]) -> E | Spilled | Reclaimed | None:
        """Who goes on after the top of the stack has changed."""
        if line.holders:
            top = line.holders[-1]
            if top.wanted_back and top.id is not None:
                top.lent = top.wanted_back = False
                return Reclaimed(top.id)
            child = self._next_child(line, top) if top.lent else None
            return None if child is None else self._start(line, child)
        while line.waiting:
            waiting = line.waiting.popleft()
            if waiting.entry is not None:
                return self._start(line, waiting)
        while line.spilled:
            spilled = line.spilled.popleft()
            if isinstance(spilled, int):
                line.holders.append(_Holder(None, spilled))
                self._spilled -= 1
                return self._unpack(spilled)
            if spilled.entry is not None:
                return self._start(line, spilled)
        del self._lines[key]
        return None

    @staticmethod
    def _next_child(line: _Line[E], lender: _Holder) -> _Waiting[E] | None:
        children = line.children.get(lender.id) if line.children and lender.id is not None else None
        return children[0] if children else None

    def _start(self, line: _Line[E], waiting: _Waiting[E]) -> E | Spilled | None:
        entry, waiting.entry = waiting.entry, None
        if isinstance(entry, Spilled):
            self._spilled -= 1
            line.holders.append(_Holder(None, self._pack(entry)))
        else:
            line.kept -= 1
            line.kept_bytes -= waiting.size
            self._waiting -= 1
            self._waiting_bytes -= waiting.size
            self._budget.give(waiting.size)
            line.holders.append(_Holder(waiting.id))
        self._leave_siblings(line, waiting)
        return entry

    @staticmethod
    def _leave_siblings(line: _Line[E], waiting: _Waiting[E]) -> None:
        if waiting.parent is not None and line.children:
            # In both queues it leaves in order of arrival among its siblings, so it is the first of them.
            siblings = line.children[waiting.parent]
            siblings.popleft()
            if not siblings:
                del line.children[waiting.parent]

    def _pack(self, place: Spilled) -> int:
        if place.lane not in self._lanes:
            self._lanes.append(place.lane)
        return place.offset * _MAX_LANES + self._lanes.index(place.lane)

    def _unpack(self, packed: int) -> Spilled:
        offset, lane = divmod(packed, _MAX_LANES)
        return Spilled(self._lanes[lane], offset)


REFILL = 256
"""A line is refilled up to so many, as far as there is room."""
_MAX_LANES = 16
"""A queue has four."""
