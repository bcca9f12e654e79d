"""Event loops that wait for jobs: one thread for all, and none when nobody waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from processor import App, Context
from processor.broker.base import OutRecord
from processor.broker.memory import MemoryBroker
from processor.client.handles import Handle
from processor.errors import BrokerUnavailable, JobFailed, JobNotFinished
from processor.states import State
from processor.wire.codec import encode
from processor.wire.records import StatusRecord
from processor.wire.settings import Settings
from processor.wire.topics import status_topic
from tests.waiting import eventually


class Reports:
    """An app whose jobs end when the test says so."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self.app = App("shop", settings=Settings(), broker=self.broker)

        @self.app.job("report")
        def report(ctx: Context) -> int:
            return 0

        self.report = report
        self.broker.admin().create_topics(self.app.topic_plan())
        self._producer = self.broker.producer()

    def say(self, handle: Handle[int], state: State, result: bytes | None = None) -> None:
        record = StatusRecord(handle.id, 1, "report", "default", state, 1, 1, "w", result)
        self._producer.append(OutRecord(status_topic("shop"), handle.id.encode(), encode(record)))
        assert self._producer.flush(5.0) == 0


@pytest.fixture
def reports() -> Iterator[Reports]:
    reports = Reports()
    yield reports
    reports.app.close()


def waiters() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "processor-status"]


def test_many_waits_share_one_thread_and_starve_nobody(reports: Reports) -> None:
    async def wait_for_many() -> tuple[list[int], int]:
        handles = [await reports.report.aenqueue() for _ in range(200)]
        waits = [asyncio.ensure_future(handle.aresult(timeout=60)) for handle in handles]
        while not waiters():
            await asyncio.sleep(0.01)
        threads = len(waiters())
        for _ in range(20):
            await reports.report.aenqueue()  # the pool of the loop is free for it
        for place, handle in enumerate(handles):
            reports.say(handle, State.SUCCEEDED, b"%d" % place)
        return await asyncio.gather(*waits), threads

    results, threads = asyncio.run(wait_for_many())
    assert results == list(range(200))
    assert threads == 1
    eventually(lambda: not waiters(), 20, "the thread ends when nobody waits")


def test_a_cancelled_wait_is_over_at_once_and_others_go_on(reports: Reports) -> None:
    async def cancel_one() -> int:
        first, second = await reports.report.aenqueue(), await reports.report.aenqueue()
        waits = [asyncio.ensure_future(handle.aresult()) for handle in (first, second)]
        while not waiters():
            await asyncio.sleep(0.01)
        waits[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits[0]
        reports.say(second, State.SUCCEEDED, b"7")
        return await waits[1]

    assert asyncio.run(cancel_one()) == 7
    eventually(lambda: not waiters(), 20, "nobody waits any more")


def test_how_a_wait_ends(reports: Reports) -> None:
    async def each() -> None:
        late, dead = await reports.report.aenqueue(), await reports.report.aenqueue()
        with pytest.raises(JobNotFinished, match=r"within 0\.05 s"):
            await late.aresult(timeout=0.05)
        reports.say(dead, State.DEAD)
        assert (await dead.await_end(timeout=20)).state is State.DEAD
        with pytest.raises(JobFailed):
            await reports.report.handle(dead.id).aresult(timeout=20)

    asyncio.run(each())


def test_everybody_who_waits_hears_of_an_error(reports: Reports, monkeypatch: pytest.MonkeyPatch) -> None:
    async def wait_in_vain() -> list[object]:
        handles = [await reports.report.aenqueue() for _ in range(3)]
        tail = reports.app.client().tail()

        def fails(*_: object) -> bool:
            raise BrokerUnavailable("away")

        monkeypatch.setattr(tail, "drive", fails)
        return await asyncio.gather(*(handle.aresult(timeout=20) for handle in handles), return_exceptions=True)

    told = asyncio.run(wait_in_vain())
    assert [str(error) for error in told] == ["away"] * 3
    eventually(lambda: not waiters(), 20, "nobody waits any more")
