"""The overview: how much goes through, what fails, what waits, who works, and what waits for a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import RedirectResponse, Response

from processor.admin.orders import orders_now
from processor.admin.queues import QueueRow
from processor.admin.reading import partitions_of, read_to_end
from processor.alert_kinds import AlertKind
from processor.errors import RecordError
from processor.ops.queries import LetterSet
from processor.ops.roles import Permission, Role
from processor.ops.web.desk import Desk, desk_of, needs, user_of
from processor.ops.web.pages import render, undeclared
from processor.states import State
from processor.wire import topics
from processor.wire.codec import decode_alert
from processor.wire.records import AlertRecord

router = APIRouter(include_in_schema=False)
api = APIRouter(prefix="/api/v1")
HELD_MS = 3_600_000
"""A partition that was held within this time is told of: it is tried again by itself, and may stand still again."""
SHOWN = 5


@router.get("/", dependencies=[Depends(needs(Permission.ONE))])
def start(request: Request) -> Response:
    """Where everybody begins."""
    return RedirectResponse("/care" if user_of(request).role is Role.CARE else "/overview", 303)


@router.get("/overview", dependencies=[Depends(needs(Permission.SEE))])
def overview(request: Request) -> Response:
    """How it goes, at a glance."""
    desk = desk_of(request)
    now = desk.clock.now_ms()
    broker, namespace = desk.app.broker(), desk.app.namespace
    orders = orders_now(broker, namespace)
    queues = desk.queue_rows(orders)
    oldest = desk.live.oldest([queue.queue for queue in queues])
    rates = desk.live.rates(now)
    failed, ended = sum(rates.failed), sum(rates.succeeded) + sum(rates.failed)
    tiles = {
        "a minute": sum(rates.succeeded[-6:-1]) / 5,
        "ended": ended,
        "failed": failed,
        "share": f"{100 * failed / ended:.1f} %" if ended else "",
        "waiting": sum(sum(queue.waiting.values()) for queue in queues),
        "oldest": min(oldest.values(), default=None),
        "workers": sorted({worker for queue in queues for worker in queue.workers}),
    }
    return render(
        request,
        "overview.html",
        title="Overview",
        tiles=tiles,
        queues=queues,
        oldest=oldest,
        undeclared=undeclared(desk, queues),
        person=for_a_person(desk, queues, now),
        types=desk.paused_types(orders),
    )


@api.get("/rates", dependencies=[Depends(needs(Permission.SEE))])
def rates(request: Request) -> dict[str, Any]:
    """Jobs that ended in the last hour, minute by minute."""
    desk = desk_of(request)
    return asdict(desk.live.rates(desk.clock.now_ms()))


def for_a_person(desk: Desk, queues: Sequence[QueueRow], now_ms: int) -> dict[str, Any]:
    """What does not go on until somebody decides."""
    in_doubt = desk.queries.jobs(desk.filter(f"state:{State.IN_DOUBT.value}"), limit=SHOWN)
    return {
        "in_doubt": in_doubt.rows,
        "in_doubt_count": desk.queries.count(desk.filter(f"state:{State.IN_DOUBT.value}")),
        "letters": desk.queries.letter_count(LetterSet(), "open"),
        "quarantined": desk.live.quarantined(SHOWN),
        "held": held(desk, now_ms),
        "paused": [queue for queue in queues if queue.paused],
        "unserved": [queue for queue in queues if not queue.workers and any(queue.waiting.values())],
    }


def held(desk: Desk, now_ms: int) -> list[AlertRecord]:
    """Partitions that workers have held of late because of a fault, newest first, each once."""
    broker = desk.app.broker()
    name = topics.alerts_topic(desk.app.namespace)
    if name not in broker.admin().topics([name]):
        return []
    places = partitions_of(broker, [name])
    starts = broker.admin().offsets_at(dict.fromkeys(places, now_ms - HELD_MS))
    found: dict[str, AlertRecord] = {}
    for record in read_to_end(broker, list(starts), starts) if starts else ():
        try:
            alert = decode_alert(record.value() or b"")
        except RecordError:
            # One of a newer version must not hide the others.
            continue
        if alert.kind == AlertKind.HELD and desk.shows(alert.queue):
            found[alert.subject] = alert
    return sorted(found.values(), key=lambda alert: -alert.at)
