"""Every metric, declared once: name, kind, meaning, unit, labels, buckets. docs/metrics.md is generated from here.

Rules: base units (seconds, bytes, records); moments, not ages; a label only holds names that the code or its owner
declares (queue, job type, outcome), never an id, a key, an offset or an exception's text. Job types beyond
`MAX_LABEL_VALUES` share the label `_other`, so a broken producer cannot fill the monitoring system.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

PREFIX = "processor_"
OTHER = "_other"
MAX_LABEL_VALUES = 100
"""Distinct values of one open label (queue, type) of one metric."""

JOB_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)
FLUSH_BUCKETS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
RECORD_BUCKETS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0)


class Kind(StrEnum):
    """What a metric counts like."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class MetricUnknown(LookupError):
    """Code asked for a metric that is not in the catalogue, or with other labels: a mistake of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A metric as declared."""

    name: str
    """Without prefix; counters end in `_total`."""
    kind: Kind
    help: str
    unit: str = ""
    """`seconds`, `bytes`, ...; empty for plain counts."""
    labels: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    """All values of the last label, if they are a closed list: their series exist from the start."""
    buckets: tuple[float, ...] = ()

    @property
    def full_name(self) -> str:
        """As scraped."""
        return PREFIX + self.name


def _counter(name: str, help_: str, labels: tuple[str, ...] = (), values: tuple[str, ...] = ()) -> Metric:
    return Metric(name=name, kind=Kind.COUNTER, help=help_, labels=labels, values=values)


def _gauge(name: str, help_: str, labels: tuple[str, ...] = (), unit: str = "") -> Metric:
    return Metric(name=name, kind=Kind.GAUGE, help=help_, labels=labels, unit=unit)


def _histogram(name: str, help_: str, unit: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()) -> Metric:
    return Metric(name=name, kind=Kind.HISTOGRAM, help=help_, unit=unit, labels=labels, buckets=buckets)


OUTCOMES = ("succeeded", "retried", "dead", "cancelled", "killed", "expired", "discarded", "yielded", "parked", "died")
"""How an attempt may end, as the label `outcome`; `died`: its process did."""
STOPS = ("timeout", "stall", "killed", "cancelled")
"""Why an attempt was told to stop."""
FLUSH_RESULTS = ("committed", "aborted", "fenced")
REBALANCES = ("assigned", "revoked", "lost")
REBUILD_CAUSES = ("abort", "disconnect", "fatal", "fenced", "stuck")

CATALOGUE: tuple[Metric, ...] = (
    _counter("jobs_started_total", "Attempts started.", ("queue", "type")),
    _counter("jobs_finished_total", "Attempts ended.", ("queue", "type", "outcome"), OUTCOMES),
    _histogram("job_run_seconds", "Time in the handler, per attempt.", "seconds", JOB_BUCKETS, ("queue", "type")),
    _histogram(
        "job_wait_seconds",
        "From due to handed out; under load a sample.",
        "seconds",
        JOB_BUCKETS,
        ("queue",),
    ),
    _gauge("jobs_in_progress", "Attempts running now.", ("queue", "type")),
    _gauge("slots", "Attempts that may run at the same time."),
    _gauge("slots_used", "Slots with an attempt in them."),
    _counter("flushes_total", "Flushes (transactions), by result.", ("result",), FLUSH_RESULTS),
    _histogram("flush_seconds", "From freezing a batch to the end of its transaction.", "seconds", FLUSH_BUCKETS),
    _histogram("flush_records", "Records written by one flush.", "records", RECORD_BUCKETS),
    _counter("checkpoints_total", "Checkpoints written.", ("queue",)),
    _counter("steps_total", "Steps saved.", ("queue",)),
    _counter("restores_total", "Numbers restored after an assignment.", ("queue",)),
    _histogram("restore_seconds", "From an assignment to the first job of the number.", "seconds", JOB_BUCKETS),
    _counter("rebalances_total", "Rebalance callbacks, by event.", ("event",), REBALANCES),
    _gauge("numbers_owned", "Numbers this worker owns.", ("queue",)),
    _gauge("numbers_held", "Numbers that stand still because of a fault; page on this.", ("queue",)),
    _gauge("window_width", "Offsets between the low watermark and the newest finished job, widest lane.", ("queue",)),
    _gauge("outbox_records", "Records waiting for a flush."),
    _gauge("outbox_bytes", "The same, by size.", unit="bytes"),
    _counter("dead_letters_total", "Dead letters written, by reason.", ("queue", "reason")),
    _counter("retries_forwarded_total", "Records of waiting jobs that this worker's forwarder moved on."),
    _counter("attempts_stopped_total", "Attempts told to stop before their handler's end, by why.", ("why",), STOPS),
    _counter("schedule_runs_total", "Jobs that this worker has started by the clock."),
    _counter("schedule_misses_total", "How often instants of a schedule were found over a minute late."),
    _counter("schedule_holds_total", "How often a schedule could not be fired; page on a rise."),
    _counter("attempts_abandoned_total", "Attempts that could not be ended and were left behind; page on a rise."),
    _gauge("attempts_left_behind", "Of those, the ones that still run; at worker.abandoned_max the process restarts."),
    _counter("dropped_copies_total", "Copies completed without running, as the drop rule says.", ("queue",)),
    _counter("keys_reused_total", "Enqueues with a known idempotency key and another content: not run.", ("queue",)),
    _counter("producer_rebuilds_total", "Transactional producers rebuilt, by cause.", ("cause",), REBUILD_CAUSES),
    _gauge("last_loop_timestamp_seconds", "When the owning thread last went round.", unit="seconds"),
    _counter("promoted_total", "Jobs moved into the checkpoint topic.", ("queue",)),
    _counter("takeovers_total", "Numbers taken over from a worker that did not let go cleanly.", ("queue",)),
    _gauge("broker_up", "1 while brokers answer, else 0."),
    _gauge("build_info", "Always 1; the labels say what runs.", ("version", "python")),
)
BY_NAME = {metric.name: metric for metric in CATALOGUE}


