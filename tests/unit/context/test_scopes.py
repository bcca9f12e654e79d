"""Scoped names can be read in one way only."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.context.scopes import Scope, allowed_name, escaped, scope_of
from processor.errors import DuplicateName, NameNotAllowed
from processor.job import Step, StepPhase
from processor.wire.names import SCOPED_BYTES

NAMES = st.text(st.sampled_from('ab%/[]"25F ü'), min_size=1, max_size=8)
CURSORS = st.integers() | st.text(st.sampled_from('ab/[]%"\\'), max_size=5) | st.lists(st.text("/]", max_size=2))


@given(NAMES, NAMES)
def test_two_names_are_never_escaped_alike(one: str, other: str) -> None:
    assert (escaped(one) == escaped(other)) is (one == other)
    assert not {"/", "["} & set(escaped(one))


@given(st.lists(st.tuples(NAMES, CURSORS), max_size=3), NAMES)
def test_the_scope_of_a_name_is_found_whatever_the_cursors_hold(items: list[tuple[str, object]], name: str) -> None:
    path = "".join(f"{escaped(loop)}[{json.dumps(cursor)}]/" for loop, cursor in items)
    assert scope_of(Scope(path, None, None).ask(name)) == path


def test_a_name_is_used_once_in_its_scope_and_again_in_the_next() -> None:
    first, second = Scope("rows[1]/", None, None), Scope("rows[2]/", None, None)
    assert (first.ask("refund"), second.ask("refund")) == ("rows[1]/refund", "rows[2]/refund")
    with pytest.raises(DuplicateName, match=r"'rows\[1\]/refund' is used twice") as caught:
        first.ask("refund")
    assert "a name of its own" in caught.value.hint


def test_what_was_saved_and_not_asked_for_is_told_in_order() -> None:
    step = Step("b", StepPhase.FINISHED, "1")
    assert Scope("", {"b": step, "a": step}, {"rows"}).unasked() == ["a", "b", "rows"]
    assert Scope("", None, None).unasked() == []


@pytest.mark.parametrize("size", [0, 1])
def test_a_scoped_name_has_a_bound_in_bytes(size: int) -> None:
    scope = Scope("ü" * ((SCOPED_BYTES - 10) // 2), None, None)
    name = "x" * (10 + size)
    if not size:
        assert len(scope.ask(name).encode()) == SCOPED_BYTES
        return
    with pytest.raises(NameNotAllowed, match=r"has a name of 4,097 bytes with its scope, 4,096 are allowed") as caught:
        scope.ask(name)
    assert "use shorter ones" in caught.value.hint


@pytest.mark.parametrize("wrong", ["", "a\0b", "x" * 256, "\udfff", None, 7, b"step"])
def test_what_cannot_be_a_name_is_refused_where_it_is_asked_for(wrong: object) -> None:
    with pytest.raises(NameNotAllowed, match="cannot be the name of a step or loop"):
        Scope("", None, None).ask(wrong)  # type: ignore[arg-type]  # what an untyped handler may give
    with pytest.raises(NameNotAllowed, match="cannot be the name of a child"):
        allowed_name(wrong, "a child")
