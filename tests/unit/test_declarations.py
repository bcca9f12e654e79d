"""What is told beside a payload and a handler: taken as it is meant, or refused with what to write instead."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel, Field

from processor.core.idempotency import is_keyed, life_at
from processor.declarations import (
    Declaration,
    Enqueue,
    Queue,
    checked_executor,
    checked_lane,
    checked_options,
    checked_seconds,
    declared_queue,
    under_key,
)
from processor.errors import DefinitionError, NameInvalid
from processor.job import Job, Lane
from processor.policies import ENDLESS, Discard, JobOptions, Retry

NOW = 1_767_225_600_000
JOB = Job("j", "pay", 1, "q", b"{}", NOW)
WINDOW = 86_400.0


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(NOW / 1000, UTC) + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"id": "j", "idempotency_key": "k"}, "id= and idempotency_key="),
        (
            {"idempotency_key": "k", "delay": "24h"},
            "a delay of 24h and .* which is remembered for 86400 s",
        ),
        ({"idempotency_key": "k", "delay": timedelta(days=2)}, "a delay of 2 days"),
        ({"idempotency_key": "k", "at": at(WINDOW)}, r"at=2026-01-02 00:00:00\+00:00 and an idempotency key"),
        ({"idempotency_key": "k", "at": at(WINDOW).replace(tzinfo=None)}, "no moment with a zone"),
        ({"idempotency_key": "k", "at": at(9), "delay": 9}, "delay= and at= are given both"),
        ({"idempotency_key": "k", "delay": "soon"}, "delay: 'soon' is no length of time"),
        ({"until": "ever"}, "until='ever' is unknown"),
        ({"until": None, "idempotency_key": "k"}, "until=None is unknown"),
        ({"when_full": "drop"}, "when_full='drop' is unknown"),
        ({"when_full": "pass"}, "when_full='pass' is unknown"),
    ],
)
def test_wishes_that_contradict_each_other_are_refused(how: dict[str, Any], told: str) -> None:
    with pytest.raises(DefinitionError, match=told) as caught:
        under_key(JOB, Enqueue(**how), WINDOW)
    assert caught.value.hint


@pytest.mark.parametrize("key", ["", "x" * 1025, 7, "a\nb"])
def test_what_cannot_be_a_key_is_refused(key: Any) -> None:
    with pytest.raises(NameInvalid, match="an idempotency key"):
        under_key(JOB, Enqueue(idempotency_key=key), WINDOW)


@pytest.mark.parametrize(
    "how", [{}, {"id": "j"}, {"delay": "30d"}, {"at": at(10**7)}, {"until": "finished"}, {"when_full": "wait"}]
)
def test_without_a_key_a_job_stays_as_it_is(how: dict[str, Any]) -> None:
    assert under_key(JOB, Enqueue(**how), WINDOW) is JOB
    assert Enqueue(**how).keeps_out is None
    assert Enqueue(**how).repeats is ("id" in how)


@pytest.mark.parametrize(
    "how", [{}, {"delay": "23h"}, {"at": at(WINDOW - 1)}, {"at": at(-5)}, {"delay": 0}, {"until": "finished"}]
)
def test_everybody_makes_the_same_job_of_a_key(how: dict[str, Any]) -> None:
    told = Enqueue(idempotency_key="order-7", **how)
    made = under_key(JOB, told, WINDOW)
    assert made == under_key(JOB._replace(id="another"), told, WINDOW)
    assert is_keyed(made.id)
    assert (made.life, made.payload, made.queue) == (life_at(NOW), JOB.payload, "q")
    assert (told.keeps_out, told.repeats) == (how.get("until", "window"), True)


def test_a_key_belongs_to_its_queue_and_ordering_key() -> None:
    told = Enqueue(idempotency_key="order-7")
    jobs = (JOB, JOB._replace(queue="r"), JOB._replace(key="c-1"), JOB._replace(key=""), JOB._replace(key="c-2"))
    assert len({under_key(job, told, WINDOW).id for job in jobs}) == len(jobs)


@pytest.mark.parametrize(
    ("how", "lane"),
    [({}, Lane.NORMAL), ({"lane": "high"}, Lane.HIGH), ({"lane": Lane.LOW}, Lane.LOW), ({"delay": 5}, Lane.NORMAL)],
)
def test_a_lane_is_one_to_enqueue_into(how: dict[str, Any], lane: Lane) -> None:
    assert checked_lane(Enqueue(**how), "q") is lane


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"lane": "due"}, "queue q has no lane 'due' to enqueue into"),
        ({"lane": "urgent"}, "queue q has no lane 'urgent'"),
        ({"lane": ""}, "queue q has no lane ''"),
        ({"lane": "high", "delay": "5m"}, "lane 'high' and a delay"),
        ({"lane": "low", "at": at(5)}, "lane 'low' and a delay"),
    ],
)
def test_a_lane_that_cannot_be_meant_is_refused(how: dict[str, Any], told: str) -> None:
    with pytest.raises(DefinitionError, match=told):
        checked_lane(Enqueue(**how), "q")


QUEUE: dict[str, Any] = {
    "partitions": 3,
    "concurrency": 5,
    "order": "block",
    "lanes": (),
    "max_backlog": None,
    "when_full": "raise",
}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"order": "fifo"}, "order 'fifo' is unknown"),
        ({"concurrency": 0}, "concurrency 0"),
        ({"max_backlog": 0}, "max_backlog 0"),
        ({"max_backlog": 10.0}, r"max_backlog 10\.0"),
        ({"max_backlog": True}, "max_backlog True"),
        ({"max_backlog": 5, "when_full": "drop"}, "when_full='drop' is unknown"),
        ({"partitions": 0}, "0 partitions"),
        ({"lanes": ("urgent",)}, "'urgent' is no lane"),
    ],
)
def test_a_queue_that_makes_no_sense_is_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(DefinitionError, match=told) as caught:
        declared_queue("bulk", **{**QUEUE, **wrong})
    assert caught.value.hint


def test_a_queue_is_as_it_was_told() -> None:
    made = declared_queue("bulk", **QUEUE)
    assert made == Queue(name="bulk", partitions=3, concurrency=5, lanes=(Lane.DUE, Lane.NORMAL))
    limited = declared_queue("bulk", **{**QUEUE, "max_backlog": 9, "when_full": "wait", "lanes": (Lane.LOW,)})
    assert limited.limit is not None
    assert (limited.limit.max_backlog, limited.limit.when_full) == (9, "wait")
    assert set(limited.lanes) == {Lane.DUE, Lane.NORMAL, Lane.LOW}


class Order(BaseModel):
    id: str
    customer: dict[str, str] = {}
    at: str = Field("", alias="placedAt")


def declared(**fields: Any) -> Declaration:
    given = {"payload": Order, "version": 1, "key": None, "options": JobOptions(), "executor": "thread", **fields}
    queue = Queue(name="q")
    return Declaration(namespace="shop", name="pay", queue=queue, client=lambda: None, **given)  # type: ignore[arg-type, return-value]  # nobody asks for one


@pytest.mark.parametrize("search", [(), ("id",), ("customer.country",), ("at",), ("placedAt",)])
def test_a_payload_can_be_searched_by_its_fields(search: tuple[str, ...]) -> None:
    assert declared(search=search).search == search


@pytest.mark.parametrize(
    ("fields", "told", "hint"),
    [
        ({"search": ("nosuch",)}, "its payload has no field 'nosuch' to search by", "there are: at, customer, id"),
        ({"search": ("id", "a b")}, "no field 'a b'", "there are: "),
        ({"payload": dict[str, str], "search": ("a-b",)}, "no field 'a-b'", 'use names like "order_id"'),
        ({"payload": None, "search": ("id",)}, "search= without payload=", "a search is taken from the payload"),
        ({"payload": None, "key": str}, "key= without payload=", "a key is taken from the payload"),
    ],
)
def test_fields_that_are_not_there_cannot_be_searched_by(fields: dict[str, Any], told: str, hint: str) -> None:
    with pytest.raises(DefinitionError, match=told) as caught:
        declared(**fields)
    assert caught.value.hint.startswith(hint)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0, "attempt_timeout is 0: no job could ever run"),
        ("0s", "is 0"),
        ("36601d", "is longer than 100 years"),
        (-1, "job type pay: attempt_timeout: -1 is no length of time"),
        (True, "True is no length of time"),
    ],
)
def test_a_limit_that_could_never_be_kept_is_refused(value: Any, told: str) -> None:
    with pytest.raises(DefinitionError, match=told):
        checked_seconds("pay", "attempt_timeout", value)


def test_limits_are_kept_in_seconds() -> None:
    assert checked_seconds("pay", "attempt_timeout", None) is None
    assert checked_seconds("pay", "attempt_timeout", "36600d") == 36_600 * 86_400
    options = checked_options("pay", None, "5m", timedelta(seconds=9), 0.5, "1d")
    assert (options.attempt_timeout, options.stall_timeout, options.queue_timeout) == (300, 9, 0.5)
    assert (options.kill_after, options.retry, options.critical) == (86_400, Retry(), None)


@pytest.mark.parametrize(
    ("retry", "queue_timeout", "told"),
    [
        (None, "5m", "is critical and has a queue_timeout"),
        (Retry(3).on(ValueError, Discard()), None, "has a rule that discards it"),
        (Retry(3, max_age="1d"), None, "is critical and has a max_age"),
    ],
)
def test_a_critical_job_cannot_be_dropped(retry: Retry | None, queue_timeout: str | None, told: str) -> None:
    with pytest.raises(DefinitionError, match=told):
        checked_options("pay", retry, None, None, queue_timeout, None, critical=True)
    assert checked_options("pay", retry, None, None, queue_timeout, None, critical=False).critical is False


def test_a_critical_job_has_no_last_attempt() -> None:
    options = checked_options("pay", Retry(3).on(ValueError, times=2), None, None, None, None, critical=True)
    assert options.retry is not None
    assert options.retry.times == ENDLESS
    assert [rule.times for rule in options.retry.rules] == [None]


@pytest.mark.parametrize("executor", ["fork", "", "Thread", "async"])
def test_an_executor_is_one_of_two(executor: str) -> None:
    with pytest.raises(DefinitionError, match="is unknown") as caught:
        checked_executor("pay", executor)
    assert caught.value.hint == "use thread or process"
    assert [checked_executor("pay", known) for known in ("thread", "process")] == ["thread", "process"]
