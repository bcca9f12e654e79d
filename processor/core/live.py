"""The live jobs of a number: what its checkpoint partition holds, folded.

*The fold.* Per key the record with the highest version wins. A view of a job is computed from the records that are
there now and from nothing else, never from what was there once: so it is the same whether the topic has been compacted
or not. Within a job, what belongs to an older life than its newest record does not count; within a life, progress and
steps stay valid through later hops and epochs (a step saved by the owner before last did run), while the job's own
record counts only at the newest hop, since an older one is a job that has moved on.

*Compaction keeps the last record of a key, not the highest version.* If a stale record was appended after a newer one,
the newer one wins here but would be compacted away. Such a key is *shadowed*, and is carried forward before any other.

*The hint.* Every row has a bound: no copy that counts lies below it. Rows are kept in the order of their bounds, which
only grow, so the lowest is the first: a restore must read from there. Call `put`, `remove` and `carried` when the flush
that wrote the records *has succeeded*, not before: then no hint ever passes a record whose copy is not committed yet.

*Order within a flush*: a job's progress record is written no later than its first step and destroyed after its last
one. Steps alone, without progress, therefore belong to nobody (`orphans`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple, Protocol

from processor.core.checkpoint import (
    KeyKind,
    ParsedKey,
    SavedRecord,
    job_key,
    order_of,
    parse_key,
    progress_key,
    signal_key,
    step_key,
)
from processor.job import Version
from processor.wire.records import CheckpointRecord

__all__ = [
    "Home",
    "LiveTable",
    "LiveView",
    "job_key",
    "order_of",
    "parse_key",
    "progress_key",
    "signal_key",
    "step_key",
]

RESTORE_BUDGET = 50_000
"""Records that a restore may read beyond twice the live ones."""
CARRY_LIMIT = 1_000
"""Records carried forward in one flush at most, so that a long repair does not hold up jobs."""

_NO_VERSION = Version(0, 0, 0, 0)


class Home(NamedTuple):
    """The topic that holds a job's record, and where in it (-1: the checkpoint topic, under `id#job`)."""

    topic: str
    offset: int


class Completed(Protocol):
    """What the table asks of a lane's window."""

    def is_complete(self, offset: int) -> bool: ...


class LiveView(NamedTuple):
    """What counts of one job. Values as encoded in the topic; decode what is needed, when it is needed."""

    id: str
    life: int
    hop: int
    progress: bytes | None
    job: bytes | None
    """A promoted or parked job."""
    steps: dict[str, bytes]
    """By scoped name."""
    signals: dict[str, bytes]
    """By source."""
    ended: bool
    """`progress` is an end mark: the job is never to run again in this life."""
    home: Home | None
    """None: no progress record, or one of an older life."""


class Elsewhere(Protocol):
    """A value that is not in memory."""

    def read(self) -> bytes: ...


class _Row:
    __slots__ = ("bound", "kept", "version")

    def __init__(self, version: Version, kept: bytes | Elsewhere, bound: int) -> None:
        self.version = version
        self.kept = kept
        self.bound = bound

    @property
    def value(self) -> bytes:
        return self.kept if isinstance(self.kept, bytes) else self.kept.read()


class _Entry:
    """The rows of one job; the dicts exist only once they are needed."""

    __slots__ = ("ended", "home", "job", "progress", "signals", "steps")

    def __init__(self) -> None:
        self.progress: _Row | None = None
        self.job: _Row | None = None
        self.steps: dict[str, _Row] | None = None
        self.signals: dict[str, _Row] | None = None
        self.home: Home | None = None
        self.ended = False

    def set(self, parsed: ParsedKey, row: _Row | None) -> None:
        """Put a row in its place, or empty it."""
        if parsed.kind is KeyKind.PROGRESS:
            self.progress = row
        elif parsed.kind is KeyKind.JOB:
            self.job = row
        elif parsed.kind is KeyKind.STEP:
            self.steps = _changed(self.steps, parsed.rest, row)
        else:
            self.signals = _changed(self.signals, parsed.rest, row)

    def newest(self) -> tuple[int, int]:
        """Life and hop of the job's newest record; signals carry none and do not count."""
        rows = [row for row in (self.progress, self.job) if row]
        if self.steps:
            rows.extend(self.steps.values())
        return max((row.version[:2] for row in rows), default=(0, 0))

    def counted_progress(self, life: int) -> _Row | None:
        return self.progress if self.progress and self.progress.version.life == life else None

    def counted_job(self, newest: tuple[int, int]) -> _Row | None:
        return self.job if self.job and self.job.version[:2] == newest else None

    def empty(self) -> bool:
        return not (self.progress or self.job or self.steps or self.signals)


