"""What travels of a trace, and what is believed of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.wire.trace_context import TraceContext, as_text, of_headers, own_trace, parsed

GOOD = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
contexts = st.builds(
    TraceContext,
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    st.integers(0, 255),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40),
)


@given(contexts)
def test_a_span_comes_back_as_it_was(context: TraceContext) -> None:
    assert parsed(as_text(context)) == context


def test_the_example_of_the_standard_is_read() -> None:
    assert parsed(GOOD) == TraceContext(0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7, 1)
    assert (
        of_headers([("traceparent", GOOD.encode()), ("tracestate", b"congo=t61,rojo=1")]) == f"{GOOD} congo=t61,rojo=1"
    )
    assert of_headers([("traceparent", f" {GOOD} ".encode())]) == GOOD
    assert of_headers(None) is None
    assert of_headers([("tracestate", b"congo=t61")]) is None


@pytest.mark.parametrize(
    "text",
    [
        *(None, "", " ", "x", GOOD.upper(), GOOD[:-1], f"{GOOD}-more", f"ff{GOOD[2:]}", f"00-{'0' * 32}{GOOD[35:]}"),
        *(f"{GOOD[:36]}{'0' * 16}-01", GOOD.replace("4", "٤"), "00-" * 10_000, f"\x00{GOOD}"),
    ],
)
def test_what_is_none_counts_as_none(text: str | None) -> None:
    assert parsed(text) is None


def test_a_later_version_may_say_more() -> None:
    assert parsed(f"cc{GOOD[2:]}-what-the-future-brings") == parsed(GOOD)


@pytest.mark.parametrize("state", ["a" * 513, "line\nbreak", "ü"])
def test_a_tracestate_that_cannot_travel_is_left_out(state: str) -> None:
    assert of_headers([("traceparent", GOOD.encode()), ("tracestate", state.encode())]) == GOOD
    assert as_text(TraceContext(1, 2, 1, state)).count(" ") == 0


@given(st.text(max_size=300))
def test_whatever_comes_raises_nothing(text: str) -> None:
    parsed(text)
    of_headers([("traceparent", text.encode("utf-8", "replace")), ("tracestate", b"\xff")])


def test_the_trace_of_a_job_follows_from_its_id() -> None:
    # Fixed for ever: workers of two versions share a trace.
    assert own_trace("order-7") == own_trace("order-7") != own_trace("order-8")
    assert f"{own_trace('order-7').trace_id:032x}" == "c1300da99f732fb67fc8e2c26c983f75"
