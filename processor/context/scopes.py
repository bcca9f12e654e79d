"""Names of steps and loops, as far as they reach: the whole handler, or one item of a loop."""

from __future__ import annotations

import functools
from typing import Protocol

from processor.errors import DuplicateName, NameNotAllowed
from processor.job import Step
from processor.texts import shown
from processor.wire.names import NAME_BYTES, RULE, SCOPED_BYTES, exact, fault_of


@functools.lru_cache(maxsize=4096)
def escaped(name: str) -> str:
    """A name that cannot be mistaken for a scope."""
    return name.replace("%", "%25").replace("/", "%2F").replace("[", "%5B")


def allowed_name(name: object, what: str = "a step or loop") -> str:
    """A name that a handler has given.

    Raises:
        NameNotAllowed: it cannot be one.
    """
    fault = fault_of(name, NAME_BYTES)
    if fault is not None or not isinstance(name, str):
        raise NameNotAllowed(
            f"{shown(name, 100)} cannot be the name of {what}: {fault}",
            hint=f"a name is a str of at most {NAME_BYTES} bytes, {RULE}",
        )
    return exact(name)


class Scope:
    """The names of one scope: the whole handler, or one item of a loop."""

    __slots__ = ("asked", "frozen", "left", "path", "spawned", "steps", "unasked_loops", "unasked_steps")

    def __init__(self, path: str, steps: dict[str, Step] | None, loops: set[str] | None) -> None:
        self.path = path
        """`` at the top, else e.g. `rows[501]/`: what its names begin with."""
        self.asked: set[str] = set()
        """Scoped names that were used."""
        self.steps: list[str] = []
        """Those of them that are steps."""
        self.spawned: dict[str, int] = {}
        """Children by job type, to count their index."""
        self.left: str | None = None
        """A loop of this scope that was left inside an item (`break`, a caught exception)."""
        self.frozen = False
        """A large state was left that way: what it was at the item's start is not known, so nothing more of this scope
        can be saved. The outer item, or the handler, is redone from the last snapshot."""
        self.unasked_steps: dict[str, Step] = {} if steps is None else steps
        self.unasked_loops: set[str] = set() if loops is None else loops

    def ask(self, name: str) -> str:
        """The scoped name of `name`, which must be new here."""
        full = self.path + escaped(allowed_name(name))
        if len(full) > SCOPED_BYTES // 4 and len(full.encode()) > SCOPED_BYTES:
            size = f"{len(full.encode()):,} bytes with its scope, {SCOPED_BYTES:,} are allowed"
            raise NameNotAllowed(
                f"the step or loop {name!r} has a name of {size}",
                hint="the cursors of its loops stand in it: use shorter ones, an id instead of a whole row",
            )
        if full in self.asked:
            raise DuplicateName(
                f"{full!r} is used twice",
                hint="a saved result is found by its name: give each step and loop of a scope a name of its own",
            )
        self.asked.add(full)
        return full

    def unasked(self) -> list[str]:
        """Saved names that were not used yet."""
        return sorted([*self.unasked_steps, *self.unasked_loops])


class OpenLoop(Protocol):
    """An open loop, as far as the rules care."""

    in_item: bool
    """Between handing an item out and being asked for the next one."""

    def item_scope(self) -> Scope:
        """The scope of the item being worked on."""
        ...


def scope_of(full: str) -> str:
    """`rows[501]/` of `rows[501]/refund`: the last slash divides, names have none and a cursor's stand before it."""
    return full[: full.rfind("/") + 1]
