"""When schedules fire: golden instants over both changes of the clock, what is missed, what overlaps."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.core.schedules import (
    FIRED,
    LATE_MS,
    ScheduleTable,
    Standing,
    checked,
    delay_of,
    due,
    instants,
    last_instant,
    turn,
)
from processor.errors import DefinitionError, RecordError
from processor.job_ids import made_at, scheduled_id
from processor.wire.codec import encode
from processor.wire.records import ControlRecord, ScheduleFired, ScheduleRecord

AT = 1_767_225_600_000
"""2026-01-01 00:00 UTC."""
BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"


def plan(**fields: Any) -> ScheduleRecord:
    """A schedule that was declared at `AT`."""
    made = ScheduleRecord("nightly", "report", "q", 1, b"", AT, "ada@desk", AT)
    return made._replace(**fields)


def ms(text: str) -> int:
    """A moment in UTC."""
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def utc(at: int) -> str:
    """A moment, without its date's year."""
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%m-%d %H:%M:%S").removesuffix(":00")


def fires(cron: str, tz: str, after: str, count: int) -> list[str]:
    """The first instants after a moment of UTC."""
    return [utc(at) for at in islice(instants(plan(cron=cron, tz=tz), ms(after)), count)]


# The clock in Berlin goes from 02:00 to 03:00 on 2026-03-29 (01:00 UTC), and from 03:00 back to 02:00 on 2026-10-25
# (01:00 UTC). In New York from 02:00 to 03:00 on 2026-03-08 (07:00 UTC), and from 02:00 back to 01:00 on 2026-11-01
# (06:00 UTC).
GOLDEN = [
    # A fixed time that is there every day: the same time of the wall clock, another one of UTC.
    ("0 9 * * *", BERLIN, "2026-03-27 12:00", ["03-28 08:00", "03-29 07:00", "03-30 07:00"]),
    ("0 9 * * *", BERLIN, "2026-10-23 12:00", ["10-24 07:00", "10-25 08:00", "10-26 08:00"]),
    # A fixed time that the clock leaves out: once, right after the gap.
    ("30 2 * * *", BERLIN, "2026-03-27 12:00", ["03-28 01:30", "03-29 01:00", "03-30 00:30"]),
    ("10,50 2 * * *", BERLIN, "2026-03-28 12:00", ["03-29 01:00", "03-30 00:10", "03-30 00:50"]),
    ("30 2 * * *", NEW_YORK, "2026-03-07 12:00", ["03-08 07:00", "03-09 06:30"]),
    # A fixed time that the clock shows twice: once, the first time.
    ("30 2 * * *", BERLIN, "2026-10-24 12:00", ["10-25 00:30", "10-26 01:30"]),
    ("30 1 * * *", NEW_YORK, "2026-10-31 12:00", ["11-01 05:30", "11-02 06:30"]),
    # ... also for who comes between the two.
    ("30 2 * * *", BERLIN, "2026-10-25 00:45", ["10-26 01:30"]),
    ("30 2 * * *", BERLIN, "2026-10-25 01:15", ["10-26 01:30"]),
    ("30 2 * * *", BERLIN, "2026-10-25 01:30", ["10-26 01:30"]),
    # By real time: no hour is missing, none comes twice.
    ("0 * * * *", BERLIN, "2026-03-28 23:30", ["03-29 00:00", "03-29 01:00", "03-29 02:00"]),
    ("0 * * * *", BERLIN, "2026-10-24 23:30", ["10-25 00:00", "10-25 01:00", "10-25 02:00"]),
    # A wildcard minute within a named hour: what the clock leaves out does not fire, what it shows twice fires twice.
    ("*/30 2 * * *", BERLIN, "2026-03-28 12:00", ["03-30 00:00", "03-30 00:30"]),
    ("*/30 2 * * *", BERLIN, "2026-10-24 12:00", ["10-25 00:00", "10-25 00:30", "10-25 01:00", "10-25 01:30"]),
    # Seconds.
    ("*/20 * * * * *", BERLIN, "2026-03-29 00:59:30", ["03-29 00:59:40", "03-29 01:00", "03-29 01:00:20"]),
    # No change of the clock in UTC.
    ("30 2 * * *", "UTC", "2026-03-28 12:00", ["03-29 02:30", "03-30 02:30"]),
]


@pytest.mark.parametrize(("cron", "tz", "after", "expected"), GOLDEN)
def test_instants_over_changes_of_the_clock(cron: str, tz: str, after: str, expected: list[str]) -> None:
    assert fires(cron, tz, after, len(expected)) == expected


