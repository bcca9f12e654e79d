"""Sends digests to one address: a signed webhook (http, https), or whatever the library `apprise` knows (mail, chat).

A webhook gets a POST of JSON:

    {"namespace": "shop", "rule": "on-call", "alerts": [{"kind": "killed", "type": "import.file", "queue": "bulk",
     "times": 3, "first_at": 1767225600000, "last_at": 1767225660000, "title": "...", "examples": [{...}]}]}

with `X-Processor-Delivery`, the same for each try of one delivery, so that a receiver can tell a repeat; and with a
secret `X-Processor-Signature: sha256=<hex>`, the HMAC of the body (RFC 2104).
"""

from __future__ import annotations

import hmac
import json
import re
import urllib.error
import urllib.request
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from http.client import HTTPException
from typing import Any

from processor.alerts.routing import Digest
from processor.errors import ExtraMissing, ProcessorError
from processor.texts import message_of


class AlertUndelivered(ProcessorError):
    """A recipient of alerts did not take one."""

    code = "alert_undelivered"


class AlertRefused(AlertUndelivered):
    """A recipient answered that it does not take it; most likely it will not later either: look at its address."""

    code = "alert_refused"


LATER = frozenset({408, 425, 429})
"""Answers of 4xx that ask for another try."""
_OF_HOSTS = frozenset({"http", "https", "mailto", "mailtos", "json", "jsons"})
"""Schemes whose addresses name a host where others have a token."""
_AUTHORITY = re.compile("[/?#]")
_PLACE = re.compile(r"(\[[0-9a-fA-F:.]*\]|[^:\[\]]*)(:\d+)?")
TIMEOUT = 10.0
"""Seconds that an address has to answer."""


def deliver(address: str, digests: Sequence[Digest], *, namespace: str, rule: str, delivery: str, secret: str) -> None:
    """Send, and return when the address has taken it.

    Args:
        address: `http(s)://...` or an address of `apprise`.
        digests: what to tell.
        namespace: whose alerts they are.
        rule: its name.
        delivery: names this delivery; the same at each try.
        secret: signs a webhook; empty: it is not signed.

    Raises:
        AlertRefused: it arrived and is not wanted (an answer of 3xx or 4xx), or the address is none.
        AlertUndelivered: it did not arrive, or nobody said so; trying again is right.
        ExtraMissing: `apprise` is needed and not installed.
    """
    if address.startswith(("http://", "https://")):
        _post(address, body_of(digests, namespace, rule), delivery, secret)
    else:
        _notify(address, digests, namespace)


def body_of(digests: Sequence[Digest], namespace: str, rule: str) -> bytes:
    """What a webhook gets."""
    alerts = [
        {**digest._asdict(), "title": digest.title, "examples": [alert._asdict() for alert in digest.examples]}
        for digest in digests
    ]
    return json.dumps({"namespace": namespace, "rule": rule, "alerts": alerts}, ensure_ascii=False).encode()


def signature(secret: str, body: bytes) -> str:
    """The header's value: how a receiver checks that it comes from here."""
    return "sha256=" + hmac.new(secret.encode(), body, sha256).hexdigest()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """A signed body goes where the rule says and nowhere else."""


def _post(address: str, body: bytes, delivery: str, secret: str) -> None:
    headers = {"Content-Type": "application/json", "X-Processor-Delivery": delivery}
    if secret:
        headers["X-Processor-Signature"] = signature(secret, body)
    request = urllib.request.Request(address, body, headers, method="POST")  # noqa: S310  (deliver has looked at it)
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=TIMEOUT) as answer:
            answer.read(1024)
    except urllib.error.HTTPError as error:
        error.close()
        kind = AlertRefused if error.code < 500 and error.code not in LATER else AlertUndelivered
        raise kind(f"{shown(address)} answers {error.code} {error.reason}") from error
    except (OSError, ValueError, HTTPException) as error:
        # HTTPException: what answers there speaks no HTTP.
        raise AlertUndelivered(f"{shown(address)}: {message_of(error, 200)}") from error


def _notify(address: str, digests: Sequence[Digest], namespace: str) -> None:
    try:
        import apprise
    except ModuleNotFoundError as error:
        raise ExtraMissing("alerts", f"an alert to {shown(address)}") from error
    sender = apprise.Apprise()
    if not sender.add(address):
        raise AlertRefused(f"{shown(address)} is no address that apprise knows")
    title = digests[0].title if len(digests) == 1 else f"{len(digests)} kinds of alerts"
    if not sender.notify(title=f"[{namespace}] {title}", body=text_of(digests)):
        raise AlertUndelivered(f"{shown(address)} did not take it")


def text_of(digests: Sequence[Digest]) -> str:
    """What a person reads."""
    lines = []
    for digest in digests:
        lines.append(digest.title)
        lines += [f"  {_moment(alert.at)}  {alert.text}" for alert in digest.examples]
        if digest.times > len(digest.examples):
            lines.append(f"  and {digest.times - len(digest.examples)} more until {_moment(digest.last_at)}")
    return "\n".join(lines)


def _moment(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def shown(address: str) -> str:
    """An address without what may be secret in it: of those of chats (`tgram://TOKEN/...`) the host is."""
    scheme, found, rest = address.partition("://")
    if not found:
        return "..."
    place = _PLACE.match(_AUTHORITY.split(rest, maxsplit=1)[0].rpartition("@")[2])
    return f"{scheme}://{place[0] if place and scheme.lower() in _OF_HOSTS else '...'}"
