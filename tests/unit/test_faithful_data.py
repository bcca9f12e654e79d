"""Data travels unchanged, or is refused at once by the name of the field: payloads, results, steps and states."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    SecretStr,
    computed_field,
    create_model,
)

from processor import App, AsyncContext, Context
from processor.errors import DefinitionError, PayloadInvalid, ResultType
from processor.fidelity import difference
from processor.payloads import PayloadCodec
from processor.testing import Testbed
from processor.typed_json import TypedJson, Unfaithful
from tests.unit.recording_port import RecordingPort

BERLIN = ZoneInfo("Europe/Berlin")


class Colour(StrEnum):
    RED = "red"


class Size(IntEnum):
    BIG = 2


class Inner(BaseModel):
    name: str = ""
    more: list[int] = []


class Sub(Inner):
    extra: int = 1


class Point(NamedTuple):
    x: int
    y: float


@dataclasses.dataclass
class Plain:
    a: int
    when: datetime


# -- the kinds, one by one ---------------------------------------------------------------------------------------------


class Secret(BaseModel):
    user: str
    password: SecretStr


class Excluded(BaseModel):
    kept: int
    left_out: int = Field(default=0, exclude=True)


class Holds(BaseModel):
    inner: Inner


class Either(BaseModel):
    value: UUID | str


class MaybeFloat(BaseModel):
    value: float | None = None


class Anything(BaseModel):
    value: Any


class At(BaseModel):
    at: time


class When(BaseModel):
    at: datetime


class Nested(BaseModel):
    rows: list[dict[str, MaybeFloat]]


ODD: dict[str, Any] = {"name": 5}
REFUSED: dict[str, tuple[Any, Any, str]] = {
    "secret": (Secret, Secret(user="a", password=SecretStr("geheim")), "field password is a secret"),
    "excluded": (Excluded, Excluded(kept=1, left_out=5), "field left_out"),
    "subclass": (Holds, Holds(inner=Sub(name="n", extra=7)), "field inner"),
    "subclass at the top": (Inner, Sub(name="n"), "it "),
    "union": (Either, Either(value=str(UUID(int=7))), "field value"),
    "nan": (MaybeFloat, MaybeFloat(value=math.nan), r"field value \(nan"),
    "inf": (MaybeFloat, MaybeFloat(value=math.inf), r"field value \(inf"),
    "deep nan": (Nested, Nested(rows=[{"a": MaybeFloat(value=math.nan)}]), r"field rows\[0\].a.value \(nan"),
    "half a pair": (Inner, Inner(name="\udcff"), "."),
    "tuple": (Anything, Anything(value=(1, 2)), "field value"),
    "date as any": (Anything, Anything(value=date(2026, 1, 1)), "field value"),
    "int keys": (Anything, Anything(value={1: 2}), "the key 1 of field value"),
    "flag or number": (dict[str, int | bool], {"a": object()}, "."),
    "time with a zone": (At, At(at=time(12, tzinfo=BERLIN)), "field at"),
    "second of two equal hours": (When, When(at=datetime(2026, 10, 25, 2, 30, fold=1)), "field at"),  # noqa: DTZ001  (naive, on purpose)
    "dataclass": (Plain, Plain(a=1, when=datetime(2026, 10, 25, 2, 30, fold=1)), "field when"),  # noqa: DTZ001  (as above)
    "set of lists": (Anything, Anything(value={1, 2}), "field value"),
    "model_construct": (Inner, Inner.model_construct(**ODD), "."),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_would_change_is_refused_by_the_name_of_the_field(kind: str) -> None:
    annotation, value, where = REFUSED[kind]
    with pytest.raises(Unfaithful, match=where) as refused:
        TypedJson(annotation, "a test").encode(value)
    assert len(str(refused.value)) < 700
    with pytest.raises(PayloadInvalid, match=where):
        PayloadCodec("t", annotation, 1).encode(value, 1000)
    assert "geheim" not in str(refused.value)


class Aliased(BaseModel):
    model_config = ConfigDict(populate_by_name=False)
    customer: str = Field(alias="customerId")


class Choices(BaseModel):
    customer: str = Field(validation_alias=AliasChoices("customer_id", "customer"))


class Computed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    net: int

    @computed_field  # type: ignore[prop-decorator]  # pydantic's own way of writing it
    @property
    def gross(self) -> int:
        return self.net * 2


class Raw(BaseModel):
    data: Json[list[int]]


class Extra(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int


UNCHANGED: dict[str, tuple[Any, Any]] = {
    "alias": (Aliased, Aliased(customerId="c")),
    "alias choices": (Choices, Choices(customer="c")),
    "computed field": (Computed, Computed(net=5)),
    "nested computed field": (list[Computed], [Computed(net=5)]),
    "JSON in JSON": (Raw, Raw(data="[1]")),
    "extra fields": (Extra, Extra(a=1, b=[1, {"c": None}])),
    "a moment in a zone": (When, When(at=datetime(2026, 7, 1, 12, tzinfo=BERLIN))),
    "in the gap of a change": (When, When(at=datetime(2026, 3, 29, 2, 30, tzinfo=BERLIN))),
    "in the repeated hour": (When, When(at=datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=BERLIN))),
    "utc": (When, When(at=datetime(2026, 1, 1, tzinfo=UTC))),
    "microseconds": (When, When(at=datetime(2026, 1, 1, 1, 1, 1, 7, tzinfo=timezone(timedelta(hours=5, minutes=30))))),
    "naive": (When, When(at=datetime(2026, 1, 1))),  # noqa: DTZ001  (on purpose)
    "time of an offset": (At, At(at=time(12, tzinfo=UTC))),
    "excluded at its default": (Excluded, Excluded(kept=1)),
    "int where a float is": (float, 1),
    "true": (bool, True),
    "decimal": (Decimal, Decimal("1.00")),
    "named tuple": (Point, Point(1, 2.0)),
    "enums": (dict[Colour, Size], {Colour.RED: Size.BIG}),
    "bytes": (bytes, b"\x00a"),
    "uuid": (Either, Either(value=UUID(int=7))),
    "text": (Either, Either(value="no UUID")),
    "huge number": (int, 10**40),
    "none": (None, None),
    "any": (Any, {"a": [1, 2.5, None, "x", {"b": True}]}),
    "int keys": (dict[int, str], {1: "a"}),
    "sets": (frozenset[int], frozenset({1, 2})),
    "dataclass": (Plain, Plain(1, datetime(2026, 1, 1, tzinfo=UTC))),
    "timedelta": (timedelta, timedelta(days=1, microseconds=3)),
}


@pytest.mark.parametrize("kind", UNCHANGED)
def test_what_can_travel_does(kind: str) -> None:
    annotation, value = UNCHANGED[kind]
    codec = TypedJson(annotation, "a test")
    back = codec.load(codec.encode(value))
    assert difference(value, back) is None
    assert codec.dump(back) == codec.dump(value)


class ReadOnly(BaseModel):
    a: int = Field(validation_alias="b")


class WrittenOtherwise(BaseModel):
    a: int = Field(serialization_alias="b")


class Mixed(BaseModel):
    one: Aliased
    other: WrittenOtherwise


class ByEither(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    a: int = Field(validation_alias="b")


def test_aliases_are_written_as_they_are_read_or_refused_where_they_are_declared() -> None:
    for wrong in (ReadOnly, Mixed, list[ReadOnly], dict[str, ReadOnly | None]):
        with pytest.raises(DefinitionError, match="job type t"):
            App("shop").job("t", payload=wrong)(lambda ctx, p: None)
    for right in (WrittenOtherwise(a=1), ByEither.model_validate({"b": 1}), Aliased(customerId="c")):
        codec = TypedJson(type(right), "a test")
        assert codec.load(codec.encode(right)) == right


def test_what_a_return_annotation_can_never_do_is_found_when_the_worker_starts() -> None:
    app = App("shop")

    class Opaque:
        pass

    def unreadable(ctx: Context) -> Opaque:
        return Opaque()

    def contradictory(ctx: Context) -> ReadOnly:
        return ReadOnly(b=1)

    def unresolvable(ctx: Context) -> NotThere:  # type: ignore[name-defined]  # noqa: F821  (the mistake)
        return None

    for handler in (unreadable, contradictory, unresolvable):
        job_type = app.job(handler.__name__)(handler)
        with pytest.raises(DefinitionError, match=handler.__name__):
            job_type.check()


# -- generated ---------------------------------------------------------------------------------------------------------

ZONES = [UTC, BERLIN, ZoneInfo("America/Caracas"), timezone(timedelta(hours=3))]
moments = st.datetimes(timezones=st.sampled_from(ZONES))
LEAVES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (str, st.text(st.characters(), max_size=8)),
    (int, st.integers()),
    (bool, st.booleans()),
    (float, st.floats()),
    (float | None, st.none() | st.floats()),
    (Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    (datetime, moments | st.datetimes()),
    (time, st.times() | st.times(timezones=st.just(UTC)) | st.times(timezones=st.just(BERLIN))),
    (date, st.dates()),
    (timedelta, st.timedeltas()),
    (UUID, st.uuids()),
    (UUID | str, st.uuids() | st.uuids().map(str) | st.text(max_size=5)),
    (int | str, st.integers() | st.integers().map(str)),
    (int | float, st.integers(-5, 5) | st.floats(-5, 5)),
    (bool | int, st.booleans() | st.integers(0, 1)),
    (Colour, st.sampled_from(Colour)),
    (Size | int, st.sampled_from(Size) | st.integers(0, 3)),
    (bytes, st.binary(max_size=6)),
    (Any, st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.floats(), st.lists)),
    (Inner, st.builds(Inner, name=st.text(max_size=3)) | st.builds(Sub, extra=st.integers())),
    (Point, st.builds(Point, st.integers(), st.floats(allow_nan=False))),
]
Shape = Callable[[Any, Any], tuple[Any, Any]]
HOW: list[Shape] = [
    lambda kind, values: (kind, values),
    lambda kind, values: (types.GenericAlias(list, (kind,)), st.lists(values, max_size=3)),
    lambda kind, values: (types.GenericAlias(dict, (str, kind)), st.dictionaries(st.text(max_size=3), values)),
    lambda kind, values: (kind | None, st.none() | values),
    lambda kind, values: (types.GenericAlias(tuple, (kind, ...)), st.lists(values, max_size=2).map(tuple)),
]


@st.composite
def models(draw: st.DrawFn) -> BaseModel:
    """A model of its own, and an instance of it that nobody has validated too strictly."""
    fields: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for place in range(draw(st.integers(1, 4))):
        kind, strategy = draw(st.sampled_from(LEAVES))
        if kind is not Any:
            kind, strategy = draw(st.sampled_from(HOW))(kind, strategy)
        name = f"f{place}"
        fields[name] = (kind, Field(default=None, exclude=draw(st.integers(0, 9)) == 0))
        values[name] = draw(strategy)
    model = create_model("Generated", **fields)
    return model.model_construct(**values)


@given(models())
@settings(max_examples=300, deadline=None)
def test_what_the_handler_sees_is_what_was_enqueued_or_it_was_refused(value: BaseModel) -> None:
    codec: PayloadCodec[Any] = PayloadCodec("t", type(value), 1)
    try:
        data = codec.encode(value, 1_000_000)
    except PayloadInvalid:
        return
    seen = codec.decode(data, 1)
    for name in type(value).model_fields:
        mine, theirs = getattr(value, name), getattr(seen, name)
        assert repr(mine) == repr(theirs) or difference(mine, theirs) is None, name
        if not isinstance(mine, datetime | time | Decimal | float | int | list | tuple | dict):
            assert mine == theirs


@given(models())
@settings(max_examples=100, deadline=None)
def test_a_step_gives_the_same_after_a_crash_or_refuses_its_result(value: BaseModel) -> None:
    def make() -> Any:
        return value

    make.__annotations__["return"] = type(value)
    port = RecordingPort()
    try:
        first = Context(port).step("made", make)
    except ResultType:
        return
    port.flush()
    again = Context(RecordingPort(port.log)).step("made", make)
    assert difference(first, again) is None


# -- whole jobs --------------------------------------------------------------------------------------------------------


class Tally(BaseModel):
    seen: list[float | None] = []
    by_kind: dict[Colour, int] = {}


def test_results_steps_and_states_come_back_over_a_crash() -> None:
    app = App("shop")
    at = datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=BERLIN)

    def moment() -> datetime:
        return at

    @app.job("rows", payload=When)
    def rows(ctx: Context, p: When) -> Computed:
        assert p.at.isoformat() == at.isoformat()
        assert ctx.step("moment", moment).isoformat() == at.isoformat()
        tally = ctx.state(Tally)
        for row in ctx.each("rows", lambda after: range((after or 0) + 1, 31), every="100ms"):
            tally.by_kind[Colour.RED] = row
            tally.seen = [*tally.seen[-2:], row / 4]
        assert tally.by_kind == {Colour.RED: 30}
        return Computed(net=tally.by_kind[Colour.RED])

    with Testbed(app) as bed:
        job = bed.enqueue(rows, When(at=at))
        bed.crash_worker(at="rows", after=20)
        bed.drain()
        assert bed.result(job) == Computed(net=30)
        assert bed.reprocessed(job, "rows") <= 30


def test_state_that_would_change_ends_its_job_and_names_the_field() -> None:
    app = App("shop")

    @app.job("rows")
    def rows(ctx: Context) -> None:
        tally = ctx.state(Tally)
        for _ in ctx.each("rows", lambda after: range(1, 5)):
            tally.seen = [math.nan]

    @app.job("returns")
    async def returns(ctx: AsyncContext) -> MaybeFloat:
        return MaybeFloat(value=math.inf)

    with Testbed(app) as bed:
        bed.enqueue(rows)
        bed.enqueue(returns)
        bed.drain()
        said = [letter.failures[-1].message for letter in bed.dead_letters() if letter.failures]
        assert len(said) == 2
        assert any("seen[0]" in text and "Tally" in text for text in said)
        assert any("value" in text and "inf" in text for text in said)


class Kind(Enum):
    ONE = 1


def test_difference_tells_what_a_program_would_notice() -> None:
    assert difference(True, 1)
    assert difference(1, True)
    assert difference(Kind.ONE, 1)
    assert difference("red", Colour.RED)
    assert difference(Colour.RED, "red") is None
    assert difference(1, 1.0) is None
    assert difference([1], (1,))
    assert difference({"a": 1}, {"a": 1, "b": 2})
    assert difference({1}, {1}) is None
    assert difference(Decimal("1.0"), Decimal("1.00"))
    assert difference(math.nan, math.nan)
    with pytest.raises(Unfaithful):
        TypedJson(object, "a test").encode(object())
