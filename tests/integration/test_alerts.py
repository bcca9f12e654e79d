"""Alerts reach a real HTTP endpoint: once, also when it was down for a while or the alerter was killed."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from processor.alerts.alerter import alerter_group
from processor.alerts.delivery import signature
from processor.broker.base import OutRecord, TopicPartition
from processor.ops.kept import Kept
from processor.ops.store import Store
from processor.wire.codec import encode
from processor.wire.records import AlertRecord
from processor.wire.topics import alerts_topic
from tests.integration import jobs_app
from tests.integration.fleet import Fleet
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(240)

SECRET = "s3cret"


class Endpoint:
    """A receiver of webhooks that can be out of order."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.names: list[str] = []
        self.refused = 0
        self.broken = False
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if outer.broken:
                    outer.refused += 1
                    self.send_error(503)
                    return
                assert self.headers["X-Processor-Signature"] == signature(SECRET, body)
                outer.names.append(self.headers["X-Processor-Delivery"])
                outer.got += json.loads(body)["alerts"]
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    yield endpoint
    endpoint.close()


STARTED: list[subprocess.Popen[bytes]] = []


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    yield
    for process in STARTED:
        process.kill()
        process.wait()
    STARTED.clear()


def start(fleet: Fleet, folder: Path, *rules: str, words: tuple[str, ...] = ("run",)) -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    (folder / "processor.toml").write_text("\n".join(f"[[alerts.rules]]\n{rule}" for rule in rules))
    command = [sys.executable, "-m", "processor", "alerts", *words]
    command += ["--namespace", fleet.namespace, "--bootstrap", fleet.bootstrap]
    with (folder / "out").open("ab") as out:
        STARTED.append(subprocess.Popen(command, cwd=folder, env=os.environ.copy(), stdout=out, stderr=out))
    return STARTED[-1]


def rule(name: str, url: str, more: str = 'fold = "0s"') -> str:
    return f'name = "{name}"\nto = ["{url}"]\nsecret = "{SECRET}"\n{more}'


def alert(fleet: Fleet, place: int, kind: str = "killed", job_type: str = "mail.send") -> None:
    record = AlertRecord(kind, f"job-{place}", 1000 + place, "w", f"alert {place}", f"job-{place}", job_type, "q")
    fleet.put(OutRecord(alerts_topic(fleet.namespace), record.subject.encode(), encode(record)))


def texts(endpoint: Endpoint) -> list[str]:
    return [example["text"] for got in endpoint.got for example in got["examples"]]


def until_it_listens(fleet: Fleet, endpoint: Endpoint, first: int = 0) -> None:
    """A new rule begins with what comes from now on, whenever that is: the first ones may be before it."""
    place = [first]

    def heard() -> bool:
        alert(fleet, place[0])
        place[0] += 1
        return bool(endpoint.got)

    eventually(heard, 60, "the alerter listens")


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    assert process.wait(30) == 0


def test_alerts_arrive_once_after_the_endpoint_was_down(fleet: Fleet, endpoint: Endpoint, tmp_path: Path) -> None:
    folder = tmp_path / "alerter"
    alerter = start(fleet, folder, rule("on-call", endpoint.url))
    until_it_listens(fleet, endpoint)
    endpoint.broken = True
    for place in range(100_900, 100_905):
        alert(fleet, place, kind="crash_loop")
    eventually(lambda: endpoint.refused >= 2, 60, "it is tried again")
    endpoint.broken = False
    eventually(lambda: "alert 100904" in texts(endpoint), 60, "it has arrived")
    mine = [text for text in texts(endpoint) if int(text.split()[1]) >= 100_900]
    assert mine == [f"alert {place}" for place in range(100_900, 100_905)]
    stop(alerter)
    assert len(set(endpoint.names)) == len(endpoint.names)


def test_a_killed_alerter_loses_nothing_and_a_recipient_that_is_away_holds_up_no_other(
    fleet: Fleet, endpoint: Endpoint, tmp_path: Path
) -> None:
    nobody = rule("nobody", "http://127.0.0.1:9/away")
    mails = rule("mails", endpoint.url, 'fold = "0s"\ntypes = ["mail.*"]')
    first = start(fleet, tmp_path / "one", nobody, mails)
    until_it_listens(fleet, endpoint)
    first.kill()
    first.wait()
    for place in range(100_900, 100_910):
        alert(fleet, place, "crash_loop", "mail.send" if place % 2 else "import.file")
    second = start(fleet, tmp_path / "two", nobody, mails)
    eventually(lambda: "alert 100909" in texts(endpoint), 90, "the second goes on")
    late = [text for text in texts(endpoint) if int(text.split()[1]) >= 100_900]
    assert late == [f"alert {place}" for place in range(100_901, 100_910, 2)]
    stop(second)


