"""How much of a payload a role sees, and which fields of a model hold secrets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel, SecretBytes, SecretStr

from processor import App, Context
from processor.ops.payload_fields import secret_fields
from processor.ops.roles import MASK, Role, User, json_or_text, shown_payload

PAYLOAD = '{"order_id": 7, "card": {"number": "4111", "name": "Jane"}, "tags": ["a", {"card": 1}], "none": null}'


@pytest.mark.parametrize(
    ("role", "seen"),
    [
        (
            Role.ADMIN,
            {"order_id": 7, "card": {"number": "4111", "name": "Jane"}, "tags": ["a", {"card": 1}], "none": None},
        ),
        (Role.OPERATOR, {"order_id": 7, "card": MASK, "tags": ["a", {"card": MASK}], "none": None}),
        (
            Role.CARE,
            {"order_id": 7, "card": {"number": MASK, "name": MASK}, "tags": ["a", {"card": MASK}], "none": MASK},
        ),
        (Role.VIEWER, {"order_id": MASK, "card": {"number": MASK, "name": MASK}, "tags": MASK, "none": MASK}),
    ],
)
def test_each_role_sees_so_much(role: Role, seen: Any) -> None:
    user = User(name="u", role=role)
    assert shown_payload(PAYLOAD, user, search=("order_id", "tags", "absent"), secret=("card",)) == seen


@pytest.mark.parametrize(
    ("payload", "search", "secret", "care"),
    [
        ('{"a": {"b": {"c": 1, "d": 2}}}', ("a.b",), (), {"a": {"b": {"c": 1, "d": 2}}}),
        ('{"a": {"b": {"c": 1, "d": 2}}}', ("a.b",), ("d",), {"a": {"b": {"c": 1, "d": MASK}}}),
        ('{"a": {"b": 1}}', ("a.b",), ("b",), {"a": {"b": MASK}}),
        ('{"a": [{"b": 1}]}', ("a.b",), (), {"a": MASK}),
        ("[1, 2]", ("a",), (), MASK),
        ('"text"', ("",), (), "text"),
        ("7", (), (), MASK),
    ],
)
def test_customer_care_sees_what_is_declared_and_no_secret(
    payload: str, search: tuple[str, ...], secret: tuple[str, ...], care: Any
) -> None:
    assert shown_payload(payload, User(name="u", role=Role.CARE), search=search, secret=secret) == care


@pytest.mark.parametrize("payload", ["{", "\ufffd\ufffd", "[" * 20_000, "9" * 5000])
def test_what_is_no_json_is_whole_for_admins_and_masked_for_all_others(payload: str) -> None:
    for role in Role:
        shown = shown_payload(payload, User(name="u", role=role), search=(), secret=())
        assert shown == (payload if role is Role.ADMIN else MASK)


@pytest.mark.parametrize("payload", [None, ""])
def test_no_payload_is_none(payload: str | None) -> None:
    assert shown_payload(payload, User(name="u", role=Role.VIEWER), search=(), secret=()) is None


def test_an_answer_holds_only_what_json_can_say() -> None:
    assert shown_payload('{"x": NaN}', User(name="u", role=Role.ADMIN), search=(), secret=()) == {"x": "NaN"}
    assert json_or_text("[1, Infinity]") == [1, "Infinity"]
    assert json_or_text("[" * 20_000) == "[" * 20_000
    assert json_or_text("half of {") == "half of {"


class Token(RootModel[SecretStr]):
    """A secret with a class of its own."""


class Card(BaseModel):
    number: SecretStr
    holder: str


class Tree(BaseModel):
    branches: list[Tree] = []
    seal: SecretBytes | None = None


class Aliased(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    pin: SecretStr = Field(alias="PIN")


class Plain(BaseModel):
    id: int
    format: str = "password"
    properties: dict[str, str] = {}


class Everything(BaseModel):
    open: str
    token: Token
    one: SecretStr
    maybe: SecretStr | None = None
    listed: list[SecretStr] = []
    pair: tuple[int, SecretStr] | None = None
    named: dict[str, SecretStr] = {}
    deep: dict[str, list[SecretStr]] = {}
    card: Card
    cards: list[Card] = []


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (Plain, set()),
        (Card, {"number"}),
        (list[Card], {"number"}),
        (Mapping[str, Card], {"number"}),
        (Tree, {"seal"}),
        (Aliased, {"pin", "PIN"}),
        (Everything, {"token", "one", "maybe", "listed", "pair", "named", "deep", "number"}),
        (int, set()),
    ],
)
def test_secrets_are_found_however_they_are_wrapped(model: Any, names: set[str]) -> None:
    app = App("shop")

    def handler(ctx: Context, payload: Any) -> None:
        del ctx, payload

    app.job("one", payload=model)(handler)
    assert secret_fields(app, "one") == names
    assert secret_fields(app, "unknown") == frozenset()
