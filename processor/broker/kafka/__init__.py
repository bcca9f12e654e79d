"""A Kafka cluster, spoken to through librdkafka. The only package here that imports confluent_kafka.

config          what a user may set, and what the guarantees depend on
group           membership without reading
reader          reading without membership
producer        plain, idempotent
transactions    the transactional producer, and why it must be rebuilt
admin           topics, records, members of groups
offsets         committed offsets of groups
rolls           members of groups
faults          from librdkafka's errors to ours
health          whether brokers answer, whether connections broke
"""

from __future__ import annotations

import sys
import threading
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

from confluent_kafka import KafkaException

from processor.broker import reach
from processor.broker.base import Isolation
from processor.broker.kafka import config as properties
from processor.broker.kafka import faults
from processor.broker.kafka.admin import KafkaAdmin
from processor.broker.kafka.bulk import KafkaBulkProducer
from processor.broker.kafka.config import KafkaConfig, from_settings
from processor.broker.kafka.group import KafkaGroupConsumer
from processor.broker.kafka.health import ClientWatch, Health, HealthWatch
from processor.broker.kafka.offsets import GroupOffsets
from processor.broker.kafka.producer import KafkaProducer
from processor.broker.kafka.reader import KafkaReader
from processor.broker.kafka.transactions import KafkaTransactionalProducer
from processor.errors import SettingsError

__all__ = ["Health", "KafkaBroker", "KafkaConfig", "from_settings"]

Client = TypeVar("Client")


class KafkaBroker:
    """Implements `base.Broker`. Connects lazily: making a client does no I/O and never fails for an absent broker.

    Raises:
        SettingsError: by every method that makes a client, if librdkafka does not know a property or its value.
    """

    def __init__(self, config: KafkaConfig) -> None:
        self.config = config
        self._health = HealthWatch()
        self._lock = threading.Lock()
        self._admin: KafkaAdmin | None = None

    def producer(self) -> KafkaProducer:
        """A new plain producer."""
        return self._made(lambda watch: KafkaProducer(properties.producer(self.config), watch, self.config.bootstrap))

    def bulk_producer(self) -> KafkaBulkProducer:
        """A new producer of many records at a time."""
        chosen = properties.bulk_producer(self.config)
        return self._made(lambda watch: KafkaBulkProducer(chosen, watch, self.config.bootstrap))

    def transactional_producer(self, transactional_id: str) -> KafkaTransactionalProducer:
        """A new transactional producer; call `init` first."""
        chosen = properties.transactional(self.config, transactional_id)
        return self._made(lambda watch: KafkaTransactionalProducer(chosen, watch, self.config.bootstrap))

    def group_consumer(self, group: str, *, instance_id: str | None = None, peers: int = 1) -> KafkaGroupConsumer:
        """A new, not yet subscribed member of `group`."""
        chosen = properties.group(self.config, group, instance_id, peers)
        return self._made(lambda watch: KafkaGroupConsumer(chosen, watch, self.config.bootstrap))

    def reader(self, *, isolation: Isolation = Isolation.COMMITTED, ahead_kbytes: int | None = None) -> KafkaReader:
        """A new reader."""
        name = f"{self.config.client_id}-reader-{uuid.uuid4().hex}"
        chosen = properties.reader(self.config, name, isolation.value, ahead_kbytes)
        return self._made(lambda watch: KafkaReader(chosen, watch, self.config.bootstrap))

    def admin(self) -> KafkaAdmin:
        """The one admin client of this broker."""
        with self._lock:
            if self._admin is None:
                timeout_s = self.config.request_timeout_ms / 1000
                bootstrap = self.config.bootstrap
                offsets = GroupOffsets(
                    lambda group, isolation: properties.reader(self.config, group, isolation),
                    lambda: ClientWatch(self._health, bootstrap),
                    bootstrap,
                )
                self._admin = self._made(
                    lambda watch: KafkaAdmin(properties.common(self.config), watch, bootstrap, timeout_s, offsets)
                )
            return self._admin

    def health(self) -> Health:
        """Whether brokers answer, from what all clients made here have heard."""
        return self._health.now()

    @property
    def answers(self) -> bool:
        return self.health().ok

    @property
    def trouble(self) -> str:
        bootstrap = self.config.bootstrap
        return "" if self.answers and reach.unreachable(bootstrap) is None else reach.trouble(bootstrap)

    def close(self) -> None:
        """Forget the admin client. Clients that were handed out are closed by whoever asked for them."""
        with self._lock:
            admin, self._admin = self._admin, None
        if admin is not None:
            admin.close()

    def _made(self, make: Callable[[ClientWatch], Client]) -> Client:
        _refuse_green_threads()
        try:
            return make(ClientWatch(self._health, self.config.bootstrap))
        except KafkaException as exception:
            raise SettingsError(
                f"Kafka client: {faults.cause(exception).str()}", hint="check the Kafka properties of the settings"
            ) from exception


def _refuse_green_threads() -> None:
    """A client of Kafka has threads of its own and waits in C: greenlets in the place of threads never get their turn.

    Raises:
        SettingsError: gevent has replaced Python's threads.
    """
    monkey: Any = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        raise SettingsError(
            "gevent has replaced Python's threads (monkey.patch_all()): the Kafka client waits for real ones for ever",
            hint="leave threads as they are, monkey.patch_all(thread=False), or enqueue from a process without gevent",
        )