class Registry:
    """The metrics of one process, made from the catalogue in a registry of their own.

    `counter`, `gauge` and `histogram` return cached children: keep them, or ask again for the price of a dict lookup
    (a child's `inc` takes 0.3 us, prometheus-client's own `labels().inc` 1.2 us).
    """

    def __init__(self) -> None:
        self.collectors = CollectorRegistry()
        self._made: dict[str, Counter | Gauge | Histogram] = {}
        self._children: dict[tuple[str, ...], Counter | Gauge | Histogram] = {}
        self._seen: dict[tuple[str, str], set[str]] = {}
        for metric in CATALOGUE:
            self._made[metric.name] = self._make(metric)
            if len(metric.labels) == 1:
                for value in metric.values:
                    self._child(metric.name, (value,))
            if not metric.labels:
                self._child(metric.name, ())

    def _make(self, metric: Metric) -> Counter | Gauge | Histogram:
        if metric.kind is Kind.COUNTER:
            return Counter(metric.full_name, metric.help, metric.labels, registry=self.collectors)
        if metric.kind is Kind.GAUGE:
            return Gauge(metric.full_name, metric.help, metric.labels, registry=self.collectors)
        buckets = metric.buckets
        return Histogram(metric.full_name, metric.help, metric.labels, registry=self.collectors, buckets=buckets)

    def counter(self, name: str, *labels: str) -> Counter:
        """The counter `name` (without prefix) of these label values, in the catalogue's order."""
        child = self._children.get((name, *labels)) or self._child(name, labels)
        assert isinstance(child, Counter), name
        return child

    def gauge(self, name: str, *labels: str) -> Gauge:
        """The gauge `name` of these label values."""
        child = self._children.get((name, *labels)) or self._child(name, labels)
        assert isinstance(child, Gauge), name
        return child

    def histogram(self, name: str, *labels: str) -> Histogram:
        """The histogram `name` of these label values."""
        child = self._children.get((name, *labels)) or self._child(name, labels)
        assert isinstance(child, Histogram), name
        return child

    def _child(self, name: str, labels: tuple[str, ...]) -> Counter | Gauge | Histogram:
        metric = BY_NAME.get(name)
        if metric is None or len(metric.labels) != len(labels):
            wanted = f"its labels are {metric.labels}" if metric else "it is not in the catalogue"
            raise MetricUnknown(f"metric {name} with labels {labels}: {wanted}")
        bounded = tuple(self._bounded(metric, label, value) for label, value in zip(metric.labels, labels, strict=True))
        made = self._made[name]
        child = made.labels(*bounded) if bounded else made
        # Values beyond the bound are not cached under their own name: that cache would grow for ever.
        self._children[(name, *bounded)] = child
        return child

    def _bounded(self, metric: Metric, label: str, value: str) -> str:
        seen = self._seen.setdefault((metric.name, label), set())
        if value in seen or value == OTHER:
            return value
        if len(seen) >= MAX_LABEL_VALUES:
            return OTHER
        seen.add(value)
        return value

    def forget(self, name: str, labels: Iterable[str]) -> None:
        """Drop one series, for instance of a queue that this worker owns no number of any more."""
        key = tuple(labels)
        if self._children.pop((name, *key), None) is not None:
            self._made[name].remove(*key)

    def render(self) -> bytes:
        """All series in Prometheus' text format."""
        return generate_latest(self.collectors)
