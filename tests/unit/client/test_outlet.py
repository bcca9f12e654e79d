"""What is told of jobs that are not all confirmed, and how long the end of a producer may take."""

from __future__ import annotations

from typing import Any, cast

import pytest

from processor.broker.base import OutRecord, Producer
from processor.client.outlet import Outlet, Ticket, failure_of, id_of
from processor.errors import (
    BrokerError,
    BrokerUnavailable,
    EnqueueError,
    EnqueueUnconfirmed,
    RecordRefused,
    TopicRefused,
)
from processor.job import Job
from processor.wire.codec import encode

IDS = ["a", "b", "c"]


def record(job_id: str) -> OutRecord:
    return OutRecord("shop.jobs.q", b"k", encode(Job(job_id, "t", 1, "q", b"", 1)))


AWAY, LARGE = BrokerUnavailable("nobody"), RecordRefused("too large")


@pytest.mark.parametrize(
    ("left", "refused", "kind", "first", "ids", "told"),
    [
        (
            1,
            [],
            EnqueueUnconfirmed,
            "a",
            IDS,
            "job a is not confirmed: no acknowledgement within 9 s (2 more",
        ),
        (1, [("b", LARGE)], EnqueueUnconfirmed, "a", IDS, "job a is not confirmed"),
        (0, [("c", AWAY), ("b", AWAY)], EnqueueUnconfirmed, "b", ["b", "c"], "job b is not confirmed: nobody (1 more"),
        (0, [("c", LARGE)], EnqueueError, None, None, "job c was refused: too large"),
        (0, [("c", TopicRefused("no topic")), ("a", AWAY)], EnqueueUnconfirmed, "a", ["a", "c"], "job a is not conf"),
        (0, [("b", TopicRefused("no topic")), ("c", AWAY)], EnqueueError, None, None, "job b was refused: no topic"),
        (0, [("zzz", LARGE)], EnqueueError, None, None, "job a was refused: too large"),
    ],
)
def test_the_first_that_failed_is_told_with_all_that_may_be_missing(
    left: int,
    refused: list[tuple[str, BrokerError]],
    kind: type[EnqueueError],
    first: str | None,
    ids: list[str] | None,
    told: str,
) -> None:
    error = failure_of(IDS, left, [(record(job_id), why) for job_id, why in refused], "9 s")
    assert type(error) is kind
    assert str(error).startswith(told)
    if isinstance(error, EnqueueUnconfirmed):
        assert (error.id, error.ids) == (first, ids)
    if not left:
        assert error.__cause__ in [why for _, why in refused]


def test_a_record_tells_its_job() -> None:
    assert id_of(record("order-7")) == "order-7"


@pytest.mark.parametrize(
    ("tickets", "patience"),
    [
        ([], 0.0),
        ([(True, False)], 0.0),
        ([(False, False)], 30.0),
        ([(False, True)], 1.0),
        ([(True, False), (False, True)], 1.0),
        ([(True, True)], 0.0),
        ([(False, True), (False, False)], 30.0),
    ],
)
def test_an_end_waits_for_what_somebody_waits_for(tickets: list[tuple[bool, bool]], patience: float) -> None:
    """(told, may be dropped) of each record on its way."""
    outlet = Outlet(cast("Producer", cast("Any", object())))
    for told, dropped in tickets:
        ticket = Ticket("j", (lambda: None) if dropped else None)
        ticket.told = told
        outlet.pending[ticket] = None
    assert outlet.patience(30.0) == patience
    assert outlet.patience(0.2) == min(patience, 0.2)
