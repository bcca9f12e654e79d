"""A world's pages in a real server, and whoever asks named by a proxy: each role is a header away."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio.to_thread
import uvicorn
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from processor.ops.login import ProxyLogin, networks
from processor.ops.roles import Role, User
from processor.ops.web.serve import Server, create
from tests.browser.world import World

HEADER = "x-user"
USERS: dict[str, tuple[User, str]] = {role.value: (User(name=role.value, role=role), "") for role in Role}
USERS["limited"] = (User(name="limited", role=Role.OPERATOR, queues=frozenset({"orders"})), "")


class Fresh:
    """Middleware: pages show all that is in the log. One at a time, since a testbed runs one thing at a time."""

    def __init__(self, app: ASGIApp, world: World) -> None:
        self._app = app
        self._world = world

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and not scope["path"].startswith(("/static/", "/api/")):
            anyio.to_thread.current_default_thread_limiter().total_tokens = 1
            await run_in_threadpool(self._world.projector.catch_up)
        await self._app(scope, receive, send)


@contextmanager
def served(world: World) -> Iterator[str]:
    """The address of a world's dashboard, without a slash at its end."""
    login = ProxyLogin(USERS, HEADER, networks("127.0.0.1"))
    application: Any = create(world.shop.app, world.store, login, clock=world.bed.runtime.clock)
    application.add_middleware(Fresh, world=world)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(application, log_level="warning", proxy_headers=False, timeout_graceful_shutdown=5)
        server = Server(config)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), name="dashboard")
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)
