"""The API asked all that its own description allows, and what it forbids: no answer is an error of the server."""

from __future__ import annotations

from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok

from processor.ops.login import NoLogin
from processor.ops.web.serve import create
from tests.unit.ops.client import Client
from tests.unit.ops.conftest import Desk
from tests.unit.ops.test_api import failed

pytestmark = pytest.mark.timeout(240)

EXAMPLES = 4
"""Requests of each operation, kind of data and choice of names."""
ANSWERS = {200, 204, 400, 401, 403, 404, 405, 409, 413, 415, 422, 503}


class Asking:
    """One dashboard without login, and what became of each operation."""

    def __init__(self, desk: Desk) -> None:
        (self.job_id,) = failed(desk)
        application = create(desk.shop.app, desk.store, NoLogin(), clock=desk.bed.runtime.clock)
        # Streams end at once.
        application.state.desk.feed.closed = True
        self.client = Client(application, "http://localhost", "127.0.0.1", {})
        self.answers: dict[str, set[int]] = {}
        wish = {"action": "discard", "expected": 0, "q": "state:killed", "reason": "x"}
        self.bulk_id = self.client.post("/api/v1/bulk", json=wish).json()["id"]
        # Its queue is new: a projector that begins looks which topics there are.
        desk.projector.close()
        desk.look()
        self.schema = schemathesis.openapi.from_dict(self.client.get("/api/v1/openapi.json").json())

    def ask(self, case: Case[Any]) -> None:
        """Send one request, as `requests` would write it; of two that name a queue, one names a queue that there is."""
        queue = case.body.get("queue") if isinstance(case.body, dict) else None
        if isinstance(queue, str) and isinstance(case.body, dict) and len(queue) % 2 == 0:
            case.body["queue"] = "orders"
        sent = requests.Request(**case.as_transport_kwargs(base_url="http://localhost")).prepare()
        assert sent.method is not None
        assert sent.url is not None
        headers = {name: value for name, value in sent.headers.items() if name.lower() != "content-length"}
        answer = self.client.request(sent.method, sent.url, content=sent.body or b"", headers=headers)
        told = f"{sent.method} {sent.url} {sent.body!r}: {answer.status_code} {answer.text[:300]}"
        assert answer.status_code in ANSWERS, told
        self.answers.setdefault(case.operation.label, set()).add(answer.status_code)

    def names(self, operation: Any) -> list[dict[str, str] | None]:
        """Names in the path: any, and those that there are."""
        known = {
            "job_id": self.bulk_id if "/bulk/" in operation.path else self.job_id,
            "name": "order.charge" if "types" in operation.path else "orders",
        }
        own = {name: value for name, value in known.items() if f"{{{name}" in operation.path}
        return [None, own] if own else [None]


def test_no_request_is_an_error_of_the_server(desk: Desk) -> None:
    asking = Asking(desk)
    how = settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    labels = set()
    for found in asking.schema.get_all_operations():
        assert isinstance(found, Ok), "the description is in order"
        operation = found.ok()
        labels.add(operation.label)
        for names in asking.names(operation):
            for mode in GenerationMode:
                try:
                    how(given(operation.as_strategy(mode, path_parameters=names))(asking.ask))()
                except Unsatisfiable:
                    # Of an operation that takes nothing, or any text, there is nothing that is forbidden.
                    assert mode is GenerationMode.NEGATIVE, operation.label
    assert set(asking.answers) == labels, "every operation was asked"
    assert not [label for label, seen in asking.answers.items() if seen <= {404, 405, 503}], asking.answers
    assert 200 in asking.answers["POST /api/v1/replays/plan"], "some requests come as far as the log"
