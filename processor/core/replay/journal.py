"""What the audit topic says of replays: where each began, which jobs it has sent, whether it is done. Pure.

A replay fixes at its beginning which offsets are its history: what comes later, its own jobs included, is no part of
it. Each batch of jobs goes out in one transaction with the record that names them, so a job is sent exactly if it is
named. The records lie in the audit topic of the namespace that the replay goes into.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from processor.core.audit import REPLAY
from processor.core.replay.history import Chosen
from processor.core.replay.spec import Spec, spec_of
from processor.errors import ReplayError
from processor.wire.records import AuditRecord

_SUBJECT = "replay:"


class Stretch(NamedTuple):
    """The part of one lane partition that a replay is about."""

    topic: str
    partition: int
    asked: int
    """The first offset that was wanted, deleted or not."""
    start: int
    """The first one that can be meant."""
    stop: int
    """The first one that is not meant any more."""
    end: int
    """The end of the partition when the replay began. From `stop` on it is only seen what became of the jobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """A spec with the moments and offsets that it means."""

    spec: Spec
    since: int | None
    """Milliseconds since the epoch."""
    until: int | None
    stretches: Sequence[Stretch]


@dataclass(slots=True, kw_only=True)
class Replay:
    """One replay, as far as it has come."""

    name: str
    begun: AuditRecord | None = None
    frozen: Frozen | None = None
    done: AuditRecord | None = None
    sent: set[str] = field(default_factory=set)
    """`queue/id` of the old jobs."""
    unreadable: bool = False
    """A newer version wrote about it."""


class Journal:
    """All replays into a namespace, folded from its audit topic."""

    def __init__(self) -> None:
        self.replays: dict[str, Replay] = {}

    def note(self, record: AuditRecord) -> None:
        """Fold one more record of the audit topic."""
        if record.action != REPLAY or not record.subject.startswith(_SUBJECT):
            return
        name = record.subject.removeprefix(_SUBJECT)
        replay = self.replays.setdefault(name, Replay(name=name))
        try:
            _fold(replay, record, json.loads(record.detail))
        except (ReplayError, ValueError, RecursionError, TypeError, KeyError, AttributeError):
            replay.unreadable = True

    def of(self, name: str) -> Replay:
        """One replay; an empty one if it has not begun.

        Raises:
            ReplayError: a newer version has written about it.
        """
        found = self.replays.get(name, Replay(name=name))
        if found.unreadable:
            raise ReplayError(
                f"what the audit topic says of replay {name} cannot be read by this version",
                hint="go on with the version that began it, or give another --name",
            )
        return found


def _fold(replay: Replay, record: AuditRecord, detail: Mapping[str, Any]) -> None:
    if "begun" in detail:
        begun = detail["begun"]
        # Of two that began at once the first counts: whoever wrote the second goes by it too.
        if replay.frozen is None:
            stretches = [Stretch(*values) for values in begun["stretches"]]
            replay.frozen = Frozen(
                spec=spec_of(begun["spec"]), since=begun["since"], until=begun["until"], stretches=stretches
            )
            replay.begun = record
    elif "sent" in detail:
        replay.sent.update(f"{queue}/{job_id}" for queue, ids in detail["sent"].items() for job_id in ids)
    elif "done" in detail:
        replay.done = record
    else:
        raise ReplayError("unknown record")


def begun_record(name: str, frozen: Frozen, at: int, by: str, reason: str) -> AuditRecord:
    """Says what a replay is, before the first job is sent."""
    detail = {
        "spec": asdict(frozen.spec),
        "since": frozen.since,
        "until": frozen.until,
        "stretches": frozen.stretches,
    }
    return _record(name, at, by, reason, begun=detail)


def sent_record(name: str, spec: Spec, jobs: Iterable[Chosen], at: int, by: str, reason: str) -> AuditRecord:
    """Names the jobs of one batch; of those that keep their ids here also the lives that they begin."""
    ids: dict[str, list[str]] = {}
    lives: dict[str, int] = {}
    for job in jobs:
        ids.setdefault(job.queue, []).append(job.id)
        lives[job.id] = job.life + 1
    if spec.same_ids and not spec.moves:
        return _record(name, at, by, reason, sent=ids, lives=lives)
    return _record(name, at, by, reason, sent=ids)


def done_record(name: str, count: int, at: int, by: str, reason: str) -> AuditRecord:
    """Says that all has been sent."""
    return _record(name, at, by, reason, done=count)


def _record(name: str, at: int, by: str, reason: str, **detail: Any) -> AuditRecord:
    return AuditRecord(REPLAY, _SUBJECT + name, at, by, reason, detail=json.dumps(detail, separators=(",", ":")))
