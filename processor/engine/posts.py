"""What other threads have posted to the owning thread: each kind goes to whom it is for, in the order of its coming."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any, TypeVar, cast

from processor.engine.attempt import Attempt
from processor.runtime import Inbox

P = TypeVar("P")


class Posts:
    """The owning thread's inbox, and who takes which kind of post out of it."""

    def __init__(self, inbox: Inbox[object]) -> None:
        self._inbox = inbox
        self._reported: Callable[[Iterable[Attempt]], object]
        self._others: dict[type, Callable[[Any], object]] = {}

    def of_attempts(self, reported: Callable[[Iterable[Attempt]], object]) -> None:
        """Who takes attempts, nearly all that is ever posted: as many at once as came one after the other."""
        self._reported = reported

    def of(self, kind: type[P], act: Callable[[P], object]) -> None:
        """Who takes posts of another kind."""
        self._others[kind] = act

    def take(self) -> int:
        """Take what there is; how much it was."""
        posts = self._inbox.take()
        for kind, run in groupby(posts, type):
            if kind is Attempt:
                self._reported(cast("Iterable[Attempt]", run))
            else:
                act = self._others[kind]
                for post in run:
                    act(post)
        return len(posts)
