"""Ids of fresh jobs: UUIDv7 (RFC 9562), so that they sort by the time they were made; and ids that callers choose."""

from __future__ import annotations

import os

from processor.errors import NameInvalid
from processor.texts import shown
from processor.wire.names import ID_BYTES, KEY_BYTES, NAME_BYTES, RULE, exact, fault_of, fault_of_id, is_id

_MASK_74 = (1 << 74) - 1
_MASK_62 = (1 << 62) - 1


def uuid7(now_ms: int, random: bytes | None = None) -> str:
    """48 bits of milliseconds, then 74 random bits, in the usual notation.

    `uuid.uuid7` exists from Python 3.14 on, and reads the system clock by itself.
    """
    entropy = int.from_bytes(os.urandom(10) if random is None else random[:10], "big") & _MASK_74
    value = now_ms << 80 | 0x7 << 76 | (entropy >> 62) << 64 | 0b10 << 62 | entropy & _MASK_62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


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
