"""`processor doctor`, on an app bound to the memory broker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from processor.admin.doctor import DoctorContext, Verdict
from processor.admin.doctor import checks as doctor_checks
from processor.broker.base import Membership, OffsetCommit, OutRecord, TopicPartition
from processor.cli.doctor import doctor
from processor.job import Job
from processor.states import State
from tests.unit.cli.shop import AT, Shop
from tests.waiting import eventually

JOB = Job("j1", "import.file", 1, "bulk", b"{}", AT)


class Owner:
    """A member's listener that takes what it gets."""

    def __init__(self) -> None:
        self.owned: set[TopicPartition] = set()

    def on_assigned(self, partitions: Sequence[TopicPartition], membership: Membership) -> None:
        self.owned |= set(partitions)

    def on_revoked(self, partitions: Sequence[TopicPartition], membership: Membership) -> None:
        self.owned -= set(partitions)

    def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        self.owned -= set(partitions)


def examined(shop: Shop) -> dict[str, Any]:
    """The findings by check; of several the last."""
    return {row["check"]: row for row in shop.json(doctor)}


def test_a_fresh_namespace_has_no_worker_and_one_replica(shop: Shop) -> None:
    result = shop.run(doctor)
    assert result.exit_code == 0, result.output
    checks = [line.split()[1] for line in result.stdout.splitlines() if not line.startswith(" ")]
    assert checks[:6] == ["settings", "broker", "topics", "replicas", "clocks", "workers"]
    found = examined(shop)
    assert {name: row["verdict"] for name, row in found.items()} == {
        "settings": "ok",
        "broker": "warn",
        "topics": "ok",
        "replicas": "warn",
        "clocks": "unknown",
        "workers": "warn",
        "lag": "ok",
        "dead letters": "ok",
        "transactions": "ok",
    }


def test_topics_that_lose_work_end_with_4(shop: Shop) -> None:
    shop.broker.admin().set_topic_config("shop.jobs.bulk", {"retention.ms": "5"})
    result = shop.run(doctor)
    assert result.exit_code == 4
    assert "fail     topics" in result.stdout
    assert "retention.ms" in examined(shop)["topics"]["text"]


def test_a_broker_that_is_away_ends_with_3_and_nothing_more(shop: Shop) -> None:
    shop.broker.faults.outage(True)
    result = shop.run(doctor)
    assert result.exit_code == 3
    assert "fail     broker" in result.stdout
    assert "topics" not in result.stdout
    assert "Traceback" not in result.output


def test_an_app_that_is_not_there_ends_with_2(shop: Shop) -> None:
    shop.close()
    result = shop.run(doctor)
    assert (result.exit_code, "fail     settings" in result.stdout) == (2, True)
    Shop.__init__(shop)


def test_numbers_without_an_owner_are_named(shop: Shop) -> None:
    consumer, owner = shop.broker.group_consumer("shop.jobs.bulk", instance_id="7f.host-0"), Owner()
    consumer.subscribe(["shop.jobs.bulk"], owner)
    eventually(lambda: len(owner.owned) == 2, step=lambda: consumer.poll(0.01))
    found = examined(shop)
    assert found["workers"]["details"]["slots"] == ["host-0"]
    assert found["numbers"]["verdict"] == "warn"
    assert found["numbers"]["details"] == {"queue": "default", "numbers": list(range(12))}
    consumer.close()


def test_waiting_jobs_dead_letters_and_lost_offsets_are_seen(shop: Shop) -> None:
    shop.write("shop.jobs.bulk", "j1", JOB, 1)
    shop.write("shop.dlq", "j2", b"whatever")
    shop.saved("j1")
    found = {row["text"]: row for row in shop.json(doctor)}
    assert found["bulk: 1 in normal, 0 in due, and no worker"]["verdict"] == "warn"
    by_check = examined(shop)
    assert by_check["oldest"]["verdict"] == "ok"
    assert by_check["dead letters"]["text"] == "1 job given up"
    assert by_check["offsets"]["details"] == {"numbers": ["bulk-1"]}


def test_jobs_that_wait_for_long_are_a_warning(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.write("shop.jobs.bulk", "j1", JOB, 1)
    monkeypatch.setattr(doctor_checks, "OLD", 0.0)
    assert "shop.jobs.bulk-1" in examined(shop)["oldest"]["text"]
    shop.broker.admin().commit("shop.jobs.bulk", [OffsetCommit(TopicPartition("shop.jobs.bulk", 1), 1)])
    assert "oldest" not in examined(shop)


def test_records_of_the_future_are_clocks_that_differ(shop: Shop) -> None:
    shop.status("j1", State.RUNNING)
    patient = DoctorContext(app=shop.app, has_code=True)
    (finding,) = doctor_checks.check_clocks(patient)
    assert finding.verdict is Verdict.OK

    class Slow(DoctorContext):
        now_ms = patient.now_ms - 60_000

    (finding,) = doctor_checks.check_clocks(Slow(app=shop.app, has_code=True))
    assert finding.verdict is Verdict.WARN
    assert "in the future" in finding.text


def test_a_transaction_that_stays_open_is_named(shop: Shop) -> None:
    producer = shop.broker.transactional_producer("shop.worker.host-0")
    producer.init(1)
    producer.begin()
    producer.append([OutRecord("shop.status", b"j1", b"x", None, 3)])
    producer.wait_acks(1)
    paused: list[float] = []
    (finding,) = doctor_checks.check_transactions(DoctorContext(app=shop.app, has_code=True, pause=paused.append))
    assert (finding.verdict, finding.details["partitions"]) == (Verdict.WARN, ["shop.status-3"])
    assert paused == [doctor_checks.OPEN]
    (finding,) = doctor_checks.check_transactions(
        DoctorContext(app=shop.app, has_code=True, pause=lambda _: producer.commit(1))
    )
    assert finding.verdict is Verdict.OK


def test_a_bare_namespace_is_compared_with_itself(shop: Shop) -> None:
    patient = DoctorContext(app=shop.app, has_code=False)
    assert [finding.verdict for finding in doctor_checks.check_topics(patient)] == [Verdict.OK]
    elsewhere = DoctorContext(app=type(shop.app)("elsewhere", broker=shop.broker), has_code=False)
    (finding,) = doctor_checks.check_topics(elsewhere)
    assert (finding.verdict, finding.exit_code) == (Verdict.FAIL, 4)
