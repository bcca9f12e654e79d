"""Looking on at a worker's transactions, and stopping one where a test wants it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from processor.broker.base import Acks, Membership, OffsetCommit, OutRecord
from processor.broker.memory import MemoryProcess
from processor.broker.memory.producer import MemoryTransactionalProducer
from tests.unit.engine.scene import Simulated


class Call(NamedTuple):
    """One call of a transactional producer."""

    name: str
    producer: int
    """Counts the producers of the process."""
    records: tuple[OutRecord, ...] = ()
    offsets: tuple[OffsetCommit, ...] = ()
    membership: Membership | None = None


class Spy:
    """Every call of one role's producers in one worker, in order. `before` runs ahead of each and may wait."""

    def __init__(
        self, worker: Simulated, before: Callable[[Call], None] = lambda call: None, role: str = "worker"
    ) -> None:
        self.role = role
        """Whose: the engine's (`worker`), or the `forwarder`'s."""
        self.calls: list[Call] = []
        self.before = before
        self.made = 0
        self._make: Callable[[str], MemoryTransactionalProducer] = worker.process.transactional_producer
        setattr(worker.process, MemoryProcess.transactional_producer.__name__, self._spied)

    def _spied(self, transactional_id: str) -> SpiedProducer | MemoryTransactionalProducer:
        if f".{self.role}." not in transactional_id:
            return self._make(transactional_id)
        self.made += 1
        return SpiedProducer(self, self.made, self._make(transactional_id))

    def names(self) -> list[str]:
        """Names of the calls."""
        return [call.name for call in self.calls]

    def note(self, call: Call) -> None:
        """A call is about to be made."""
        self.before(call)
        self.calls.append(call)


class SpiedProducer:
    """`base.TransactionalProducer`, watched."""

    def __init__(self, spy: Spy, number: int, real: MemoryTransactionalProducer) -> None:
        self._spy = spy
        self._number = number
        self._real = real

    def init(self, timeout: float) -> None:
        self._spy.note(Call("init", self._number))
        self._real.init(timeout)

    def begin(self) -> None:
        self._spy.note(Call("begin", self._number))
        self._real.begin()

    def append(self, records: Iterable[OutRecord], *, watch: bool = False) -> None:
        kept = tuple(records)
        self._spy.note(Call("append", self._number, kept))
        self._real.append(kept, watch=watch)

    def wait_acks(self, timeout: float) -> Acks:
        self._spy.note(Call("wait_acks", self._number))
        return self._real.wait_acks(timeout)

    def send_offsets(self, offsets: Sequence[OffsetCommit], group: str, membership: Membership, timeout: float) -> None:
        self._spy.note(Call("send_offsets", self._number, (), tuple(offsets), membership))
        self._real.send_offsets(offsets, group, membership, timeout)

    def commit(self, timeout: float) -> None:
        self._spy.note(Call("commit", self._number))
        self._real.commit(timeout)

    def abort(self, timeout: float) -> None:
        self._spy.note(Call("abort", self._number))
        self._real.abort(timeout)

    @property
    def disturbed(self) -> bool:
        return self._real.disturbed

    def close(self) -> None:
        self._spy.note(Call("close", self._number))
        self._real.close()
