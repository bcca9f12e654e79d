"""Ids of fresh jobs: UUIDv7 (RFC 9562), so that they sort by the time they were made; and ids that callers choose."""

from __future__ import annotations

import os
import re
from collections import deque
from hashlib import blake2b

from processor.errors import NameInvalid
from processor.texts import shown
from processor.wire.names import ID_BYTES, KEY_BYTES, NAME_BYTES, RULE, exact, fault_of, fault_of_id, is_id


def uuid7(now_ms: int, random: bytes | None = None) -> str:
    """48 bits of milliseconds, then 74 random bits, in the usual notation.

    `uuid.uuid7` exists from Python 3.14 on, and reads the system clock by itself.
    """
    entropy = (_entropy() if random is None else random[:10]).hex()
    time = f"{now_ms:012x}"
    # Version 7 in the 13th digit; the two upper bits of the 17th say which kind of UUID it is.
    variant = "89ab"[int(entropy[3], 16) & 3]
    return f"{time[:8]}-{time[8:]}-7{entropy[:3]}-{variant}{entropy[4:7]}-{entropy[7:19]}"


def scheduled_id(schedule: str, instant_ms: int) -> str:
    """The id of the job that a schedule starts at an instant: always the same, and it tells the instant (`made_at`)."""
    digest = blake2b(f"{schedule} {instant_ms}".encode(), digest_size=10).digest()
    return uuid7(instant_ms, digest)


_POOL = 400
"""Ids for which entropy is fetched at a time: asking the system costs more than all else of an id."""
_pool: deque[bytes] = deque()


def _entropy() -> bytes:
    """Ten bytes that nobody else has: taking them out of the pool is atomic, so threads may share it."""
    while True:
        try:
            return _pool.pop()
        except IndexError:
            fresh = os.urandom(10 * _POOL)
            _pool.extend(fresh[place : place + 10] for place in range(0, len(fresh), 10))


# The child of a fork must not draw what its parent draws.
os.register_at_fork(after_in_child=_pool.clear)


_UUID7 = re.compile("([0-9a-f]{8})-([0-9a-f]{4})-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def made_at(job_id: str) -> int | None:
    """When a fresh id was made, milliseconds since the epoch by its maker's clock; None: it tells no time."""
    found = _UUID7.fullmatch(job_id)
    return None if found is None else int(found[1] + found[2], 16)


def checked_id(value: object) -> str:
    """An id that a caller has chosen.

    Raises:
        NameInvalid: it cannot be one.
    """
    if type(value) is str and is_id(value):
        return value
    fault = fault_of_id(value)
    if fault is not None or not isinstance(value, str):
        raise NameInvalid(
            f"{_shown(value)} cannot be the id of a job: {fault}",
            hint=f"an id is a str of at most {ID_BYTES} bytes, {RULE}, without '#'; leave it out for a fresh one",
        )
    return exact(value)


def checked_key(value: object) -> str:
    """An ordering key.

    Raises:
        NameInvalid: it cannot be one.
    """
    return _checked(value, "an ordering key", KEY_BYTES, "key= must return one for every payload: str(p.customer)")


def checked_idempotency_key(value: object) -> str:
    """An idempotency key.

    Raises:
        NameInvalid: it cannot be one.
    """
    return _checked(value, "an idempotency key", KEY_BYTES, "use what names the wish: str(order.id)")


def checked_type(value: object) -> str:
    """The name of a job type.

    Raises:
        NameInvalid: it cannot be one.
    """
    return _checked(value, "the name of a job type", NAME_BYTES, "use something like import.file")


def _checked(value: object, what: str, limit: int, hint: str) -> str:
    fault = fault_of(value, limit)
    if fault is not None or not isinstance(value, str):
        raise NameInvalid(
            f"{_shown(value)} cannot be {what}: {fault}", hint=f"a str of at most {limit} bytes, {RULE}; {hint}"
        )
    return exact(value)


def _shown(value: object) -> str:
    return shown(value, 100)
