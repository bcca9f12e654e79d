"""The partitioner agrees with the Java client: its own published vectors."""

from __future__ import annotations

import pytest

from processor.broker.partitioner import murmur2, partition_for

VECTORS = [
    (b"21", -973932308),
    (b"foobar", -790332482),
    (b"a-little-bit-long-string", -985981536),
    (b"a-little-bit-longer-string", -1486304829),
    (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
    (b"abc", 479470107),
]
"""From UtilsTest.testMurmur2 of Apache Kafka."""


@pytest.mark.parametrize(("key", "signed"), VECTORS)
def test_murmur2_matches_the_java_client(key: bytes, signed: int) -> None:
    assert murmur2(key) == signed & 0xFFFFFFFF


@pytest.mark.parametrize(("key", "signed"), VECTORS)
def test_partition_clears_the_sign_bit_before_the_remainder(key: bytes, signed: int) -> None:
    assert partition_for(key, 12) == (signed & 0x7FFFFFFF) % 12


def test_empty_key_has_a_partition() -> None:
    assert 0 <= partition_for(b"", 7) < 7
