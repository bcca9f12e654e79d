"""Frames that arrive late (librdkafka issue #5423) at a running worker: nothing lost, nothing doubled.

The proxy holds a frame of the worker's flush back and cuts its connection. librdkafka sends the request again and says
nothing. Later the held frame is let go while another transaction of the worker is open, which it would commit or abort
without a new producer epoch; with one the broker refuses it.
"""

from __future__ import annotations

import os
import threading
from collections import Counter

import pytest

from processor.admin.reading import read_to_end
from processor.states import State
from processor.wire import topics
from processor.wire.codec import decode_job
from tests.integration.fleet import Fleet
from tests.integration.jobs_app import PARTITIONS
from tests.proxy import ADD_PARTITIONS_TO_TXN, END_TXN, TXN_OFFSET_COMMIT, FrameProxy, HeldFrame, is_abort
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(120)

INIT_PRODUCER_ID = 22
"""API key."""
LATENCY_S = 0.02
"""Every frame takes so long through the proxy, so a flush is open long enough to be hit."""


class Load:
    """Jobs with steps and children, and what must be in the log once they have ended."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.ids: list[str] = []

    def add(self, count: int) -> None:
        for _ in range(count):
            self.ids.append(self.fleet.append("parent", {"count": 5}).id)
            self.ids.append(self.fleet.append("steps", {"count": 5, "pause": 0.05}).id)
            self.ids.append(self.fleet.append("strict", {"amount": 1}).id)
        self.fleet.flush()

    def check(self) -> None:
        """Every job ended once, every child exists once and ran once, no step ran twice."""
        fleet = self.fleet
        fleet.finish(self.ids)
        parents = sum(1 for line in fleet.ledger("effect") if line["job"] in set(self.ids[::3])) // 5
        assert parents == len(self.ids) // 3
        # A commit becomes visible partition by partition: an end may be seen before the children of the same one.
        eventually(lambda: len(self.children()) >= 5 * parents, 20, fleet.describe)
        children = self.children()
        assert max(Counter(children).values()) == 1
        assert len(children) == 5 * parents
        fleet.finish(children)
        fleet.check_ends()
        assert fleet.redone() == 0
        assert {end[0].state for key, end in fleet.ends().items() if key[0] in set(self.ids)} == {State.SUCCEEDED}
        fleet.settle()

    def children(self) -> list[str]:
        """Ids of all visible records of spawned jobs."""
        lane = [self.fleet.lane(number=number) for number in range(PARTITIONS)]
        jobs = [decode_job(record.value() or b"") for record in read_to_end(self.fleet.broker, lane)]
        return [job.id for job in jobs if job.parent is not None]


def open_now(proxy: FrameProxy) -> None:
    """Return when the worker's next transaction has begun."""
    seen = proxy.seen[ADD_PARTITIONS_TO_TXN]
    eventually(lambda: proxy.seen[ADD_PARTITIONS_TO_TXN] > seen, 20, "a new transaction")


@pytest.fixture
def load(fleet: Fleet, proxy: FrameProxy) -> Load:
    proxy.latency_s = LATENCY_S
    fleet.start_ready("a", bootstrap=proxy.bootstrap)
    return Load(fleet)


def catch(load: Load, proxy: FrameProxy, api_key: int) -> HeldFrame:
    """Hold the next such frame of a working worker."""
    load.add(10)
    load.fleet.until_noted(5, "effect")
    # Of its jobs: the forwarder and the scheduler have producers of their own, which may have nothing more to say.
    mine = f"{load.fleet.namespace}.worker.".encode()
    held = proxy.hold(api_key, lambda frame: mine in frame)
    eventually(lambda: held.caught, 20, load.fleet.describe)
    return held


def let_go(load: Load, proxy: FrameProxy, held: HeldFrame) -> None:
    """Let the frame arrive in the middle of a later transaction, that of a new producer epoch."""
    load.add(10)
    open_now(proxy)
    held.release()


