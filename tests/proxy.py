"""A TCP proxy that knows Kafka's frames: it can hold one back, freeze, slow down or cut a client's connections.

Every response is rewritten so that the broker's address becomes the proxy's: a client that starts at the proxy stays
behind it. Both addresses are `127.0.0.1` and four bytes of port, so no length changes.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Self

PRODUCE, ADD_PARTITIONS_TO_TXN, END_TXN, TXN_OFFSET_COMMIT = 0, 24, 26, 28
"""API keys of requests."""


def is_abort(end_txn: bytes) -> bool:
    """Whether this END_TXN request (up to version 2, without tagged fields) aborts: the last byte is `committed`."""
    return end_txn[-1] == 0


class HeldFrame:
    """A request that has left its client and has not reached the broker yet."""

    def __init__(self) -> None:
        self._frame = b""
        self._link: _Link | None = None
        self._caught = threading.Event()
        self.answered = threading.Event()

    @property
    def caught(self) -> bool:
        """Whether the request was sent by now."""
        return self._caught.is_set()

    @property
    def correlation(self) -> bytes:
        """What the answer will carry."""
        return self._frame[8:12]

    def catch(self, link: _Link, frame: bytes) -> None:
        """Called by the proxy."""
        self._frame, self._link = frame, link
        self._caught.set()

    def release(self, timeout: float = 10.0) -> None:
        """Let the request reach the broker, and wait until the broker has answered it."""
        if self._link is None:
            raise AssertionError("no frame was held")
        self._link.upstream.sendall(self._frame)
        if not self.answered.wait(timeout):
            raise AssertionError("the broker did not answer the late frame")
        self._link.close()


class _Link:
    """One client connection and the broker connection behind it."""

    def __init__(self, client: socket.socket, upstream: socket.socket) -> None:
        self.client = client
        self.upstream = upstream
        self.held: HeldFrame | None = None

    def drop_client(self) -> None:
        _shut(self.client)

    def close(self) -> None:
        _shut(self.client)
        _shut(self.upstream)


class FrameProxy:
    """Stands between clients and one broker. Close it, or use it in a `with`."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._real = b"127.0.0.1" + struct.pack(">i", target[1])
        self._ours = b"127.0.0.1" + struct.pack(">i", self.port)
        self._lock = threading.Lock()
        self._links: set[_Link] = set()
        self._holding: dict[int, tuple[HeldFrame, Callable[[bytes], bool]]] = {}
        self._flowing = threading.Event()
        self._flowing.set()
        self._closed = threading.Event()
        self.refusing = False
        """Drop new connections at once."""
        self.connections = 0
        """How many were made, those that were dropped too."""
        self.seen: Counter[int] = Counter()
        """How many requests came, by API key."""
        self.latency_s = 0.0
        """Delay of every frame, each way."""
        self._start(self._accept)

    @property
    def bootstrap(self) -> str:
        """For `bootstrap.servers`."""
        return f"127.0.0.1:{self.port}"

    def hold(self, api_key: int, where: Callable[[bytes], bool] = lambda frame: True) -> HeldFrame:
        """Hold back the next request of this kind (for which `where` says so, of the whole frame) and cut its client
        off, which then sends it again elsewhere.
        """
        held = HeldFrame()
        with self._lock:
            self._holding[api_key] = (held, where)
        return held

    def advertise(self, port: int) -> None:
        """From now on the broker names this port of 127.0.0.1 as its own address, instead of the proxy's."""
        self._ours = b"127.0.0.1" + struct.pack(">i", port)

    def freeze(self) -> None:
        """Deliver nothing, keep the connections."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Deliver again, also what has gathered."""
        self._flowing.set()

    def cut(self) -> None:
        """Break every connection."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.close()

    def close(self) -> None:
        """Break everything and stop listening."""
        self.refusing = True
        self._closed.set()
        self._flowing.set()
        _shut(self._listener)
        self.cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            client, _ = self._listener.accept()
            self.connections += 1
            if self.refusing:
                _shut(client)
                continue
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            upstream = socket.create_connection(self._target)
            upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = _Link(client, upstream)
            with self._lock:
                self._links.add(link)
            self._start(self._requests, link)
            self._start(self._responses, link)

    def _requests(self, link: _Link) -> None:
        while True:
            frame = _read_frame(link.client)
            if frame is None:
                link.close()
                return
            self._pass()
            api_key = struct.unpack(">h", frame[4:6])[0]
            with self._lock:
                self.seen[api_key] += 1
                held, where = self._holding.get(api_key, (None, bool))
                if held is not None and where(frame):
                    del self._holding[api_key]
                else:
                    held = None
            if held is not None:
                link.held = held
                held.catch(link, frame)
                link.drop_client()
                return
            link.upstream.sendall(frame)

    def _responses(self, link: _Link) -> None:
        while True:
            frame = _read_frame(link.upstream)
            if frame is None:
                link.close()
                with self._lock:
                    self._links.discard(link)
                return
            self._pass()
            if link.held is not None and frame[4:8] == link.held.correlation:
                link.held.answered.set()
            with contextlib.suppress(OSError):
                link.client.sendall(frame.replace(self._real, self._ours))

    def _pass(self) -> None:
        self._flowing.wait()
        if self.latency_s:
            self._closed.wait(self.latency_s)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        def run() -> None:
            # The peer, or close(), breaks the sockets under these threads at any point.
            with contextlib.suppress(OSError):
                work(*arguments)

        threading.Thread(target=run, name="frame-proxy", daemon=True).start()


def _read_frame(source: socket.socket) -> bytes | None:
    """A whole frame with its length, or None at the end of the stream."""
    head = _read(source, 4)
    if head is None:
        return None
    body = _read(source, struct.unpack(">i", head)[0])
    return None if body is None else head + body


def _read(source: socket.socket, count: int) -> bytes | None:
    chunks: list[bytes] = []
    while count:
        try:
            chunk = source.recv(count)
        except OSError:
            return None
        if not chunk:
            return None
        chunks.append(chunk)
        count -= len(chunk)
    return b"".join(chunks)


def _shut(target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
    target.close()
