"""Spans of jobs, by the real SDK, over real workers on a log in memory."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode

from processor import App, AsyncContext, Backoff, Context, Retry
from processor.broker.base import OutRecord
from processor.states import State
from processor.testing import Testbed
from processor.wire.codec import decode_job, encode
from processor.wire.trace_context import own_trace
from tests.unit.tracing.conftest import install
from tests.unit.tracing.spans import Traced, context_of, ids, links, parent, place, told


class Shop:
    """Jobs that tell which span they saw."""

    def __init__(self) -> None:
        self.app = App("shop")
        self.saw: list[tuple[str, tuple[int, int]]] = []
        self.broken = 0
        app = self.app

        @app.job("import.rows", retry=Retry(3, Backoff("1s")))
        def import_rows(ctx: Context) -> int:
            self.see("handler")
            trace.get_current_span().set_attribute("rows", 7)
            size = ctx.step("head", self.head)
            if self.broken:
                self.broken -= 1
                raise ValueError("the table is gone")
            return size

        @app.job("import.async")
        async def import_async(ctx: AsyncContext) -> None:
            self.see("before")
            await asyncio.sleep(0.1)
            self.see("after")
            await ctx.step("later", self.later)

        @app.job("parent")
        def starts(ctx: Context) -> None:
            self.see("parent")
            ctx.spawn(import_rows)

        self.import_rows, self.import_async, self.starts = import_rows, import_async, starts

    def see(self, where: str) -> None:
        """Note the current span."""
        self.saw.append((where, ids(trace.get_current_span().get_span_context())))

    def head(self) -> int:
        self.see("step")
        return 3

    async def later(self) -> None:
        self.see("step")


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def bed(traced: Traced, shop: Shop) -> Iterator[Testbed]:
    with Testbed(shop.app) as bed:
        yield bed


def attempts(traced: Traced, name: str = "process import.rows") -> list[ReadableSpan]:
    return traced.spans(name)


def test_a_crash_and_a_retry_lie_in_the_one_trace_of_the_job(traced: Traced, shop: Shop, bed: Testbed) -> None:
    shop.broken = 1
    with traced.tracer.start_as_current_span("request"):
        handle = bed.enqueue(shop.import_rows)
    bed.crash_worker(at="head")
    bed.drain()
    assert bed.status(handle).state is State.SUCCEEDED
    first, second = attempts(traced)
    own = own_trace(handle.id)
    request, publish = traced.one("request"), traced.one("publish import.rows")
    assert {context_of(span).trace_id for span in (first, second)} == {own.trace_id}
    assert [parent(span) for span in (first, second)] == [(own.trace_id, own.span_id)] * 2
    assert (parent(publish), publish.kind) == (place(request), SpanKind.PRODUCER)
    assert [links(span) for span in (first, second)] == [[place(publish)]] * 2, "linked, and no parent"
    assert context_of(publish).trace_id != own.trace_id
    assert first.kind is second.kind is SpanKind.CONSUMER
    assert [(told(span)["job.attempt"], told(span)["job.outcome"]) for span in (first, second)] == [
        (1, "retrying"),
        (2, "succeeded"),
    ]
    assert (
        told(second).items()
        >= {
            "messaging.system": "kafka",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": "shop.jobs.default",
            "messaging.message.id": handle.id,
            "job.id": handle.id,
            "job.type": "import.rows",
            "job.queue": "default",
            "job.life": 1,
            "job.worker": "bed-1",
            "rows": 7,
        }.items()
    )
    assert told(publish)["job.id"] == handle.id


def test_a_failed_attempt_tells_its_exception(traced: Traced, shop: Shop, bed: Testbed) -> None:
    shop.broken = 9
    bed.enqueue(shop.import_rows)
    bed.drain()
    spans = attempts(traced)
    assert [told(span)["job.outcome"] for span in spans] == ["retrying", "retrying", "dead"]
    for span in spans:
        (event,) = span.events
        facts = dict(event.attributes or {})
        assert (event.name, facts["exception.type"]) == ("exception", "builtins.ValueError")
        assert facts["exception.message"] == "the table is gone"
        assert "import_rows" in str(facts["exception.stacktrace"])
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description == "builtins.ValueError: the table is gone"


def test_a_handler_and_its_steps_see_their_spans(traced: Traced, shop: Shop, bed: Testbed) -> None:
    bed.enqueue(shop.import_rows)
    bed.drain()
    attempt, step = traced.one("process import.rows"), traced.one("head")
    assert shop.saw == [("handler", place(attempt)), ("step", place(step))]
    assert (parent(step), told(step)) == (place(attempt), {"job.step": "head"})
    shop.saw.clear()
    bed.enqueue(shop.import_async)
    bed.enqueue(shop.import_async)
    bed.drain()
    spans = traced.spans("process import.async")
    assert len(spans) == 2
    for span in spans:
        seen = [where for where, which in shop.saw if which == place(span)]
        assert seen == ["before", "after"], "also after it has waited beside another"
    assert {parent(step) for step in traced.spans("later")} == {place(span) for span in spans}


def test_a_child_is_linked_to_its_parents_attempt(traced: Traced, shop: Shop, bed: Testbed) -> None:
    bed.enqueue(shop.starts)
    bed.drain()
    mother, child = traced.one("process parent"), traced.one("process import.rows")
    assert links(child) == [place(mother)]
    assert told(child)["job.parent"] == told(mother)["job.id"]
    assert context_of(child).trace_id != context_of(mother).trace_id


def test_a_redriven_job_goes_on_in_its_trace(traced: Traced, shop: Shop, bed: Testbed) -> None:
    shop.broken = 3
    with traced.tracer.start_as_current_span("request"):
        handle = bed.enqueue(shop.import_rows)
    bed.drain()
    bed.redrive(handle)
    bed.drain()
    *_, last = spans = attempts(traced)
    assert [told(span)["job.life"] for span in spans] == [1, 1, 1, 2]
    assert {context_of(span).trace_id for span in spans} == {own_trace(handle.id).trace_id}
    assert links(last) == [place(traced.one("publish import.rows"))]


def test_the_same_job_from_another_request_is_the_same_job(traced: Traced, shop: Shop, bed: Testbed) -> None:
    handles = []
    for request in ("first", "second"):
        with traced.tracer.start_as_current_span(request):
            handles.append(bed.enqueue(shop.import_rows, idempotency_key="table-7"))
    bed.drain()
    assert handles[0].id == handles[1].id
    published = traced.spans("publish import.rows")
    assert len(published) == 2
    assert links(traced.one("process import.rows")) == [place(published[0])]


def test_a_stream_of_jobs_is_one_span(traced: Traced, shop: Shop, bed: Testbed) -> None:
    ids_ = shop.import_rows.enqueue_many([None, None, None]).ids
    bed.drain()
    publish = traced.one("publish import.rows")
    spans = attempts(traced)
    assert sorted(told(span)["job.id"] for span in spans) == sorted(ids_)
    assert [links(span) for span in spans] == [[place(publish)]] * 3


def written(bed: Testbed, headers: list[tuple[str, bytes]], job_id: str) -> None:
    """A job of another language."""
    producer = bed.broker.producer()
    value = b'{"id": "%s", "type": "import.rows"}' % job_id.encode()
    producer.append(OutRecord("shop.jobs.default", job_id.encode(), value, headers), lambda error: None)
    assert producer.flush(5.0) == 0


FROM_ELSEWHERE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_a_job_in_json_is_linked_by_its_header(traced: Traced, bed: Testbed) -> None:
    written(bed, [("traceparent", FROM_ELSEWHERE), ("tracestate", b"vendor=7")], "j-1")
    bed.drain()
    span = traced.one("process import.rows")
    assert links(span) == [(0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7)]
    assert span.links[0].context.trace_state.get("vendor") == "7"


@pytest.mark.parametrize("bad", [b"", b"00-00-00-01", b"\xff\xfe", b"ff" + FROM_ELSEWHERE[2:], FROM_ELSEWHERE + b"-x"])
def test_a_traceparent_that_is_none_harms_nothing(traced: Traced, bed: Testbed, bad: bytes) -> None:
    written(bed, [("traceparent", bad)], "j-1")
    bed.drain()
    span = traced.one("process import.rows")
    assert (links(span), told(span)["job.outcome"]) == ([], "succeeded")


def test_a_job_is_sampled_as_whoever_enqueued_it(program: None, shop: Shop) -> None:
    traced = install(ParentBased(TraceIdRatioBased(0)))
    with Testbed(shop.app) as bed:
        written(bed, [("traceparent", FROM_ELSEWHERE)], "sampled")
        written(bed, [("traceparent", FROM_ELSEWHERE[:-1] + b"0")], "not")
        written(bed, [], "nobody's")
        bed.drain()
        assert len(shop.saw) == 6
    assert [told(span)["job.id"] for span in attempts(traced)] == ["sampled"]


def test_a_job_of_nobody_is_sampled_by_the_ratio(program: None, shop: Shop) -> None:
    traced = install(ParentBased(TraceIdRatioBased(0.5)))
    with Testbed(shop.app) as bed:
        shop.broken = 20
        for place_ in range(40):
            written(bed, [], f"j-{place_}")
        bed.drain()
    by_job: dict[str, int] = {}
    for span in attempts(traced):
        by_job[told(span)["job.id"]] = by_job.get(told(span)["job.id"], 0) + 1
    # Which ones follows from their ids, so these numbers do not change from run to run.
    half = 1 << 63
    assert set(by_job) == {f"j-{n}" for n in range(40) if own_trace(f"j-{n}").trace_id % (1 << 64) < half}
    assert 10 < len(by_job) < 30
    assert max(by_job.values()) > 1, "all attempts of a job or none"


class Broken(SpanProcessor):
    """An exporter's fault."""

    def on_start(self, *_: Any, **__: Any) -> None:
        raise OSError("no route to the collector")

    def on_end(self, *_: Any) -> None:
        raise OSError("no route to the collector")


