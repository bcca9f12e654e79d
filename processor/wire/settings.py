"""Every setting, declared once: name, type, default, unit, meaning. docs/configuration.md is generated from here.

A value comes from, first wins: a flag or argument, the environment (`PROCESSOR_WORKER__LINGER=10ms`), `.env`,
`processor.toml` (`[worker]`, `linger = "10ms"`), the default. Unknown names are errors that name the nearest known one.
How the sources are read and merged is in `wire.settings_sources`.
"""

from __future__ import annotations

import fnmatch
import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    field_validator,
    model_validator,
)

from processor.alert_kinds import AlertKind
from processor.errors import ProcessorError, SettingsError
from processor.wire.durations import parse_duration
from processor.wire.topics import TopicShape

_SIZE = re.compile(r"(\d+)\s*(B|kB|KB|KiB|MB|MiB|GB|GiB)?")
_SIZES = {"": 1, "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}

REFUSED_CLIENT_PROPERTIES = {
    "acks": "a job counts as enqueued only when all in-sync replicas have it",
    "allow.auto.create.topics": "a topic made by chance has the wrong settings; processor topics apply makes them",
    "auto.commit.enable": "an offset completes only with the records of its jobs, in one transaction",
    "auto.offset.reset": "a worker that jumps over a hole in the log would lose jobs; it must stop and say so",
    "bootstrap.servers": "set kafka.bootstrap",
    "debug": "the log of the client is read by the package to see broken connections",
    "delivery.timeout.ms": "it must stay below the transaction's timeout",
    "enable.auto.commit": "an offset completes only with the records of its jobs, in one transaction",
    "enable.auto.offset.store": "an offset completes only with the records of its jobs, in one transaction",
    "enable.gapless.guarantee": "the package handles the errors it would raise by itself",
    "enable.idempotence": "without it a retried request could enqueue a job twice",
    "enable.partition.eof": "the worker needs the ends of partitions to bring lag to zero",
    "enable.random.seed": "job ids must not repeat",
    "error_cb": "callbacks belong to the package",
    "group.id": "it follows from the namespace and the queue",
    "group.instance.id": "it is the worker's slot: --instance",
    "group.protocol": "set worker.group_protocol",
    "heartbeat.interval.ms": "set worker.heartbeat",
    "isolation.level": "workers must not see the records of aborted transactions",
    "log.connection.close": "the package watches for broken connections",
    "log.queue": "the log of the client is read by the package to see broken connections",
    "log_cb": "callbacks belong to the package",
    "log_level": "the log of the client is read by the package to see broken connections",
    "logger": "callbacks belong to the package",
    "max.in.flight": "more than five in flight break the order of an idempotent producer",
    "max.in.flight.requests.per.connection": "more than five in flight break the order of an idempotent producer",
    "message.send.max.retries": "a record is tried again until its time is over",
    "message.timeout.ms": "it must stay below the transaction's timeout",
    "metadata.broker.list": "set kafka.bootstrap",
    "on_delivery": "callbacks belong to the package",
    "partition.assignment.strategy": "numbers must move one by one (cooperative), or every rebalance stops all work",
    "partitioner": "every client must agree on a key's partition (murmur2)",
    "request.required.acks": "a job counts as enqueued only when all in-sync replicas have it",
    "retries": "a record is tried again until its time is over",
    "retry.backoff.max.ms": "longer waits hold up every flush",
    "retry.backoff.ms": "longer waits hold up every flush",
    "sasl.mechanism": "set kafka.sasl_mechanism",
    "sasl.mechanisms": "set kafka.sasl_mechanism",
    "sasl.password": "set kafka.sasl_password, which is never printed",
    "sasl.username": "set kafka.sasl_username",
    "security.protocol": "set kafka.security_protocol",
    "session.timeout.ms": "set worker.session_timeout",
    "socket.max.fails": "the package watches for broken connections",
    "statistics.interval.ms": "the package reads the statistics",
    "stats_cb": "callbacks belong to the package",
    "throttle_cb": "callbacks belong to the package",
    "transaction.timeout.ms": "it bounds how long a dead worker hides records from the others",
    "transactional.id": "it is the worker's slot; a second use of it would fence a healthy worker",
}
"""librdkafka properties that the guarantees depend on, and why each may not be set."""


def _duration(value: Any) -> float:
    try:
        return parse_duration(value, error=SettingsError)
    except ProcessorError as error:
        raise ValueError(f"{value!r} is no length of time: {error.hint}") from error


def parse_size(value: Any) -> int:
    """Bytes of `"256KiB"`, `"1MB"` or a plain number.

    Raises:
        ValueError: not a size.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f'{value!r} is no size: write "256KiB", "1MB", or a number of bytes')
    return int(match[1]) * _SIZES[match[2] or ""]


def format_size(size: int) -> str:
    """The shortest text that `parse_size` reads back: 262144 -> `256KiB`, 1000000 -> `1MB`."""
    for unit in ("GiB", "GB", "MiB", "MB", "KiB", "kB"):
        if size and size % _SIZES[unit] == 0:
            return f"{size // _SIZES[unit]}{unit}"
    return str(size)


Seconds = Annotated[float, BeforeValidator(_duration)]
Bytes = Annotated[int, BeforeValidator(parse_size)]


def _is(default: Any, help_: str, unit: str = "", **limits: Any) -> Any:
    """A field of the catalogue: default, meaning, unit, bounds."""
    return Field(default=default, description=help_, json_schema_extra={"unit": unit}, validate_default=True, **limits)


class Group(BaseModel):
    """A table of settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class KafkaSettings(Group):
    """The cluster and how to speak to it."""

    bootstrap: str = _is("localhost:9092", "Brokers to ask first, host:port, separated by commas.", min_length=1)
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = _is(
        "PLAINTEXT", "How connections are secured."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "GSSAPI"] | None = _is(
        None, "How clients log in; needs a SASL_* security protocol."
    )
    sasl_username: str | None = _is(None, "User name for PLAIN and SCRAM.")
    sasl_password: SecretStr | None = _is(None, "Its password; better from a file: sasl_password_file.")
    ssl_ca_location: str | None = _is(None, "File with the certificate authorities to trust; the system's if not set.")
    ssl_certificate_location: str | None = _is(None, "File with the client's certificate, for mutual TLS.")
    ssl_key_location: str | None = _is(None, "File with the client's private key.")
    ssl_key_password: SecretStr | None = _is(None, "Password of the private key; better: ssl_key_password_file.")
    request_timeout: Seconds = _is("10s", "How long one question to the cluster may take.", "seconds", gt=0)
    client: dict[str, str | int | float | bool] = _is(
        {}, "librdkafka properties passed on as they are; those that the guarantees depend on are refused."
    )

    @field_validator("client")
    @classmethod
    def _refuse(cls, client: dict[str, str | int | float | bool]) -> dict[str, str | int | float | bool]:
        for name in client:
            if name in REFUSED_CLIENT_PROPERTIES:
                raise ValueError(f"{name} may not be set: {REFUSED_CLIENT_PROPERTIES[name]}")
        return client

    def client_config(self) -> dict[str, str | int | float | bool]:
        """The librdkafka properties of this group, without the bootstrap; passwords in clear: never log them."""
        named: dict[str, str | int | float | bool | None] = {
            "security.protocol": self.security_protocol,
            "sasl.mechanisms": self.sasl_mechanism,
            "sasl.username": self.sasl_username,
            "sasl.password": self.sasl_password.get_secret_value() if self.sasl_password else None,
            "ssl.ca.location": self.ssl_ca_location,
            "ssl.certificate.location": self.ssl_certificate_location,
            "ssl.key.location": self.ssl_key_location,
            "ssl.key.password": self.ssl_key_password.get_secret_value() if self.ssl_key_password else None,
        }
        return {**self.client, **{name: value for name, value in named.items() if value is not None}}


class TopicsSettings(Group):
    """Topics that `processor topics apply` creates."""

    replication: int = _is(-1, "Replicas of each partition; -1: the broker's default. Use 3 in production.", ge=-1)
    retry_partitions: int = _is(4, "Partitions of each retry topic and of the dead-letter topic.", "partitions", ge=1)
    status_partitions: int = _is(8, "Partitions of the status topic.", "partitions", ge=1)
    dedupe_window: Seconds = _is("24h", "How long a finished job's id is remembered.", "seconds", ge=60)
    replay_time: Seconds = _is("7d", "How long finished jobs stay in their lane, to be replayed.", "seconds")
    status_retention: Seconds = _is("7d", "How long status and result of a job can be asked for.", "seconds", ge=60)
    dlq_retention: Seconds = _is("90d", "How long dead letters are kept.", "seconds", ge=3600)
    audit_retention: Seconds = _is("365d", "How long the audit and alerts topics are kept.", "seconds", ge=3600)
    max_record_bytes: Bytes = _is("1536KiB", "Largest record of a lane or checkpoint topic.", "bytes", ge=65_536)

    def shape(self) -> TopicShape:
        """What the plan of topics needs of these."""
        return TopicShape(**self.model_dump(exclude={"replay_time"}))


class WorkerSettings(Group):
    """One worker process."""

    concurrency: int = _is(100, "Jobs that run at the same time in threads.", "jobs", ge=1)
    processes: int = _is(1, "Worker processes that the supervisor keeps alive.", "processes", ge=1)
    linger: Seconds = _is("20ms", "How long finished work may wait for company before it is flushed.", "seconds")
    outbox_max_records: int = _is(20_000, "Records waiting for a flush; at the bound no new jobs are taken.", ge=100)
    outbox_max_bytes: Bytes = _is("32MiB", "The same, by size.", "bytes", ge=2**20)
    inflight_max_records: int = _is(10_000, "Jobs read and not finished; at the bound no more are read.", ge=1)
    inflight_max_bytes: Bytes = _is("64MiB", "The same, by size.", "bytes", ge=2**20)
    promote_after: Seconds = _is("10s", "A job that runs longer moves into the checkpoint topic.", "seconds", gt=0)
    revoke_wait: Seconds = _is("2s", "How long a hand-over waits for running jobs to save and yield.", "seconds")
    grace: Seconds = _is("30s", "How long a stop waits for running jobs to save and yield.", "seconds")
    group_protocol: Literal["classic", "consumer"] = _is("classic", "Rebalance protocol; consumer is KIP-848.")
    session_timeout: Seconds = _is("10s", "A worker silent for so long loses its numbers.", "seconds", ge=1)
    heartbeat: Seconds = _is("200ms", "How often a worker tells the group that it lives.", "seconds", gt=0)
    poll_idle: Seconds = _is("4ms", "Longest sleep between two looks at the log when nothing happens.", "seconds", gt=0)
    watchdog: Seconds = _is("60s", "A number without progress for so long is held, with an alarm.", "seconds", gt=0)
    state_dir: str = _is("", "Folder of the slot locks; empty: a folder of the user's state directory.")
    stop_grace: Seconds = _is("5s", "How long an attempt told to stop may take before it is ended by force.", "seconds")
    abandoned_max: int = _is(10, "Attempts that cannot be ended, left behind: with so many a process restarts.", ge=1)
    unknown_type_patience: Seconds = _is("10m", "How long a job of an unknown type or version is parked.", "seconds")
    checkpoint_max_bytes: Bytes = _is("256KiB", "Largest cursor and state, or step result, of a job.", "bytes", ge=1)
    result_max_bytes: Bytes = _is("256KiB", "Largest result of a job.", "bytes", ge=1)
    tracing: bool = _is(True, "Attempts are spans, where OpenTelemetry is configured (docs/tracing.md).")

    @model_validator(mode="after")
    def _beats_fit_the_session(self) -> WorkerSettings:
        if self.heartbeat * 3 > self.session_timeout:
            raise ValueError(
                "heartbeat must be at most a third of session_timeout: one lost beat must not lose numbers"
            )
        return self


class ClientSettings(Group):
    """Programs that enqueue jobs and ask for their status."""

    enqueue_timeout: Seconds = _is("30s", "How long an enqueue waits for its acknowledgement.", "seconds", gt=0)
    close_timeout: Seconds = _is("30s", "How long closing waits for records not yet acknowledged.", "seconds")
    linger: Seconds = _is("0s", "How long a record waits for company before it is sent.", "seconds")
    compression: Literal["none", "lz4", "zstd", "snappy", "gzip"] = _is("lz4", "Compression of what is sent.")
    critical_timeout: Seconds = _is("5s", "How long the enqueue of a critical job waits for the log.", "seconds", gt=0)
    spool_dir: str = _is(
        "", "Folder that keeps critical jobs while no broker answers; empty: their enqueue says so instead."
    )
    payload_max_bytes: Bytes = _is("1MB", "Largest payload that may be enqueued.", "bytes", ge=1)
    tracing: bool = _is(True, "Enqueues are spans, where OpenTelemetry is configured (docs/tracing.md).")


class DashboardSettings(Group):
    """The dashboard and its API."""

    host: str = _is("127.0.0.1", "Address that it listens on.", min_length=1)
    port: int = _is(8484, "Port that it listens on.", ge=0, le=65_535)
    database: SecretStr = _is(
        "", "Where the projection lives: sqlite:///FILE or postgresql://USER@HOST/NAME; empty: a file of the user's."
    )
    login: Literal["basic", "proxy", "oidc", "none"] = _is(
        "basic", "Who lets people in: a password, a proxy, an OpenID Connect provider; none: all on this machine."
    )
    users_file: str = _is(
        "", "Users, one a line: name:role:hash or name:role@queue:hash. processor dashboard --new-user prints it."
    )
    proxy_header: str = _is("X-Forwarded-User", "Header in which a trusted proxy names the user.", min_length=1)
    trusted_proxies: str = _is("", "Addresses or networks of the proxies that are trusted, separated by commas.")
    address: str = _is("", "Address of the dashboard as browsers know it, e.g. https://jobs.example.com (oidc).")
    oidc_issuer: str = _is("", "The provider, as it calls itself, e.g. https://id.example.com/realms/shop.")
    oidc_client_id: str = _is("", "The dashboard's client there; it comes back to ADDRESS/login/back.")
    oidc_client_secret: SecretStr = _is("", "Its secret; empty: a public client.")
    oidc_scope: str = _is("openid profile email", "What is asked of the provider; must contain openid.")
    oidc_claim: str = _is("groups", "Claim that gives the role; realm_access.roles names an inner one.", min_length=1)
    oidc_roles: str = _is("", "Its values and their roles, the first counts: ops:operator; support:care@orders,mail.")
    session: Seconds = _is("8h", "How long somebody stays logged in (oidc).", "seconds", gt=0)
    session_secret: SecretStr = _is("", "Signs sessions, 32 characters or more; empty: they end with the process.")
    bulk_page: int = _is(500, "How many jobs a bulk action does between two of its checkpoints.", "jobs", ge=1, le=2000)


class AlertRule(Group):
    """Who hears of which alerts (docs/alerts.md). In processor.toml a table `[[alerts.rules]]`."""

    name: str = Field(pattern=r"^[a-z0-9-]{1,40}$")
    to: tuple[SecretStr, ...] = Field(min_length=1)
    """Addresses: `https://...` gets a signed POST, all others are those of `apprise`."""
    kinds: tuple[str, ...] = ()
    """Kinds of alerts, patterns allowed; none: all. `types` and `queues` likewise."""
    types: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    filters: tuple[str, ...] = ()
    """Saved filters by name, patterns allowed: the rule is about their alerts alone; none: about all alerts."""
    fold: Seconds = Field(default=60.0, ge=0)
    """Seconds within which the recipients hear once at most."""
    secret: SecretStr | None = None
    """Signs webhooks."""

    @field_validator("kinds")
    @classmethod
    def _kinds_are_known(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        # A pattern that fits nothing would deliver nothing, in silence.
        known = [kind.value for kind in AlertKind]
        stray = next((kind for kind in kinds if not fnmatch.filter(known, kind)), None)
        if stray is not None:
            raise ValueError(f"no alert is of the kind {stray!r}; there are {', '.join(known)}")
        return kinds

    def addresses(self) -> list[str]:
        """In clear: never log them, they hold tokens."""
        return [address.get_secret_value() for address in self.to]


class AlertsSettings(Group):
    """Who hears of alerts."""

    backlog: int | None = _is(None, "Alert when a queue holds more jobs than this.", "jobs", ge=1)
    oldest: Seconds | None = _is(None, "Alert when the oldest job of a queue waits longer than this.", "seconds")
    rules: tuple[AlertRule, ...] = _is(
        (), "Tables [[alerts.rules]]: name, to, kinds, types, queues, filters, fold, secret."
    )

    @field_validator("rules")
    @classmethod
    def _names_differ(cls, rules: tuple[AlertRule, ...]) -> tuple[AlertRule, ...]:
        names = [rule.name for rule in rules]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two rules have the name {twice!r}; what was delivered is kept by the name")
        return rules


class Settings(BaseModel):
    """All settings of a process. Frozen; made by `load_settings`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kafka: KafkaSettings = Field(default_factory=KafkaSettings)
    topics: TopicsSettings = Field(default_factory=TopicsSettings)
    worker: WorkerSettings = Field(default_factory=WorkerSettings)
    client: ClientSettings = Field(default_factory=ClientSettings)
    dashboard: DashboardSettings = Field(default_factory=DashboardSettings)
    alerts: AlertsSettings = Field(default_factory=AlertsSettings)

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)


GROUPS: dict[str, type[Group]] = {
    "kafka": KafkaSettings,
    "topics": TopicsSettings,
    "worker": WorkerSettings,
    "client": ClientSettings,
    "dashboard": DashboardSettings,
    "alerts": AlertsSettings,
}
"""The tables, in the order of the documentation."""
