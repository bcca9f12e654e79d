"""What a worker needs to know before it starts: one frozen object, made by the composition roots from the settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from processor.job import Lane
from processor.wire.groups import forwarder_group, queue_group, scheduler_group


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueConfig:
    """A queue this worker serves."""

    name: str
    partitions: int = 12
    lanes: tuple[Lane, ...] = (Lane.NORMAL, Lane.DUE)
    concurrency: int = 100
    """Jobs that run at a time in this process, for each kind of executor."""
    order: str = "block"
    """What a failed job does to its ordering key: hold it (`block`) until it is done, or let it go (`release`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """Times in seconds, sizes in bytes unless the name says otherwise."""

    namespace: str
    slot: str
    """Name of this worker's slot: its group.instance.id and the end of its transactional.id."""
    queues: tuple[QueueConfig, ...]
    static: bool = True
    """Join as a static member, so that a restart within the session is no rebalance."""

    linger: float = 0.02
    """The oldest record of the outbox waits at most this long for company."""
    outbox_max_records: int = 20_000
    outbox_max_bytes: int = 32 * 1024 * 1024
    inflight_max_records: int = 10_000
    """Records taken from the log and not yet complete, over all numbers; parked jobs do not count."""
    inflight_max_bytes: int = 64 * 1024 * 1024
    fetch_records: int = 500

    promote_after: float = 10.0
    announce_after: float = 0.25
    """A job that still runs after this gets a `running` status."""
    revoke_wait: float = 2.0
    """How long a revoke waits for running jobs to checkpoint and yield."""
    grace: float = 30.0
    """How long a stop waits for them."""
    stable_wait: float = 2.0
    """How long a restore waits for a pending transaction before it looks for a dead slot."""
    membership_proof: float = 1.0
    """After a fatal producer error: how long the consumer must stay a member before the producer is rebuilt."""
    unknown_type_patience: float = 600.0
    stop_grace: float = 5.0
    """How long an attempt that was told to stop (timeout, kill date, cancel) may take before it is ended by force."""
    abandoned_max: int = 10
    """So many attempts that cannot be ended, were left behind and still run, and the process stops, to start anew."""
    refresh_every: float = 3600.0
    """Idle numbers commit again this often: fresh hint, and no offset expires."""
    watchdog: float = 60.0
    """A number that makes no progress for this long, though it could, is held."""
    schedules: bool = False
    """Take part in firing the schedules of the namespace."""
    status_retention: float = 7 * 86_400.0
    """A run of a schedule without a word for so long counts as ended: its status may be gone."""
    dedupe_window: float = 86_400.0
    replay_time: float = 7 * 86_400.0
    """How long finished records of a lane are kept for replay."""

    checkpoint_max_bytes: int = 256 * 1024
    result_max_bytes: int = 256 * 1024
    payload_max_bytes: int = 1_000_000

    idle_wait: float = 0.000_5
    """Longest sleep of the loop while jobs run or come."""
    idle_after: float = 0.1
    """After so long without either it sleeps longer."""
    idle_wait_max: float = 0.004
    """Longest sleep of the loop while nothing happens."""
    tend_every: float = 3600.0
    """How often old records of the lanes are deleted, those older than `replay_time` and complete."""

    app_path: str | None = None
    """`MODULE:APP`: the name under which child processes import the app. Process executors need it."""
    child_folder: str | None = None
    """Working directory of child processes; None: that of this process, which a job may have changed."""
    quarantine: bool = True
    """Jobs that were there when processes died run in child processes of their own. False: they cannot."""
    child_slots: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Child processes of one queue at most: more than processors only take turns."""
    child_env: Mapping[str, str] = field(default_factory=dict)
    """Added to the environment of child processes: settings that this process was given as flags."""
    tracing: bool = True
    """Attempts are spans, in a process that has a tracer provider when the worker starts."""
    log_jobs: bool = False
    """A log line for each job that ends, also for those that succeed."""
    child_log_format: str = ""
    """`text` or `json`; empty: child processes leave logging alone."""

    def group(self, queue: str) -> str:
        """The consumer group of a queue's workers."""
        return queue_group(self.namespace, queue)

    @property
    def forwarders(self) -> str:
        """The consumer group of the forwarder role."""
        return forwarder_group(self.namespace)

    def forwarder_id(self, slot: str | None = None) -> str:
        """The transactional id of a slot's forwarder (default: this one)."""
        return f"{self.namespace}.forwarder.{slot or self.slot}"

    @property
    def schedulers(self) -> str:
        """The consumer group of the scheduler role."""
        return scheduler_group(self.namespace)

    def scheduler_id(self, slot: str | None = None) -> str:
        """The transactional id of a slot's scheduler (default: this one)."""
        return f"{self.namespace}.scheduler.{slot or self.slot}"

    def transactional_id(self, slot: str | None = None) -> str:
        """The transactional id of a slot (default: this one)."""
        return f"{self.namespace}.worker.{slot or self.slot}"
