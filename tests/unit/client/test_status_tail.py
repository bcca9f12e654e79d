"""A job is found by its id, whatever the clocks say, and with as little reading as can be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from processor import admin
from processor.broker.base import Broker, OutRecord, TopicSpec
from processor.broker.memory import MemoryBroker
from processor.client import StatusTail, Track
from processor.client.recent import HALF_BYTES, Recent
from processor.clock import ManualClock
from processor.job_ids import made_at, uuid7
from processor.states import State
from processor.wire.codec import encode
from processor.wire.records import StatusRecord

MINUTE = 60_000
HOUR = 60 * MINUTE


class Statuses:
    """A status topic with one partition, and a reader that counts what it reads."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.broker = MemoryBroker(clock=self.clock)
        self.broker.admin().create_topics([TopicSpec(name="shop.status", partitions=1)])
        self._producer = self.broker.producer()
        self.tails: list[StatusTail] = []

    def id(self, ahead_ms: int = 0) -> str:
        """A fresh id of a client whose clock is so much ahead of the broker's."""
        return uuid7(self.clock.now_ms() + ahead_ms)

    def say(self, job_id: str, state: State = State.SUCCEEDED, *, note: str = "", **values: Any) -> str:
        fields: dict[str, Any] = {"life": 1, "type": "t", "queue": "q", "at": 1, "attempt": 1, "worker": "w"}
        record = StatusRecord(id=job_id, state=state, note=note, **{**fields, **values})
        self._producer.append(OutRecord("shop.status", job_id.encode(), encode(record)))
        assert self._producer.flush(1.0) == 0
        return job_id

    def history(self, count: int, *, note: str = "") -> list[str]:
        """Jobs that end one a second."""
        ids = []
        for _ in range(count):
            ids.append(self.say(self.id(), note=note))
            self.clock.advance(1.0)
        return ids

    def tail(self) -> CountingTail:
        tail = CountingTail(self)
        self.tails.append(tail)
        return tail


class CountingTail(StatusTail):
    """A tail, and how many records it fetched."""

    def __init__(self, statuses: Statuses) -> None:
        self.counted = _Counting(statuses.broker)
        super().__init__(lambda: cast("Broker", self.counted), "shop.status", statuses.clock)

    def ask(self, job_id: str) -> State | None:
        """A handle made now, asked and let go."""
        track: Track = self.track(job_id)
        assert self.catch_up(track, 5.0)
        return None if track.latest is None else track.latest.state


