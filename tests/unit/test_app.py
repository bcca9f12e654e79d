"""Declaring has no effect outside; what cannot be kept is refused; jobs go into the log and come back as results."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import BaseModel

import processor
from processor import App, AsyncContext, Context
from processor.broker.base import OutRecord, TopicPartition
from processor.broker.memory import MemoryBroker, MemoryLimits
from processor.client.sender import Client, ClientConfig
from processor.clock import ManualClock
from processor.context import ContextLimits
from processor.core.dedupe import child_id
from processor.errors import (
    BrokerError,
    DefinitionError,
    EnqueueError,
    EnqueueUnconfirmed,
    JobFailed,
    JobNotFinished,
    NewerRecord,
    OtherJobType,
    PayloadInvalid,
    PayloadTooLarge,
    ResultTooLarge,
    ResultType,
    UnknownJobType,
    UnknownQueue,
)
from processor.job import ErrorInfo, Job, Lane
from processor.job_ids import uuid7
from processor.job_types import JobType
from processor.payloads import PayloadCodec
from processor.policies import After, Backoff, Dead, Discard, Park, Retry
from processor.states import State
from processor.wire.codec import decode_job, encode
from processor.wire.headers import is_derived
from processor.wire.records import StatusRecord
from processor.wire.settings import Settings
from processor.wire.topics import jobs_topic, status_topic
from tests.unit.context.recording_port import JOB, RecordingPort


class Import(BaseModel):
    url: str
    customer: str = "c"


class Tally(BaseModel):
    good: int = 0


class Shop:
    """An app on a memory broker, with one of each kind of job type."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self.app = App("shop", settings=Settings(), broker=self.broker)
        self.app.queue("bulk", partitions=3, lanes=("normal", "high"))
        app = self.app

        @app.job("import.file", queue="bulk", payload=Import, version=2)
        def import_file(ctx: Context, p: Import) -> Tally:
            return Tally(good=len(p.url))

        @app.job("report")
        async def report(ctx: AsyncContext) -> int:
            return 1

        @app.job("ship", payload=Import, key=lambda p: p.customer, kill_after="1h")
        def ship(ctx: Context, p: Import) -> None:
            return None

        self.import_file, self.report, self.ship = import_file, report, ship
        self.broker.admin().create_topics(app.topic_plan())

    def jobs(self, queue: str, lane: Lane = Lane.NORMAL) -> list[tuple[Job, bool]]:
        """All jobs in a lane, and whether each is marked as derived."""
        topic = jobs_topic("shop", queue, lane)
        count = self.broker.admin().topics([topic])[topic].partitions
        places = [TopicPartition(topic, number) for number in range(count)]
        reader = self.broker.reader()
        reader.assign(dict.fromkeys(places, 0))
        found: list[tuple[Job, bool]] = []
        ends: set[TopicPartition] = set()
        while len(ends) < count:
            batch = reader.fetch(100, 1.0)
            found += [(decode_job(record.value() or b""), is_derived(record.headers())) for record in batch.records]
            ends |= {end.partition for end in batch.ends}
        reader.close()
        return found

    def say(self, job_id: str, state: State, **values: Any) -> None:
        """Write a status record, as a worker would."""
        fields: dict[str, Any] = {"life": 1, "type": "", "queue": "bulk", "at": 1, "attempt": 1, "worker": "w"}
        record = StatusRecord(id=job_id, state=state, **{**fields, **values})
        producer = self.broker.producer()
        producer.append(OutRecord(status_topic("shop"), job_id.encode(), encode(record)))
        producer.flush(1.0)


@pytest.fixture
def shop() -> Iterator[Shop]:
    shop = Shop()
    yield shop
    shop.app.close()


