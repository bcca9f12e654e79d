"""Who may do what, and how much of a payload each may see. Pure.

| role | sees | may |
|---|---|---|
| viewer | all pages, payloads masked | nothing |
| care | one job at a time, of its payload what job types declare with `search=` | retry and redrive one job |
| operator | all pages, payloads without secrets | everything |
| admin | all pages, payloads whole | everything |

A role may be limited to queues: then all this holds for jobs of those queues, and there are no others.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

MASK = "•••"


class Role(StrEnum):
    """What somebody is here for."""

    VIEWER = "viewer"
    CARE = "care"
    OPERATOR = "operator"
    ADMIN = "admin"


class Permission(StrEnum):
    """What a page or an action asks for."""

    OPEN = "open"
    """Nothing: the files of the pages."""
    ONE = "one"
    """See one job, in plain words."""
    SEE = "see"
    """See everything."""
    RETRY = "retry"
    """Let one job go on, or send it back."""
    OPERATE = "operate"
    """Everything that changes something."""


_MAY: dict[Role, frozenset[Permission]] = {
    Role.VIEWER: frozenset({Permission.OPEN, Permission.ONE, Permission.SEE}),
    Role.CARE: frozenset({Permission.OPEN, Permission.ONE, Permission.RETRY}),
    Role.OPERATOR: frozenset(Permission),
    Role.ADMIN: frozenset(Permission),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Somebody who is known."""

    name: str
    role: Role
    queues: frozenset[str] | None = None
    """Whose jobs may be seen and acted on; None: all."""

    def may(self, permission: Permission) -> bool:
        """Whether the role allows it."""
        return permission in _MAY[self.role]

    def has(self, queue: str) -> bool:
        """Whether the role holds for this queue."""
        return self.queues is None or queue in self.queues


def shown_payload(payload: str | None, user: User, *, search: Collection[str], secret: Collection[str]) -> Any:
    """A payload as somebody may see it: JSON values, the masked ones replaced.

    Args:
        payload: JSON.
        user: who looks.
        search: fields that its job type can be searched by; `customer.id` names an inner one.
        secret: names of fields that hold secrets, at whatever depth.
    """
    if not payload:
        return None
    try:
        # NaN and Infinity are no JSON, and an answer that held them would be none either.
        return _as_seen(json.loads(payload, parse_constant=str), user, search=search, secret=secret)
    except (ValueError, RecursionError):
        return payload if user.role is Role.ADMIN else MASK


def json_or_text(text: str) -> Any:
    """JSON values; the text itself if it is none, or deeper than can be answered with."""
    try:
        return json.loads(text, parse_constant=str)
    except (ValueError, RecursionError):
        return text


def _as_seen(value: Any, user: User, *, search: Collection[str], secret: Collection[str]) -> Any:
    if user.role is Role.ADMIN:
        return value
    if user.role is Role.OPERATOR:
        return _without(value, frozenset(secret))
    readable = frozenset(search) if user.role is Role.CARE else frozenset()
    return _only(value, readable, frozenset(secret))


def _without(value: Any, secret: frozenset[str]) -> Any:
    if isinstance(value, dict):
        return {name: MASK if name in secret else _without(inner, secret) for name, inner in value.items()}
    return [_without(inner, secret) for inner in value] if isinstance(value, list) else value


def _only(value: Any, names: frozenset[str], secret: frozenset[str], path: str = "") -> Any:
    """Names stay readable, values only where they are allowed."""
    if path in names and path.rpartition(".")[2] not in secret:
        return _without(value, secret)
    if isinstance(value, dict):
        return {name: _only(inner, names, secret, f"{path}.{name}" if path else name) for name, inner in value.items()}
    return MASK