class LiveTable:
    """What a checkpoint partition holds now, as far as committed flushes (or a restore) have said."""

    __slots__ = ("_jobs", "_keep", "_rows", "_shadowed")

    def __init__(self, keep: Callable[[bytes], bytes | Elsewhere] = bytes) -> None:
        """`keep`: puts a value where it is kept; in memory, if nothing else is said."""
        self._keep = keep
        self._rows: OrderedDict[bytes, _Row] = OrderedDict()
        """By bound, lowest first."""
        self._jobs: dict[str, _Entry] = {}
        self._shadowed: dict[bytes, None] = {}

    def empty(self) -> LiveTable:
        """A new table that keeps its values in the same way."""
        return LiveTable(self._keep)

    def put(self, key: bytes, value: bytes, bound: int, record: SavedRecord | None = None) -> bool:
        """A record is in the topic, at offset `bound` or later. False: a newer one is known, this one changes nothing.

        Args:
            record: the value, decoded; None for a signal. Not kept.

        Raises:
            UndecodableRecord: the key is none of ours.
            ValueError: `bound` is lower than one given before.
        """
        parsed = parse_key(key)
        if record is None and parsed.kind is not KeyKind.SIGNAL:
            raise ValueError(f"the record under {key!r} must be given decoded")
        self._check_bound(bound)
        version = order_of(record) if record else _NO_VERSION
        old = self._rows.get(key)
        if old and version < old.version:
            self._shadowed[key] = None
            return False
        row = self._rows[key] = _Row(version, self._keep(value), bound)
        self._rows.move_to_end(key)
        self._shadowed.pop(key, None)
        entry = self._jobs.get(parsed.id)
        if entry is None:
            entry = self._jobs[parsed.id] = _Entry()
        entry.set(parsed, row)
        if isinstance(record, CheckpointRecord):
            if entry.home != (record.home_topic, record.home_offset):
                entry.home = Home(record.home_topic, record.home_offset)
            entry.ended = record.final is not None
        return True

    def remove(self, key: bytes) -> None:
        """A tombstone is in the topic: the row of exactly this key is gone.

        Raises:
            UndecodableRecord: the key is none of ours.
        """
        parsed = parse_key(key)
        self._shadowed.pop(key, None)
        if self._rows.pop(key, None) is None:
            return
        entry = self._jobs[parsed.id]
        entry.set(parsed, None)
        if entry.empty():
            del self._jobs[parsed.id]

    @property
    def hint(self) -> int | None:
        """Where a restore must start reading; None: nothing is live, start at the end as the last flush left it."""
        row = next(iter(self._rows.values()), None)
        return row.bound if row else None

    @property
    def live_records(self) -> int:
        """Rows of all jobs."""
        return len(self._rows)

    def __len__(self) -> int:
        """Jobs that have a row."""
        return len(self._jobs)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._jobs

    def ids(self) -> Iterator[str]:
        """All jobs that have a row; the table must not change meanwhile."""
        return iter(self._jobs)

    def view(self, job_id: str) -> LiveView | None:
        """What counts of a job; None: nothing is known."""
        entry = self._jobs.get(job_id)
        if entry is None:
            return None
        newest = life, hop = entry.newest()
        progress, job = entry.counted_progress(life), entry.counted_job(newest)
        return LiveView(
            id=job_id,
            life=life,
            hop=hop,
            progress=progress.value if progress else None,
            job=job.value if job else None,
            steps={name: row.value for name, row in (entry.steps or {}).items() if row.version.life == life},
            signals={source: row.value for source, row in (entry.signals or {}).items()},
            ended=progress is not None and entry.ended,
            home=entry.home if progress else None,
        )

    def promoted(self) -> Iterator[LiveView]:
        """Views of the jobs that live here: promoted or parked, and not ended. One at a time: they may be large."""
        for job_id in [job_id for job_id, entry in self._jobs.items() if entry.job]:
            view = self.view(job_id)
            if view is not None and view.job is not None and not view.ended:
                yield view

    def saved_in(self, job_id: str) -> int:
        """The last epoch in which a job saved progress or a step; 0: it never did. What its promotion wrote is none."""
        entry = self._jobs.get(job_id)
        if entry is None:
            return 0
        epochs = [row.version.epoch for row in (entry.steps or {}).values()]
        progress, job = entry.progress, entry.job
        if progress and not (job and progress.version == job.version._replace(sequence=job.version.sequence - 1)):
            epochs.append(progress.version.epoch)
        return max(epochs, default=0)

    def left_records(self) -> Iterator[tuple[str, bytes]]:
        """Own records (`id#job`) of jobs of which something newer is known, in the same life: (id, value). One may be
        the mark of a job that keeps its key while it waits for its retry.
        """
        for job_id, entry in list(self._jobs.items()):
            newest = entry.newest()
            left = entry.job
            if left and not entry.ended and left.version.life == newest[0] and entry.counted_job(newest) is None:
                yield job_id, left.value

    def keys_of(self, job_id: str) -> list[bytes]:
        """Every key of a job, those that do not count too, in the order to destroy them: progress last."""
        entry = self._jobs.get(job_id)
        if entry is None:
            return []
        keys = [step_key(job_id, name) for name in entry.steps or ()]
        keys += [signal_key(job_id, source) for source in entry.signals or ()]
        if entry.job:
            keys.append(job_key(job_id))
        if entry.progress:
            keys.append(progress_key(job_id))
        return keys

    def carry_candidates(
        self, end_offset: int, budget: int = RESTORE_BUDGET, limit: int = CARRY_LIMIT
    ) -> list[tuple[bytes, bytes]]:
        """Keys and values to write once more, as they are, so that the hint can move.

        Shadowed ones always; then the oldest, while a restore would read more than `budget` + 2 x the live records
        up to `end_offset`. Write them *before* the outbox of the flush, which may hold something newer for the same
        key. Then call `carried`; until then they keep their old bound and are offered again.
        """
        chosen = list(islice(self._shadowed, limit))
        allowed = budget + 2 * len(self._rows)
        for key, row in self._rows.items():
            if len(chosen) >= limit or end_offset - row.bound <= allowed:
                break
            if key not in self._shadowed:
                chosen.append(key)
        return [(key, self._rows[key].value) for key in chosen]

    def carried(self, key: bytes, new_bound: int) -> None:
        """The flush that wrote a candidate once more has succeeded; its copy lies at `new_bound` or later.

        Without effect if the row has been removed or written anew since.

        Raises:
            ValueError: `new_bound` is lower than one given before.
        """
        row = self._rows.get(key)
        if row is None or (row.bound >= new_bound and key not in self._shadowed):
            return
        self._check_bound(new_bound)
        row.bound = new_bound
        self._rows.move_to_end(key)
        self._shadowed.pop(key, None)

    def homeless(self, windows: Mapping[str, Completed]) -> list[str]:
        """Jobs whose record in its lane is complete, that do not live here either and left no end mark: bury them.

        `windows` by lane topic. A job at home in another topic (retry, dead letters) is never homeless.
        """
        return [
            job_id
            for job_id, entry in self._jobs.items()
            if not entry.ended and entry.counted_job(entry.newest()) is None and self._home_complete(entry, windows)
        ]

    def ended(self, windows: Mapping[str, Completed]) -> list[str]:
        """Jobs with an end mark whose record in its lane is complete, or was here: the mark has served, bury them."""
        return [
            job_id
            for job_id, entry in self._jobs.items()
            if entry.ended and (self._home_complete(entry, windows) or self._home_is_here(entry))
        ]

    def orphans(self) -> list[str]:
        """Jobs of which only steps are left: what a destruction that was cut short left behind, bury them."""
        return [
            job_id
            for job_id, entry in self._jobs.items()
            if entry.steps and not (entry.progress or entry.job or entry.signals)
        ]

    @staticmethod
    def _home_complete(entry: _Entry, windows: Mapping[str, Completed]) -> bool:
        home = entry.home
        if home is None or home.offset < 0 or entry.counted_progress(entry.newest()[0]) is None:
            return False
        window = windows.get(home.topic)
        return window is not None and window.is_complete(home.offset)

    @staticmethod
    def _home_is_here(entry: _Entry) -> bool:
        home = entry.home
        return home is not None and home.offset < 0 and entry.counted_progress(entry.newest()[0]) is not None

    def _check_bound(self, bound: int) -> None:
        last = next(reversed(self._rows), None)
        if last is not None and bound < self._rows[last].bound:
            raise ValueError(f"the bound {bound} is lower than the last one, {self._rows[last].bound}")


def _changed(rows: dict[str, _Row] | None, name: str, row: _Row | None) -> dict[str, _Row] | None:
    if row is None:
        if rows:
            rows.pop(name, None)
        return rows or None
    if rows is None:
        return {name: row}
    rows[name] = row
    return rows
