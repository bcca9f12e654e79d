"""Every door into the log checks the same: ids, ordering keys, names, figures; and what is in the log already."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, time
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from processor import App, AsyncContext, Context
from processor.cli.job.starting import enqueue as enqueue_command
from processor.context.scopes import escaped
from processor.core.checkpoint import parse_key, step_key
from processor.errors import (
    CursorType,
    DefinitionError,
    HandlerMistake,
    NameInvalid,
    NameNotAllowed,
    PayloadInvalid,
    UndecodableRecord,
)
from processor.job import Job, Step
from processor.testing import Testbed
from processor.testing.fleet import TestbedError
from processor.wire.codec import decode_job, encode
from processor.wire.names import ID_BYTES, KEY_BYTES, NAME_BYTES, fault_of_id, is_id
from tests.unit.cli.shop import Shop as CliShop
from tests.unit.context.recording_port import JOB, RecordingPort
from tests.unit.test_app import Import, Shop, shop

__all__ = ["shop"]  # the fixture

BAD_IDS: list[Any] = [
    "",
    "order#7",
    "line\nbreak",
    "nul\x00",
    "\x85",
    "half a pair \udcff",
    "x" * (ID_BYTES + 1),
    "é" * (ID_BYTES // 2 + 1),
    7,
    b"bytes",
    ["list"],
]
GOOD_IDS = ["a", "order-7", "Zoë's order / 7", "x" * ID_BYTES, "部署", " spaced "]


def many(shop: Shop, job_id: Any) -> Any:
    return shop.import_file.enqueue_many([Import(url="u")], ids=lambda _: job_id)


ENQUEUE: dict[str, Callable[[Shop, Any], Any]] = {
    "enqueue": lambda shop, job_id: shop.import_file.enqueue(Import(url="u"), id=job_id),
    "aenqueue": lambda shop, job_id: asyncio.run(shop.import_file.aenqueue(Import(url="u"), id=job_id)),
    "enqueue_many": many,
    "by name": lambda shop, job_id: shop.app.enqueue("import.file", {"url": "u"}, id=job_id),
    "by name, not declared": lambda shop, job_id: shop.app.enqueue("mail", {"to": "x"}, queue="bulk", id=job_id),
}


@pytest.mark.parametrize("door", ENQUEUE)
@pytest.mark.parametrize("job_id", BAD_IDS, ids=lambda value: repr(value)[:20])
def test_no_door_lets_a_bad_id_in(shop: Shop, door: str, job_id: Any) -> None:
    with pytest.raises(NameInvalid, match="cannot be the id of a job") as refused:
        ENQUEUE[door](shop, job_id)
    assert len(str(refused.value)) < 400
    assert refused.value.hint
    assert shop.jobs("bulk") == []


@pytest.mark.parametrize("door", ENQUEUE)
def test_every_door_lets_good_ids_in(shop: Shop, door: str) -> None:
    for job_id in GOOD_IDS:
        ENQUEUE[door](shop, job_id)
    assert sorted(job.id for job, _ in shop.jobs("bulk")) == sorted(GOOD_IDS)
    for job_id in GOOD_IDS:
        assert parse_key(step_key(job_id, "s")).id == job_id


@pytest.mark.parametrize("job_id", ["", "a#b", "a\nb", "x" * 300])
def test_the_command_line_lets_no_bad_id_in(job_id: str) -> None:
    shop = CliShop()
    result = shop.run(enqueue_command, "import.file", '{"url": "u"}', "--id", job_id)
    assert result.exit_code == 2
    assert "--id" in result.stderr
    shop.close()


BAD_KEYS: list[Any] = ["", "a\x07", "half \udcff", "k" * (KEY_BYTES + 1), 7, None, b"k"]


@pytest.mark.parametrize("place", range(len(BAD_KEYS)))
def test_no_door_lets_a_bad_ordering_key_in(shop: Shop, place: int) -> None:
    @shop.app.job("keyed", payload=Import, key=lambda p: BAD_KEYS[int(p.url)])
    def keyed(ctx: Context, p: Import) -> None: ...

    with pytest.raises(NameInvalid, match="cannot be an ordering key"):
        keyed.enqueue(Import(url=str(place)))
    with pytest.raises(NameInvalid, match="cannot be an ordering key"):
        keyed.enqueue_many([Import(url=str(place))])
    if BAD_KEYS[place] is not None:  # none at all is none
        with pytest.raises(NameInvalid, match="cannot be an ordering key"):
            shop.app.enqueue("mail", {}, queue="bulk", key=BAD_KEYS[place])
    assert shop.jobs("default") == shop.jobs("bulk") == []


def test_ordering_keys_are_the_callers_words(shop: Shop) -> None:
    shop.app.enqueue("mail", {}, queue="bulk", key="customer #7, Zoë")
    ((job, _),) = shop.jobs("bulk")
    assert job.key == "customer #7, Zoë"


@pytest.mark.parametrize("name", ["", "a\nb", "x" * (NAME_BYTES + 1), "\udcff", 7])
def test_names_of_job_types_are_checked_at_both_ends(shop: Shop, name: Any) -> None:
    with pytest.raises(NameInvalid, match="job type"):
        shop.app.enqueue(name, {}, queue="bulk")
    with pytest.raises(DefinitionError, match="job type name"):
        shop.app.job(name)(lambda ctx: None)


@given(st.text(st.characters(), max_size=300))
def test_an_id_is_what_the_log_can_hold(text: str) -> None:
    """Whatever passes can be a key and comes back; the quick check and the careful one agree."""
    assert is_id(text) is (fault_of_id(text) is None)
    if is_id(text):
        job = Job(text, "t", 1, "q", b"", 1)
        assert decode_job(encode(job)) == job
        assert parse_key(step_key(text, "s")).id == text


@pytest.mark.parametrize("job_id", ["", "order#7", "line\nbreak", "x" * 300])
@pytest.mark.parametrize("key", [None, "k"])
def test_a_record_in_the_log_that_breaks_the_rule_is_no_job(job_id: str, key: str | None) -> None:
    for life in (1, 2):  # the short form and the whole one
        with pytest.raises(UndecodableRecord, match="cannot be one"):
            decode_job(encode(Job(job_id, "t", 1, "q", b"", 1, key, life)))


# -- what handlers give ------------------------------------------------------------------------------------------------

BAD_NAMES: list[Any] = ["", "load \udcff", "a\nb", "x" * (NAME_BYTES + 1), 7, None]
NAMED: dict[str, Callable[[Context, Any], Any]] = {
    "step": lambda ctx, name: ctx.step(name, lambda: 1),
    "once": lambda ctx, name: ctx.once(name, lambda: 1),
    "each": lambda ctx, name: list(ctx.each(name, lambda after: [1])),
    "idempotency_key": lambda ctx, name: ctx.idempotency_key(name),
}


@pytest.mark.parametrize("place", NAMED)
@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda value: repr(value)[:20])
def test_a_bad_name_is_told_where_it_is_given(place: str, name: Any) -> None:
    port = RecordingPort()
    with pytest.raises(NameNotAllowed, match="cannot be the name of"):
        NAMED[place](Context(port), name)
    assert port.log.steps == {}


def test_a_child_has_a_key_that_is_text(shop: Shop) -> None:
    """`spawn(key=7)` would have been the child of index 7."""
    port = RecordingPort()
    for key in (7, "", "\udcff"):
        with pytest.raises(NameNotAllowed):
            Context(port).spawn(shop.import_file, Import(url="u"), key=key)  # type: ignore[arg-type]  # the mistake


class Text(str):
    """A subclass, as libraries have them."""


def test_what_reaches_the_engine_is_plain() -> None:
    port = RecordingPort()
    ctx = Context(port)
    ctx.step(Text("head"), lambda: 1)
    ctx.progress(Decimal(1), Fraction(3), Text("on its way"))  # type: ignore[arg-type]  # what handlers count in
    port.flush()
    assert port.log.steps
    for step in port.log.steps.values():
        assert type(step.name) is str
    assert port.reports
    for done, total, note in port.reports:
        assert (type(done), type(total), type(note)) == (float, float, str) or (done, total) == (1, 3)
    assert isinstance(next(iter(port.log.steps.values())), Step)


@pytest.mark.parametrize("figure", ["3", None, float("nan"), float("inf"), 10**400, object()], ids=range(6))
def test_progress_counts_in_finite_numbers(figure: Any) -> None:
    port = RecordingPort()
    with pytest.raises(NameNotAllowed, match="not a finite number"):
        Context(port).progress(figure)
    if figure is not None:
        with pytest.raises(NameNotAllowed, match="not a finite number"):
            Context(port).progress(1, figure)
    assert port.reports == []


@pytest.mark.parametrize("note", ["half \udcff", "x" * 5000, 7])
def test_a_note_is_cut_and_made_plain(note: Any) -> None:
    port = RecordingPort()
    Context(port).progress(1, 2, note)
    ((_, _, told),) = port.reports
    assert told is not None
    told.encode()
    assert 0 < len(told) <= 500


@pytest.mark.parametrize("total", [-1, 1.5, "7", float("inf")])
def test_a_loop_has_a_count_of_items(total: Any) -> None:
    with pytest.raises(NameNotAllowed):
        list(Context(RecordingPort()).each("rows", lambda after: [1], total=total))


@pytest.mark.parametrize("cursor", [10**3000, -(10**3000), 2**64, "half \udcff", [1, "\udcff"], True], ids=range(6))
def test_a_cursor_comes_back_whatever_its_size(cursor: Any) -> None:
    port = RecordingPort()
    Context(port).checkpoint(cursor)
    port.flush()
    back = Context(RecordingPort(port.log)).cursor
    assert back == cursor
    assert type(back) is type(cursor)


@pytest.mark.parametrize("cursor", [10**5000, [10**5000], 1 << 200_000], ids=range(3))
def test_a_cursor_that_python_would_not_read_back_is_refused(cursor: Any) -> None:
    with pytest.raises(CursorType):
        Context(RecordingPort()).checkpoint(cursor)


def test_a_scoped_name_has_an_end() -> None:
    ctx = Context(RecordingPort())
    rows = ctx.each("rows", lambda after: ["x" * 5000])
    next(rows)
    with pytest.raises(NameNotAllowed, match="with its scope"):
        ctx.step("pay", lambda: 1)
    assert escaped("a/b") == "a%2Fb"


def test_a_state_is_a_model() -> None:
    for wrong in (dict, Import(url="u"), None, int):
        with pytest.raises(HandlerMistake, match="pydantic model"):
            Context(RecordingPort()).state(wrong)  # type: ignore[arg-type,type-var]  # the mistake


# -- what a function is ------------------------------------------------------------------------------------------------


async def coroutine(ctx: Any) -> int:
    return 1


def plain_decorator(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


class AsyncCall:
    async def __call__(self, ctx: Any) -> int:
        return 1


class SyncCall:
    def __call__(self, ctx: Any) -> int:
        return 1


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        (coroutine, "async"),
        (plain_decorator(coroutine), "async"),
        (functools.partial(coroutine), "async"),
        (AsyncCall(), "async"),
        (AsyncCall().__call__, "async"),
        (SyncCall(), "sync"),
        (lambda ctx: 1, "sync"),
        (functools.partial(SyncCall()), "sync"),
    ],
)
def test_what_a_handler_is_is_found_behind_what_wraps_it(handler: Any, kind: str) -> None:
    assert App("shop").job("t")(handler).kind == kind


def test_what_cannot_be_a_handler_is_refused_where_it_is_declared() -> None:
    app = App("shop")

    def generator(ctx: Any) -> Any:
        yield 1

    async def async_generator(ctx: Any) -> Any:
        yield 1

    async def key(p: Any) -> str:
        return "k"

    for wrong in (generator, async_generator, plain_decorator(generator), 7):
        with pytest.raises(DefinitionError):
            app.job("t")(wrong)  # type: ignore[arg-type]  # the mistake
    with pytest.raises(DefinitionError, match="key= of job type"):
        app.job("t", payload=Import, key=key)(lambda ctx, p: None)  # type: ignore[arg-type]  # as above
    with pytest.raises(DefinitionError, match="start hook"):
        app.on_start(coroutine)  # type: ignore[type-var]  # as above
    old = app.job("versioned", payload=Import, version=2)(lambda ctx, p: None)
    with pytest.raises(DefinitionError, match="upgrade"):
        old.upgrade(1)(coroutine)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("how", ["step", "once"])
def test_a_step_of_a_def_handler_cannot_be_awaited(how: str) -> None:
    port = RecordingPort()
    with pytest.raises(HandlerMistake, match="must be awaited"):
        getattr(Context(port), how)("s", coroutine, None)


@pytest.mark.filterwarnings("error")
def test_loops_of_a_def_handler_take_nothing_that_must_be_awaited() -> None:
    async def rows(after: Any) -> list[int]:
        return [1, 2]

    async def stream(after: Any) -> AsyncIterator[int]:
        yield 1

    async def place(row: int) -> int:
        return row

    for source, said in ((rows, "must be awaited"), (stream, "async iterable")):
        with pytest.raises(HandlerMistake, match=f"source of loop 'rows'.*{said}"):
            list(Context(RecordingPort()).each("rows", source))  # type: ignore[arg-type]  # the mistake
    with pytest.raises(HandlerMistake, match="cursor= of loop 'rows'"):
        list(Context(RecordingPort()).each("rows", lambda after: [1], cursor=place))

    async def everything() -> list[list[int]]:
        each = AsyncContext(RecordingPort()).each
        sources: list[Any] = [rows, stream, lambda after: [3]]
        return [[row async for row in each(str(place), source)] for place, source in enumerate(sources)]

    assert asyncio.run(everything()) == [[1, 2], [1], [3]]


def test_a_decorator_that_runs_its_async_handler_itself_gives_its_result(bed: Testbed) -> None:
    """It cannot be told from one that hands the coroutine on; its work is done, and counts."""

    async def inner(ctx: Any) -> int:
        return 7

    @functools.wraps(inner)
    def outer(ctx: Any) -> int:
        coroutine = inner(ctx)
        with pytest.raises(StopIteration) as done:
            coroutine.send(None)
        return int(done.value.value)

    job = bed.enqueue(App("shop").job("t")(outer))
    bed.drain()
    assert bed.result(job) == 7


@pytest.mark.parametrize("job_id", [7, "", "a#7", "\udcff"])
def test_a_handle_is_of_an_id(shop: Shop, job_id: Any) -> None:
    for door in (shop.app.handle, shop.import_file.handle):
        with pytest.raises(NameInvalid):
            door(job_id)


@pytest.mark.filterwarnings("error")
def test_what_cannot_be_seen_to_be_async_is_refused_by_what_it_gives(shop: Shop) -> None:
    async def give(value: Any) -> Any:
        return value

    keyed = shop.app.job("keyed", payload=Import, key=lambda p: give(p.url))(lambda ctx, p: None)  # type: ignore[arg-type,return-value]  # the mistake
    with pytest.raises(NameInvalid, match=r"key= of job type keyed.*must be awaited"):
        keyed.enqueue(Import(url="u"))
    with pytest.raises(NameInvalid, match=r"ids= of enqueue_many.*must be awaited"):
        shop.import_file.enqueue_many([Import(url="u")], ids=give)  # type: ignore[arg-type]  # as above
    old = shop.app.job("old", payload=Import, version=2)(lambda ctx, p: None)
    old.upgrade(1)(lambda value: give(value))
    with pytest.raises(PayloadInvalid, match=r"version 1 failed.*must be awaited"):
        old.decode_payload(b"{}", 1)
    app = App("hooks")
    app.on_start(lambda: give(1))
    job_type = app.job("t")(lambda ctx: None)
    with Testbed() as bed:
        bed.enqueue(job_type)
        with pytest.raises(TestbedError, match=r"DefinitionError.*the start hook.*must be awaited"):
            bed.drain()


@pytest.mark.parametrize("version", [0, -1, True, 1.0, "2", None, 2**31])
def test_a_version_is_a_number_that_the_log_can_hold(shop: Shop, version: Any) -> None:
    with pytest.raises(DefinitionError, match="version"):
        shop.app.job("t", payload=Import, version=version)(lambda ctx, p: None)
    if version is not None:
        with pytest.raises(PayloadInvalid, match="version"):
            shop.app.enqueue("mail", {}, queue="bulk", version=version)


def test_nothing_that_is_told_by_name_is_dropped_in_silence(shop: Shop) -> None:
    for told in ({"key": "k"}, {"version": 7}, {"queue": "default"}):
        with pytest.raises(DefinitionError, match=r"import.file (is declared here|belongs to)"):
            shop.app.enqueue("import.file", {"url": "u"}, **told)
    shop.app.enqueue("import.file", {"url": "u"}, version=2, queue="bulk")
    for queue in (7, "", "Bulk", "a.b"):
        with pytest.raises(DefinitionError, match="queue name"):
            shop.app.enqueue("mail", {}, queue=queue)  # type: ignore[arg-type]  # the mistake
    for lane in (["normal"], None, 7, "fast"):
        with pytest.raises(DefinitionError, match="no lane"):
            shop.import_file.enqueue(Import(url="u"), lane=lane)  # type: ignore[arg-type]  # the mistake
    with pytest.raises(DefinitionError, match="kill_after is longer"):
        shop.app.job("t", kill_after="40000d")


def test_the_testbed_takes_no_other_ids(bed: Testbed) -> None:
    job_type = App("shop").job("t")(lambda ctx: None)
    for job_id in ("", "a#7", 7):
        with pytest.raises(NameInvalid):
            bed.enqueue(job_type, id=job_id)  # type: ignore[arg-type]  # the mistake


def test_a_panic_ends_a_once_for_good() -> None:
    """It has run; only what the engine itself raises says nothing of that."""

    class Panic(BaseException):
        pass

    def panics() -> None:
        raise Panic("at the second row")

    port = RecordingPort()
    with pytest.raises(Panic):
        Context(port).once("charge", panics)
    assert port.log.steps["charge"].phase == "failed"
    assert "Panic: at the second row" in (port.log.steps["charge"].error or "")

    async def twice() -> None:
        ctx = AsyncContext(RecordingPort())
        with pytest.raises(Panic):
            await ctx.once("charge", panics)

    asyncio.run(twice())


def test_payloads_by_name_are_json_that_everybody_reads(shop: Shop) -> None:
    mail = {"at": datetime(2026, 1, 2, tzinfo=UTC), "id": UUID(int=7), "m": Import(url="u")}
    shop.app.enqueue("mail", mail, queue="bulk")
    ((job, _),) = shop.jobs("bulk")
    assert job.payload == (
        b'{"at":"2026-01-02T00:00:00Z","id":"00000000-0000-0000-0000-000000000007","m":{"url":"u","customer":"c"}}'
    )
    wrong_type = Import(url="u")
    vars(wrong_type)["customer"] = 7
    for wrong, place in (
        ({"a": [1, float("nan")]}, r"field a\[1\] is nan"),
        ({"a": {"b": "\udcff"}}, "field a.b holds half"),
        ({1: 2}, "has the key 1"),
        ({"a": object()}, "field a: it is of type object"),
        ({"a": [time(12, tzinfo=ZoneInfo("Europe/Berlin"))]}, r"field a\[0\]: .* comes back"),
        ({"a": SecretStr("x")}, "field a is a secret"),
        ({"a": wrong_type}, "field a: .*customer"),
        ({"a": 10**5000}, "out of range"),
        ({"a": b"\xff"}, "no UTF-8"),
        ({"a": {"b": {1, 2}, "c": float("inf")}}, "field a.c is inf"),
    ):
        with pytest.raises(PayloadInvalid, match=place):
            shop.app.enqueue("mail", wrong, queue="bulk")
    with pytest.raises(PayloadInvalid, match="version"):
        shop.app.enqueue("mail", {}, queue="bulk", version=0)
    assert JOB.id == "job-1"
