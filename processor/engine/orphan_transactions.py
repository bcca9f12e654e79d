"""Ending the open transactions of worker processes that died: else everybody waits 12 to 18 s for them (measured).

Initialising the transactional id of a dead slot ends its transaction in about a second. That is done only for slots
that are named by the metadata of the partitions in question and are not members of the group now: shooting a slot that
lives elsewhere kills a healthy worker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from processor import events
from processor.broker.base import Broker, Committed, TopicPartition
from processor.core.offset_metadata import OffsetMetadata, decode
from processor.engine.producers import initialised
from processor.errors import RetriableBrokerError
from processor.wire.groups import slot_of

if TYPE_CHECKING:
    from processor.engine.config import WorkerConfig

log = events.logger(__name__)


class DeadSlots:
    """Ends the open transactions of slots that are gone; for one group and the transactional ids of its members."""

    def __init__(
        self, broker: Broker, config: WorkerConfig, group: str, transactional_id: Callable[[str], str]
    ) -> None:
        self._broker = broker
        self._config = config
        self._group = group
        self._transactional_id = transactional_id
        self.shots: list[str] = []
        """Transactional ids of dead slots that were ended, newest last."""

    def stable_committed(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Committed]:
        """Committed offsets, after every transaction that was pending on them has ended.

        Raises:
            RetriableBrokerError: one still has not.
        """
        admin, wait = self._broker.admin(), self._config.stable_wait
        try:
            return admin.committed(self._group, partitions, stable=True, timeout=wait)
        except RetriableBrokerError:
            # Somebody's transaction is pending. The unstable answer names the slots that were seen here.
            self.shoot_seen(partitions)
            return admin.committed(self._group, partitions, stable=True, timeout=wait)

    def shoot_seen(self, partitions: Sequence[TopicPartition]) -> None:
        """End what dead slots that committed here last may have left open."""
        found = self._broker.admin().committed(self._group, partitions, stable=False)
        self.shoot({meta.slot for meta in metadata(found)})

    def shoot(self, slots: Iterable[str]) -> None:
        """End the open transactions of dead slots: never our own, never a member's.

        Raises:
            RetriableBrokerError: the group does not even list this worker, so it cannot be believed now.
        """
        config = self._config
        suspects = set(slots) - {config.slot, ""}
        if not suspects:
            return
        here, everywhere = self._alive(self._group), self._alive(config.forwarders)
        if config.static and config.slot not in here:
            # A coordinator that is moving knows nobody for a moment: then everybody would look dead.
            raise RetriableBrokerError(f"group {self._group} does not list this worker among its members")
        if config.static and config.slot not in everywhere:
            raise RetriableBrokerError(f"group {config.forwarders} does not list this worker among its members")
        # A slot may live on with other queues: every worker has a forwarder, so that group lists them all.
        for slot in sorted(suspects - here - everywhere):
            transactional_id = self._transactional_id(slot)
            log.info("restore.dead_slot", extra={"slot": slot})
            initialised(self._broker, transactional_id, config.stable_wait).close()
            self.shots.append(transactional_id)

    def _alive(self, group: str) -> set[str]:
        members = self._broker.admin().members(group)
        return {slot_of(m.instance_id) for m in members if m.instance_id} | {m.client_id for m in members}


def metadata(committed: dict[TopicPartition, Committed]) -> list[OffsetMetadata]:
    """What is stored beside these offsets, as far as it is ours."""
    found = (decode(entry.metadata, entry.offset) for entry in committed.values() if entry.offset is not None)
    return [meta for meta in found if meta is not None]
