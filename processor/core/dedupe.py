"""Ids that come out the same every time, and the marks of derived jobs that must not run again.

A child, a retry or a replayed job may be written twice: the flush that wrote it was repeated, or a torn transaction
showed it too early. Its id is a digest of where it comes from, so both copies carry the same one; and whoever completes
it leaves a mark under that id for the length of the dedupe window.
"""

from __future__ import annotations

from hashlib import blake2b

from processor.core.idempotency import FINAL_HOP, KeyMark, KeyMarks, content_check, is_keyed, prefixed
from processor.core.write_set import Origin
from processor.job import Job
from processor.wire.records import DedupeMark
from processor.wire.topics import parse_topic

_SLICES = 8
"""Marks expire by slices of the window, so they are kept up to two slices too long, never shorter."""

LifeHop = tuple[int, int]


def child_id(parent_id: str, parent_life: int, scope: str, job_type: str, index_or_key: int | str) -> str:
    """Id of a job spawned by a job: the same for every run of this life of the parent."""
    place = f"#{index_or_key}" if isinstance(index_or_key, int) else index_or_key
    kind = "index" if isinstance(index_or_key, int) else "key"
    return _digest("child", parent_id, str(parent_life), scope, job_type, kind, place)


def idempotent_id(queue: str, ordering_key: str | None, idempotency_key: str) -> str:
    """Id of a job that was enqueued with an idempotency key; no ordering key differs from an empty one."""
    return prefixed(_digest("idempotent", queue, "" if ordering_key is None else f"={ordering_key}", idempotency_key))


def replayed_id(replay: str, namespace: str, queue: str, job_id: str) -> str:
    """Id that a replay gives to the job of another id: the same however often the replay is run."""
    return _digest("replay", replay, namespace, queue, job_id)


class DedupeMarks:
    """Which (life, hop) of which derived job was completed or promoted, for the length of the dedupe window.

    Kept as 128-bit digests in one dict per slice of the window, so that a million takes under 100 MB (measured in
    tests) and a slice expires at once.
    """

    __slots__ = ("_keys", "_seen_pairs", "_slice_ms", "_slices")

    def __init__(self, window_ms: int) -> None:
        self._slice_ms = max(1, window_ms // _SLICES)
        self._slices: dict[int, dict[int, LifeHop]] = {}
        self._seen_pairs: dict[LifeHop, LifeHop] = {}
        """One tuple per distinct (life, hop): nearly all marks share a handful."""
        self._keys = KeyMarks(window_ms, self._slice_ms)
        """Of the jobs with idempotency keys."""

    def put(self, mark: DedupeMark) -> None:
        """Remember what a mark in the log says."""
        if is_keyed(mark.id):
            self._keys.put(_short(mark.id), mark)
        else:
            self.mark(mark.id, mark.life, mark.hop, mark.at)

    def key(self, job_id: str, now_ms: int) -> KeyMark | None:
        """What is remembered within the window of a job with an idempotency key."""
        return self._keys.within(_short(job_id), now_ms)

    def mark(self, job_id: str, life: int, hop: int, at: int) -> None:
        """This (life, hop) of the job, and all lower ones, are not to run again. `at` in milliseconds, of the mark."""
        if is_keyed(job_id):
            self._keys.put(_short(job_id), DedupeMark(job_id, life, hop, at))
            return
        marks = self._slices.setdefault(at // self._slice_ms, {})
        key = _short(job_id)
        pair = self._seen_pairs.setdefault((life, hop), (life, hop))
        if marks.get(key, (-1, -1)) < pair:
            marks[key] = pair

    def seen(self, job_id: str, life: int, hop: int) -> bool:
        """Whether this (life, hop) or a higher one is marked."""
        key, pair = _short(job_id), (life, hop)
        if is_keyed(job_id):
            known = self._keys.get(key)
            return known is not None and known[:2] >= pair
        return any(marks.get(key, (-1, -1)) >= pair for marks in self._slices.values())

    def expire(self, now_ms: int) -> None:
        """Forget the marks that are older than the window."""
        oldest = now_ms // self._slice_ms - _SLICES
        for number in [number for number in self._slices if number < oldest]:
            del self._slices[number]
        self._keys.expire(oldest)

    def __len__(self) -> int:
        """Marks kept; a job marked in two slices counts twice."""
        return sum(map(len, self._slices.values())) + len(self._keys)


def end_mark(job: Job, now: int, origin: Origin | None) -> DedupeMark:
    """The mark of a life that has ended."""
    return _mark(job, FINAL_HOP, now, origin)


def move_mark(job: Job, now: int, origin: Origin, due: int = 0) -> DedupeMark:
    """The mark of a job that left its lane: it was promoted, or comes back from the retry chain when `due` (ms)."""
    return _mark(job, job.hop, now, origin)._replace(due=due)


def _mark(job: Job, hop: int, now: int, origin: Origin | None) -> DedupeMark:
    mark = DedupeMark(job.id, job.life, hop, now)
    if not is_keyed(job.id):
        return mark
    lane = None if origin is None or job.hop else parse_topic(origin.topic)
    if origin is not None and lane is not None and lane.lane is not None:
        mark = mark._replace(lane=lane.lane.value, offset=origin.offset)
    return mark._replace(check=content_check(job))


def _digest(*parts: str) -> str:
    """128 bits as hex. Every part is preceded by its length, so no two lists of parts look alike."""
    digest = blake2b(digest_size=16)
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()


def _short(job_id: str) -> int:
    return int.from_bytes(blake2b(job_id.encode(), digest_size=16).digest(), "big")
