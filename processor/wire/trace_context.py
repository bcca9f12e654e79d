"""W3C trace context as it travels with a job (https://www.w3.org/TR/trace-context/): the `traceparent` of whoever
enqueued it, then a blank and the `tracestate` if there is one. Pure, and without OpenTelemetry: a worker that traces
nothing passes it on all the same.

What comes from outside may be anything. What is no trace context counts as none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple

from processor.wire.headers import TRACEPARENT, TRACESTATE, header

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]*)?")
_STATE = re.compile(r"[ -~]{1,512}")
"""512 characters are what everybody has to pass on; a longer one may be left out."""
_LONGEST = 512


class TraceContext(NamedTuple):
    """A span of somebody's."""

    trace_id: int
    span_id: int
    flags: int
    """1: sampled."""
    state: str = ""
    """`tracestate`, as it came."""


class OwnTrace(NamedTuple):
    """The trace of a job."""

    trace_id: int
    span_id: int
    """Of its root, which nobody writes: the spans of its attempts lie side by side below it."""


def own_trace(job_id: str) -> OwnTrace:
    """The trace of all attempts of a job, on whatever worker and in whatever life: it follows from the id, so nobody
    has to tell anybody.
    """
    digest = sha256(b"trace of job " + job_id.encode("utf-8", "replace")).digest()
    # Zero would be no id. The lower bits decide of sampling by ratio, so they are left alone.
    return OwnTrace(int.from_bytes(digest[:16]) | 1 << 127, int.from_bytes(digest[16:24]) | 1 << 63)


def as_text(context: TraceContext) -> str:
    """As it travels in a job."""
    parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.flags & 0xFF:02x}"
    return f"{parent} {context.state}" if _STATE.fullmatch(context.state) else parent


def parsed(text: str | None) -> TraceContext | None:
    """What travelled in a job; None: nothing, or nothing that can be read."""
    if not text:
        return None
    parent, _, state = text.partition(" ")
    found = _PARENT.fullmatch(parent) if len(parent) <= _LONGEST else None
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    # Later versions may say more behind what is known; version 0 may not, and ff is none.
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return TraceContext(int(trace_id, 16), int(span_id, 16), int(flags, 16), state if _STATE.fullmatch(state) else "")


def of_headers(headers: Iterable[tuple[str, bytes | None]] | None) -> str | None:
    """What the headers of a record say, as it travels in a job; None: nothing that can be read."""
    parent = header(headers, TRACEPARENT)
    if parent is None:
        return None
    state = header(headers, TRACESTATE) or b""
    found = parsed(f"{parent.decode('ascii', 'replace').strip()} {state.decode('ascii', 'replace').strip()}")
    return None if found is None else as_text(found)
