"""A saved filter that is an alert: what the projection holds is told in the topic of alerts, once."""

from __future__ import annotations

import threading

import pytest

from processor.admin.reading import partitions_of, read_to_end
from processor.errors import BrokerUnavailable
from processor.ops.errors import NotThere
from processor.ops.kept import Kept
from processor.ops.projector import Projector
from processor.ops.search import search_of
from processor.ops.watching.decision import Wish
from processor.ops.watching.watch import EVERY, FilterWatch
from processor.wire.codec import decode_alert
from processor.wire.records import AlertRecord
from processor.wire.topics import alerts_topic
from tests.unit.ops.conftest import Desk
from tests.unit.ops.shop import order
from tests.unit.ops.test_api import failed


class Watching:
    """A watch beside the desk's projection."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.kept = desk, Kept(desk.store)
        self.watch = self.another()

    def another(self) -> FilterWatch:
        """As of another process on the same database."""
        return FilterWatch(
            self.desk.bed.broker, self.desk.store, search_of(self.desk.shop.app), self.desk.bed.runtime.clock
        )

    def save(self, name: str, text: str, at_least: int | None, hold: int = 0) -> None:
        """A filter that is an alert."""
        self.kept.save(name, text, "jane", 1)
        self.kept.watch(name, Wish(at_least=at_least, hold_ms=hold * 1000), "jane", 1)

    def look(self, *watches: FilterWatch) -> list[tuple[str, str]]:
        """All that was told, after one more look."""
        self.desk.bed.advance(f"{EVERY:g}s")
        self.desk.look()
        for watch in watches or (self.watch,):
            watch.turn()
        return [(alert.kind, alert.text) for alert in self.alerts()]

    def alerts(self) -> list[AlertRecord]:
        """All that is in the topic."""
        broker = self.desk.bed.broker
        places = partitions_of(broker, [alerts_topic("shop")])
        return [decode_alert(record.value() or b"") for record in read_to_end(broker, places)]


@pytest.fixture
def watched(desk: Desk) -> Watching:
    """A shop whose filters are watched."""
    return Watching(desk)


def test_so_many_jobs_are_told_when_they_match_and_when_they_no_longer_do(desk: Desk, watched: Watching) -> None:
    watched.save("Jane's failures", "state:dead type:order.charge queue:orders order_id:100,101", 2, hold=10)
    failed(desk)
    assert watched.look() == []
    desk.bed.enqueue(desk.shop.charge, order(101, -1))
    desk.bed.drain()
    assert watched.look() == [], "not for as long yet"
    assert watched.look() == []
    meant = "(state:dead type:order.charge queue:orders order_id:100,101)"
    opened = ("filter", f"filter Jane's failures: 2 jobs match, at least 2 for 10s {meant}")
    assert watched.look() == [opened]
    assert watched.look(watched.another()) == [opened], "a process that has just started knows"
    (alert,) = watched.alerts()
    assert (alert.subject, alert.type, alert.queue, alert.job_id) == (
        "filter:Jane's failures",
        "order.charge",
        "orders",
        "",
    )
    watched.kept.save("Jane's failures", "state:running", "jane", 1)
    watched.kept.save("Jane's failures", "state:dead type:order.charge queue:orders order_id:100,101", "jane", 1)
    assert watched.look() == [opened], "saved anew as it was, it is the same alert"
    desk.shop.fixed = True
    desk.bed.advance("1s")
    (letter, *_) = desk.look().letters().rows
    desk.bed.redrive(letter["job_id"])
    desk.bed.drain()
    for _ in range(2):
        assert watched.look() == [opened]
    over = ("filter_over", f"filter Jane's failures: 1 job matches, fewer than 2 for 10s {meant}")
    assert watched.look() == [opened, over]


def test_each_new_job_is_told_once(desk: Desk, watched: Watching) -> None:
    failed(desk, 2)
    watched.save("dead orders", "state:dead type:order.*", None)
    assert watched.look() == [], "those that are dead already are known"
    job_id = desk.bed.enqueue(desk.shop.charge, order(7, -1)).id
    desk.bed.drain()
    first = ("filter", f"filter dead orders: 1 new job: {job_id} (state:dead type:order.*)")
    assert watched.look() == [first]
    assert watched.look(watched.another(), watched.watch) == [first]
    (alert,) = watched.alerts()
    assert (alert.job_id, alert.type) == (job_id, "")
    desk.bed.redrive(job_id)
    desk.bed.drain()
    assert watched.look() == [first, first], "it is dead again, in its next life"


def test_two_processes_tell_it_once(desk: Desk, watched: Watching) -> None:
    watched.save("dead", "state:dead", 1)
    failed(desk)
    (stale,) = watched.kept.alerts()
    assert len(watched.look(watched.watch, watched.another())) == 1
    # One that read it before the other wrote.
    told: list[int] = []
    assert watched.kept.move(stale, "{}", lambda: told.append(1)) is False
    assert told == []


def test_what_kafka_does_not_confirm_is_told_again(desk: Desk, watched: Watching) -> None:
    watched.save("dead", "state:dead", 1)
    failed(desk)
    kept = watched.kept.alerts()
    desk.bed.broker.faults.fail_next("append", BrokerUnavailable("nobody answers"), process="main")
    assert watched.look() == []
    assert watched.kept.alerts() == kept
    assert len(watched.look()) == 1


def test_a_filter_that_cannot_be_read_any_more_is_told_and_the_others_go_on(desk: Desk, watched: Watching) -> None:
    watched.save("a gone field", "customer.shoe:44", 1)
    watched.save("dead", "state:dead", 1)
    failed(desk)
    (broken, dead) = watched.look()
    assert broken[0] == "filter_unreadable"
    assert broken[1].startswith(
        "filter a gone field: it cannot be read any more (nothing can be filtered by 'customer.s"
    )
    assert dead == ("filter", "filter dead: 1 job matches, at least 1 (state:dead)")
    assert watched.look() == [broken, dead]


def test_while_the_projection_is_behind_nothing_is_told(desk: Desk, watched: Watching) -> None:
    watched.save("waits", "state:queued", 1)
    desk.bed.enqueue(desk.shop.mail)
    desk.bed.drain()
    desk.look()
    with desk.store.writing() as sql:
        desk.store.note(sql, as_of="0")
    desk.bed.advance(f"{EVERY:g}s")
    watched.watch.turn()
    assert watched.alerts() == []
    desk.store.wipe()
    desk.bed.advance(f"{EVERY:g}s")
    watched.watch.turn()
    assert watched.alerts() == [], "there is none"
    assert [alert.name for alert in watched.kept.alerts()] == ["waits"], "a rebuild leaves it"
    desk.projector.close()


def test_a_filter_that_is_deleted_is_no_alert_any_more(desk: Desk, watched: Watching) -> None:
    watched.save("dead", "state:dead", 1)
    watched.kept.delete("dead")
    watched.kept.save("dead", "state:dead", "jane", 1)
    failed(desk)
    assert watched.look() == []
    with pytest.raises(NotThere, match="is an alert"):
        watched.kept.unwatch("dead")
    with pytest.raises(NotThere, match="no saved filter is called 'none'"):
        watched.kept.watch("none", Wish(at_least=1), "jane", 1)


def test_the_projector_watches_while_it_runs(desk: Desk) -> None:
    stop = threading.Event()
    turns: list[int] = []

    def turn() -> None:
        turns.append(1)
        stop.set()

    desk.look()
    Projector(desk.bed.broker, desk.store, clock=desk.bed.runtime.clock, search=desk.projector.search, beside=turn).run(
        stop
    )
    assert turns == [1]


def test_of_two_processes_that_tell_at_once_one_waits_and_then_does_not(desk: Desk, watched: Watching) -> None:
    watched.save("dead", "state:dead", 1)
    desk.look()
    (alert,) = watched.kept.alerts()
    told: list[str] = []
    moved: list[bool] = []

    def come_second() -> None:
        moved.append(watched.kept.move(alert, '{"by": "second"}', lambda: told.append("second")))

    second = threading.Thread(target=come_second)

    def tell() -> None:
        second.start()
        told.append("first")

    assert watched.kept.move(alert, '{"by": "first"}', tell) is True
    second.join(60)
    assert (moved, told) == ([False], ["first"])
    assert [each.standing for each in watched.kept.alerts()] == ['{"by": "first"}']