class _Counting:
    """A broker whose readers count."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self.records = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    def reader(self) -> Any:
        reader = self._broker.reader()
        fetch = reader.fetch

        def counted(limit: int, timeout: float) -> Any:
            # Small bites: a fetch of 500 would hide how much is read too much.
            batch = fetch(min(limit, 10), timeout)
            self.records += len(batch.records)
            return batch

        reader.fetch = counted  # type: ignore[method-assign]
        return reader


@pytest.fixture
def statuses() -> Iterator[Statuses]:
    statuses = Statuses()
    yield statuses
    for tail in statuses.tails:
        tail.close()


def test_a_finished_job_is_read_from_the_time_in_its_id_to_its_end(statuses: Statuses) -> None:
    ids = statuses.history(1_000)

    tail = statuses.tail()
    assert tail.ask(ids[500]) is State.SUCCEEDED
    assert tail.counted.records <= 80


def test_jobs_of_one_time_share_one_reading(statuses: Statuses) -> None:
    ids = statuses.history(1_000)

    tail = statuses.tail()
    assert [tail.ask(job_id) for job_id in ids[300:600]] == [State.SUCCEEDED] * 300
    assert [tail.ask(job_id) for job_id in ids[300:600]] == [State.SUCCEEDED] * 300
    assert tail.counted.records <= 380


def test_jobs_that_are_asked_for_newest_first_are_not_read_one_by_one(statuses: Statuses) -> None:
    ids = statuses.history(1_000)

    tail = statuses.tail()
    assert [tail.ask(job_id) for job_id in ids[600:300:-1]] == [State.SUCCEEDED] * 300
    assert tail.counted.records <= 1_500


def test_handles_that_are_alive_share_one_reading_too_in_any_order(statuses: Statuses) -> None:
    ids = statuses.history(1_000)

    tail = statuses.tail()
    tracks = [tail.track(job_id) for job_id in ids[200:400]]
    for track in reversed(tracks):
        assert tail.wait_end(track, 5.0)
    assert tail.counted.records <= 280


@pytest.mark.parametrize("ahead", [-HOUR, -5 * MINUTE, MINUTE, 5 * MINUTE, 20 * MINUTE, 30 * 24 * HOUR])
def test_no_clock_hides_a_job(statuses: Statuses, ahead: int) -> None:
    statuses.history(200)
    job_id = statuses.say(statuses.id(ahead))
    statuses.history(3_000)

    assert statuses.tail().ask(job_id) is State.SUCCEEDED
    tail = statuses.tail()
    assert tail.wait_end(tail.track(job_id), 5.0)


def test_an_unknown_job_is_looked_for_everywhere_and_each_record_is_read_once(statuses: Statuses) -> None:
    ids = statuses.history(600)
    unknown = statuses.id()
    later = statuses.history(2_000)

    tail = statuses.tail()
    track = tail.track(unknown)
    assert tail.ask(unknown) is None
    assert tail.ask(unknown) is None
    # A batch more where it turns.
    assert len(ids) + len(later) <= tail.counted.records <= len(ids) + len(later) + 40
    statuses.say(unknown)
    assert tail.catch_up(track, 5.0)
    assert track.ended
    assert tail.ask(ids[0]) is State.SUCCEEDED


def test_who_comes_while_the_reader_looks_back_misses_nothing(statuses: Statuses) -> None:
    ids = statuses.history(600)
    unknown, known = statuses.id(), statuses.say(statuses.id())
    statuses.history(1_200)

    tail = statuses.tail()
    lost = tail.track(unknown)
    assert not tail.catch_up(lost, 0.0)
    between = [tail.track(job_id) for job_id in (ids[100], known)]
    assert tail.catch_up(lost, 5.0)
    assert [tail.catch_up(track, 5.0) and track.ended for track in between] == [True, True]


def test_an_end_without_success_is_not_the_last_word(statuses: Statuses) -> None:
    job_id = statuses.say(statuses.id(), State.DEAD)
    statuses.history(300)
    statuses.say(job_id, State.SUCCEEDED, life=2)
    statuses.history(300)

    assert statuses.tail().ask(job_id) is State.SUCCEEDED
    tail = statuses.tail()
    track = tail.track(job_id)
    assert tail.wait_end(track, 5.0)
    assert track.latest is not None
    assert track.latest.life == 2


def test_an_id_without_a_time_is_read_for_from_the_beginning_to_the_end(statuses: Statuses) -> None:
    statuses.say("order-7")
    statuses.history(300)
    statuses.say("order-7", State.RUNNING, life=2)

    assert statuses.tail().ask("order-7") is State.RUNNING
    found = admin.job_status(statuses.broker, "shop", "order-7")
    assert found is not None
    assert found.life == 2


def test_an_id_without_a_time_is_looked_for_in_the_last_day_first(statuses: Statuses) -> None:
    old = statuses.say("key-old", at=statuses.clock.now_ms())
    statuses.history(1_000)
    statuses.clock.advance(25 * 3600.0)
    new = statuses.say("key-new", at=statuses.clock.now_ms())
    statuses.history(20)

    tail = statuses.tail()
    assert tail.ask(new) is State.SUCCEEDED
    assert tail.counted.records == 21
    assert tail.ask(old) is State.SUCCEEDED, "further back"
    assert tail.ask("key-unknown") is None


def test_who_waits_under_a_key_reads_nothing_of_before_the_key_was_free(statuses: Statuses) -> None:
    """An end of the same id of longer ago is that of an earlier life."""
    key = statuses.say("key-1", at=statuses.clock.now_ms())
    statuses.history(1_000)
    statuses.clock.advance(25 * 3600.0)
    floor = statuses.clock.now_ms() - 24 * HOUR
    statuses.history(20)

    tail = statuses.tail()
    track = tail.track(key)
    track.forget_before(floor)
    statuses.say(key, life=2, at=statuses.clock.now_ms())
    assert tail.wait_end(track, 5.0)
    assert tail.counted.records == 21
    assert track.latest is not None
    assert track.latest.life == 2


def test_what_is_remembered_is_bounded_and_complete(statuses: Statuses) -> None:
    note = "x" * 2_000
    ids = statuses.history(2_000, note=note)

    tail = statuses.tail()
    assert [tail.ask(job_id) for job_id in ids] == [State.SUCCEEDED] * len(ids)
    assert tail.counted.records <= 2_200
    # Long behind: read again, and found.
    assert [tail.ask(job_id) for job_id in ids[:50]] == [State.SUCCEEDED] * 50
    recent = Recent(0, 0)
    for offset in range(5_000):
        recent.add(offset, b"%d" % offset, note.encode())
    kept = [offset for offset in range(5_000) if recent.of(b"%d" % offset)]
    assert kept == list(range(recent.start, 5_000))
    assert HALF_BYTES / 2 < len(kept) * len(note) < 2 * HALF_BYTES
    assert not recent.covers_since(0)


def test_only_fresh_ids_tell_a_time() -> None:
    assert made_at(uuid7(1_767_225_600_000)) == 1_767_225_600_000
    for other in ("order-7", "", uuid7(5).upper().replace("-7", "-4", 1), uuid7(5).replace("-", ""), uuid7(5) + "x"):
        assert made_at(other) is None
