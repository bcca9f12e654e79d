"""A number with what the engine puts into it: attempts, and those who wait for durability."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from processor.engine.owned_partition import OwnedLane, OwnedPartition, PartitionPhase

if TYPE_CHECKING:
    from processor.engine.attempt import Attempt, Sync

__all__ = ["LaneState", "PartitionPhase", "QueuePartition"]

QueuePartition: TypeAlias = "OwnedPartition[Attempt, Sync]"
"""One partition of all lanes of a queue."""
LaneState: TypeAlias = "OwnedLane[Attempt, Sync]"
"""One lane of it."""
