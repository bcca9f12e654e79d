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
FILTER = "filter:"
"""So the subject of an alert about a saved filter begins."""


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
        first = self.examples[0] if self.examples else None
        named = "" if first is None else filter_of(first)
        what = named or self.type or self.queue or ("" if first is None else first.subject)
        times = f" ({self.times} times)" if self.times > 1 else ""
        return f"{self.kind.replace('_', ' ')}: {what}{times}"


def subject_of(rule: str) -> str:
    """What an alert about a rule is about."""
    return f"rule:{rule}"


def filter_of(alert: AlertRecord) -> str:
    """The saved filter that it is about; empty: it is about something else."""
    return alert.subject.removeprefix(FILTER) if alert.subject.startswith(FILTER) else ""


def concerns(rule: AlertRule, alert: AlertRecord) -> bool:
    """Whether the rule's recipients hear of it. Names may be patterns: `import.*`. A rule that names saved filters is
    about these alone.
    """
    if alert.kind == AlertKind.UNDELIVERED and alert.subject == subject_of(rule.name):
        return False  # its recipients are the ones that take nothing
    name = filter_of(alert)
    if rule.filters and not any(name and fnmatchcase(name, pattern) for pattern in rule.filters):
        return False
    return all(
        not patterns or any(fnmatchcase(value, pattern) for pattern in patterns)
        for patterns, value in ((rule.kinds, alert.kind), (rule.types, alert.type), (rule.queues, alert.queue))
    )


def folded(alerts: Iterable[AlertRecord]) -> list[Digest]:
    """Alerts as they are told: those of one kind, type and queue together, in the order of the first of each.

    Those about saved filters are told apart by these.
    """
    groups: dict[tuple[str, str, str, str], list[AlertRecord]] = {}
    for alert in alerts:
        groups.setdefault((alert.kind, alert.type, alert.queue, filter_of(alert)), []).append(alert)
    return [
        Digest(
            *place[:3],
            times=len(group),
            first_at=min(alert.at for alert in group),
            last_at=max(alert.at for alert in group),
            examples=group[:EXAMPLES],
        )
        for place, group in groups.items()
    ]
