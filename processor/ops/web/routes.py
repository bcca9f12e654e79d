"""Every route of the dashboard, in the order in which a path is tried."""

from __future__ import annotations

from processor.ops.web import (
    api,
    bulk,
    doctor,
    events,
    forms,
    overview,
    pages,
    replays,
    saved_filters,
    schedules,
    workers,
)
from processor.ops.web.gate import entrances

# The events of a job before the job: a path takes all that follows.
APIS = (events.router, bulk.api, api.router, overview.api, schedules.api, replays.api, doctor.api, saved_filters.api)
SITE = (forms, bulk, overview, workers, schedules, replays, doctor, saved_filters, pages)
ROUTERS = (*APIS, entrances, *(each.router for each in SITE))
