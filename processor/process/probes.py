"""Probes and metrics over HTTP: `/healthz` (the loop moves), `/readyz` (the numbers are restored), `/metrics`.

A thread of the standard library's server; it only looks. With several processes, child i listens on port + i: each has
numbers, a health and metrics of its own, and a monitoring system adds up better than we could. It binds to 127.0.0.1
unless a host is given, since metrics name queues and job types.
"""

from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple

from processor import events
from processor.errors import SettingsError
from processor.executors.event_loop import AsyncPool
from processor.process.metrics import Scrape

if TYPE_CHECKING:
    from processor.engine.loop import Worker

log = events.logger(__name__)

STUCK_AFTER = 5.0
"""Seconds without a turn of the loop after which a worker counts as stuck."""
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


class Address(NamedTuple):
    """Where to listen."""

    host: str
    port: int

    def plus(self, index: int) -> Address:
        """The address of child `index`; port 0 (any free one) stays 0."""
        return Address(self.host, self.port + index if self.port else 0)


def parse_address(text: str) -> Address:
    """`9100`, `0.0.0.0:9100` or `[::1]:9100`.

    Raises:
        SettingsError: it is none of these.
    """
    host, _, port = text.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not port.isdecimal() or int(port) > 65_535:
        raise SettingsError(f"{text!r} is no address to listen on", hint="write PORT or HOST:PORT, e.g. 0.0.0.0:9100")
    return Address(host, int(port))


class Probes:
    """The server of one worker process.

    Raises:
        SettingsError: the address is taken or not ours.
    """

    def __init__(self, worker: Worker, address: Address, *, stuck_after: float = STUCK_AFTER) -> None:
        self._worker = worker
        self._stuck_after = stuck_after
        self._scrape = Scrape(worker)
        handler = type("Handler", (_Handler,), {"probes": self})
        try:
            self._server = (_Server6 if ":" in address.host else _Server)((address.host, address.port), handler)
        except OSError as error:
            raise SettingsError(
                f"cannot listen on {address.host}:{address.port}: {error.strerror}",
                hint="choose another --http port; with --processes N, N ports from there on are used",
            ) from error
        self.port: int = self._server.server_address[1]
        log.info("probes.listening", extra={"host": address.host, "port": self.port})
        self._thread = threading.Thread(target=self._server.serve_forever, name="probes", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Status, content type and body of a page."""
        if path == "/metrics":
            return 200, PROMETHEUS, self._scrape.render()
        if path == "/healthz":
            return _state(**self._health())
        if path == "/readyz":
            return _state(ok=self._worker.ready, numbers=len(self._worker.state.numbers))
        return 404, "text/plain", b"/healthz /readyz /metrics\n"

    def _health(self) -> dict[str, Any]:
        last = self._worker.last_turn
        silent = 0.0 if last == 0.0 else self._worker.state.clock.monotonic() - last
        facts = {"last_turn_seconds_ago": round(silent, 3), **self._held_up(), **self._all_wait()}
        return {"ok": silent < self._stuck_after, **facts}

    def _held_up(self) -> dict[str, Any]:
        """Event loops that a handler holds up. No reason to restart the process: the job would be at it again."""
        found = {}
        for (queue, _), ready_queue in list(self._worker.dispatch.ready_queues.items()):
            held = ready_queue.pool.held_up if isinstance(ready_queue.pool, AsyncPool) else None
            if held is not None:
                found[queue] = {**held._asdict(), "seconds": round(held.seconds, 1)}
        return {"event_loops_held_up": found} if found else {}

    def _all_wait(self) -> dict[str, Any]:
        """Queues whose slots all hold handlers that wait for jobs without one. No reason to restart, as above."""
        found = {
            queue: deadlock._asdict()
            for (queue, _), deadlock in self._worker.housekeeping.timers.waiters.found.copy().items()
        }
        return {"slots_all_wait": found} if found else {}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # A restarted worker takes the port of the one that was killed.
    allow_reuse_address = True


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    probes: Probes
    server_version = "processor"
    sys_version = ""
    timeout = 5.0

    def do_GET(self) -> None:
        status, kind, body = self.probes.answer(self.path.partition("?")[0])
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """A scrape every few seconds is not worth a line."""


def _state(*, ok: bool, **facts: Any) -> tuple[int, str, bytes]:
    return (200 if ok else 503), "application/json", json.dumps({"ok": ok, **facts}).encode() + b"\n"
