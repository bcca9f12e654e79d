"""Ids of fresh jobs: UUIDv7 (RFC 9562), so that they sort by the time they were made."""

from __future__ import annotations

import os

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