def test_broken_tracing_harms_no_job(traced: Traced, shop: Shop) -> None:
    with Testbed(shop.app) as bed:
        written(bed, [], "j-1")
        traced.provider.add_span_processor(Broken())
        bed.drain()
        assert bed.status("j-1").state is not State.DEAD


def fingerprints(bed: Testbed, shop: Shop) -> list[str]:
    shop.broken = 9
    handle = bed.enqueue(shop.import_rows)
    bed.drain()
    (letter,) = [letter for letter in bed.dead_letters() if letter.id == handle.id]
    return [failure.fingerprint for failure in letter.failures or ()]


def test_fingerprints_of_errors_are_the_same_with_and_without_traces(program: None) -> None:
    found = []
    for prepare in (lambda: None, install):
        made: Callable[[], object] = prepare
        made()
        shop = Shop()
        with Testbed(shop.app) as bed:
            found.append(fingerprints(bed, shop))
    assert found[0] == found[1]


def test_a_job_is_written_briefly_without_tracing(program: None, shop: Shop) -> None:
    with Testbed(shop.app) as bed:
        bed.enqueue(shop.import_rows)
        bed.drain()
        (record,) = bed.broker.records("shop.jobs.default")
        job = decode_job(record.value() or b"")
        assert job.trace is None
        assert (record.value() or b"")[:10] == encode(job._replace(attempt=0))[:10], "the short form"