CRONS = ["0 * * * *", "30 2 * * *", "*/7 1-3 * * *", "0,30 2,3 * * *", "15 */2 * * *", "0 0 29 2 *", "*/50 * * * * *"]


@given(
    cron=st.sampled_from(CRONS),
    tz=st.sampled_from([BERLIN, NEW_YORK, "UTC", "Australia/Lord_Howe"]),
    start=st.sampled_from(
        [ms("2026-03-07 00:00"), ms("2026-03-28 20:00"), ms("2026-10-24 20:00"), ms("2026-10-31 22:00")]
    ),
    minutes=st.integers(0, 900),
)
def test_wherever_one_goes_on_the_instants_are_the_same(cron: str, tz: str, start: int, minutes: int) -> None:
    chosen = plan(cron=cron, tz=tz)
    whole = list(islice(instants(chosen, start), 60))
    between = start + minutes * 60_000
    assert all(one < other for one, other in pairwise(whole))
    rest = [at for at in whole if at > between]
    assert list(islice(instants(chosen, between), len(rest))) == rest
    assert last_instant(chosen, start, between) == max((at for at in whole if at <= between), default=None) or (
        whole[-1] <= between
    )


def test_intervals_are_multiples_since_the_epoch() -> None:
    chosen = plan(every=7_000)
    found = list(islice(instants(chosen, AT), 3))
    assert [at % 7_000 for at in found] == [0, 0, 0]
    assert found[0] > AT
    assert list(islice(instants(chosen, found[0]), 2)) == found[1:]
    assert last_instant(chosen, AT, found[2] + 6_999) == found[2]
    assert last_instant(chosen, found[2], found[2] + 6_999) is None


def test_the_last_of_a_year_of_minutes_is_found_at_once() -> None:
    chosen = plan(cron="* * * * *", tz=BERLIN)
    assert last_instant(chosen, AT, AT + 365 * 86_400_000 + 5) == AT + 365 * 86_400_000
    assert last_instant(plan(cron="0 0 29 2 *"), AT, ms("2027-12-31")) is None
    assert last_instant(plan(cron="0 0 29 2 *"), AT, ms("2028-12-31")) == ms("2028-02-29")


MINUTE = 60_000


def standing(done: int | None = None, **fields: Any) -> Standing:
    """A schedule that has been fired up to so many milliseconds after `AT`."""
    chosen = plan(**{"every": MINUTE, **fields})
    fired = None if done is None else ScheduleFired("nightly", AT + done, AT + done, "w")
    return Standing(chosen, fired)


def test_nothing_is_due_before_its_time() -> None:
    assert due(standing(), AT + MINUTE - 1) is None
    found = due(standing(), AT + MINUTE)
    assert found == ([AT + MINUTE], AT + MINUTE, 0)
    assert due(standing(MINUTE), AT + MINUTE) is None


def test_up_to_a_minute_late_is_on_time_whatever_catch_up_says() -> None:
    for catch_up in ("none", "last", "all"):
        found = due(standing(every=1_000, catch_up=catch_up), AT + LATE_MS)
        assert found is not None
        assert (len(found.instants), found.missed) == (60, 0)


