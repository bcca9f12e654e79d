"""Small facts that a browser keeps for us and cannot change: JSON with a keyed digest and an end. Pure.

They are signed and not hidden: nothing goes in here that its owner may not know.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from typing import Any

LONGEST = 4000
"""Characters: browsers keep no longer cookie."""


class Signer:
    """Writes and reads values of one kind; none of another kind is taken for one."""

    def __init__(self, secret: bytes, kind: str, now: Callable[[], float]) -> None:
        """`now` gives seconds since the epoch."""
        self._key = hmac.digest(secret, f"processor {kind}".encode(), hashlib.sha256)
        self._now = now

    def write(self, facts: Mapping[str, Any], seconds: float) -> str:
        """A value that holds for so long."""
        body = {**facts, "until": self._now() + seconds}
        data = base64.urlsafe_b64encode(json.dumps(body, separators=(",", ":")).encode()).rstrip(b"=")
        return f"{data.decode()}.{self._digest(data)}"

    def read(self, text: str) -> Mapping[str, Any] | None:
        """What was written; None: it is not ours, or it is over."""
        data, _, digest = text.partition(".")
        if len(text) > LONGEST or not text.isascii() or not hmac.compare_digest(digest, self._digest(data.encode())):
            return None
        try:
            facts = json.loads(base64.urlsafe_b64decode(data + "=" * (-len(data) % 4)))
        except (ValueError, binascii.Error):
            return None
        return facts if isinstance(facts, dict) and facts["until"] > self._now() else None

    def _digest(self, data: bytes) -> str:
        return hmac.digest(self._key, data, hashlib.sha256).hex()
