"""Server-sent events: one job's progress as it goes, and a word to live lists that something has changed.

An event is where things stand, whole, so a viewer that was away misses nothing by getting the newest alone: its
`Last-Event-ID` says whether it has that one already.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request
from starlette.responses import Response, StreamingResponse

from processor.ops.queries import Row
from processor.ops.roles import Permission, User
from processor.ops.web.desk import desk_of, needs, user_of
from processor.ops.web.feed import Feed
from processor.states import TERMINAL, State

router = APIRouter(prefix="/api/v1")

TELL_EVERY = 2.0
"""Seconds between two events of a list: whoever hears one asks for the list again."""
HEARTBEAT = 15.0
"""Seconds of silence after which a comment is sent, so that proxies keep the stream open."""
LONGEST = 900.0
"""Seconds that a stream lasts. Browsers come again by themselves, and whoever may not ask any more is refused then."""
APPEARS = 60.0
"""Seconds to wait for a job that nobody knows: one that was enqueued just now is not in the projection yet."""
RETRY_MS = 3000
_TOLD = ("id", "type", "queue", "state", "life", "attempt", "done", "total", "note", "worker", "changed_at", "due_at")


class Stream:
    """The events of one viewer.

    Args:
        feed: what changes.
        user: who watches.
        last: the id of the last event that it has; empty: none.
    """

    def __init__(self, feed: Feed, user: User, last: str) -> None:
        self._feed = feed
        self._user = user
        self._last = last
        loop = asyncio.get_running_loop()
        self._now = loop.time
        self._began = self._spoke = loop.time()

    async def of_everything(self) -> AsyncIterator[str]:
        """`changed`, whenever something is new that this viewer may see; at most one in `TELL_EVERY`."""
        with self._feed.watching(self._user, ""):
            yield f"retry: {RETRY_MS}\n\n"
            told = self._began - TELL_EVERY
            async for beat in self._turns():
                place = self._feed.seen.place_for(self._user.queues)
                if place == self._last or self._now() - told < TELL_EVERY:
                    if beat:
                        yield beat
                    continue
                told = self._now()
                yield self._event("changed", place, {})

    async def of_job(self, job_id: str, *, follow: bool) -> AsyncIterator[str]:
        """`status` whenever it stands elsewhere, `end` with its last one; with `follow` its next lives as well."""
        with self._feed.watching(self._user, job_id):
            yield f"retry: {RETRY_MS}\n\n"
            async for beat in self._turns():
                row = self._feed.seen.jobs.get(job_id)
                if row is not None and not self._user.has(row["queue"]):
                    row = None
                if row is None and not follow and self._now() - self._began > APPEARS:
                    yield self._event("unknown", "unknown", {"id": job_id})
                    return
                ends = row is not None and not follow and row["state"] in TERMINAL
                if row is not None and version(row) != self._last:
                    yield self._event("end" if ends else "status", version(row), told(row))
                elif beat:
                    yield beat
                if ends:
                    return

    async def _turns(self) -> AsyncIterator[str]:
        """At each look: a heartbeat if it is time for one."""
        while not self._feed.closed and self._now() - self._began < LONGEST:
            await self._feed.turned()
            beat = self._now() - self._spoke >= HEARTBEAT
            if beat:
                self._spoke = self._now()
            yield ":\n\n" if beat else ""

    def _event(self, name: str, event_id: str, data: Mapping[str, Any]) -> str:
        self._last, self._spoke = event_id, self._now()
        # JSON in one line: no line of a note can begin a field of its own.
        return f"id: {event_id}\nevent: {name}\ndata: {json.dumps(data)}\n\n"


def version(row: Row) -> str:
    """The id of the event that tells of a job as it stands."""
    return f"{row['life']}.{row['attempt']}.{row['state']}.{row['status_offset']}.{row['changed_at']}"


def told(row: Row) -> dict[str, Any]:
    """What an event tells of a job."""
    error = {"kind": row["error_kind"], "message": row["error_message"]} if row["error_kind"] else None
    return {**{name: row[name] for name in _TOLD}, "error": error}


LastId = Annotated[str, Header(alias="last-event-id", max_length=200)]


@router.get("/events", dependencies=[Depends(needs(Permission.SEE))], response_class=StreamingResponse)
async def everything(request: Request, last: LastId = "") -> Response:
    """`changed` whenever something has changed: ask again for the list that you show. Server-sent events."""
    feed, user = desk_of(request).feed, user_of(request)
    feed.admit(user)
    return _streamed(Stream(feed, user, last).of_everything())


@router.get(
    "/jobs/{job_id:path}/events",
    dependencies=[Depends(needs(Permission.ONE))],
    response_class=StreamingResponse,
    responses={204: {"description": "It has ended, and you have its end: do not come again."}},
)
async def of_job(request: Request, job_id: str, follow: bool = False, last: LastId = "") -> Response:
    """One job as it goes: `status` with state, progress and note whenever one changes, and `end`. Server-sent events.

    A job that was enqueued just now is waited for. With `follow` the stream stays over the end, for the next life.
    """
    feed, user = desk_of(request).feed, user_of(request)
    feed.admit(user)
    if not follow and last and (last == "unknown" or _has_ended(last)):
        # A browser that was told the end comes again, since the stream has closed; this stops it.
        return Response(status_code=204)
    return _streamed(Stream(feed, user, last).of_job(job_id, follow=follow))


def _has_ended(last: str) -> bool:
    parts = last.split(".")
    return len(parts) == 5 and parts[2] in {State(state).value for state in TERMINAL}


def _streamed(body: AsyncIterator[str]) -> StreamingResponse:
    # A proxy must not gather the events.
    return StreamingResponse(body, media_type="text/event-stream", headers={"x-accel-buffering": "no"})
