"""A walk down the retry chain: never early, at home in time, in few hops, whatever a forwarder's clock says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.broker.base import ANY_PARTITION
from processor.core.forwarding import Home, home_of, on_its_way, onward
from processor.core.retry_chain import SHORTEST, leaves_at, longest_walk, rung_for, walk_until
from processor.job import Job
from processor.wire.codec import decode_job
from processor.wire.headers import DUE_AT, NUMBER, QUEUE
from processor.wire.topics import RETRY_DELAYS

NOW = 1_767_225_600_000
YEAR = 365 * 86_400_000
delays = st.integers(min_value=1, max_value=YEAR)
quick = settings(max_examples=200, derandomize=True, deadline=None)


def job(**fields: object) -> Job:
    return Job("job-1", "mail.send", 1, "mails", b'{"to":"a"}', NOW)._replace(**fields)  # type: ignore[arg-type]


def walked(delay: int, late: list[int] | None = None) -> tuple[int, int]:
    """How much later than due, and in how many hops, a record arrives that is `late` at each rung."""
    now, due, hops = NOW, NOW + delay, 0
    out = on_its_way("shop", job(number=4), due, now)
    while out.topic.startswith("shop.retry."):
        rung = out.topic.removeprefix("shop.retry.")
        now = leaves_at(now, rung, due) + (late[hops] if late is not None and hops < len(late) else 0)
        out = onward("shop", Home("mails", 4), out.key, out.value, out.headers, now)
        hops += 1
    assert (out.topic, out.partition) == ("shop.jobs.mails.due", 4)
    return now - due, hops


@quick
@given(delays)
def test_a_walk_on_time_ends_exactly_when_due(delay: int) -> None:
    late, hops = walked(delay)
    assert late == 0
    assert hops == longest_walk(delay)


@quick
@given(delays, st.lists(st.integers(min_value=0, max_value=5_000), max_size=40))
def test_late_rungs_make_a_job_late_by_the_last_of_them_only(delay: int, late: list[int]) -> None:
    over, _ = walked(delay, late)
    assert 0 <= over <= max([0, *late])


@quick
@given(delays)
def test_a_rung_is_never_longer_than_what_is_left_but_the_shortest(delay: int) -> None:
    rung = rung_for(delay)
    assert rung is not None
    assert rung == SHORTEST or RETRY_DELAYS[rung] <= delay
    longer = [name for name, length in RETRY_DELAYS.items() if RETRY_DELAYS[rung] < length <= delay]
    assert longer == [], "the longest that fits"


@pytest.mark.parametrize("left", [0, -1, -YEAR])
def test_what_is_due_needs_no_rung(left: int) -> None:
    assert rung_for(left) is None


def test_a_record_without_a_due_date_leaves_at_once() -> None:
    assert leaves_at(NOW, "1d", None) == NOW


def test_the_clock_of_the_broker_keeps_a_far_due_date_from_stalling_a_rung() -> None:
    assert leaves_at(NOW, "5s", NOW + YEAR) == NOW + 5_000


def test_a_kill_date_ends_the_walk() -> None:
    assert walk_until(NOW + 50, NOW + 20) == NOW + 20
    assert walk_until(NOW + 20, NOW + 50) == NOW + 20
    assert walk_until(NOW + 20, None) == NOW + 20
    out = on_its_way("shop", job(number=4, kill_at=NOW + 3_000), NOW + 3_600_000, NOW)
    assert out.topic == "shop.retry.1s"
    assert (DUE_AT, b"%d" % (NOW + 3_000)) in (out.headers or [])
    assert decode_job(out.value or b"").kill_at == NOW + 3_000


def test_what_is_due_already_goes_straight_home() -> None:
    out = on_its_way("shop", job(number=4), NOW, NOW)
    assert (out.topic, out.partition, out.key) == ("shop.jobs.mails.due", 4, b"job-1")
    assert on_its_way("shop", job(), NOW - 1, NOW).partition == ANY_PARTITION, "no number yet: by its key"


@quick
@given(st.binary(max_size=60), delays)
def test_the_forwarder_moves_the_bytes_as_they_are(value: bytes, left: int) -> None:
    headers = [(QUEUE, b"mails"), (NUMBER, b"7"), (DUE_AT, b"%d" % (NOW + left)), ("of-a-newer-version", b"\xff")]
    home = home_of(headers)
    assert home == Home("mails", 7)
    out = onward("shop", home, b"k", value, headers, NOW)
    assert (out.key, out.value, out.headers) == (b"k", value, headers)


@pytest.mark.parametrize(
    "headers",
    [
        None,
        [],
        [(QUEUE, b"mails")],
        [(NUMBER, b"1")],
        [(QUEUE, b"mails"), (NUMBER, b"")],
        [(QUEUE, b"mails"), (NUMBER, b"-1")],
        [(QUEUE, b"mails"), (NUMBER, b"one")],
        [(QUEUE, None), (NUMBER, b"1")],
        [(QUEUE, b"\xff\xfe"), (NUMBER, b"1")],
    ],
)
def test_a_record_that_is_none_of_ours_has_no_home(headers: Any) -> None:
    assert home_of(headers) is None
