"""How to reach a cluster, and the client properties that the guarantees of this package depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from processor.errors import SettingsError
from processor.wire.settings import Settings

Property = str | int | float | bool
Properties = dict[str, Property]

OWNED = frozenset(
    {
        "acks",
        "allow.auto.create.topics",
        "auto.commit.enable",
        "auto.offset.reset",
        "bootstrap.servers",
        "debug",
        "delivery.timeout.ms",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.gapless.guarantee",
        "enable.idempotence",
        "enable.partition.eof",
        "enable.random.seed",
        "error_cb",
        "group.id",
        "group.instance.id",
        "group.protocol",
        "heartbeat.interval.ms",
        "isolation.level",
        "log.connection.close",
        "log.queue",
        "log_cb",
        "log_level",
        "logger",
        "max.in.flight",
        "max.in.flight.requests.per.connection",
        "message.send.max.retries",
        "message.timeout.ms",
        "metadata.broker.list",
        "on_delivery",
        "partition.assignment.strategy",
        "partitioner",
        "request.required.acks",
        "retries",
        "retry.backoff.max.ms",
        "retry.backoff.ms",
        "session.timeout.ms",
        "socket.max.fails",
        "statistics.interval.ms",
        "stats_cb",
        "throttle_cb",
        "transaction.timeout.ms",
        "transactional.id",
    }
)
"""Properties that `KafkaConfig.properties` may not set: each carries a guarantee, or is a field of `KafkaConfig`."""
HEARTBEATS = 8
"""Groups of one process that may have the configured heartbeat each."""
MEMBERS_ONLY = frozenset({"max.poll.interval.ms"})
"""Properties that only members of a group are given. A reader never joins, and librdkafka would hold this one against
the session timeout that it would have (45 s); a producer warns of it.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaConfig:
    """Where the cluster is and how to speak to it.

    Raises:
        SettingsError: `properties` names a property that the guarantees depend on, or a value makes no sense.
    """

    bootstrap: str
    """`host:port,host:port`."""
    properties: Mapping[str, Property] = field(default_factory=dict, repr=False)
    """Further librdkafka properties, first of all `security.protocol`, `sasl.*` and `ssl.*`. Not shown in `repr`."""
    client_id: str = "processor"
    """Name of this process in the brokers' logs and quotas."""
    group_protocol: str = "classic"
    """`classic`, or `consumer` (KIP-848: the broker then decides the session timeout)."""
    session_timeout_ms: int = 10_000
    """After this long without a heartbeat a member's partitions go to others."""
    heartbeat_interval_ms: int = 200
    """A member learns of a rebalance by its heartbeat: with 200 a hand-over takes 0.5 s, with 3000 2.4 s (measured)."""
    transaction_timeout_ms: int = 30_000
    """A broker aborts a transaction that is open for longer, and fences its producer."""
    request_timeout_ms: int = 10_000
    """Time limit of one question to a broker; a broker that hangs is given up after this long."""
    linger_ms: float = 0.0
    """How long a record of a plain producer waits for company before it is sent."""
    compression: str = "lz4"
    """Of what plain producers send. A flush is not compressed: its time is what others wait for."""
    prefetch_messages: int = 5_000
    """Records that a reader keeps ready per partition."""
    prefetch_kbytes: int = 16_384
    """KiB that a reader keeps ready in all."""

    def __post_init__(self) -> None:
        owned = sorted(OWNED & set(self.properties))
        if owned:
            raise SettingsError(
                f"Kafka property {', '.join(owned)} cannot be set: the guarantees depend on it",
                hint="remove it, or use the field of the settings that is meant for it",
            )
        if not self.bootstrap.strip():
            raise SettingsError("the Kafka bootstrap address is empty", hint="give host:port of one or more brokers")
        if self.group_protocol not in {"classic", "consumer"}:
            raise SettingsError(f"group protocol {self.group_protocol!r} is unknown", hint="use classic or consumer")
        if self.heartbeat_interval_ms * 3 > self.session_timeout_ms:
            raise SettingsError(
                f"heartbeat {self.heartbeat_interval_ms} ms is too long for a session of {self.session_timeout_ms} ms",
                hint="a session must hold at least three heartbeats",
            )


def from_settings(settings: Settings, bootstrap: str | None = None) -> KafkaConfig:
    """The config that the settings ask for; `bootstrap` instead of theirs, if given.

    Raises:
        SettingsError: as `KafkaConfig`.
    """
    kafka, worker, client = settings.kafka, settings.worker, settings.client
    return KafkaConfig(
        bootstrap=bootstrap or kafka.bootstrap,
        properties=kafka.client_config(),
        group_protocol=worker.group_protocol,
        session_timeout_ms=round(worker.session_timeout * 1000),
        heartbeat_interval_ms=round(worker.heartbeat * 1000),
        request_timeout_ms=round(kafka.request_timeout * 1000),
        linger_ms=client.linger * 1000,
        compression=client.compression,
    )


