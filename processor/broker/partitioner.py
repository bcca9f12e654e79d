"""Which partition a key belongs to: murmur2, as the Java client does it, so that every client agrees on it.

librdkafka's own default is CRC32. A topic written by both would spread one key over two partitions.
"""

from __future__ import annotations

from functools import lru_cache
from struct import unpack_from

_MASK = 0xFFFFFFFF
_MULTIPLIER = 0x5BD1E995
_SEED = 0x9747B28C


@lru_cache(maxsize=16_384)  # A job's id is hashed for every topic that hears of it, all within a short time.
def murmur2(data: bytes) -> int:
    """Kafka's 32 bit murmur2, as an unsigned number."""
    length = len(data)
    digest = (_SEED ^ length) & _MASK
    whole = length & ~3
    for word in unpack_from(f"<{length >> 2}I", data):
        mixed = (word * _MULTIPLIER) & _MASK
        # Masked once at the end of the round: multiplication mod 2^32 does not see the bits above.
        digest = (digest * _MULTIPLIER ^ (mixed ^ mixed >> 24) * _MULTIPLIER) & _MASK
    if whole < length:
        digest ^= int.from_bytes(data[whole:], "little")
        digest = (digest * _MULTIPLIER) & _MASK
    digest ^= digest >> 13
    digest = (digest * _MULTIPLIER) & _MASK
    return digest ^ (digest >> 15)


def partition_for(key: bytes, partitions: int) -> int:
    """The partition of a key in a topic of so many partitions."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
