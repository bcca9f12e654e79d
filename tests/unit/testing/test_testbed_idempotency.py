"""Idempotency keys on the real worker over a log in memory, in virtual time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from processor.app import App
from processor.context import Context
from processor.errors import DefinitionError, NameInvalid
from processor.job_types import JobType
from processor.policies import Backoff, Retry
from processor.states import State
from processor.testing import Testbed

Until = Literal["window", "finished"]
app = App("keys")
app.queue("bulk", partitions=4, lanes=("normal", "high"))
app.queue("keyed", partitions=4)


class Order(BaseModel):
    """A payload."""

    id: str
    fails: int = 0
    pause: str = ""


ran: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    ran.clear()


def run(ctx: Context, p: Order) -> int:
    for _ in ctx.each("rows", lambda after: range((after or 0) + 1, 101), total=100):
        ran["rows"] += 1
    ran[p.id] += 1
    if ran[p.id] <= p.fails:
        raise ValueError("not yet")
    return ran[p.id]


@app.job("bill", queue="bulk", payload=Order, retry=Retry(3, Backoff("100s")))
def bill(ctx: Context, p: Order) -> int:
    return run(ctx, p)


@app.job("bill.keyed", queue="keyed", payload=Order, key=lambda p: p.id[:1])
def bill_keyed(ctx: Context, p: Order) -> int:
    return run(ctx, p)


@pytest.mark.parametrize("until", ["window", "finished"])
def test_a_key_runs_once_however_often_and_in_whatever_lane(bed: Testbed, until: Until) -> None:
    handles = [
        bed.enqueue(bill, Order(id="a"), idempotency_key="order-7", until=until, lane=lane)
        for lane in ("normal", "high") * 10
    ]
    assert len({handle.id for handle in handles}) == 1
    bed.drain()
    assert ran["a"] == 1
    assert {bed.result(handle) for handle in handles} == {1}


def test_a_key_is_of_its_queue_and_ordering_key(bed: Testbed) -> None:
    ids = [
        bed.enqueue(bill, Order(id="a"), idempotency_key="k").id,
        bed.enqueue(bill_keyed, Order(id="a"), idempotency_key="k").id,
        bed.enqueue(bill_keyed, Order(id="b"), idempotency_key="k").id,
    ]
    assert bed.enqueue(bill_keyed, Order(id="a2"), idempotency_key="k").id == ids[1]
    assert len(set(ids)) == 3
    bed.drain()
    assert dict(ran) == {"a": 2, "b": 1, "rows": 300}


@pytest.fixture
def short() -> Iterator[Testbed]:
    """A bed that remembers keys for a minute."""
    with Testbed(app, dedupe_window="60s") as bed:
        yield bed


def test_after_the_window_a_key_begins_its_next_life(short: Testbed) -> None:
    bed = short
    first = bed.enqueue(bill, Order(id="a"), idempotency_key="k")
    bed.drain()
    life = bed.status(first).life
    bed.advance("50s")
    again = bed.enqueue(bill, Order(id="a"), idempotency_key="k")
    bed.advance("1s")
    assert (ran["a"], again.result()) == (1, 1), "the window is not over: the job of then"
    bed.advance("10s")
    third = bed.enqueue(bill, Order(id="a"), idempotency_key="k")
    assert third.status().state is State.QUEUED, "the end of the life before is not its own"
    bed.advance("5s")
    assert (ran["a"], third.result(), third.id) == (2, 2, first.id)
    assert bed.status(third).life > life


def test_until_finished_frees_the_key_with_the_end(bed: Testbed) -> None:
    lives = set()
    for count in range(1, 5):
        handle = bed.enqueue(bill, Order(id="a"), idempotency_key="k", until="finished")
        assert handle.result("10s") == count
        bed.advance(0.01)
        assert (ran["a"], bed.result(handle)) == (count, count)
        lives.add(bed.status(handle).life)
    assert len(lives) == 4, "each has a life of its own, even within one second"


@pytest.mark.parametrize("until", ["window", "finished"])
def test_a_job_that_waits_for_its_retry_beats_the_window(short: Testbed, until: Until) -> None:
    bed = short
    first = bed.enqueue(bill, Order(id="a", fails=1), idempotency_key="k", until=until)
    bed.advance("90s")
    assert bed.status(first).state is State.RETRYING
    bed.enqueue(bill, Order(id="a"), idempotency_key="k", until=until)
    bed.advance("2s")
    assert ran["a"] == 1
    bed.drain()
    assert ran["a"] == 2, "its own second attempt"
    assert bed.result(first) == 2


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("until", ["window", "finished"])
@pytest.mark.parametrize("job_type", [bill, bill_keyed], ids=["plain", "keyed"])
def test_a_key_runs_once_over_crashes(job_type: JobType[Order, int], until: Until, seed: int) -> None:
    with Testbed(app, seed=seed, workers=2) as bed:
        handles = []
        for _ in range(3):
            handles += [bed.enqueue(job_type, Order(id="a"), idempotency_key="k", until=until) for _ in range(5)]
            bed.crash_worker(at="rows", after=20 + 10 * len(handles) // 5)
        bed.drain()
        assert {handle.id for handle in handles} == {handles[0].id}
        assert ran["a"] == 1, "one attempt came to its end"
        assert bed.reprocessed(handles[0], "rows") <= bed.checkpoint_gap("rows")
        assert len({status.life for status in bed.statuses}) == 1


def test_the_memory_of_a_key_is_restored_with_its_number(bed: Testbed) -> None:
    first = bed.enqueue(bill, Order(id="a"), idempotency_key="k")
    bed.drain()
    bed.crash_worker()
    again = bed.enqueue(bill, Order(id="a"), idempotency_key="k")
    bed.advance("20s")
    assert (ran["a"], bed.result(first), bed.result(again)) == (1, 1, 1)


def test_a_key_that_is_cancelled_before_it_runs_is_spent_for_the_window(bed: Testbed) -> None:
    first = bed.enqueue(bill, Order(id="a"), idempotency_key="k")
    assert first.cancel("no need")
    bed.drain()
    assert bed.status(first).state is State.CANCELLED
    bed.enqueue(bill, Order(id="a"), idempotency_key="k")
    bed.advance("1s")
    assert ran["a"] == 0
    bed.advance("1s")
    bed.enqueue(bill, Order(id="a"), idempotency_key="k", until="finished")
    bed.advance("5s")
    assert ran["a"] == 1


def test_a_delayed_key_runs_once_beside_one_that_is_not_delayed(bed: Testbed) -> None:
    late = bed.enqueue(bill, Order(id="a"), idempotency_key="k", delay="10m")
    later = bed.enqueue(bill, Order(id="a"), idempotency_key="k", delay="20m")
    now = bed.enqueue(bill, Order(id="a"), idempotency_key="k")
    assert late.id == later.id == now.id
    bed.advance("30m")
    bed.drain()
    assert ran["a"] == 1


def test_many_with_keys(bed: Testbed) -> None:
    orders = [Order(id=name) for name in "abcabc"]
    bed.enqueue(bill, Order(id="a"), idempotency_key="a")
    made = bill.enqueue_many(orders, idempotency_keys=lambda p: p.id)
    assert len(set(made.ids)) == 3
    bed.drain()
    assert [ran[name] for name in "abc"] == [1, 1, 1]


def test_what_makes_no_sense_is_refused() -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"idempotency_key": "k", "id": "x"}, "id= and idempotency_key="),
        ({"idempotency_key": "k", "until": "ever"}, "until='ever'"),
        ({"idempotency_key": "k", "delay": "24h"}, "a delay of 24h and an idempotency key"),
    ]
    for how, what in wrong:
        with pytest.raises(DefinitionError, match=what), Testbed(app) as bed:
            bed.enqueue(bill, Order(id="a"), **how)
    with pytest.raises(NameInvalid, match="cannot be an idempotency key"), Testbed(app) as bed:
        bed.enqueue(bill, Order(id="a"), idempotency_key="")


def test_another_payload_under_a_key_is_told(bed: Testbed, caplog: pytest.LogCaptureFixture) -> None:
    bed.enqueue(bill, Order(id="a"), idempotency_key="k")
    bed.drain()
    bed.enqueue(bill, Order(id="a"), idempotency_key="k")
    bed.advance("1s")
    assert "job.key_reused" not in caplog.text
    bed.enqueue(bill, Order(id="other"), idempotency_key="k")
    bed.advance("1s")
    assert "job.key_reused" in caplog.text
    assert ran["other"] == 0, "the first one counts"
