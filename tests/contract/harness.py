"""What the contract's scenarios need beside `base.Broker`, for Kafka and for memory. The scenarios know neither."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from processor.broker.base import Broker, Isolation, OutRecord, TopicPartition
from processor.broker.kafka import KafkaBroker, KafkaConfig
from processor.broker.memory import Frame, MemoryBroker, MemoryLimits, MemoryProcess
from processor.clock import SystemClock
from tests.proxy import END_TXN, TXN_OFFSET_COMMIT, FrameProxy
from tests.waiting import eventually

SESSION_S = 2.0
"""A member that is silent for this long is thrown out."""
HASTY_S = 2.0
"""Transactions of `Harness.hasty` time out after this long."""


FILLER = b"~filler"
"""Kafka compacts all but the segment it writes to, and starts a new one only when something is appended."""


class LateFrame(StrEnum):
    """A request of a transactional producer that arrives late, after the client has sent it again."""

    COMMIT = "commit"
    ABORT = "abort"
    OFFSETS = "offsets"


class Late(Protocol):
    """A frame that is held back."""

    @property
    def caught(self) -> bool: ...
    def release(self) -> object:
        """Let it arrive; returns when the broker has dealt with it."""
        ...


class OtherProcess(Protocol):
    """An operating system process of its own, as the brokers see it. Call none of its clients while it is frozen."""

    @property
    def broker(self) -> Broker: ...
    def freeze(self) -> None: ...
    def thaw(self) -> None: ...
    def kill(self) -> None: ...
    def hold(self, transactional_id: str, frame: LateFrame) -> Late:
        """The next such request is held back, and its connection breaks."""
        ...


class Harness(Protocol):
    """One cluster under test."""

    @property
    def broker(self) -> Broker: ...
    @property
    def hasty(self) -> Broker:
        """The same cluster; transactions time out after `HASTY_S`."""
        ...

    def process(self, name: str) -> OtherProcess: ...
    def compact(self, topic: str) -> None:
        """Return when the cleaner has been over the whole topic. May append records with the key `FILLER`."""
        ...

    def close(self) -> None: ...


class KafkaProcess:
    """`OtherProcess` behind a proxy of its own."""

    def __init__(self, config: KafkaConfig) -> None:
        host, port = config.bootstrap.split(",")[0].rsplit(":", 1)
        self._proxy = FrameProxy((host, int(port)))
        self._broker = KafkaBroker(_config(self._proxy.bootstrap))

    @property
    def broker(self) -> Broker:
        return self._broker

    def freeze(self) -> None:
        self._proxy.freeze()

    def thaw(self) -> None:
        self._proxy.thaw()

    def kill(self) -> None:
        self._proxy.close()

    def hold(self, transactional_id: str, frame: LateFrame) -> Late:
        return self._proxy.hold(TXN_OFFSET_COMMIT if frame is LateFrame.OFFSETS else END_TXN)


def _config(bootstrap: str, transaction_timeout_ms: int = 20_000) -> KafkaConfig:
    return KafkaConfig(
        bootstrap=bootstrap,
        session_timeout_ms=int(SESSION_S * 1000),
        heartbeat_interval_ms=100,
        transaction_timeout_ms=transaction_timeout_ms,
    )


class KafkaHarness:
    """`Harness` on a real Kafka with short timers."""

    def __init__(self, bootstrap: str) -> None:
        self._config = _config(bootstrap)
        self._broker = KafkaBroker(self._config)
        self._hasty = KafkaBroker(_config(bootstrap, transaction_timeout_ms=int(HASTY_S * 1000)))
        self._processes: list[KafkaProcess] = []

    @property
    def broker(self) -> Broker:
        return self._broker

    @property
    def hasty(self) -> Broker:
        return self._hasty

    def process(self, name: str) -> OtherProcess:
        process = KafkaProcess(self._config)
        self._processes.append(process)
        return process

    def compact(self, topic: str) -> None:
        count = self._broker.admin().topics([topic])[topic].partitions
        partitions = [TopicPartition(topic, number) for number in range(count)]
        producer = self._broker.producer()

        def roll() -> None:
            for number in range(count):
                producer.append(OutRecord(topic, FILLER, b"", None, number))
            producer.flush(10.0)

        eventually(lambda: self._is_compact(partitions), 45, f"{topic} compacted", step=roll)
        producer.close()

    def close(self) -> None:
        for process in self._processes:
            process.kill()

    def _is_compact(self, partitions: Sequence[TopicPartition]) -> bool:
        keys: Counter[tuple[int | None, bytes | None]] = Counter()
        reader = self._broker.reader(isolation=Isolation.COMMITTED)
        reader.assign(self._broker.admin().begin_offsets(partitions))
        unread = set(partitions)
        while unread:
            batch = reader.fetch(1000, 1.0)
            keys.update((record.partition(), record.key()) for record in batch.records if record.key() != FILLER)
            unread -= {end.partition for end in batch.ends}
        reader.close()
        return max(keys.values(), default=0) <= 1


class MemoryOtherProcess:
    """`OtherProcess` of the memory broker."""

    def __init__(self, cluster: MemoryBroker, process: MemoryProcess) -> None:
        self._cluster = cluster
        self._process = process

    @property
    def broker(self) -> Broker:
        return self._process

    def freeze(self) -> None:
        self._process.freeze()

    def thaw(self) -> None:
        self._process.thaw()

    def kill(self) -> None:
        self._process.kill()

    def hold(self, transactional_id: str, frame: LateFrame) -> Late:
        return self._cluster.faults.hold_next(transactional_id, Frame(frame.value))


class MemoryHarness:
    """`Harness` on the memory broker, in real time."""

    def __init__(self) -> None:
        limits = MemoryLimits(
            session_seconds=SESSION_S, transaction_seconds=HASTY_S, transaction_scan_seconds=0.5, delivery_seconds=5.0
        )
        self._broker = MemoryBroker(SystemClock(), limits=limits)

    @property
    def broker(self) -> Broker:
        return self._broker

    @property
    def hasty(self) -> Broker:
        return self._broker

    def process(self, name: str) -> OtherProcess:
        return MemoryOtherProcess(self._broker, self._broker.process(name))

    def compact(self, topic: str) -> None:
        self._broker.compact(topic)

    def close(self) -> None:
        self._broker.close()
