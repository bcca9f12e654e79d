"""Putting it together: the application, and the thread that keeps the projection up to date."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exception_handlers import http_exception_handler, request_validation_exception_handler
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from processor.app import App
from processor.clock import Clock, SystemClock
from processor.errors import ProcessorError
from processor.ops.bulk.job import Bulks, Tools
from processor.ops.bulk.worker import BulkWorker
from processor.ops.login import Login
from processor.ops.projector import Projector
from processor.ops.store import Store
from processor.ops.web.answers import error_answer, error_page
from processor.ops.web.desk import Desk
from processor.ops.web.gate import Gate
from processor.ops.web.routes import ROUTERS

_HERE = Path(__file__).parent


def create(
    app: App,
    store: Store,
    login: Login,
    *,
    projector: Projector | None = None,
    clock: Clock | None = None,
    bulks: Bulks | None = None,
) -> FastAPI:
    """The dashboard of an app as an ASGI application.

    Args:
        app: whose jobs; only what it declares is known of payloads.
        store: its projection.
        login: who may ask.
        projector: kept running while the application does; None: another process does that.
        clock: of this process.
        bulks: bulk actions, if somebody else runs them; None: this application does while it runs.
    """
    clock = clock or SystemClock()
    many = bulks or Bulks(Tools(app=app, store=store, clock=clock))
    # The interactive documentation would be loaded from another host.
    made = FastAPI(
        title="processor",
        version="1",
        lifespan=lambda _: _running(projector, BulkWorker(many) if bulks is None else None),
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
    )
    made.state.desk = Desk.opened(app, store, clock, many)
    made.state.login = login
    for router in ROUTERS:
        made.include_router(router)
    made.mount("/static", StaticFiles(directory=_HERE / "static"), name="static")
    made.add_exception_handler(ProcessorError, _answer)
    made.add_exception_handler(HTTPException, _no_page)
    made.add_exception_handler(RequestValidationError, _not_understood)
    made.add_middleware(Gate, login=login)
    return made


@asynccontextmanager
async def _running(projector: Projector | None, worker: BulkWorker | None) -> AsyncIterator[None]:
    """What runs beside the application: the projector and the worker of bulk actions, each in a thread."""
    stop = threading.Event()
    thread = None
    if projector is not None:
        thread = threading.Thread(target=projector.run, args=(stop,), name="projector", daemon=True)
        thread.start()
    if worker is not None:
        worker.start()
    try:
        yield
    finally:
        if worker is not None:
            await run_in_threadpool(worker.stop)
        stop.set()
        if thread is not None:
            await run_in_threadpool(thread.join, 10)


class Server(uvicorn.Server):
    """A server that ends the streams of events before it waits for its connections to close."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop: no new connections, the open ones to their end."""
        assert isinstance(self.config.app, FastAPI)
        await self.config.app.state.desk.feed.close()
        await super().shutdown(sockets)


def _answer(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProcessorError)
    return error_answer(request, error)


async def _no_page(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if request.url.path.startswith("/api/"):
        return await http_exception_handler(request, error)
    hint = "is the address right? The start leads to all pages"
    return error_page(request, error.status_code, f"there is no page {request.url.path[:200]}", hint, error.headers)


async def _not_understood(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    if request.url.path.startswith("/api/"):
        return await request_validation_exception_handler(request, error)
    told = "; ".join(f"{each['loc'][-1]}: {each['msg']}" for each in error.errors())
    return error_page(request, 422, told[:500], "go back and mend it")