def test_a_log_record_of_a_traced_job_names_its_trace(
    traced: Traced, shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    @shop.app.job("tells")
    def tells(ctx: Context) -> None:
        ctx.log.warning("here")

    with Testbed(shop.app) as bed:
        handle = bed.enqueue(tells)
        bed.drain()
    (record,) = [record for record in caplog.records if record.getMessage() == "here"]
    assert vars(record)["trace_id"] == f"{own_trace(handle.id).trace_id:032x}"


def test_nothing_is_imported_where_nothing_is_traced() -> None:
    code = """
import sys
from processor import App, Context
from processor.testing import Testbed
app = App("shop")
@app.job("walk")
def walk(ctx: Context) -> int:
    return ctx.step("one", int)
with Testbed(app) as bed:
    handle = bed.enqueue(walk)
    bed.drain()
    assert bed.result(handle) == 0
print([name for name in sys.modules if name.startswith("opentelemetry") or name == "processor.tracing.spans"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


def test_it_can_be_switched_off(traced: Traced, shop: Shop) -> None:
    with Testbed(shop.app) as bed:
        client = shop.app.client()
        client.config = replace(client.config, tracing=False)
        bed.enqueue(shop.import_rows)
        bed.drain()
    assert traced.spans("publish import.rows") == []
    assert links(traced.one("process import.rows")) == []