def test_repeats_are_told_as_one(fleet: Fleet, endpoint: Endpoint, tmp_path: Path) -> None:
    alerter = start(fleet, tmp_path / "a", rule("on-call", endpoint.url, 'fold = "3s"'))
    until_it_listens(fleet, endpoint)
    endpoint.got.clear()
    for place in range(100_900, 100_930):
        alert(fleet, place, kind="crash_loop")
    eventually(lambda: sum(got["times"] for got in endpoint.got if got["kind"] == "crash_loop") == 30, 60, "all told")
    loops = [got for got in endpoint.got if got["kind"] == "crash_loop"]
    assert len(loops) <= 2
    assert loops[0]["title"].startswith("crash loop: mail.send")
    stop(alerter)


def test_a_queue_that_nobody_serves_is_told_of(fleet: Fleet, endpoint: Endpoint, tmp_path: Path) -> None:
    for _ in range(30):
        fleet.append("walk", {"items": 1})
    fleet.flush()
    rules = rule("on-call", endpoint.url, 'fold = "0s"\n[alerts]\nbacklog = 20\noldest = "100ms"')
    alerter = start(fleet, tmp_path / "a", rules)
    eventually(lambda: {"backlog", "waits_long"} <= {got["kind"] for got in endpoint.got}, 60, "both are told")
    told = {got["kind"]: got["examples"][0]["text"] for got in endpoint.got}
    assert told["backlog"] == "queue q holds 30 jobs, more than 20"
    assert told["waits_long"].startswith("the oldest job of queue q waits for ")
    stop(alerter)


def test_a_test_alert_says_at_once_whether_it_arrives(fleet: Fleet, endpoint: Endpoint, tmp_path: Path) -> None:
    rules = (rule("good", endpoint.url), rule("bad", "http://127.0.0.1:9/away"))
    assert start(fleet, tmp_path / "a", *rules, words=("test", "good")).wait(60) == 0
    assert endpoint.got[0]["kind"] == "test"
    assert start(fleet, tmp_path / "a", *rules, words=("test", "bad")).wait(60) == 1
    assert start(fleet, tmp_path / "a", *rules, words=("test", "missing")).wait(60) == 2
    out = (tmp_path / "a" / "out").read_text()
    assert "delivered to 1 recipient" in out
    assert "http://127.0.0.1:9" in out
    assert "there are: good, bad" in out
    assert SECRET not in out


def test_a_failed_order_is_told_by_a_saved_filter(fleet: Fleet, endpoint: Endpoint, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/p.sqlite"
    store = Store(database, fleet.namespace)
    Kept(store).save("failed orders", "state:dead type:order order_id:7", "jane@dashboard", 1)
    store.close()

    def app_command(*words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "processor", *words, "--app", f"{jobs_app.__file__}:app"]
        command += ["--bootstrap", fleet.bootstrap, "--database", database]
        with (tmp_path / "out").open("ab") as out:
            STARTED.append(subprocess.Popen(command, cwd=tmp_path, env=fleet.env(), stdout=out, stderr=out))
        return STARTED[-1]

    alerter = start(fleet, tmp_path / "a", rule("orders", endpoint.url, 'fold = "0s"\nfilters = ["failed*"]'))
    assert app_command("alerts", "watch", "failed orders", "--at-least", "1").wait(60) == 0
    place, group = TopicPartition(alerts_topic(fleet.namespace), 0), alerter_group(fleet.namespace, "orders")
    admin = fleet.broker.admin()
    eventually(lambda: admin.committed(group, [place])[place].offset is not None, 60, "the alerter listens")
    projection = app_command("projection", "run")
    fleet.start_ready("w")
    fleet.append("order", {"order_id": 7, "amount": -1})
    fleet.append("order", {"order_id": 8, "amount": 1})
    fleet.flush()
    eventually(lambda: bool(endpoint.got), 90, lambda: (tmp_path / "out").read_text())
    assert texts(endpoint) == ["filter failed orders: 1 job matches, at least 1 (state:dead type:order order_id:7)"]
    assert endpoint.got[0]["title"] == "filter: failed orders"
    stop(projection)
    stop(alerter)
