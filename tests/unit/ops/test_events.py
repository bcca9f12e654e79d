"""Server-sent events: what a viewer is told, when, and how many may watch."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from processor.ops.web import events, feed
from processor.ops.web.feed import Feed
from tests.unit.ops.conftest import Desk
from tests.unit.ops.shop import order
from tests.unit.ops.test_api import PASSWORDS, Web, basic, failed, users

__all__ = ["users"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The feed looks often."""
    monkeypatch.setattr(feed, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(events, "TELL_EVERY", 0.0)


@pytest.fixture
def web(desk: Desk, users: Any) -> Web:
    """A dashboard with passwords."""
    from processor.ops.login import BasicLogin

    return Web(desk, BasicLogin(users))


class Viewer:
    """One open stream, as the server sees it."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.text = ""
        self.ended = False
        self._more = asyncio.Event()
        self.gone = asyncio.Event()

    async def send(self, message: Mapping[str, Any]) -> None:
        """What the application says."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.text += message.get("body", b"").decode()
            self.ended = not message.get("more_body", False)
        self._more.set()

    def told(self) -> list[tuple[str, str, Any]]:
        """The events so far: (id, name, data)."""
        found = []
        for block in self.text.split("\n\n"):
            lines = dict(line.partition(": ")[::2] for line in block.splitlines() if line and not line.startswith(":"))
            if "event" in lines:
                found.append((lines["id"], lines["event"], json.loads(lines["data"])))
        return found

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait for something to hold."""
        async with asyncio.timeout(30):
            while not holds():
                self._more.clear()
                await self._more.wait()


@asynccontextmanager
async def watching(web: Web, path: str, role: str = "operator", last: str = "") -> AsyncIterator[Viewer]:
    """A stream that is open; at the end its browser goes away."""
    viewer = Viewer()
    headers = {"host": "localhost", **basic(role, PASSWORDS[role]), **({"last-event-id": last} if last else {})}
    where, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": where,
        "raw_path": where.encode(),
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("localhost", 80),
    }
    asked = False

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await viewer.gone.wait()
        return {"type": "http.disconnect"}

    task = asyncio.create_task(web.application(scope, receive, viewer.send))
    try:
        await viewer.until(lambda: viewer.status)
        yield viewer
    finally:
        viewer.gone.set()
        async with asyncio.timeout(30):
            await task


def feed_of(web: Web) -> Feed:
    found = web.application.state.desk.feed
    assert isinstance(found, Feed)
    return found


def play(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scene())


def test_a_job_is_told_of_until_its_end_and_whoever_has_the_end_is_told_not_to_come_again(desk: Desk, web: Web) -> None:
    job = desk.bed.enqueue(desk.shop.charge, order(7))
    path = f"/api/v1/jobs/{job.id}/events"

    async def scene() -> None:
        async with watching(web, path, "care") as viewer:
            assert viewer.headers["content-type"].startswith("text/event-stream")
            await viewer.until(lambda: viewer.text)
            assert viewer.told() == [], "nobody knows it yet"
            desk.look()
            await viewer.until(viewer.told)
            assert [(name, data["state"]) for _, name, data in viewer.told()] == [("status", "queued")]
            desk.bed.drain()
            desk.look()
            await viewer.until(lambda: viewer.ended)
            last, name, data = viewer.told()[-1]
            assert (name, data["state"], data["error"]) == ("end", "succeeded", None)
        async with watching(web, path, "care", last) as again:
            assert (again.status, again.text) == (204, "")
        assert feed_of(web).viewers == 0

    play(scene)


def test_whoever_comes_again_is_told_only_what_is_new(desk: Desk, web: Web) -> None:
    (job_id,) = failed(desk)
    path = f"/api/v1/jobs/{job_id}/events?follow=true"

    async def scene() -> None:
        async with watching(web, path) as viewer:
            await viewer.until(viewer.told)
            ((last, name, data),) = viewer.told()
            assert (name, data["state"]) == ("status", "dead"), "it may have a next life"
            assert data["error"]["message"].startswith("order 100 has no amount")
        async with watching(web, path, last=last) as viewer:
            desk.shop.fixed = True
            body = {"reason": "mended"}
            answer = await asyncio.to_thread(web.client("operator").post, f"/api/v1/jobs/{job_id}/redrive", json=body)
            assert answer.status_code == 200
            desk.bed.drain()
            desk.look()
            await viewer.until(lambda: viewer.told() and viewer.told()[-1][2]["state"] == "succeeded")
            assert {data["life"] for _, _, data in viewer.told()} == {2}

    play(scene)


def test_lists_hear_that_something_has_changed_and_nothing_else(desk: Desk, web: Web) -> None:
    desk.look()

    async def scene() -> None:
        async with watching(web, "/api/v1/events", "viewer") as viewer:
            await viewer.until(viewer.told)
            desk.bed.enqueue(desk.shop.mail)
            desk.look()
            await viewer.until(lambda: len(viewer.told()) == 2)
            assert [(name, data) for _, name, data in viewer.told()] == [("changed", {})] * 2
        async with watching(web, "/api/v1/events", "care") as refused:
            assert refused.status == 403

    play(scene)


def test_silence_is_filled_and_streams_end_with_the_dashboard(
    desk: Desk, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "HEARTBEAT", 0.02)
    (job_id,) = failed(desk)

    async def scene() -> None:
        async with watching(web, f"/api/v1/jobs/{job_id}/events?follow=true") as viewer:
            await viewer.until(lambda: viewer.text.count("\n:\n") >= 2)
            assert len(viewer.told()) == 1
            await feed_of(web).close()
            await viewer.until(lambda: viewer.ended)

    play(scene)


def test_no_more_watch_than_may_and_a_thread_serves_none_of_them(
    desk: Desk, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "MOST_OF_ONE", 20)
    (job_id,) = failed(desk)
    path = f"/api/v1/jobs/{job_id}/events?follow=true"
    looks = 0
    look = feed_of(web)._live.look

    def counted(ids: list[str]) -> Any:
        nonlocal looks
        looks += 1
        assert ids == [job_id]
        return look(ids)

    monkeypatch.setattr(feed_of(web)._live, "look", counted)

    async def scene() -> None:
        async with AsyncExitStack() as stack:
            viewers = [await stack.enter_async_context(watching(web, path)) for _ in range(20)]
            for viewer in viewers:
                await viewer.until(viewer.told)
            before = looks
            await asyncio.gather(*(feed_of(web).turned() for _ in range(20)))
            assert looks <= before + 1, "one look serves all"
            async with watching(web, path) as refused:
                assert (refused.status, json.loads(refused.text)["code"]) == (503, "too_many_viewers")
            async with watching(web, path, "care") as other:
                assert other.status == 200, "others may"
        async with watching(web, path) as viewer:
            assert viewer.status == 200, "those who left make room"

    play(scene)


def test_a_job_that_never_appears_is_not_waited_for_for_ever(
    desk: Desk, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "APPEARS", 0.05)
    desk.look()

    async def scene() -> None:
        async with watching(web, "/api/v1/jobs/none/events") as viewer:
            await viewer.until(lambda: viewer.ended)
            assert viewer.told() == [("unknown", "unknown", {"id": "none"})]

    play(scene)