# -- declaring ---------------------------------------------------------------------------------------------------------


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import processor, sys; print(sorted({'pydantic', 'confluent_kafka', 'fastavro'} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_declaring_jobs_loads_no_kafka_and_starts_no_thread() -> None:
    code = textwrap.dedent("""
        import sys, threading
        from processor import App, Context
        app = App("shop")
        @app.job("x")
        def x(ctx: Context) -> int: return 1
        print("confluent_kafka" in sys.modules, threading.active_count())
    """)

    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False 1\n"
    )


def test_every_export_is_there() -> None:
    for name in processor.__all__:
        assert getattr(processor, name).__name__ == name
    assert set(processor.__all__) <= set(dir(processor))
    with pytest.raises(AttributeError, match="nothing_such"):
        processor.nothing_such  # noqa: B018  (raises)


def test_what_cannot_be_is_refused(shop: Shop) -> None:
    app = shop.app

    def handler(ctx: Context) -> None: ...

    async def async_handler(ctx: AsyncContext) -> None: ...

    with pytest.raises(DefinitionError, match="namespace"):
        App("Shop.eu")
    with pytest.raises(DefinitionError, match="declared twice"):
        app.queue("bulk")
    with pytest.raises(DefinitionError, match="max_backlog 0"):
        app.queue("q", max_backlog=0)
    with pytest.raises(DefinitionError, match="when_full='drop'"):
        app.queue("q", max_backlog=5, when_full="drop")  # type: ignore[arg-type]  # wrong by intent
    with pytest.raises(DefinitionError, match="'fast' is no lane"):
        app.queue("q", lanes=("fast",))
    with pytest.raises(DefinitionError, match="concurrency 0"):
        app.queue("q", concurrency=0)
    with pytest.raises(UnknownQueue, match="nowhere"):
        app.job("x", queue="nowhere")
    with pytest.raises(DefinitionError, match="has a high or low lane"):
        app.job("x", queue="bulk", payload=Import, key=lambda p: p.url)
    with pytest.raises(DefinitionError, match="report is declared twice"):
        app.job("report")
    with pytest.raises(DefinitionError, match="stall_timeout"):
        app.job("x", stall_timeout="soon")
    with pytest.raises(DefinitionError, match="version 0"):
        app.job("x", version=0)(handler)
    with pytest.raises(DefinitionError, match="executor='process'"):
        app.job("x", executor="process")(async_handler)
    with pytest.raises(DefinitionError, match="has no lane 'low'"):
        shop.import_file.enqueue(Import(url="u"), lane="low")
    with pytest.raises(DefinitionError, match="has no lane 'due'"):
        shop.import_file.enqueue(Import(url="u"), lane="due")


def test_policies_are_values_that_check_themselves() -> None:
    retry = Retry(5, Backoff("5s", 30)).on(ConnectionError, times=20).on(ValueError, Dead("bad file"))

    assert [rule.exception for rule in retry.rules] == [ConnectionError, ValueError]
    assert retry.rule(ConnectionResetError()) is retry.rules[0]
    assert retry.rule(KeyError()) is None
    assert [retry.backoff.delay(attempt) for attempt in (1, 2, 9)] == [5, 30, 30]
    assert (After("5m").delay, Discard(), Park("x").reason) == (300, Discard(""), "x")
    for wrong in (
        lambda: Retry(0),
        lambda: Backoff(),
        lambda: After("31d"),
        lambda: Retry().on(ValueError),
        lambda: Retry().on(ValueError, Dead(), times=2),
    ):
        with pytest.raises(DefinitionError):
            wrong()


def test_the_worker_sees_what_it_needs(shop: Shop) -> None:
    assert (shop.import_file.kind, shop.import_file.executor, shop.import_file.takes_payload) == (
        "sync",
        "thread",
        True,
    )
    assert (shop.report.kind, shop.report.takes_payload) == ("async", False)
    assert shop.import_file(None, Import(url="abc")) == Tally(good=3)
    assert shop.import_file.encode_result(Tally(good=3)) == b'{"good":3}'
    assert shop.ship.encode_result(None) is None
    with pytest.raises(ResultType):
        shop.report.encode_result("text")
    with pytest.raises(ResultTooLarge, match="10 bytes, 5 are allowed"):
        shop.import_file.encode_result(Tally(good=3), 5)

    @shop.app.on_start
    def open_pool() -> None: ...

    assert shop.app.start_hooks == [open_pool]


def test_payloads_of_older_versions_are_upgraded_in_a_chain() -> None:
    app = App("shop")

    @app.job("x", payload=Import, version=3)
    def x(ctx: Context, p: Import) -> None: ...

    @x.upgrade(1)
    def first(old: dict[str, Any]) -> dict[str, Any]:
        return {"address": old["a"]}

    @x.upgrade(2)
    def second(old: dict[str, Any]) -> Import:
        return Import(url=old["address"])

    assert x.decode_payload(b'{"a": "u"}', 1) == x.decode_payload(b'{"address": "u"}', 2) == Import(url="u")
    with pytest.raises(NewerRecord, match="version 4, this code knows 3"):
        x.decode_payload(b"{}", 4)
    for refused, version in ((b"{}", 3), (b"not json", 3), (b"\xff", 2), (b"{}", 1), (b"[]", 1)):
        with pytest.raises(PayloadInvalid):
            x.decode_payload(refused, version)
    with pytest.raises(DefinitionError, match="two upgrades"):
        x.upgrade(1)(first)
    with pytest.raises(DefinitionError, match="nothing to upgrade"):
        x.upgrade(3)(first)


def test_a_missing_upgrade_is_named(shop: Shop) -> None:
    with pytest.raises(PayloadInvalid, match="no way from version 1 to 2"):
        shop.import_file.decode_payload(b"{}", 1)


# -- producing ---------------------------------------------------------------------------------------------------------


def test_an_enqueued_job_lies_in_its_lane(shop: Shop) -> None:
    handle = shop.import_file.enqueue(Import(url="u"))
    high = shop.import_file.enqueue(Import(url="h"), lane="high", id="mine")

    [(job, derived)] = shop.jobs("bulk")
    assert (job.id, job.type, job.version, job.queue, job.key, derived) == (
        handle.id,
        "import.file",
        2,
        "bulk",
        None,
        False,
    )
    assert shop.import_file.decode_payload(job.payload, job.version) == Import(url="u")
    [(repeated, derived)] = shop.jobs("bulk", Lane.HIGH)
    assert (repeated.id, high.id, derived) == ("mine", "mine", True)


def test_keys_and_kill_dates_travel(shop: Shop) -> None:
    shop.ship.enqueue(Import(url="u", customer="c-1"))

    [(job, _)] = shop.jobs("default")
    assert (job.key, job.kill_at) == ("c-1", job.enqueued_at + 3_600_000)


def test_jobs_without_a_payload_are_enqueued_without_one(shop: Shop) -> None:
    shop.report.enqueue()

    [(job, _)] = shop.jobs("default")
    assert (job.payload, shop.report.decode_payload(job.payload, 1)) == (b"", None)


def test_bad_payloads_do_not_leave(shop: Shop) -> None:
    with pytest.raises(PayloadInvalid):
        shop.import_file.enqueue({"url": "u"})  # type: ignore[arg-type]  # what this test is about
    with pytest.raises(PayloadTooLarge, match="1,000,000 are allowed"):
        shop.import_file.enqueue(Import(url="u" * 1_000_000))
    with pytest.raises(PayloadInvalid):
        shop.app.enqueue("import.file", {"link": "u"})
    assert shop.jobs("bulk") == []


def test_enqueue_by_name_uses_what_is_registered_or_the_queue_given(shop: Shop) -> None:
    shop.app.enqueue("import.file", {"url": "u"})
    shop.app.enqueue("elsewhere", {"a": 1}, queue="bulk", version=7)

    assert sorted((job.type, job.version) for job, _ in shop.jobs("bulk")) == [("elsewhere", 7), ("import.file", 2)]
    with pytest.raises(UnknownJobType):
        shop.app.enqueue("elsewhere", {})
    with pytest.raises(DefinitionError, match="belongs to queue bulk"):
        shop.app.enqueue("import.file", {"url": "u"}, queue="default")


def test_a_stream_of_payloads_is_enqueued(shop: Shop) -> None:
    made = shop.import_file.enqueue_many((Import(url=str(n)) for n in range(2000)), ids=lambda p: f"id-{p.url}")

    assert len(made) == 2000
    assert list(made.ids) == [f"id-{n}" for n in range(2000)]
    assert (made[7].id, made[-1].id, [handle.id for handle in made[:2]]) == ("id-7", "id-1999", ["id-0", "id-1"])
    assert {job.id for job, _ in shop.jobs("bulk")} == {f"id-{n}" for n in range(2000)}


def test_an_unconfirmed_job_is_named_and_so_is_what_close_leaves_behind() -> None:
    broker = MemoryBroker(limits=MemoryLimits(delivery_seconds=30))
    config = ClientConfig(namespace="shop", enqueue_timeout=0.05, close_timeout=0.05)
    app = App("shop", settings=Settings(), broker=broker)
    app.bind(broker, Client(config, lambda: broker))

    @app.job("x")
    def x(ctx: Context) -> None: ...

    broker.admin().create_topics(app.topic_plan())
    x.enqueue()
    broker.faults.outage(True)
    with pytest.raises(EnqueueUnconfirmed) as caught:
        x.enqueue(id="lost")
    assert caught.value.id == "lost"
    x.enqueue(id="later", wait=False)

    assert sorted(app.close()) == ["later", "lost"]
    assert app.close() == []


def test_a_job_that_is_enqueued_while_the_client_closes_is_confirmed_before_enqueue_returns(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = shop.app.client()
    shop.report.enqueue()
    append = client._opened().producer.append

    def closed_first(record: OutRecord, on_delivery: Callable[[BrokerError | None], None] | None = None) -> None:
        assert client.close() == ["late"]  # it is not known to be there: the other thread has not handed it over yet
        append(record, on_delivery)

    monkeypatch.setattr(client._opened().producer, "append", closed_first)
    shop.report.enqueue(id="late", wait=False)

    assert "late" in {job.id for job, _ in shop.jobs("default")}
    assert client.close() == []


def test_a_missing_topic_is_a_clear_refusal() -> None:
    app = App("shop", settings=Settings(), broker=MemoryBroker())

    @app.job("x")
    def x(ctx: Context) -> None: ...

    with pytest.raises(EnqueueError, match="was refused") as caught:
        x.enqueue()
    assert "topics apply" in caught.value.hint
    assert app.close() == []


def test_a_client_used_after_a_fork_opens_anew(shop: Shop) -> None:
    client = shop.app.client()
    shop.report.enqueue()
    before = client.tail()

    client.forget_after_fork()
    handle = shop.report.enqueue()

    assert client.tail() is not before
    shop.say(handle.id, State.SUCCEEDED, result=b"5")
    assert handle.result(timeout=5) == 5


def test_a_real_fork_does_not_hang() -> None:
    code = textwrap.dedent("""
        import os
        from processor import App, Context
        from processor.broker.memory import MemoryBroker
        from processor.wire.settings import Settings
        broker = MemoryBroker()
        app = App("shop", settings=Settings(), broker=broker)
        @app.job("x")
        def x(ctx: Context) -> int: return 1
        broker.admin().create_topics(app.topic_plan())
        x.enqueue()
        child = os.fork()
        x.enqueue()
        if child == 0:
            assert app.close() == []
            os._exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """)

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "7\n"


def test_what_cannot_be_sent_is_named_at_exit() -> None:
    code = textwrap.dedent("""
        from processor import App, Context
        from processor.broker.memory import MemoryBroker
        from processor.wire.settings_sources import load_settings
        broker = MemoryBroker()
        app = App("shop", settings=load_settings({"client.close_timeout": "50ms"}), broker=broker)
        @app.job("x")
        def x(ctx: Context) -> int: return 1
        broker.admin().create_topics(app.topic_plan())
        x.enqueue()
        broker.faults.outage(True)
        x.enqueue(id="left-behind", wait=False)
    """)

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "1 enqueued job of shop was not confirmed: left-behind" in done.stderr


def test_ids_sort_by_time_and_are_uuids_of_version_7() -> None:
    early, late = uuid7(1_767_225_600_000, bytes(10)), uuid7(1_767_225_600_001, b"\xff" * 10)

    assert early == "019b76da-a800-7000-8000-000000000000"
    assert late == "019b76da-a801-7fff-bfff-ffffffffffff"


# -- asking ------------------------------------------------------------------------------------------------------------


def test_a_handle_tells_status_progress_and_the_typed_result(shop: Shop) -> None:
    handle = shop.import_file.enqueue(Import(url="u"))
    assert handle.status().state is State.QUEUED
    assert handle.progress().fraction is None

    shop.say(handle.id, State.RUNNING, done=5.0, total=20.0, note="half of half")
    assert handle.progress().fraction == 0.25
    with pytest.raises(JobNotFinished):
        handle.result(timeout=0)

    shop.say(handle.id, State.SUCCEEDED, result=b'{"good":3}')
    assert handle.result(timeout="5s") == Tally(good=3)
    assert handle.wait().worker == "w"
    assert shop.import_file.handle(handle.id).result(timeout=5) == Tally(good=3)
    assert shop.app.handle(handle.id).result(timeout=5) == {"good": 3}


def test_a_failed_job_raises_with_state_and_reason(shop: Shop) -> None:
    handle = shop.report.enqueue()
    shop.say(handle.id, State.DEAD, error=ErrorInfo("builtins.ValueError", "bad file"))

    with pytest.raises(JobFailed, match=r"ended dead: builtins\.ValueError: bad file"):
        handle.result(timeout=5)


def test_a_handle_does_not_answer_with_a_job_of_another_type(shop: Shop) -> None:
    shop.report.enqueue(id="order-7")
    shop.say("order-7", State.SUCCEEDED, type="report", result=b"5")
    other = shop.import_file.enqueue(Import(url="u"), id="order-7")

    asks = (other.status, other.progress, other.wait, other.result, other.cancel)
    for ask in (*asks, shop.import_file.handle("order-7").result):
        with pytest.raises(OtherJobType, match=r"is a report, and this is a handle of import\.file") as caught:
            ask()
    assert "different ids" in caught.value.hint
    assert shop.report.handle("order-7").result(timeout=5) == 5
    assert shop.app.handle("order-7").result(timeout=5) == 5


def test_the_first_end_of_a_life_is_final_and_a_later_life_supersedes(shop: Shop) -> None:
    handle = shop.report.enqueue()
    shop.say(handle.id, State.DEAD)
    shop.say(handle.id, State.SUCCEEDED, result=b"1")
    shop.say(handle.id, State.RUNNING)
    assert handle.status().state is State.DEAD

    shop.say(handle.id, State.SUCCEEDED, life=2, result=b"2")
    assert handle.result(timeout=5) == 2


def test_many_handles_share_one_reader(shop: Shop) -> None:
    handles = [shop.report.enqueue() for _ in range(50)]
    for number, handle in enumerate(handles):
        shop.say(handle.id, State.SUCCEEDED, result=b"%d" % number)

    assert [handle.result(timeout=5) for handle in handles] == list(range(50))
    assert [shop.app.handle(handle.id).result(timeout=5) for handle in handles] == list(range(50))


def test_results_come_to_all_threads_that_wait(shop: Shop) -> None:
    handles = [shop.report.enqueue() for _ in range(4)]
    results: dict[str, int] = {}

    def wait(handle: Any) -> None:
        results[handle.id] = handle.result(timeout=20)

    threads = [threading.Thread(target=wait, args=(handle,)) for handle in handles]
    for thread in threads:
        thread.start()
    for number, handle in enumerate(handles):
        shop.say(handle.id, State.SUCCEEDED, result=b"%d" % number)
    for thread in threads:
        thread.join(20)

    assert results == {handle.id: number for number, handle in enumerate(handles)}


async def _enqueue_and_wait(job_type: JobType[None, int], shop: Shop) -> int:
    handle = await job_type.aenqueue()
    assert (await handle.astatus()).state is State.QUEUED
    shop.say(handle.id, State.SUCCEEDED, result=b"9")
    return await handle.aresult(timeout=5)


def test_async_twins(shop: Shop) -> None:
    assert asyncio.run(_enqueue_and_wait(shop.report, shop)) == 9


def test_plain_data_for_a_model_is_told_what_to_write(shop: Shop) -> None:
    with pytest.raises(PayloadInvalid, match="takes an instance of Import, not of dict") as caught:
        shop.import_file.enqueue({"url": "x"})  # type: ignore[arg-type]  # what mypy would have said
    assert caught.value.hint.startswith("write Import(...)")


def test_time_moved_by_hand_is_enough_to_wait(shop: Shop) -> None:
    clock = ManualClock()
    client = Client(
        ClientConfig(namespace="shop"), lambda: shop.broker, clock=clock, pause=lambda event, left: clock.advance(left)
    )
    shop.app.bind(shop.broker, client)
    shop.broker.faults.outage(True)

    with pytest.raises(EnqueueUnconfirmed, match="within 30 s"):
        shop.report.enqueue(id="x")
    shop.broker.faults.outage(False)


# -- children ----------------------------------------------------------------------------------------------------------


def test_children_have_ids_that_come_out_the_same(shop: Shop) -> None:
    parent = JOB._replace(kill_at=1_767_225_600_000 + 5_000)
    port = RecordingPort(job=parent)
    ctx = Context(port)
    ids = [ctx.spawn(shop.ship, Import(url="a")), ctx.spawn(shop.ship, Import(url="b")), ctx.spawn(shop.report, None)]
    ids += [ctx.spawn(shop.ship, Import(url="c"), key="k") for _ in ctx.each("rows", lambda done: [501])]

    assert ids == [
        child_id("job-1", 1, "", "ship", 0),
        child_id("job-1", 1, "", "ship", 1),
        child_id("job-1", 1, "", "report", 0),
        child_id("job-1", 1, "rows[501]/", "ship", "k"),
    ]
    child = decode_job(port.children[0][1].value or b"")
    assert (child.id, child.parent, child.parent_life, child.key) == (ids[0], "job-1", 1, "c")
    assert child.kill_at == parent.kill_at
    assert is_derived(port.children[0][1].headers)


def test_two_children_with_one_key_or_a_large_payload_are_refused(shop: Shop) -> None:
    ctx = Context(RecordingPort(limits=ContextLimits(payload_max_bytes=50)))
    ctx.spawn(shop.ship, Import(url="a"), key="k")

    with pytest.raises(processor.errors.DuplicateName, match="key 'k'"):
        ctx.spawn(shop.ship, Import(url="b"), key="k")
    with pytest.raises(PayloadTooLarge):
        ctx.spawn(shop.ship, Import(url="b" * 50))


# -- types -------------------------------------------------------------------------------------------------------------

_PRELUDE = """
from typing import Any
from pydantic import BaseModel
from processor import App, AsyncContext, Backoff, Context, Dead, Retry

app = App("shop")
app.queue("bulk", partitions=12, concurrency=50, order="block", lanes=("normal", "high"))

class Import(BaseModel):
    url: str
    customer: str

class Tally(BaseModel):
    good: int = 0

class Row(BaseModel):
    line: int
    amount: int

def head(url: str) -> int:
    return 1

async def fetch(url: str) -> str:
    return ""

def read_rows(url: str, after: int | None) -> list[Row]:
    return []

@app.job("import.file", payload=Import, version=2, key=lambda p: p.customer,
         retry=Retry(5, Backoff("5s", "30s")).on(ConnectionError, times=20).on(ValueError, Dead("bad file")),
         attempt_timeout="30m", stall_timeout="90s", kill_after="24h")
def import_file(ctx: Context, p: Import) -> Tally:
    size: int = ctx.step("head", head, p.url)
    tally = ctx.state(Tally)
    for row in ctx.each("rows", lambda after: read_rows(p.url, after), cursor=lambda r: r.line, every="1s", total=size):
        tally.good += row.amount > 0
    ctx.once("charge", head, p.url)
    ctx.spawn(nightly)
    ctx.spawn(import_file, p)
    return tally

@app.job("report.nightly")
async def nightly(ctx: AsyncContext) -> int:
    text: str = await ctx.step("fetch", fetch, "u")
    number: int = await ctx.step("head", head, text)
    async for row in ctx.each("rows", lambda after: read_rows("u", after)):
        number += row.amount
    return number

@import_file.upgrade(1)
def _(old: dict[str, Any]) -> Import:
    return Import(url=old["url"], customer="")

@app.on_start
def open_pool() -> None: ...
"""

_RIGHT = """
tally: Tally = import_file.enqueue(Import(url="u", customer="c"), lane="normal").result(timeout="1h")
count: int = nightly.enqueue().result()
many: list[str] = list(import_file.enqueue_many([Import(url="u", customer="c")]).ids)
first: Tally = import_file.enqueue_many([Import(url="u", customer="c")])[0].result()
app.schedule("nightly", nightly, cron="0 2 * * *", tz="Europe/Berlin", overlap="skip")
app.schedule("hourly", import_file, payload=Import(url="u", customer="c"), every="1h", jitter="5m")

async def produce() -> int:
    return await (await nightly.aenqueue()).aresult()
"""

_WRONG = """
import_file.enqueue(Tally())
import_file.enqueue()
nightly.enqueue(Tally())
wrong: int = import_file.enqueue(Import(url="u", customer="c")).result()
app.schedule("hourly", import_file, every="1h")
app.schedule("hourly", import_file, payload=Tally(), every="1h")

@app.job("bad", payload=Import)
def bad(ctx: Context, p: Tally) -> int:
    ctx.spawn(import_file, p)
    return ctx.step("fetch", head, 5)
"""


def _mypy(code: str, folder: Any) -> list[str]:
    (folder / "user.py").write_text(_PRELUDE + code)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", str(folder / "cache")]
    root = os.path.dirname(os.path.dirname(processor.__file__))
    done = subprocess.run(
        [*command, "user.py"],
        cwd=folder,
        env={**os.environ, "MYPYPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )
    return [line for line in (done.stdout + done.stderr).splitlines() if "error:" in line or "Error" in line]


def test_mypy_accepts_right_code_and_refuses_wrong_payloads_and_results(tmp_path: Any) -> None:
    assert _mypy(_RIGHT, tmp_path) == []

    errors = _mypy(_WRONG, tmp_path)
    lines = (_PRELUDE + _WRONG).splitlines()
    refused = {lines[int(error.split(":")[1]) - 1].strip() for error in errors}
    assert refused == {
        "import_file.enqueue(Tally())",
        "import_file.enqueue()",
        "nightly.enqueue(Tally())",
        'wrong: int = import_file.enqueue(Import(url="u", customer="c")).result()',
        'app.schedule("hourly", import_file, every="1h")',
        'app.schedule("hourly", import_file, payload=Tally(), every="1h")',
        '@app.job("bad", payload=Import)',
        "ctx.spawn(import_file, p)",
        'return ctx.step("fetch", head, 5)',
    }


def test_a_stream_that_is_not_confirmed_names_all_that_may_be_missing() -> None:
    broker = MemoryBroker(limits=MemoryLimits(delivery_seconds=30))
    app = App("shop", settings=Settings(), broker=broker)
    app.bind(broker, Client(ClientConfig(namespace="shop", enqueue_timeout=0.05, close_timeout=0.05), lambda: broker))

    @app.job("x", payload=Import)
    def x(ctx: Context, p: Import) -> None: ...

    broker.admin().create_topics(app.topic_plan())
    payloads = [Import(url=str(n)) for n in range(5)]
    x.enqueue_many(payloads)
    broker.faults.outage(True)
    with pytest.raises(EnqueueUnconfirmed, match="4 more") as caught:
        x.enqueue_many(payloads, ids=lambda p: f"id-{p.url}")
    assert caught.value.ids == [f"id-{n}" for n in range(5)]
    assert caught.value.id == "id-0"
    assert sorted(app.close()) == [f"id-{n}" for n in range(5)]


def test_what_a_stream_gave_before_it_failed_is_there(shop: Shop) -> None:
    def stream() -> Iterator[Import]:
        yield from (Import(url=str(n)) for n in range(3))
        raise OSError("the file ends here")

    with pytest.raises(OSError, match="the file ends here"):
        shop.import_file.enqueue_many(stream(), ids=lambda p: p.url)
    bad = [Import(url="3"), Import(url="4"), "no payload"]
    with pytest.raises(PayloadInvalid):
        shop.import_file.enqueue_many(bad, ids=lambda p: getattr(p, "url", "x"))  # type: ignore[arg-type]  # the mistake
    assert sorted(job.id for job, _ in shop.jobs("bulk")) == ["0", "1", "2", "3", "4"]


def test_the_faults_of_a_payload_are_told_by_field_in_one_line_and_not_without_end() -> None:
    codec: PayloadCodec[list[int]] = PayloadCodec("t", list[int], 1)
    with pytest.raises(PayloadInvalid) as caught:
        codec.decode(b'["secret", 2, "x", "x", "x", "x", "x", "x"]', 1)
    said = str(caught.value)
    assert said.startswith("job type t: the payload is refused: 0: Input should be a valid integer, unable to parse")
    assert said.endswith("; and 2 more")
    assert "\n" not in said
    assert "secret" not in said
    with pytest.raises(PayloadInvalid, match="Invalid JSON"):
        codec.decode(b"[", 1)
