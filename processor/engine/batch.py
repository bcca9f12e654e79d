"""What one flush carries, frozen: the work of several partitions, and how it went."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from processor.broker.base import Acks, Membership, OffsetCommit, OutRecord
from processor.errors import BrokerError

if TYPE_CHECKING:
    from processor.core.write_set import SavedOut
    from processor.engine.attempt import Attempt, Sync
    from processor.engine.queue_partition import LaneState, QueuePartition


class Cargo(Protocol):
    """What one owned partition contributes to a batch, as the flusher sees it."""

    @property
    def creates(self) -> list[OutRecord]: ...
    @property
    def announces(self) -> list[OutRecord]: ...
    @property
    def seals(self) -> list[OutRecord]:
        """Say that something is done for good: they leave once what they stand for is acknowledged."""
        ...

    @property
    def offsets(self) -> list[OffsetCommit]: ...
    @property
    def group(self) -> str:
        """Whose offsets they are."""
        ...

    @property
    def watched(self) -> str:
        """The topic of which the last record among `creates` is to be reported with its offset; empty: none."""
        ...

    @property
    def wanted(self) -> bool:
        """Whether the partition is still this worker's."""
        ...


C = TypeVar("C", bound=Cargo)


@dataclass(slots=True, kw_only=True)
class Part:
    """What one number contributes to a batch. Implements `Cargo`."""

    number: QueuePartition
    group: str
    assignment: int
    creates: list[OutRecord]
    announces: list[OutRecord]
    seals: list[OutRecord]
    """Dedupe marks, and the number's own mark."""
    saves: list[SavedOut]
    """Those of `creates` that the live table is to know once they are committed."""
    carried: list[bytes]
    """Keys written once more, as they are."""
    burials: list[bytes]
    """Keys whose tombstones are in `announces`."""
    step_burials: list[tuple[str, str]]
    """Those of `burials` that a finished item makes superfluous, as (job id, step)."""
    later: list[bytes]
    """Keys to bury in the flush after this one."""
    syncs: list[Sync]
    offsets: list[OffsetCommit]
    marks: list[tuple[LaneState, int]]
    """Of each lane of a cautious number: the jobs below may start once this is committed."""
    named: list[Attempt]
    """Suspects that start once this is committed."""
    marked: bool
    """The number's own mark is in `seals`."""
    ending: dict[str, Attempt]
    """Jobs whose end, move or promotion is here, by id."""
    checkpoint_end: int
    """Lower bound of the offsets this batch gets in the checkpoint partition."""

    @property
    def watched(self) -> str:
        """The checkpoint topic, to know where its partition ends."""
        return self.number.topics.checkpoints

    @property
    def wanted(self) -> bool:
        """Whether the assignment goes on."""
        return self.assignment == self.number.assignment


@dataclass(slots=True, kw_only=True)
class FlushBatch(Generic[C]):
    """Frozen work of several partitions, fenced by the membership of each group that they belong to."""

    parts: list[C]
    memberships: dict[str, Membership]
    """By group."""
    watch_all: bool = False
    """Ask for a report on every record: after a refusal, to learn which record it was."""
    records: int = 0


@dataclass(slots=True, kw_only=True)
class FlushResult(Generic[C]):
    """How a batch went. `error` None: committed."""

    batch: FlushBatch[C]
    error: BrokerError | None = None
    acks: Acks = field(default_factory=Acks)
    group: str = ""
    """The one whose offsets were being sent when it failed; empty: none, or it is not known."""
    seconds: float = 0.0
    internal: bool = False
    """It was the engine that failed, not the cluster."""

    @property
    def refused_groups(self) -> set[str]:
        """Of a batch that was refused for a membership: whose that may have been."""
        return {self.group} if self.group else set(self.batch.memberships)
