"""Reading the log into the projection: from the offsets that the database holds, as far as the log goes, and on.

It joins no group and writes nothing to Kafka. Where it stands is known to the database alone, so any number of
processes may run it: one of them is ahead, the others find its offsets and go on from there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from sqlalchemy import Connection, Select, delete, select
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError, StatementError

from processor import events
from processor.admin.lag import queue_lag
from processor.broker.base import Broker, Isolation, Reader, TopicPartition
from processor.clock import Clock, SystemClock
from processor.errors import BrokerError, BrokerUnavailable, OffsetOutOfRange, RecordError
from processor.ops import tables
from processor.ops.applying import Batch, Overtaken, alone, parts
from processor.ops.errors import ProjectionError
from processor.ops.folding import READ, Search, Seen, seen
from processor.ops.store import Store
from processor.ops.tallies import JOBS as ALIKE
from processor.ops.tallies import Tally
from processor.states import TERMINAL, State
from processor.wire.topics import TopicKind, jobs_topic, parse_topic

FETCH = 2000
"""Records of one batch at most."""
_SLICE = 0.25
_AHEAD = 32_768
"""Kilobytes fetched ahead in all: payloads may be large."""
_LOOK_EVERY = 2.0
"""Seconds between two questions how far the log goes."""
_TOPICS_EVERY = 15.0
"""Seconds between two looks for new topics and partitions."""
_FORGET_EVERY = 600.0
_PATIENCE = 60.0
"""Seconds without a single event after which catching up is given up."""
_AFTER_ERROR = 2.0
_FORGOTTEN = 1000
"""Jobs that are forgotten in one transaction."""

log = events.logger(__name__)


class Projector:
    """Fills one store from one namespace's log. Used by one thread."""

    def __init__(
        self,
        broker: Broker,
        store: Store,
        *,
        search: Search | None = None,
        keep_ms: int = 7 * 86_400_000,
        clock: Clock | None = None,
        beside: Callable[[], object] = lambda: None,
    ) -> None:
        """
        Args:
            broker: the cluster.
            store: where to.
            search: payload fields that can be searched, by job type.
            keep_ms: how long an ended job stays, milliseconds: as long as the status topic keeps it.
            clock: of this process.
            beside: called by `run` after each batch, on its thread.
        """
        self._broker = broker
        self._store = store
        self.search: Search = search or {}
        self._keep_ms = keep_ms
        self._clock = clock or SystemClock()
        self._beside = beside
        self._reader: Reader | None = None
        self._at: dict[TopicPartition, int] = {}
        self._looked = self._listed = self._forgot = float("-inf")
        self._unreadable = 0
        self.behind: int | None = None
        """Offsets not yet read when it looked last; None: it has not looked."""

    # -- running ---------------------------------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Go on until told to stop. A broker or database that does not answer is asked again, and so is one that shows
        another log: the pages tell how old they are, and `projection rebuild` sets it right under a running dashboard.
        """
        try:
            while not stop.is_set():
                try:
                    self.step()
                    self._beside()
                except (BrokerError, DBAPIError, ProjectionError) as error:
                    log.warning("projection.waits", extra={"error": str(error)})
                    self._let_go()
                    stop.wait(_AFTER_ERROR)
        finally:
            self.close()

    def catch_up(self, progress: Callable[[int], object] = lambda count: None) -> int:
        """Read everything that is in the log now; how many records that was.

        Args:
            progress: told how many more records are in, after each batch.

        Raises:
            BrokerError: Kafka does not answer.
            ProjectionError: the database shows another log.
        """
        self._open()
        ends = self._broker.admin().end_offsets(list(self._at), Isolation.COMMITTED)
        total, heard = 0, self._clock.monotonic()
        while any(self._at.get(place, 0) < end for place, end in ends.items()):
            before = dict(self._at)
            count = self.step()
            total += count
            if count:
                progress(count)
            if self._at != before:
                heard = self._clock.monotonic()
            elif self._clock.monotonic() - heard > _PATIENCE:
                raise BrokerUnavailable(f"the log gave nothing for {_PATIENCE:.0f} s")
        self._look()
        return total

    def step(self) -> int:
        """Read one batch and write it; how many records it had."""
        reader = self._open()
        now = self._clock.monotonic()
        if now - self._listed >= _TOPICS_EVERY:
            self._add_partitions(reader)
        batch = reader.fetch(FETCH, _SLICE)
        for fault in batch.faults:
            if not isinstance(fault.error, OffsetOutOfRange):
                raise fault.error
            self._skip_to_begin(reader, fault.partition)
        found: list[Seen] = []
        touched = {TopicPartition(record.topic() or "", record.partition() or 0) for record in batch.records}
        for record in batch.records:
            try:
                each = seen(record)
            except RecordError:
                # Its worker makes it a dead letter, which is shown; here it is only counted.
                self._unreadable += 1
                continue
            if each is not None:
                found.append(each)
        touched |= {end.partition for end in batch.ends}
        self._write(found, {place: reader.position(place) for place in touched if place in self._at})
        self._by_the_clock()
        return len(batch.records)

    def forget(self) -> None:
        """What the log has forgotten too: a projection that is built anew would not have it."""
        jobs, letters, before = tables.jobs.c, tables.letters.c, self._clock.now_ms() - self._keep_ms
        gone = [place for place in self._at if (name := parse_topic(place.topic)) and name.kind is TopicKind.DLQ]
        with self._store.writing() as sql:
            alone(sql)
            for place, begin in self._broker.admin().begin_offsets(gone).items():
                where = (letters.partition == place.partition, letters.offset < begin)
                tally = Tally.of_letters()
                for row in sql.execute(select(tables.letters).where(*where)).mappings():
                    tally.note(dict(row), -1)
                sql.execute(delete(tables.letters).where(*where))
                tally.write(sql)
        lies = select(letters.job_id).where(letters.job_id == jobs.id).exists()
        ended = select(jobs.id).where(
            jobs.state.in_([state.value for state in TERMINAL]), jobs.changed_at < before, ~lies
        )
        # Its status was there once, and went with retention: it does not wait, nobody knows any more how it ended.
        unknown = select(jobs.id).where(
            jobs.state == State.QUEUED.value, jobs.changed_at < before, jobs.status_life == 0, jobs.letter_life == 0
        )
        self._drop(ended)
        for place, first in self._first_open().items():
            at = (jobs.lay_topic == place.topic, jobs.lay_partition == place.partition, jobs.lay_offset < first)
            self._drop(unknown.where(*at))

    def close(self) -> None:
        """Let go of the log."""
        self._let_go()

    # -- parts -----------------------------------------------------------------------------------------------------

    def _write(self, found: Sequence[Seen], positions: dict[TopicPartition, int]) -> None:
        steps = {place: (self._at[place], to) for place, to in positions.items() if to > self._at[place]}
        if not steps:
            return
        try:
            self._write_batch(found, steps)
        except Overtaken:
            # Another process projects into this database. Go on from where it is.
            self._let_go()
            return
        self._at.update({place: to for place, (_, to) in steps.items()})

    def _write_batch(self, found: Sequence[Seen], steps: dict[TopicPartition, tuple[int, int]]) -> None:
        try:
            with self._store.writing() as sql:
                Batch(sql, self.search).write(found, steps)
        except (DataError, IntegrityError, StatementError) as error:
            if isinstance(error, OperationalError):
                raise
            # One record that the database refuses must not hold up all that come after it.
            with self._store.writing() as sql:
                Batch(sql, self.search).write([], steps)
                for each in found:
                    self._write_one(sql, each)

    def _write_one(self, sql: Connection, each: Seen) -> None:
        try:
            with sql.begin_nested():
                Batch(sql, self.search).write([each], {})
        except (DataError, IntegrityError, StatementError) as error:
            if isinstance(error, OperationalError):
                raise
            self._unreadable += 1
            log.error("projection.refused", extra={"kind": type(each).__name__, "error": str(error)})

    def _open(self) -> Reader:
        if self._reader is None:
            self._store.prepare(self._broker.admin().cluster().cluster_id, self.search)
            self._reader, self._at, self._listed = self._broker.reader(ahead_kbytes=_AHEAD), {}, float("-inf")
            self._add_partitions(self._reader)
        return self._reader

    def _let_go(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _add_partitions(self, reader: Reader) -> None:
        self._listed = self._clock.monotonic()
        places = [
            TopicPartition(topic, number)
            for topic, info in sorted(self._broker.admin().topics().items())
            if (name := parse_topic(topic)) and name.namespace == self._store.namespace and name.kind in READ
            for number in range(info.partitions)
        ]
        fresh = [place for place in places if place not in self._at]
        if not fresh:
            return
        begins = self._broker.admin().begin_offsets(fresh)
        self._store.begin_at((place, begins[place]) for place in fresh)
        known = self._store.offsets()
        starts = {place: known[place] for place in fresh}
        self._at |= starts
        reader.assign(starts)

    def _skip_to_begin(self, reader: Reader, place: TopicPartition) -> None:
        """What the projection stopped at was deleted: go on with what is left."""
        admin, at = self._broker.admin(), self._at[place]
        if at > admin.end_offsets([place])[place]:
            raise ProjectionError(
                f"the projection is at offset {at} of {place.topic}-{place.partition}, and the log ends before that",
                hint="were the topics made anew? processor projection rebuild",
            )
        begin = admin.begin_offsets([place])[place]
        reader.unassign([place])
        self._write([], {place: begin})
        if self._reader is not None:
            reader.assign({place: begin})

    def _by_the_clock(self) -> None:
        now = self._clock.monotonic()
        if self._reader is None or now - self._looked < _LOOK_EVERY:
            return
        self._look()
        if self.behind == 0 and now - self._forgot >= _FORGET_EVERY:
            self._forgot = now
            self.forget()

    def _look(self) -> None:
        """How far the log goes, and so how fresh this is."""
        self._looked, asked = self._clock.monotonic(), self._clock.now_ms()
        ends = self._broker.admin().end_offsets(list(self._at), Isolation.COMMITTED)
        self.behind = sum(max(0, ends[place] - at) for place, at in self._at.items())
        facts = {"behind": str(self.behind), "unreadable": str(self._unreadable)}
        if self.behind == 0:
            facts["as_of"] = str(asked)
        with self._store.writing() as sql:
            self._store.note(sql, **facts)

    def _first_open(self) -> dict[TopicPartition, int]:
        namespace = self._store.namespace
        return {
            TopicPartition(jobs_topic(namespace, lag.queue, lag.lane), lag.number): lag.start
            for lag in queue_lag(self._broker, namespace)
        }

    def _drop(self, chosen: Select[tuple[str]]) -> None:
        while True:
            with self._store.writing() as sql:
                alone(sql)
                ids = [row[0] for row in sql.execute(chosen.limit(_FORGOTTEN))]
                tally, ended = Tally.of_jobs(), Tally.of_ended()
                for part in parts(ids):
                    alike = select(*(tables.jobs.c[name] for name in (*ALIKE, "changed_at")))
                    for found in sql.execute(alike.where(tables.jobs.c.id.in_(part))).mappings():
                        row = {**found, "error_kind": found["error_kind"] if found["fingerprint"] else ""}
                        tally.note(row, -1)
                        ended.note_end(row, -1)
                    sql.execute(delete(tables.jobs).where(tables.jobs.c.id.in_(part)))
                    for table in (tables.bodies, tables.fields, tables.moves, tables.failures):
                        sql.execute(delete(table).where(table.c.job_id.in_(part)))
                tally.write(sql)
                ended.write(sql)
            if not ids:
                return
