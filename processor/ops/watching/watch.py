"""Looks at the saved filters that are alerts, and tells in the topic of alerts, as workers do.

A look is made beside the projection, whenever that has read what there is: half a copy of the log would open and close
alerts of long ago.

1. The filter is read, as it means now (`since:2h`), and counted.
2. What follows is decided.
3. In one transaction the new standing takes the place of the one that was decided by, and what is told is confirmed by
   Kafka. Of several processes one succeeds; one that dies in between lets it be told again, and nothing is lost.
"""

from __future__ import annotations

from typing import assert_never

from sqlalchemy.exc import DBAPIError

from processor import events
from processor.alert_kinds import AlertKind
from processor.broker.base import Broker, OutRecord
from processor.client.orders import send
from processor.clock import Clock, SystemClock
from processor.errors import ProcessorError
from processor.ops.errors import FilterInvalid
from processor.ops.filters import Filter, parse
from processor.ops.folding import Search
from processor.ops.kept import FilterAlert, Kept
from processor.ops.queries import COUNTED, Queries
from processor.ops.search import search_names
from processor.ops.store import Store
from processor.ops.watching.decision import (
    PAGE,
    Change,
    Fit,
    Standing,
    Verdict,
    counted,
    listed,
    standing_of,
    unreadable,
)
from processor.ops.wording import count
from processor.wire.codec import encode
from processor.wire.durations import format_duration
from processor.wire.records import AlertRecord
from processor.wire.topics import alerts_topic

EVERY = 5.0
"""Seconds between two looks."""
BEHIND = 2_000
"""Records that the projection may lack: a busy log is never read to its end."""
TIMEOUT = 10.0
"""Seconds that Kafka has to confirm what is told."""
NAMED = 5
"""New jobs that are named."""
LONGEST = 200
"""Characters of a filter that are told."""

log = events.logger(__name__)


def subject_of(name: str) -> str:
    """What alerts about a saved filter are about."""
    return f"filter:{name}"


class FilterWatch:
    """The alerts of one projection. `turn` is called often, by one thread."""

    def __init__(self, broker: Broker, store: Store, search: Search, clock: Clock | None = None) -> None:
        self._broker = broker
        self._namespace = store.namespace
        self._kept = Kept(store)
        self._queries = Queries(store)
        self._fields = search_names(search)
        self._clock = clock or SystemClock()
        self._next = float("-inf")

    def turn(self) -> None:
        """Look, if it is time. Neither a database nor a broker that is away ends it."""
        now = self._clock.monotonic()
        if now < self._next:
            return
        self._next = now + EVERY
        try:
            alerts = self._kept.alerts() if self._is_fresh() else []
        except DBAPIError as error:
            log.warning("filter_alerts.waits", extra={"error": str(error)})
            return
        for alert in alerts:
            try:
                self._look(alert)
            except (ProcessorError, DBAPIError) as error:
                # The others are looked at all the same; this one is, again.
                log.warning("filter_alerts.retrying", extra={"filter": alert.name, "error": str(error)})

    def _is_fresh(self) -> bool:
        fresh = self._queries.freshness()
        return fresh.as_of > 0 and 0 <= fresh.behind <= BEHIND

    def _look(self, alert: FilterAlert) -> None:
        now_ms, before = self._clock.now_ms(), standing_of(alert.standing, alert.filter)
        where = Filter()
        try:
            where = parse(alert.filter, now_ms, self._fields)
        except FilterInvalid as error:
            verdict = unreadable(before, str(error))
        else:
            verdict = self._verdict(alert, before, where, now_ms)
        after = verdict.standing.text()
        if after == alert.standing:
            return
        record = None if verdict.change is None else self._record(alert, verdict, verdict.change, where)
        self._kept.move(alert, after, lambda: self._tell(record))

    def _verdict(self, alert: FilterAlert, before: Standing, where: Filter, now_ms: int) -> Verdict:
        wish = alert.wish
        if wish.at_least is not None:
            return counted(before, wish, self._queries.count(where, wish.at_least), now_ms)
        rows = self._queries.jobs(where, limit=PAGE).rows
        return listed(before, [Fit(job_id=row["id"], life=row["life"], changed_at=row["changed_at"]) for row in rows])

    def _record(self, alert: FilterAlert, verdict: Verdict, change: Change, where: Filter) -> AlertRecord:
        kind, text = self._told(alert, verdict, change, where)
        return AlertRecord(
            kind,
            subject_of(alert.name),
            self._clock.now_ms(),
            "",
            f"filter {alert.name}: {text}",
            job_id=verdict.new[0] if len(verdict.new) == 1 else "",
            type=_single(where, "type"),
            queue=_single(where, "queue"),
        )

    def _told(self, alert: FilterAlert, verdict: Verdict, change: Change, where: Filter) -> tuple[AlertKind, str]:
        meant = alert.filter[:LONGEST]
        lasting = f" for {format_duration(alert.wish.hold_ms / 1000)}" if alert.wish.hold_ms else ""
        if change is Change.UNREADABLE:
            hint = "nothing is told of it until somebody saves it anew"
            return AlertKind.FILTER_UNREADABLE, f"it cannot be read any more ({verdict.standing.problem}); {hint}"
        if change is Change.NEW:
            ids, more = ", ".join(verdict.new[:NAMED]), len(verdict.new) > NAMED
            return AlertKind.FILTER, f"{count(len(verdict.new), 'new job')}: {ids}{', ...' if more else ''} ({meant})"
        total, wanted = self._queries.count(where), alert.wish.at_least or 0
        number = count(min(total, COUNTED), "job") + (" or more" if total > COUNTED else "")
        number += " matches" if total == 1 else " match"
        if change is Change.OPENED:
            return AlertKind.FILTER, f"{number}, at least {wanted:,}{lasting} ({meant})"
        if change is Change.CLOSED:
            return AlertKind.FILTER_OVER, f"{number}, fewer than {wanted:,}{lasting} ({meant})"
        assert_never(change)

    def _tell(self, record: AlertRecord | None) -> None:
        if record is None:
            return
        log.error("filter_alerts.told", extra={"kind": record.kind, "text": record.text})
        out = OutRecord(alerts_topic(self._namespace), record.subject.encode(), encode(record))
        producer = self._broker.producer()
        try:
            send(producer, [out], TIMEOUT, f"an alert about {record.subject}")
        finally:
            producer.close()


def _single(where: Filter, name: str) -> str:
    """What the filter asks of a name, if that is one value: rules choose by it."""
    values = where.of(name)
    return values[0] if len(values) == 1 and not values[0].endswith("*") else ""
