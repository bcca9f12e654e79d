"""Bad input of every kind: a named error that says what to do, kept raw if it was a record; everybody else goes on."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from processor.broker.base import OutRecord
from processor.core.checkpoint import progress_key
from processor.errors import PayloadTooLarge
from processor.job import Lane
from processor.states import State
from processor.wire import topics
from processor.wire.codec import decode_job, encode
from processor.wire.records import CheckpointRecord
from tests.integration.fleet import Fleet, Process
from tests.integration.jobs_app import PARTITIONS, QUEUE
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(90)


def everything_goes_on(fleet: Fleet, worker: Process) -> None:
    """The worker lives, and each number still runs jobs and commits to its end."""
    ids = [fleet.append("strict", {"amount": 1}, job_id=fleet.id_for(n, "after")).id for n in range(PARTITIONS)]
    fleet.flush()
    fleet.finish(ids)
    fleet.settle()
    assert worker.alive
    assert not worker.events("number.held")


def newer_schema(value: bytes) -> bytes:
    """The record as a later version would write it: another fingerprint."""
    return value[:2] + bytes(8) + value[10:]


def test_undecodable_records_are_kept_raw_and_their_partition_goes_on(fleet: Fleet) -> None:
    (worker,) = fleet.start_ready("a")
    whole = encode(decode_job(encode(fleet.append("strict", {"amount": 1}))))
    bad = {b"garbage": b"\xff\x00 no job at all", b"cut": whole[:-3], b"newer": newer_schema(whole), b"empty": b""}
    for lane in (Lane.NORMAL, Lane.DUE):
        for key, value in bad.items():
            fleet.append_raw(lane, key, value)
    fleet.flush()
    letters = eventually(lambda: len(fleet.dead_letters()) >= 2 * len(bad) and fleet.dead_letters(), 30, fleet.describe)
    assert letters
    assert len(letters) == 2 * len(bad)
    for letter in letters:
        assert letter.raw == bad[letter.raw_key or b""]
        assert letter.job is None
        assert letter.reason in {"undecodable", "newer_record"}
        assert letter.failures
        assert letter.failures[0].message
        assert letter.topic in {fleet.lane(lane).topic for lane in (Lane.NORMAL, Lane.DUE)}
    assert {line["level"] for line in worker.events("record.undecodable")} == {"error"}
    everything_goes_on(fleet, worker)


def test_unknown_job_type_waits_for_its_deploy_and_then_becomes_a_dead_letter(fleet: Fleet) -> None:
    fleet.settings["worker.unknown_type_patience"] = "3s"
    (worker,) = fleet.start_ready("a")
    job = fleet.append("never.deployed", {"x": 1})
    fleet.flush()
    eventually(lambda: fleet.state_of(job.id) is State.WAITING, 20, fleet.describe)
    letter = fleet.dead_letter("unknown_type")
    assert letter.id == job.id
    assert decode_job(letter.job or b"") == job
    assert letter.failures
    assert "never.deployed" in letter.failures[0].message
    assert fleet.end_of(job.id).state is State.DEAD
    everything_goes_on(fleet, worker)


def test_refused_payload_becomes_a_dead_letter(fleet: Fleet) -> None:
    (worker,) = fleet.start_ready("a")
    job = fleet.append("strict", {"amount": -5})
    no_json = job._replace(id="no-json", payload=b"{nope")
    fleet.append_raw(Lane.NORMAL, b"no-json", encode(no_json))
    fleet.flush()
    fleet.finish([job.id, no_json.id])
    letters = {letter.id: letter for letter in fleet.dead_letters()}
    assert {letter.reason for letter in letters.values()} == {"bad_payload"}
    for sent in (job, no_json):
        assert decode_job(letters[sent.id].job or b"").payload == sent.payload
        error = fleet.end_of(sent.id).error
        assert error is not None
        assert error.kind.endswith("PayloadInvalid")
    amount = fleet.end_of(job.id).error
    assert amount is not None
    assert "amount" in amount.message
    assert fleet.ledger("start") == []
    everything_goes_on(fleet, worker)


def test_newer_payload_version_waits_for_its_deploy_and_then_becomes_a_dead_letter(fleet: Fleet) -> None:
    fleet.settings["worker.unknown_type_patience"] = "3s"
    (worker,) = fleet.start_ready("a")
    job = fleet.append("strict", {"amount": 1}, version=7)
    fleet.flush()
    eventually(lambda: fleet.state_of(job.id) is State.WAITING, 20, fleet.describe)
    letter = fleet.dead_letter("newer_record")
    assert letter.id == job.id
    assert decode_job(letter.job or b"") == job
    assert letter.failures
    assert "version 7" in letter.failures[0].message
    assert fleet.end_of(job.id).state is State.DEAD
    assert fleet.ledger("start") == []
    everything_goes_on(fleet, worker)


def test_unreadable_checkpoints_are_kept_raw_and_their_job_does_without(fleet: Fleet) -> None:
    job_id = fleet.id_for(0, "resumed")
    fleet.append("walk", {"items": 5}, job_id=job_id)
    fleet.flush()
    saved = CheckpointRecord(job_id, 1, 0, 1, 1, 0, fleet.lane().topic, 0, 1, '"x"')
    bad = {
        progress_key(job_id): newer_schema(encode(saved)),
        b"other-job": b"\xc3\x01 garbage",
        b"a#key#of#nobody": b"x",
    }
    for key, value in bad.items():
        fleet.put(OutRecord(fleet.checkpoints, key, value, None, 0))
    (worker,) = fleet.start_ready("a")
    assert fleet.end_of(job_id).state is State.SUCCEEDED
    letters = eventually(lambda: len(fleet.dead_letters()) >= len(bad) and fleet.dead_letters(), 20, fleet.describe)
    assert letters
    assert {letter.raw_key: letter.raw for letter in letters} == bad
    assert {letter.topic for letter in letters} == {fleet.checkpoints}
    assert len(worker.events("checkpoint.unreadable")) == len(bad)
    ids = [fleet.append("strict", {"amount": 1}, job_id=fleet.id_for(n, "after")).id for n in range(PARTITIONS)]
    fleet.flush()
    fleet.finish(ids)
    eventually(lambda: not fleet.lag(), 20, fleet.describe)
    assert not worker.events("number.held")
    # Told once: the next owner need not tell it again.
    worker.terminate()
    assert worker.wait() == 0
    fleet.start_ready("b")
    fleet.finish(ids)
    assert len(fleet.dead_letters()) == len(bad)


def test_unreadable_dedupe_mark_holds_no_number(fleet: Fleet) -> None:
    dedupe = topics.dedupe_topic(fleet.namespace, QUEUE)
    fleet.put(OutRecord(dedupe, b"some-job", b"\xc3\x01 garbage", None, 1))
    (worker,) = fleet.start_ready("a")
    letter = fleet.dead_letter("newer_record")
    assert (letter.topic, letter.partition, letter.raw_key) == (dedupe, 1, b"some-job")
    everything_goes_on(fleet, worker)


def test_payload_over_the_limit_is_refused_at_enqueue(fleet: Fleet) -> None:
    with pytest.raises(PayloadTooLarge) as caught:
        fleet.app.enqueue("keyed", {"key": "x" * 1_100_000})
    assert caught.value.hint
    assert not any(fleet.broker.admin().end_offsets([fleet.lane(number=n) for n in range(PARTITIONS)]).values())


@pytest.mark.parametrize(
    ("what", "error"),
    [("checkpoint", "CheckpointTooLarge"), ("step", "CheckpointTooLarge"), ("result", "ResultTooLarge")],
)
def test_saving_more_than_the_limit_ends_the_job_with_its_name(fleet: Fleet, what: str, error: str) -> None:
    fleet.settings |= {"worker.checkpoint_max_bytes": "10KiB", "worker.result_max_bytes": "20KiB"}
    (worker,) = fleet.start_ready("a")
    large = fleet.append("big", {"what": what, "size": 30_000})
    small = fleet.append("big", {"what": what, "size": 5_000})
    fleet.flush()
    end = fleet.end_of(large.id)
    assert end.state is State.DEAD
    assert end.error is not None
    assert end.error.kind.endswith(error)
    letter = fleet.dead_letter("handler_mistake")
    assert letter.id == large.id
    assert decode_job(letter.job or b"").payload == large.payload
    assert fleet.end_of(small.id).state is State.SUCCEEDED
    everything_goes_on(fleet, worker)


def test_missing_topic_is_refused_at_the_start(empty_fleet: Fleet) -> None:
    fleet = empty_fleet
    missing = topics.status_topic(fleet.namespace)
    fleet.create_topics(but=missing)
    worker = fleet.start("a")
    assert worker.wait() == 4, worker.tail()
    assert missing in worker.text()
    assert "processor topics plan" in worker.text()


def test_too_few_partitions_are_refused_at_the_start(empty_fleet: Fleet) -> None:
    fleet = empty_fleet
    fleet.create_topics(checkpoints=1)
    worker = fleet.start("a")
    assert worker.wait() == 4, worker.tail()
    assert fleet.checkpoints in worker.text()
    assert "processor topics plan" in worker.text()


@pytest.fixture
def nowhere() -> Iterator[str]:
    """An address where nothing listens, and nothing will during the test."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def test_broker_that_is_away_at_the_start_is_named(empty_fleet: Fleet, nowhere: str) -> None:
    worker = empty_fleet.start("a", bootstrap=nowhere)
    assert worker.wait() == 3, worker.tail()
    assert nowhere in worker.text()
    assert "check that Kafka runs" in worker.text()


def test_login_to_a_broker_that_wants_none_is_named(empty_fleet: Fleet) -> None:
    fleet = empty_fleet
    fleet.settings |= {
        "kafka.security_protocol": "SASL_PLAINTEXT",
        "kafka.sasl_mechanism": "PLAIN",
        "kafka.sasl_username": "user",
        "kafka.sasl_password": "not-the-right-one",
    }
    worker = fleet.start("a")
    assert worker.wait() == 3, worker.tail()
    assert fleet.bootstrap in worker.text()
    assert "not-the-right-one" not in worker.text()
