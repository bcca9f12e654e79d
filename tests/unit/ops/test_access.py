"""Who may ask for what: every route of the dashboard and its API, by role. A new route without a line here fails."""

from __future__ import annotations

import pytest

from processor.ops.login import BasicLogin, Users
from processor.ops.roles import Role
from tests.unit.ops.conftest import Desk
from tests.unit.ops.routes import routes_of
from tests.unit.ops.test_api import Web, failed, users
from tests.unit.ops.test_pages import OWN

__all__ = ["users"]

pytestmark = pytest.mark.timeout(240)

OPEN = frozenset({"", *Role})
"""Also those who are not logged in."""
ALL = frozenset(Role)
SEE = frozenset({Role.VIEWER, Role.OPERATOR, Role.ADMIN})
RETRY = frozenset({Role.CARE, Role.OPERATOR, Role.ADMIN})
OPERATE = frozenset({Role.OPERATOR, Role.ADMIN})

ROUTES: dict[str, frozenset[str]] = {
    "GET /static/": OPEN,
    "GET /login": OPEN,
    "GET /login/back": OPEN,
    "GET /login/password": ALL,
    "POST /logout": OPEN,
    "GET /": ALL,
    "GET /care": ALL,
    "GET /overview": SEE,
    "GET /jobs": SEE,
    "GET /jobs/{job_id:path}": SEE,
    "GET /saved/{job_id:path}": SEE,
    "GET /failures": SEE,
    "GET /letters": SEE,
    "GET /queues": SEE,
    "GET /workers": SEE,
    "GET /schedules": SEE,
    "GET /replay": SEE,
    "GET /doctor": SEE,
    "GET /audit": SEE,
    "POST /do/jobs/{job_id:path}/retry": RETRY,
    "POST /do/jobs/{job_id:path}/redrive": RETRY,
    "POST /do/jobs/{job_id:path}/cancel": OPERATE,
    "POST /do/letters/redrive": OPERATE,
    "POST /do/letters/discard": OPERATE,
    "POST /do/queues/{name}/pause": OPERATE,
    "POST /do/queues/{name}/resume": OPERATE,
    "POST /do/types/{name:path}/resume": OPERATE,
    "POST /do/schedules/{name:path}/pause": OPERATE,
    "POST /do/schedules/{name:path}/resume": OPERATE,
    "POST /do/schedules/{name:path}/trigger": OPERATE,
    "GET /bulk": OPERATE,
    "GET /bulk/{job_id:path}": SEE,
    "POST /do/bulk": OPERATE,
    "POST /do/replay": OPERATE,
    "POST /do/filters/save": OPERATE,
    "POST /do/filters/delete": OPERATE,
    "POST /do/filters/watch": OPERATE,
    "POST /do/filters/unwatch": OPERATE,
    "GET /api/v1/openapi.json": ALL,
    "GET /api/v1/me": ALL,
    "GET /api/v1/freshness": ALL,
    "GET /api/v1/jobs": SEE,
    "GET /api/v1/jobs/{job_id:path}": ALL,
    "GET /api/v1/jobs/{job_id:path}/events": ALL,
    "GET /api/v1/events": SEE,
    "GET /api/v1/states": SEE,
    "GET /api/v1/rates": SEE,
    "GET /api/v1/failures": SEE,
    "GET /api/v1/letters": SEE,
    "GET /api/v1/queues": SEE,
    "GET /api/v1/schedules": SEE,
    "GET /api/v1/doctor": SEE,
    "GET /api/v1/filters": SEE,
    "GET /api/v1/audit": SEE,
    "POST /api/v1/filters": OPERATE,
    "POST /api/v1/filters/delete": OPERATE,
    "POST /api/v1/filters/watch": OPERATE,
    "POST /api/v1/filters/unwatch": OPERATE,
    "POST /api/v1/jobs/{job_id:path}/retry": RETRY,
    "POST /api/v1/jobs/{job_id:path}/redrive": RETRY,
    "POST /api/v1/jobs/{job_id:path}/cancel": OPERATE,
    "POST /api/v1/letters/redrive": OPERATE,
    "POST /api/v1/letters/discard": OPERATE,
    "POST /api/v1/queues/{name}/pause": OPERATE,
    "POST /api/v1/queues/{name}/resume": OPERATE,
    "POST /api/v1/types/{name:path}/pause": OPERATE,
    "POST /api/v1/types/{name:path}/resume": OPERATE,
    "POST /api/v1/schedules/{name:path}/pause": OPERATE,
    "POST /api/v1/schedules/{name:path}/resume": OPERATE,
    "POST /api/v1/schedules/{name:path}/trigger": OPERATE,
    "POST /api/v1/bulk": OPERATE,
    "GET /api/v1/bulk/{job_id:path}": SEE,
    "POST /api/v1/replays/plan": SEE,
    "POST /api/v1/replays/run": OPERATE,
}
"""Every route, and who may use it."""
TOLD = ("Jane Doe", "has no amount", "order.charge")
"""What stands in the jobs, and in no refusal."""


def test_every_route_is_open_to_those_roles_and_to_nobody_else(desk: Desk, users: Users) -> None:
    (job_id,) = failed(desk)
    web = Web(desk, BasicLogin(users))
    assert sorted(" ".join(route) for route in routes_of(web.application)) == sorted(ROUTES), "say here who may use it"
    # Streams end at once; who comes so far is seen by then.
    web.application.state.desk.feed.closed = True
    clients = {role: web.client(role) for role in ("", *Role)}
    for name, allowed in ROUTES.items():
        method, _, path = name.partition(" ")
        path = path.replace("{job_id:path}", job_id).replace("{name}", "none").replace("{name:path}", "none")
        path = "/static/dashboard.css" if path == "/static/" else path
        # No reason is given, so that nothing is done whoever asks.
        api = {"json": {"reason": "", "expected": 0}} if method == "POST" else {}
        how = api if path.startswith("/api/") else {"headers": OWN}
        for role, client in clients.items():
            answer = client.request(method, path, **how)
            told = f"{name} as {role or 'nobody'}: {answer.status_code} {answer.text[-300:]}"
            if role in allowed:
                assert answer.status_code in (200, 303, 400, 404, 422), told
            else:
                assert answer.status_code == (403 if role else 401), told
                assert not [words for words in (*TOLD, job_id) if words in answer.text], told
    assert desk.look().audit().rows == []