def rebuilt(proxy: FrameProxy, before: int) -> None:
    """The producer has a new epoch."""
    eventually(lambda: proxy.seen[INIT_PRODUCER_ID] > before, 60, "a new producer epoch")


def test_late_commit_frame_shows_nothing_harmful(load: Load, proxy: FrameProxy) -> None:
    for _ in range(3):
        before = proxy.seen[INIT_PRODUCER_ID]
        held = catch(load, proxy, END_TXN)
        load.add(2)
        rebuilt(proxy, before)
        let_go(load, proxy, held)
    load.check()


def test_late_offset_frame_does_no_harm(load: Load, proxy: FrameProxy) -> None:
    watched = Offsets(load.fleet)
    for _ in range(3):
        before = proxy.seen[INIT_PRODUCER_ID]
        held = catch(load, proxy, TXN_OFFSET_COMMIT)
        load.add(2)
        rebuilt(proxy, before)
        let_go(load, proxy, held)
    load.check()
    assert watched.went_back() == []


class Offsets:
    """Looks at the committed offsets all the time."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._over = threading.Event()
        self._found: list[str] = []
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        highest: dict[object, int] = {}
        while not self._over.wait(0.05):
            for place, entry in self._fleet.committed().items():
                offset = entry.offset or 0
                if offset < highest.get(place, 0):
                    self._found.append(f"{place} from {highest[place]} to {offset}")
                highest[place] = max(highest.get(place, 0), offset)

    def went_back(self) -> list[str]:
        self._over.set()
        self._thread.join()
        return self._found


def refuse_large_letters(fleet: Fleet) -> None:
    """From now on the dead-letter topic takes no whole job of some size: a flush with one has to be aborted."""
    fleet.broker.admin().set_topic_config(topics.dlq_topic(fleet.namespace), {"max.message.bytes": "60000"})


def spoil(fleet: Fleet) -> str:
    """A job that ends as a dead letter which the broker refuses; its id."""
    return fleet.append("strict", {"amount": 0, "padding": os.urandom(100_000).hex()}).id


def test_late_abort_frame_loses_no_copy(load: Load, proxy: FrameProxy) -> None:
    fleet, worker = load.fleet, load.fleet.worker("a")
    refuse_large_letters(fleet)
    spoiled = []
    for _ in range(3):
        load.add(5)
        load.check()
        # The abort of the flush that is refused; marks and the forwarder's offsets are committed meanwhile.
        failed, before = len(worker.events("flush.failed")), proxy.seen[INIT_PRODUCER_ID]
        held = proxy.hold(END_TXN, is_abort)
        spoiled.append(spoil(fleet))
        fleet.flush()
        eventually(lambda held=held: held.caught, 20, fleet.describe)  # type: ignore[misc]  # bound at once
        assert len(worker.events("flush.failed")) > failed
        rebuilt(proxy, before)
        let_go(load, proxy, held)
        # The copy that must not be lost: what is left of the dead letter.
        eventually(lambda: spoiled[-1] in {letter.id for letter in fleet.dead_letters()}, 30, fleet.describe)
    load.check()
    assert Counter(letter.id for letter in fleet.dead_letters()) == Counter(spoiled)


def test_every_abort_is_followed_by_a_new_producer_epoch(load: Load, proxy: FrameProxy) -> None:
    fleet = load.fleet
    # More than one at the start, if the coordinator was not there yet.
    before = proxy.seen[INIT_PRODUCER_ID]
    refuse_large_letters(fleet)
    spoiled = []
    for _ in range(3):
        spoiled.append(spoil(fleet))
        load.add(2)
        load.check()
        fleet.finish(spoiled)
    aborts = fleet.worker("a").events("flush.failed")
    assert len(aborts) >= 6
    assert {line["error_code"] for line in aborts} == {"abort_required"}
    # More if an initialisation had to be asked for twice.
    assert proxy.seen[INIT_PRODUCER_ID] >= before + len(aborts)
    assert Counter(letter.id for letter in fleet.dead_letters()) == Counter(spoiled)
