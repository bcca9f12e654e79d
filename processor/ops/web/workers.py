"""The workers: who serves which queues, which partitions each owns, and what runs on it."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from processor.admin import queues_of
from processor.ops.roles import Permission
from processor.ops.web.desk import Desk, desk_of, needs
from processor.ops.web.pages import render
from processor.wire.groups import queue_group, slot_of

router = APIRouter(include_in_schema=False)


@dataclass(slots=True, kw_only=True)
class WorkerRow:
    """One worker process."""

    slot: str
    numbers: dict[str, list[int]] = field(default_factory=dict)
    """Partitions that it owns, by queue."""
    running: int = 0
    """Long jobs that run on it: short ones tell only of their end."""


@router.get("/workers", dependencies=[Depends(needs(Permission.SEE))])
def workers(request: Request) -> Response:
    """Who works, and on what."""
    return render(request, "workers.html", title="Workers", workers=workers_now(desk_of(request)))


def workers_now(desk: Desk) -> list[WorkerRow]:
    """The members of all queues' groups, by slot."""
    broker, namespace = desk.app.broker(), desk.app.namespace
    rows: dict[str, WorkerRow] = {}
    for queue in filter(desk.shows, queues_of(broker, namespace)):
        for member in broker.admin().members(queue_group(namespace, queue)):
            slot = slot_of(member.instance_id) if member.instance_id else member.client_id
            row = rows.setdefault(slot, WorkerRow(slot=slot))
            row.numbers.setdefault(queue, []).extend(sorted(place.partition for place in member.partitions))
    for row in rows.values():
        row.running = desk.queries.count(desk.filter(f'state:running worker:"{row.slot}"'))
    return [rows[slot] for slot in sorted(rows)]
