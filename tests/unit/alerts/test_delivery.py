"""What a recipient gets, and what is shown of its address: never what may be secret in it."""

from __future__ import annotations

import hashlib
import hmac
import json

import pytest

from processor.alerts.delivery import AlertRefused, body_of, deliver, shown, signature, text_of
from processor.alerts.routing import Digest, concerns, folded, subject_of
from processor.wire.records import AlertRecord
from processor.wire.settings import AlertRule


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("https://hooks.example/services/T0/B0/SECRET", "https://hooks.example"),
        ("https://hooks.example:8443/x", "https://hooks.example:8443"),
        ("https://hooks.example?key=SECRET", "https://hooks.example"),
        ("https://hooks.example#SECRET", "https://hooks.example"),
        ("https://hooks.example/to/@SECRET", "https://hooks.example"),
        ("https://hooks.example/?to=ana@SECRET", "https://hooks.example"),
        ("https://ana:SECRET@hooks.example/x", "https://hooks.example"),
        ("https://ana:SEC@RET@hooks.example/x", "https://hooks.example"),
        ("https://ana:SECRET/x@hooks.example", "https://ana"),
        ("http://[::1]:9000/SECRET", "http://[::1]:9000"),
        ("mailto://ana:SECRET@mail.example?to=ben@shop.example", "mailto://mail.example"),
        ("MAILTOS://ana:SECRET@mail.example", "MAILTOS://mail.example"),
        ("tgram://SECRET/12345", "tgram://..."),
        ("slack://SECRET/TB/TC/#general", "slack://..."),
        ("discord://12345/SECRET", "discord://..."),
        ("pover://ana@SECRET", "pover://..."),
        ("SECRET", "..."),
        ("ana@SECRET:/x", "..."),
    ],
)
def test_an_address_is_shown_without_what_may_be_secret(address: str, told: str) -> None:
    assert shown(address) == told
    assert "SECRET" not in told


def alert(at: int = 0, kind: str = "killed", text: str = "x", subject: str = "job-1") -> AlertRecord:
    return AlertRecord(kind, subject, at, "w", text)


def test_a_webhook_gets_everything_and_can_check_it() -> None:
    digests = folded([alert(1, text="grüße\n☃"), alert(5)])
    body = body_of(digests, "shop", "on-call")
    told = json.loads(body)
    assert (told["namespace"], told["rule"]) == ("shop", "on-call")
    (one,) = told["alerts"]
    assert (one["kind"], one["times"], one["first_at"], one["last_at"]) == ("killed", 2, 1, 5)
    assert one["examples"][0]["text"] == "grüße\n☃"
    assert "grüße".encode() in body
    expected = "sha256=" + hmac.new(b"key", body, hashlib.sha256).hexdigest()
    assert signature("key", body) == expected != signature("another", body)


@pytest.mark.parametrize(
    ("digest", "title"),
    [
        (Digest("crash_loop", "mail.send", "bulk", 1, 0, 0, []), "crash loop: mail.send"),
        (Digest("backlog", "", "bulk", 3, 0, 0, []), "backlog: bulk (3 times)"),
        (Digest("killed", "", "", 1, 0, 0, [alert()]), "killed: job-1"),
        (Digest("killed", "", "", 1, 0, 0, []), "killed: "),
    ],
)
def test_the_title_names_the_nearest_thing_that_is_known(digest: Digest, title: str) -> None:
    assert digest.title == title


def test_a_person_reads_the_first_of_many_and_how_many_more() -> None:
    few, many = folded([alert(n) for n in range(5)]), folded([alert(n * 1000) for n in range(6)])
    assert len(text_of(few).splitlines()) == 6
    assert text_of(many).splitlines()[-1] == "  and 1 more until 1970-01-01 00:00:05Z"
    assert text_of([*few, *many]).count("killed: job-1") == 2
    assert text_of([]) == ""


@pytest.mark.parametrize(("of", "hears"), [("r", False), ("other", True)])
def test_a_rule_does_not_hear_that_it_was_not_heard(of: str, hears: bool) -> None:
    rule = AlertRule.model_validate({"name": "r", "to": ["https://x.example/hook"]})
    assert concerns(rule, alert(kind="undelivered", subject=subject_of(of))) is hears


@pytest.mark.parametrize("address", ["", "SECRET", "to SECRET"])
def test_an_address_of_nothing_is_refused_without_its_secret(address: str) -> None:
    with pytest.raises(AlertRefused, match="no address that apprise knows") as refused:
        deliver(address, folded([alert()]), namespace="shop", rule="r", delivery="d", secret="")
    assert "SECRET" not in str(refused.value)
