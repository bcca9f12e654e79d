"""What changes in the projection, for everybody who watches.

One task on the event loop looks for all of them; a viewer is a waiting coroutine, never a thread.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from processor import events
from processor.ops.errors import TooManyViewers
from processor.ops.live import Live, Look
from processor.ops.roles import User

log = events.logger(__name__)

LOOK_EVERY = 0.5
"""Seconds between two looks at the projection, while somebody watches."""
MOST, MOST_OF_ONE = 500, 50
"""Streams at a time: of all, and of one user."""


class Feed:
    """What changes, for everybody who watches.

    Args:
        live: where to look.
    """

    def __init__(self, live: Live) -> None:
        self._live = live
        self._watched: Counter[str] = Counter()
        self._viewers: Counter[str] = Counter()
        self._turn = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self.seen = Look(place="", changes={}, jobs={})
        """At the last look."""
        self.closed = False

    @property
    def viewers(self) -> int:
        """Streams that are open."""
        return self._viewers.total()

    def admit(self, user: User) -> None:
        """Refuse one stream too many.

        Raises:
            TooManyViewers: there are too many.
        """
        if self.viewers >= MOST or self._viewers[user.name] >= MOST_OF_ONE:
            raise TooManyViewers("too many pages and programs watch at the moment", hint="close some, or ask again")

    @contextmanager
    def watching(self, user: User, job_id: str) -> Iterator[None]:
        """One stream; of a job, or of everything."""
        self._viewers[user.name] += 1
        self._watched[job_id] += 1
        if self._looking is None or self._looking.done():
            self._turn = asyncio.Event()
            self._looking = asyncio.create_task(self._look(), name="dashboard.feed")
        try:
            yield
        finally:
            self._viewers[user.name] -= 1
            self._watched[job_id] -= 1
            # A name with nobody left goes from the table.
            self._viewers += Counter()
            self._watched += Counter()

    async def turned(self) -> None:
        """Wait for the next look."""
        await self._turn.wait()

    async def close(self) -> None:
        """End all streams. There is no way back."""
        self.closed = True
        self._turn.set()
        if self._looking is not None:
            self._looking.cancel()
            with suppress(asyncio.CancelledError):
                await self._looking

    async def _look(self) -> None:
        while self.viewers and not self.closed:
            try:
                self.seen = await run_in_threadpool(self._live.look, [name for name in self._watched if name])
            except SQLAlchemyError as error:
                # The database is away, which the pages say themselves. The next look may find it again.
                log.warning("feed.unread", extra={"error": str(error)})
            turn, self._turn = self._turn, asyncio.Event()
            turn.set()
            await asyncio.sleep(LOOK_EVERY)
