"""Data travels unchanged, or is refused at once by the name of the field: payloads, results, steps and states."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import sys
import textwrap
import types
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from fractions import Fraction
from typing import Annotated, Any, Generic, NamedTuple, NoReturn, TypeVar
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
    field_serializer,
    field_validator,
)
from pydantic.alias_generators import to_camel
from typing_extensions import TypedDict

from processor import App, AsyncContext, Context
from processor.errors import DefinitionError, PayloadInvalid, ResultType
from processor.fidelity import difference, same
from processor.payloads import PayloadCodec
from processor.testing import Testbed
from processor.testing.fleet import TestbedError
from processor.typed_json import TypedJson, Unfaithful
from tests.unit.context.recording_port import RecordingPort

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


class Numbered(BaseModel):
    n: int = 0


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)
    a: int = 0


class FrozenSub(Frozen):
    b: int = 1


class Moody(BaseModel):
    n: int = 0

    @field_validator("n")
    @classmethod
    def dislikes_five(cls, n: int) -> int:
        return {number: number for number in range(5)}[n]


@dataclasses.dataclass
class Derived:
    a: int = 0
    b: int = dataclasses.field(default=0, init=False)


def derived(b: int) -> Derived:
    made = Derived()
    made.b = b
    return made


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
    "half a pair": (Inner, Inner(name="\udcff"), "field name holds half"),
    "deep half a pair": (Nested, Nested(rows=[{"\udcff": MaybeFloat()}]), r"the key .* of field rows\[0\]"),
    "bytes that are no text": (Anything, Anything(value=[b"\xff"]), r"field value\[0\] holds bytes"),
    "unknown object": (Anything, Anything(value={"a": [object()]}), r"field value.a\[0\] is of type object"),
    "true for a number": (Numbered, Numbered.model_construct(n=True), "field n \\(True, bool\\) comes back as 1"),
    "a number for true": (dict[str, bool], {"a": 1}, "bool"),
    "member of an enum or its number": (dict[str, Size | int], {"a": Size.BIG}, "field a .*Size"),
    "member of a set: fold": (set[datetime], {datetime(2026, 10, 25, 2, 30, fold=1)}, "a member of it"),  # noqa: DTZ001  (as below)
    "member of a set: zone": (set[time], {time(12, tzinfo=BERLIN)}, "a member of it"),
    "member of a set: subclass": (frozenset[Frozen], frozenset({FrozenSub(b=2)}), "a member of it"),
    "validator that panics": (Moody, Moody.model_construct(n=5), "KeyError"),
    "offset with seconds": (When, When(at=datetime(1890, 1, 1, tzinfo=BERLIN)), "field at"),
    "field of a dataclass that init leaves out": (Derived, derived(7), "field b"),
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
        TypedJson(annotation, "a test", given=True).encode(value)
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


class Revealed(BaseModel):
    """Says itself that its secret is to travel."""

    password: SecretStr

    @field_serializer("password", when_used="json")
    def reveal(self, password: SecretStr) -> str:
        return password.get_secret_value()


@dataclasses.dataclass
class AliasedPlain:
    a: Annotated[int, Field(alias="b")] = 0


class AliasedDict(TypedDict):
    a: Annotated[int, Field(alias="b")]


class Deferred(BaseModel):
    model_config = ConfigDict(defer_build=True)
    a: int = Field(alias="b")


class Generated(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)
    first_name: str
    inner: AliasedPlain


class Tree(BaseModel):
    children: list[Tree] = []
    parent: Tree | None = None


def shrunk() -> set[int]:
    """A set that lies in memory as what it once was, so its order is another one than that of a fresh one."""
    numbers = set(range(1000))
    numbers -= set(range(3, 990))
    return numbers


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
    "secret that is revealed": (Revealed, Revealed(password=SecretStr("x"))),
    "alias of a dataclass": (AliasedPlain, AliasedPlain(5)),
    "alias of a typed dict": (AliasedDict, {"a": 5}),
    "alias of a model that is built late": (Deferred, Deferred(b=1)),
    "generated aliases": (Generated, Generated.model_validate({"firstName": "a", "inner": {"b": 1}})),
    "a tree": (Tree, Tree(children=[Tree(), Tree(children=[Tree()])])),
    "a set in another order": (set[int], shrunk()),
    "a set of repeated hours": (set[datetime], {datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=BERLIN)}),
    "minus zero": (Any, -0.0),
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
    assert sorted(codec.dump(back)) == sorted(codec.dump(value))


class MustExclude(BaseModel):
    a: int = Field(exclude=True)


T = TypeVar("T")


class Holder(BaseModel, Generic[T]):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    held: T


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


class Opaque:
    pass


def unresolvable(ctx: Context) -> NotThere:  # type: ignore[name-defined]  # noqa: F821  (the mistake)
    return None


def gone(ctx: Context) -> dataclasses.NotThere:  # type: ignore[name-defined]  # (the mistake)
    return None


def no_expression(ctx: Context) -> None: ...


no_expression.__annotations__["return"] = "1 +"
NEVER: dict[str, Any] = {
    "class": Opaque,
    "aliases": ReadOnly,
    "secret": Secret,
    "secret alone": SecretStr,
    "secret in a choice": Secret | SecretStr,
    "required and excluded": MustExclude,
    "callable": Callable[[], int],
    "generator": Holder[Iterable[int]],
    "class of one's own in a model": Holder[Opaque],
    "type": type[int],
}


@pytest.mark.parametrize("kind", NEVER)
def test_what_a_return_annotation_can_never_do_is_found_before_a_handler_runs(kind: str) -> None:
    def handler(ctx: Context) -> Any:
        return None

    handler.__annotations__["return"] = NEVER[kind]
    with pytest.raises(DefinitionError, match="handler"):
        App("shop").job("t")(handler).check()
    with pytest.raises(ResultType, match="handler"):
        Context(RecordingPort()).step("s", handler, None)  # type: ignore[arg-type]  # it is not called


@pytest.mark.parametrize("handler", [unresolvable, gone, no_expression])
def test_an_annotation_that_says_nothing_is_found_when_the_worker_starts(handler: Any) -> None:
    job_type = App("shop").job("t")(handler)
    with pytest.raises(DefinitionError, match=f"{handler.__name__}.. cannot be resolved"):
        job_type.check()
    with Testbed() as bed:
        bed.enqueue(job_type)
        with pytest.raises(TestbedError, match=r"DefinitionError.*cannot be resolved"):
            bed.drain()


@pytest.mark.parametrize(
    "fine", [Secret | None, list[Secret], MaybeFloat, Revealed, Excluded, Tree, Holder[Secret | int], Any, None, Point]
)
def test_what_may_be_left_out_or_has_another_way_is_no_contradiction(fine: Any) -> None:
    TypedJson(fine, "a test")


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
    (set[datetime], st.sets(moments | st.datetimes(), max_size=3)),
    (frozenset[bool | int | str], st.frozensets(st.booleans() | st.integers(0, 2) | st.text(max_size=2), max_size=4)),
    (AliasedPlain, st.builds(AliasedPlain, st.integers(0, 3) | st.booleans())),
    (Frozen, st.builds(Frozen) | st.builds(FrozenSub)),
    (dict[date | int, time], st.dictionaries(st.dates() | st.integers(0, 9), st.times(), max_size=3)),
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


MEANINGS: list[tuple[Any, Callable[[Any], Any]]] = [
    (bool | None | Enum, repr),
    (int | float, lambda value: f"number {Fraction(value)}" if math.isfinite(value) else repr(value)),
    (str | bytes | Decimal | UUID | timedelta, lambda value: f"{type(value).__name__} {value!s}"),
    (datetime | time, lambda value: f"{value.isoformat()} {'zoned' if value.tzinfo else value.fold}"),
    (date, lambda value: value.isoformat()),
    (BaseModel, lambda value: {name: meaning(getattr(value, name)) for name in type(value).model_fields}),
    (dict, lambda value: {str(meaning(key)): meaning(each) for key, each in value.items()}),
    (set | frozenset, lambda value: sorted(str(meaning(each)) for each in value)),
    (list | tuple, lambda value: [meaning(each) for each in value]),
    (AliasedPlain, lambda value: meaning(value.a)),
]


def meaning(value: Any) -> Any:
    """What a program could learn from a value, as text; written without a look at how the package compares."""
    told = next(tell for kinds, tell in MEANINGS if isinstance(value, kinds))
    plain = isinstance(value, int | float | Enum) or value is None
    return told(value) if plain else [type(value).__name__, told(value)]


@given(models())
@settings(max_examples=300, deadline=None)
def test_what_the_handler_sees_is_what_was_enqueued_or_it_was_refused(value: BaseModel) -> None:
    codec: PayloadCodec[Any] = PayloadCodec("t", type(value), 1)
    try:
        data = codec.encode(value, 1_000_000)
    except PayloadInvalid:
        return
    assert meaning(codec.decode(data, 1)) == meaning(value)


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
    assert meaning(again) == meaning(first)


@given(models())
@settings(max_examples=100, deadline=None)
def test_a_state_is_the_same_after_a_crash_or_it_is_refused(value: BaseModel) -> None:
    port = RecordingPort()
    ctx = Context(port)
    try:
        state = ctx.state(type(value))
        for _ in ctx.each("rows", lambda after: [1]):
            for name in type(value).model_fields:
                setattr(state, name, getattr(value, name))
    except ResultType:
        return
    port.flush()
    assert meaning(Context(RecordingPort(port.log)).state(type(value))) == meaning(value)


# -- whole jobs --------------------------------------------------------------------------------------------------------


class Tally(BaseModel):
    seen: list[float | None] = []
    by_kind: dict[Colour, int] = {}


@given(models())
@settings(max_examples=100, deadline=None)
def test_the_quick_comparison_calls_nothing_the_same_that_the_careful_one_does_not(value: BaseModel) -> None:
    codec = TypedJson(type(value), "a test", given=True)
    try:
        back = codec.load(codec.dump(value))
    except ValueError:
        return
    if same(value, back):
        assert difference(value, back) is None


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


def test_a_handler_keeps_its_annotation_behind_what_wraps_it() -> None:
    def handler(extra: int, ctx: Context) -> Computed:
        return Computed(net=extra)

    class Called:
        def __call__(self, ctx: Context) -> Computed:
            return Computed(net=1)

    def ends(ctx: Context) -> NoReturn:
        raise ValueError("always")

    app = App("shop")
    for name, wrapped in (("partial", functools.partial(handler, 1)), ("object", Called())):
        job_type = app.job(name)(wrapped)
        job_type.check()
        assert job_type.decode_result(job_type.encode_result(Computed(net=1))) == Computed(net=1)
    app.job("ends")(ends).check()


def test_a_model_may_name_what_is_defined_further_down() -> None:
    module: dict[str, Any] = {"__name__": "shop_of_forward_references"}
    exec(
        textwrap.dedent("""
            from __future__ import annotations
            from pydantic import BaseModel
            from processor import App
            app = App("shop")
            class Order(BaseModel):
                item: Item
            @app.job("order", payload=Order)
            def order(ctx, p) -> Bill: ...
            @app.job("broken", payload=Order)
            def broken(ctx, p): ...
            """),
        module,
    )
    with pytest.raises(DefinitionError, match=r"payload of job type broken.*Item"):
        module["broken"].check()
    exec("class Item(BaseModel):\n    n: int = 0\nclass Bill(BaseModel):\n    item: Item\n", module)
    sys.modules[module["__name__"]] = types.SimpleNamespace(**module)  # type: ignore[assignment]  # where pydantic looks
    try:
        module["order"].check()
        value = module["Order"].model_construct(item=module["Item"](n=5))
        assert module["order"]._payloads.decode(module["order"]._payloads.encode(value, 100), 1).item.n == 5
    finally:
        del sys.modules[module["__name__"]]


def test_unions_of_another_order_are_other_types() -> None:
    one, other = TypedJson(datetime | date, "a test"), TypedJson(date | datetime, "a test")
    assert one._adapter is not other._adapter
    assert TypedJson(datetime | date, "a test")._adapter is one._adapter


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    id: UUID
    on: date


def test_strict_models_read_what_came_as_json() -> None:
    codec: PayloadCodec[Strict] = PayloadCodec("t", Strict, 2)
    codec.add_upgrade(1, lambda old: old)
    value = Strict(id=UUID(int=1), on=date(2026, 1, 1))
    plain = {"id": str(value.id), "on": "2026-01-01"}
    assert codec.checked(plain) == codec.checked(value) == value
    assert codec.decode(json.dumps(plain).encode(), 1) == value
    with pytest.raises(PayloadInvalid, match="id"):
        codec.checked({"id": 1, "on": "2026-01-01"})


@pytest.mark.parametrize("bad_at", range(1, 9))
def test_no_state_is_kept_that_a_resume_could_not_begin_with(bad_at: int) -> None:
    """Whatever was noted last is written when the handler fails: also between two that are written."""
    port = RecordingPort()
    ctx = Context(port)
    state = ctx.state(MaybeFloat)

    def run() -> None:
        for item in ctx.each("rows", lambda after: range(1, 10)):
            state.value = math.nan if item == bad_at else item / 2
            if item == 9:
                raise RuntimeError("after all")

    with pytest.raises(ResultType, match="nan"):
        run()
    port.flush()
    expected = None if bad_at == 1 else (bad_at - 1) / 2
    assert Context(RecordingPort(port.log)).state(MaybeFloat).value == expected


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