def common(config: KafkaConfig) -> Properties:
    """Properties of every client."""
    return {
        **{name: value for name, value in config.properties.items() if name not in MEMBERS_ONLY},
        "bootstrap.servers": config.bootstrap,
        "client.id": config.client_id,
        # A stopped (not closed) broker stalls a client for this long; the default of 60 s outlasts every session.
        "socket.timeout.ms": config.request_timeout_ms,
        "socket.keepalive.enable": True,
        # Also decides how soon a new client connects at all: init_transactions 20 ms with 10, 500 with 50 (measured).
        "reconnect.backoff.ms": 10,
        "reconnect.backoff.max.ms": 1_000,
        "allow.auto.create.topics": False,
    }


def heartbeat_ms(config: KafkaConfig, peers: int) -> int:
    """How often a member of a group says that it is alive, if its process is a member of so many groups: up to
    `HEARTBEATS` of them as often as configured, more of them as seldom as it takes to send no more heartbeats than
    those, but always three times within a session.
    """
    return min(config.heartbeat_interval_ms * max(1, -(-peers // HEARTBEATS)), config.session_timeout_ms // 3)


def group(config: KafkaConfig, group_id: str, instance_id: str | None, peers: int = 1) -> Properties:
    """Properties of a member of a group; its process is a member of `peers` groups."""
    properties: Properties = {
        **common(config),
        **{name: value for name, value in config.properties.items() if name in MEMBERS_ONLY},
        "group.id": group_id,
        "group.protocol": config.group_protocol,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "topic.metadata.refresh.interval.ms": 30_000,
        "statistics.interval.ms": 1_000,
    }
    if config.group_protocol == "classic":
        properties |= {
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": config.session_timeout_ms,
            "heartbeat.interval.ms": heartbeat_ms(config, peers),
        }
    if instance_id is not None:
        properties["group.instance.id"] = instance_id
    return properties


def reader(config: KafkaConfig, group_id: str, isolation: str, ahead_kbytes: int | None = None) -> Properties:
    """Properties of a reader. librdkafka wants a `group_id`, although a reader never joins.

    A reader that keeps little ready asks for little at a time as well: one answer of the usual 1 MB unpacks to several.
    """
    sparing: Properties = {} if ahead_kbytes is None else {"fetch.message.max.bytes": ahead_kbytes * 1024 // 8}
    return {
        **common(config),
        "group.id": group_id,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "enable.partition.eof": True,
        "isolation.level": isolation,
        "queued.min.messages": config.prefetch_messages,
        "queued.max.messages.kbytes": config.prefetch_kbytes if ahead_kbytes is None else ahead_kbytes,
        # The default of 1000 stalls a partition for a second whenever its queue was full.
        "fetch.queue.backoff.ms": 10,
        "fetch.wait.max.ms": 100,
        "fetch.min.bytes": 1,
        "fetch.error.backoff.ms": 50,
        **sparing,
        "statistics.interval.ms": 1_000,
    }


def _producing(config: KafkaConfig) -> Properties:
    return {
        **common(config),
        "acks": "all",
        "enable.idempotence": True,
        # The Java client's choice; librdkafka's own default (CRC32) sends the same key elsewhere.
        "partitioner": "murmur2_random",
        "queue.buffering.max.messages": 1_000_000,
        # The topic decides what is too large, not the client: a topic's max.message.bytes may be above 1 MB.
        "message.max.bytes": 16_000_000,
        # Default 30 s: records for a topic that does not exist would be refused only after that.
        "topic.metadata.propagation.max.ms": 2_000,
    }


def producer(config: KafkaConfig) -> Properties:
    """Properties of a plain producer."""
    return {
        **_producing(config),
        "linger.ms": config.linger_ms,
        "compression.type": config.compression,
        "retry.backoff.ms": 20,
        "retry.backoff.max.ms": 500,
    }


def bulk_producer(config: KafkaConfig) -> Properties:
    """Properties of a producer of many records at a time: batches fill before they leave."""
    return {**producer(config), "linger.ms": max(config.linger_ms, 5.0), "delivery.report.only.error": True}


def transactional(config: KafkaConfig, transactional_id: str) -> Properties:
    """Properties of a transactional producer."""
    return {
        **_producing(config),
        "transactional.id": transactional_id,
        "transaction.timeout.ms": config.transaction_timeout_ms,
        "message.timeout.ms": config.transaction_timeout_ms * 5 // 6,
        # librdkafka wants it below the transaction's.
        "socket.timeout.ms": min(config.request_timeout_ms, config.transaction_timeout_ms),
        "linger.ms": 1,
        # send_offsets right after a commit meets CONCURRENT_TRANSACTIONS; with the default of 100 ms that makes ten
        # transactions a second (measured; confluent-kafka-python #967). The maximum spares a broker that is away.
        "retry.backoff.ms": 3,
        "retry.backoff.max.ms": 100,
        # Every broken connection is logged in this context, at any level; the INFO line alone is left out when it
        # repeats within 30 s (rd_kafka_broker_set_error). See `TransactionalProducer.disturbed`.
        "debug": "broker",
    }
