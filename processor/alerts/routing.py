"""Who hears of which alert, and how repeats are told: as one. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from processor.alert_kinds import AlertKind
from processor.wire.records import AlertRecord
from processor.wire.settings import AlertRule

EXAMPLES = 5
"""Alerts of one kind that are told whole; of the others only how many there were."""


class Digest(NamedTuple):
    """Alerts of one kind about one job type and queue, told together."""

    kind: str
    type: str
    queue: str
    times: int
    first_at: int
    """Milliseconds since the epoch."""
    last_at: int
    examples: Sequence[AlertRecord]
    """The first of them."""

    @property
    def title(self) -> str:
        """One line."""
        what = self.type or self.queue or (self.examples[0].subject if self.examples else "")
        times = f" ({self.times} times)" if self.times > 1 else ""
        return f"{self.kind.replace('_', ' ')}: {what}{times}"


def subject_of(rule: str) -> str:
    """What an alert about a rule is about."""
    return f"rule:{rule}"


def concerns(rule: AlertRule, alert: AlertRecord) -> bool:
    """Whether the rule's recipients hear of it. Names may be patterns: `import.*`."""
    if alert.kind == AlertKind.UNDELIVERED and alert.subject == subject_of(rule.name):
        return False  # its recipients are the ones that take nothing
    return all(
        not patterns or any(fnmatchcase(value, pattern) for pattern in patterns)
        for patterns, value in ((rule.kinds, alert.kind), (rule.types, alert.type), (rule.queues, alert.queue))
    )


def folded(alerts: Iterable[AlertRecord]) -> list[Digest]:
    """Alerts as they are told: those of one kind, type and queue together, in the order of the first of each."""
    groups: dict[tuple[str, str, str], list[AlertRecord]] = {}
    for alert in alerts:
        groups.setdefault((alert.kind, alert.type, alert.queue), []).append(alert)
    return [
        Digest(
            *place,
            times=len(group),
            first_at=min(alert.at for alert in group),
            last_at=max(alert.at for alert in group),
            examples=group[:EXAMPLES],
        )
        for place, group in groups.items()
    ]
