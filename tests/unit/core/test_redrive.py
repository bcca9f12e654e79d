"""What a dead letter becomes, and what became of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.broker.partitioner import partition_for
from processor.core.audit import DISCARD, PAUSE, REDRIVE
from processor.core.redrive import (
    Address,
    LetterState,
    Redrive,
    Settled,
    job_of,
    next_life,
    number_of,
    parse_address,
    sent_back,
)
from processor.errors import DeadLetterError
from processor.job import Carried, Failure, Job, Lane
from processor.states import State
from processor.wire.codec import decode_job, decode_status, encode
from processor.wire.headers import DERIVED, LIFE, NUMBER, QUEUE, header
from processor.wire.records import AuditRecord, CheckpointRecord, DeadLetterRecord, StepRecord
from processor.wire.topics import jobs_topic

NOW = 1_800_000_000_000
AT = Address(2, 17)
JOB = Job("j1", "import", 3, "bulk", b'{"a": 1}', 1_000, key="c1", life=1, hop=4, attempt=5, number=7, deaths=2)
PROGRESS = encode(CheckpointRecord("j1", 1, 4, 9, 8, 5, "shop.jobs.bulk.due", 3, 5, cursor="501"))
STEPS = [encode(StepRecord("j1", 1, 4, 9, 8, "head", "finished", "7"))]


def letter(job: Job | None = JOB, **fields: object) -> DeadLetterRecord:
    record = DeadLetterRecord("j1", "dead", 5, "host/0", "shop.jobs.bulk.due", 7, 3)
    encoded = None if job is None else encode(job)
    return record._replace(job=encoded, progress=PROGRESS, steps=STEPS)._replace(**fields)  # type: ignore[arg-type]  # checked by name at run time


texts = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#"), min_size=1, max_size=12)
moments = st.integers(0, 2**42)
jobs = st.builds(
    Job,
    children_life=st.integers(0, 99),
    id=texts,
    type=texts,
    version=st.integers(1, 99),
    queue=st.just("bulk"),
    payload=st.binary(max_size=20),
    enqueued_at=moments,
    key=st.none() | texts,
    life=st.integers(1, 1000),
    hop=st.integers(0, 1000),
    attempt=st.integers(0, 1000),
    number=st.none() | st.integers(0, 11),
    parent=st.none() | texts,
    parent_life=st.integers(0, 9),
    kill_at=st.none() | moments,
    due_at=st.none() | moments,
    deaths=st.integers(0, 3),
    carried=st.none(),
    redriven_from=st.none() | st.just("0@1"),
    trace=st.none() | texts,
)


@given(jobs, st.booleans(), st.booleans())
def test_the_next_life_keeps_what_the_job_is_and_begins_its_counts_anew(job: Job, zero: bool, raw: bool) -> None:
    dead = letter(None, id=job.id, raw=encode(job)) if raw else letter(job, id=job.id)
    new = next_life(dead, AT, Redrive(from_zero=zero), NOW)
    kept = ("id", "type", "version", "queue", "payload", "key", "number", "parent", "parent_life", "trace")
    assert [getattr(new, name) for name in kept] == [getattr(job, name) for name in kept]
    assert (new.life, new.hop, new.attempt, new.deaths, new.due_at) == (job.life + 1, 0, 0, 0, None)
    assert (new.enqueued_at, new.redriven_from) == (NOW, "2@17")
    assert new.carried == (None if zero else Carried([], PROGRESS, STEPS))
    assert new.kill_at is None or (job.kill_at is not None and new.kill_at > NOW)
    assert decode_job(encode(new)) == new


@given(jobs, st.integers(12, 50), st.integers(0, 11))
def test_a_job_never_changes_its_number(job: Job, partitions: int, lay_in: int) -> None:
    dead = letter(job, id=job.id, partition=lay_in)
    assert number_of(dead, job, partitions) == (lay_in if job.number is None else job.number)
    foreign = dead._replace(topic="shop.jobs.other")
    routed = partition_for((job.id if job.key is None else job.key).encode(), partitions)
    assert number_of(foreign, job, partitions) == (routed if job.number is None else job.number)


def test_the_time_limits_begin_anew() -> None:
    assert next_life(letter(JOB._replace(kill_at=61_000)), AT, Redrive(), NOW).kill_at == NOW + 60_000
    assert next_life(letter(JOB._replace(kill_at=500)), AT, Redrive(), NOW).kill_at is None
    assert next_life(letter(), AT, Redrive(), NOW).kill_at is None


def test_an_edited_payload_takes_the_place_of_the_old() -> None:
    new = next_life(letter(), AT, Redrive(payload=b"{}"), NOW)
    assert (new.payload, new.version) == (b"{}", 3)
    assert next_life(letter(), AT, Redrive(payload=b"{}", version=4), NOW).version == 4
    assert next_life(letter(), AT, Redrive(version=4), NOW).version == 3


def test_a_letter_from_an_emergency_goes_on_from_what_its_record_carried() -> None:
    raw = encode(JOB._replace(carried=Carried([Failure("E", "m")], PROGRESS, STEPS)))
    dead = letter(None, raw=raw, progress=None, steps=None, reason="internal_error")
    assert next_life(dead, AT, Redrive(), NOW).carried == Carried([], PROGRESS, STEPS)
    assert next_life(dead, AT, Redrive(from_zero=True), NOW).carried is None


def test_a_job_that_had_saved_nothing_carries_nothing() -> None:
    assert next_life(letter(progress=None, steps=None), AT, Redrive(), NOW).carried is None


@pytest.mark.parametrize(
    ("dead", "said"),
    [
        (letter(None, raw=b"garbage"), "what it holds is no job to this version"),
        (letter(None, raw=None), "too large to be kept"),
        (letter(None, raw=encode(JOB._replace(id="j2"))), "of another id than j1"),
    ],
)
def test_what_is_no_job_cannot_be_redriven(dead: DeadLetterRecord, said: str) -> None:
    assert job_of(dead) is None
    with pytest.raises(DeadLetterError, match=said) as caught:
        next_life(dead, AT, Redrive(), NOW)
    assert "dlq export 2@17" in caught.value.hint
    assert "dlq discard 2@17" in caught.value.hint


@pytest.mark.parametrize("broken", [{"progress": b"x"}, {"steps": [b"x"]}])
def test_a_broken_checkpoint_says_how_to_go_on(broken: dict[str, Any]) -> None:
    with pytest.raises(DeadLetterError, match=r"dead letter 2@17: the .* cannot be read") as caught:
        next_life(letter(**broken), AT, Redrive(), NOW)
    assert "--from-zero" in caught.value.hint
    assert next_life(letter(**broken), AT, Redrive(from_zero=True), NOW).carried is None


def test_a_queue_with_fewer_partitions_is_named() -> None:
    with pytest.raises(DeadLetterError, match="partition 7 of queue bulk, which has 4"):
        number_of(letter(), JOB, 4)


def test_the_new_life_goes_into_the_due_lane_of_its_number() -> None:
    new = next_life(letter(), AT, Redrive(), NOW)
    status, record = sent_back("shop", new, "eva@desk", "the fix is out")
    assert (record.topic, record.partition, record.key) == (jobs_topic("shop", "bulk", Lane.DUE), 7, b"j1")
    assert decode_job(record.value or b"") == new
    assert [header(record.headers, name) for name in (DERIVED, LIFE, QUEUE, NUMBER)] == [b"1", b"2", b"bulk", b"7"]
    told = decode_status(status.value or b"")
    assert (told.life, told.state, told.at) == (2, State.QUEUED, NOW)
    assert told.note == "redriven from 2@17 by eva@desk: the fix is out"


# -- addresses and states ----------------------------------------------------------------------------------------------


@given(st.integers(0, 999_999_999), st.integers(0, 10**18 - 1))
def test_an_address_reads_back(partition: int, offset: int) -> None:
    address = Address(partition, offset)
    assert parse_address(str(address)) == address


@pytest.mark.parametrize("text", ["", "@", "1@", "@1", "1@2@3", "-1@2", "1@2 ", "j@1", "\u0661@2", "1" * 30 + "@1"])
def test_other_texts_are_no_addresses(text: str) -> None:
    assert parse_address(text) is None


def noted(*records: AuditRecord) -> Settled:
    settled = Settled()
    for record in records:
        settled.note(record)
    return settled


REDRIVEN = AuditRecord(REDRIVE, "2@17", 5, "eva@desk", "", "j1", 2)
DISCARDED = AuditRecord(DISCARD, "2@17", 5, "eva@desk", "", "j1", 1)


def test_a_letter_is_open_until_somebody_settles_it() -> None:
    assert noted().state(AT, "j1", 1) is LetterState.OPEN
    assert noted(REDRIVEN).state(AT, "j1", 1) is LetterState.REDRIVEN
    assert noted(DISCARDED).state(AT, "j1", 1) is LetterState.DISCARDED
    assert noted(REDRIVEN._replace(action=PAUSE)).state(AT, "j1", 1) is LetterState.OPEN
    assert noted(REDRIVEN).by(AT, "j1", 1) == REDRIVEN


def test_a_discarded_letter_can_be_redriven_and_then_stays_so() -> None:
    assert noted(DISCARDED, REDRIVEN).state(AT, "j1", 1) is LetterState.REDRIVEN


def test_the_double_of_a_redriven_letter_is_redriven_too() -> None:
    double = Address(2, 18)
    settled = noted(REDRIVEN)
    assert settled.state(double, "j1", 1) is LetterState.REDRIVEN
    assert settled.by(double, "j1", 1) == REDRIVEN
    assert settled.state(double, "j1", 2) is LetterState.OPEN, "the new life died as well"
    assert settled.state(double, "j2", 1) is LetterState.OPEN


def test_a_letter_of_a_later_life_settles_the_earlier_one() -> None:
    settled = noted()
    settled.saw("j1", 1)
    assert settled.state(AT, "j1", 1) is LetterState.OPEN
    settled.saw("j1", 2)
    assert settled.state(AT, "j1", 1) is LetterState.REDRIVEN
    assert settled.by(AT, "j1", 1) is None


def test_records_that_are_no_jobs_are_told_apart_by_their_address() -> None:
    settled = noted(AuditRecord(DISCARD, "2@17", 5, "eva@desk"))
    settled.saw("", 0)
    assert settled.state(AT, "", 0) is LetterState.DISCARDED
    assert settled.state(Address(2, 18), "", 0) is LetterState.OPEN
