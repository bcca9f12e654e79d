"""Which addresses could not be reached, and how long whoever asks a broker wants to wait.

A client that times out knows only that nobody answered. What its connections met is told beside it, by address; and it
matters which: a cluster that answers at its bootstrap address and names a broker elsewhere cannot be used either.
"""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import NamedTuple

RECENT = 60.0
"""Seconds for which a broken connection may be the reason of what goes wrong."""
_MOST = 20
_TOLD = re.compile(r"(?P<address>\S+?)/(?P<node>bootstrap|\d+): (?P<why>.*?)(?: \(after .*\))?$", re.DOTALL)
"""librdkafka's words: `127.0.0.1:9092/bootstrap: Connect to ipv4#127.0.0.1:9092 failed: ... (after 0ms in ...)`."""


class Unreachable(NamedTuple):
    """An address that no connection came to."""

    address: str
    why: str
    advertised: bool
    """A broker of the cluster gave this address; else it is one of the configured ones."""
    at: float
    """Monotonic seconds."""


_met: dict[tuple[str, str], Unreachable] = {}
"""(bootstrap, address) -> what was met there last."""
_until: ContextVar[float] = ContextVar("until", default=math.inf)


def met(bootstrap: str, told: str) -> None:
    """A connection broke; `told` is what the client library says of it."""
    found = _TOLD.match(told)
    if found is None:
        return
    if len(_met) >= _MOST:
        _met.clear()
    address, why = found["address"], found["why"].rpartition(" failed: ")[2]
    _met[bootstrap, address] = Unreachable(address, why, found["node"] != "bootstrap", time.monotonic())


def unreachable(bootstrap: str) -> Unreachable | None:
    """The address that lately could not be reached; one that a broker has given rather than a configured one."""
    since = time.monotonic() - RECENT
    found = [each for (where, _), each in list(_met.items()) if where == bootstrap and each.at >= since]
    return max(found, key=lambda each: (each.advertised, each.at), default=None)


def trouble(bootstrap: str) -> str:
    """Why nobody answers, in a few words."""
    found = unreachable(bootstrap)
    if found is None:
        return f"no Kafka broker at {bootstrap} answered in time"
    if found.advertised and found.address not in bootstrap.split(","):
        return f"Kafka at {bootstrap} names the broker {found.address}, which cannot be reached: {found.why}"
    return f"no Kafka broker at {bootstrap} answered in time: {found.why}"


def advice(bootstrap: str) -> str:
    """What to do about it."""
    found = unreachable(bootstrap)
    if found is not None and found.advertised and found.address not in bootstrap.split(","):
        return f"let the broker advertise an address that this host can reach (advertised.listeners: {found.address})"
    if bootstrap.startswith(("localhost:", "127.0.0.1:")):
        return f"check that Kafka runs and listens on {bootstrap}; `processor broker start` runs one on this machine"
    return f"check that Kafka runs and that {bootstrap} can be reached from this host"


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """What the broker is asked in here gives up after so many seconds in all, if not before."""
    token = _until.set(min(_until.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _until.reset(token)


def until() -> float:
    """When whoever asks now gives up (monotonic seconds); infinite if nobody has said."""
    return _until.get()