@pytest.mark.parametrize(
    ("catch_up", "fired", "missed"),
    [("none", [], True), ("last", [10], True), ("all", list(range(1, 11)), False)],
)
def test_missed_instants_are_caught_up_as_wanted(catch_up: str, fired: list[int], missed: bool) -> None:
    hour = 3_600_000
    found = due(standing(every=hour, catch_up=catch_up), AT + 10 * hour + 5 * MINUTE)
    assert found is not None
    assert [(at - AT) // hour for at in found.instants] == fired
    assert found.upto == AT + 10 * hour
    assert found.missed == (AT + hour if missed else 0)


def test_no_missed_one_is_fired_beside_one_that_is_on_time() -> None:
    hour = 3_600_000
    found = due(standing(every=hour), AT + 10 * hour + 1)
    assert found == ([AT + 10 * hour], AT + 10 * hour, AT + hour)


def test_a_single_missed_one_is_fired_and_nothing_is_lost() -> None:
    hour = 3_600_000
    assert due(standing(every=hour), AT + hour + 5 * MINUTE) == ([AT + hour], AT + hour, 0)


def test_jitter_delays_each_instant_by_the_same_for_all() -> None:
    chosen = standing(jitter=30_000)
    at = AT + MINUTE
    delay = delay_of(chosen.plan, at)
    assert 0 < delay <= 30_000
    assert due(chosen, at + delay - 1) is None
    assert due(chosen, at + delay) == ([at], at, 0)
    delays = {delay_of(chosen.plan, at + n * MINUTE) for n in range(50)}
    assert len(delays) > 40


def test_a_paused_schedule_has_nothing_due_and_goes_on_after_its_resume() -> None:
    assert due(standing(paused=True), AT + 100 * MINUTE) is None
    resumed = standing(MINUTE, since=AT + 100 * MINUTE)
    assert due(resumed, AT + 101 * MINUTE) == ([AT + 101 * MINUTE], AT + 101 * MINUTE, 0)


@pytest.mark.parametrize(
    ("overlap", "going", "runs", "skipped", "replaces"),
    [
        ("skip", False, [1], 2, False),
        ("skip", True, [], 3, False),
        ("queue", True, [1, 2, 3], 0, False),
        ("queue", False, [1, 2, 3], 0, False),
        ("replace", True, [3], 2, True),
        ("replace", False, [3], 2, False),
    ],
)
def test_overlaps(overlap: str, going: bool, runs: list[int], skipped: int, replaces: bool) -> None:
    assert turn(overlap, [1, 2, 3], going) == (runs, skipped, replaces)
    assert turn(overlap, [], going) == ([], 0, False)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"every": 0}, "cron= or every="),
        ({"cron": "* * * * *"}, "cron= or every="),
        ({"every": 999}, "shorter than a second"),
        ({"every": 0, "cron": "61 * * * *"}, "Bad minute"),
        ({"every": 0, "cron": "* * *"}, "five fields"),
        ({"every": 0, "cron": "0 0 30 2 *"}, "Bad day-of-month"),
        ({"every": 0, "cron": "* * */20 * 1L"}, "never comes"),
        ({"every": 0, "cron": "* * * * *", "tz": "Europe/Atlantis"}, "time zone 'Europe/Atlantis'"),
        ({"every": 0, "cron": "* * * * *", "tz": "../etc"}, "time zone"),
        ({"overlap": "both"}, "use skip, queue, replace"),
        ({"catch_up": "some"}, "use none, last, all"),
        ({"catch_up": "all"}, "overlap='skip'"),
        ({"jitter": MINUTE}, "jitter"),
        ({"name": "a#b"}, "'#'"),
        ({"name": ""}, "empty"),
        ({"name": "x" * 101}, "100 characters"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        checked(plan(**{"every": MINUTE, **fields}))
    assert said in f"{refused.value} {refused.value.hint}"


def test_the_id_of_a_run_is_always_the_same_and_tells_its_instant() -> None:
    assert scheduled_id("nightly", AT) == scheduled_id("nightly", AT)
    assert made_at(scheduled_id("nightly", AT)) == AT
    others = {scheduled_id(name, AT + n) for name in ("nightly", "hourly") for n in range(100)}
    assert len(others) == 200


def test_the_table_folds_the_topic() -> None:
    table = ScheduleTable()
    name, fired = b"nightly", f"nightly{FIRED}".encode()
    table.apply(fired, encode(ScheduleFired("nightly", AT + 5, AT, "w")))
    assert table.orphans() == ["nightly"]
    table.apply(name, encode(plan(every=MINUTE)))
    assert table.standings["nightly"].after == AT + 5
    table.apply(fired, encode(ScheduleFired("nightly", AT + 3, AT, "w")))
    assert table.standings["nightly"].after == AT + 5, "it went back"
    table.apply(name, encode(plan(every=2 * MINUTE, since=AT + 9)))
    assert table.standings["nightly"].next() == AT + 2 * MINUTE
    with pytest.raises(RecordError):
        table.apply(name, encode(ControlRecord("queue:q", "pause", AT, "ada")))
    table.apply(name, None)
    assert not table.standings
    assert table.orphans() == ["nightly"]
    table.apply(fired, None)
    assert not table.orphans()


def test_the_same_declaration_from_a_second_worker_loses_no_instant() -> None:
    table = ScheduleTable()
    table.apply(b"nightly", encode(plan(every=MINUTE)))
    table.apply(b"nightly", encode(plan(every=MINUTE, since=AT + MINUTE, at=AT + MINUTE, by="bob@desk")))
    assert table.standings["nightly"].next() == AT + MINUTE
    table.apply(b"nightly", encode(plan(every=MINUTE, since=AT + MINUTE, paused=True)))
    table.apply(b"nightly", encode(plan(every=MINUTE, since=AT + MINUTE)))
    assert table.standings["nightly"].next() == AT + 2 * MINUTE
