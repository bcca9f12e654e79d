"""What the log and the ledger say at the end, against what was drawn."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from processor.admin.reading import partitions_of, read_to_end
from processor.broker.base import Broker, Record
from processor.job import Lane
from processor.states import TERMINAL, State
from processor.wire import topics
from processor.wire.codec import decode_dead_letter, decode_job, decode_status
from tests.ledger.fates import FAILS_AT, Fate, fate_of

WALK = 4
"""Records of one hop in the rungs at most, for delays of 1 s and 2 s."""


@dataclass(slots=True)
class Seen:
    """The log, read to its end."""

    ends: dict[tuple[str, int], set[State]] = field(default_factory=lambda: defaultdict(set))
    """Terminal states of each (id, life)."""
    dead: Counter[str] = field(default_factory=Counter)
    """Dead letters by job id."""
    reasons: Counter[str] = field(default_factory=Counter)
    due: Counter[tuple[str, int, int]] = field(default_factory=Counter)
    """Records of the due lane by (id, life, hop)."""
    rungs: Counter[tuple[str, int, int]] = field(default_factory=Counter)
    """The same, of the retry topics."""


@dataclass(frozen=True, slots=True)
class Check:
    """A line of the table."""

    name: str
    expected: object
    found: object

    @property
    def holds(self) -> bool:
        return self.expected == self.found


def look(broker: Broker, namespace: str, queue: str) -> Seen:
    """Read what there is."""
    seen = Seen()
    for record in _records(broker, topics.status_topic(namespace)):
        status = decode_status(record.value() or b"")
        if status.state in TERMINAL:
            seen.ends[status.id, status.life].add(status.state)
    for record in _records(broker, topics.dlq_topic(namespace)):
        letter = decode_dead_letter(record.value() or b"")
        seen.dead[letter.id] += 1
        seen.reasons[letter.reason] += 1
    for record in _records(broker, topics.jobs_topic(namespace, queue, Lane.DUE)):
        job = decode_job(record.value() or b"")
        seen.due[job.id, job.life, job.hop] += 1
    for delay in topics.RETRY_DELAYS:
        for record in _records(broker, topics.retry_topic(namespace, delay)):
            job = decode_job(record.value() or b"")
            seen.rungs[job.id, job.life, job.hop] += 1
    return seen


def finished(broker: Broker, namespace: str, life: int) -> int:
    """Jobs whose life has ended."""
    ended = set()
    for record in _records(broker, topics.status_topic(namespace)):
        status = decode_status(record.value() or b"")
        if status.state in TERMINAL and status.life == life:
            ended.add(status.id)
    return len(ended)


def first_life(seen: Seen, seed: int, ids: dict[str, int]) -> list[Check]:
    """Before the fix."""
    fates = {job_id: fate_of(seed, number) for job_id, number in ids.items()}
    dead = {job_id for job_id, fate in fates.items() if fate in (Fate.ALWAYS, Fate.KILLS)}
    wrong = [
        job_id for job_id in ids if seen.ends.get((job_id, 1)) != {State.DEAD if job_id in dead else State.SUCCEEDED}
    ]
    counts = Counter(fates.values())
    return [
        Check("jobs without a terminal state (lost)", 0, sum((job_id, 1) not in seen.ends for job_id in ids)),
        Check("jobs with more than one", 0, sum(len(states) > 1 for states in seen.ends.values())),
        Check("jobs with the wrong one", 0, len(wrong)),
        Check("dead letters", len(dead), sum(seen.dead.values())),
        Check("dead letters of the expected ids, once each", len(dead), sum(seen.dead[job_id] == 1 for job_id in dead)),
        Check("  exhausted", counts[Fate.ALWAYS], seen.reasons["exhausted"]),
        Check("  crash_loop", counts[Fate.KILLS], seen.reasons["crash_loop"]),
        Check("retry records sent twice to the due lane", 0, sum(count > 1 for count in seen.due.values())),
        Check("retry records sent twice within the chain", 0, sum(count > WALK for count in seen.rungs.values())),
        Check("retry records that never came back", 0, len(seen.rungs.keys() - seen.due.keys())),
    ]


def second_life(seen: Seen, dead: set[str], folder: Path) -> list[Check]:
    """After the fix and the redrive."""
    first_rows: dict[str, int] = {}
    for words in lines(folder):
        if words[0] == "row" and words[2] == "2":
            first_rows[words[1]] = min(int(words[3]), first_rows.get(words[1], int(words[3])))
    again = {(job_id, 2): states for (job_id, life), states in seen.ends.items() if life == 2}
    return [
        Check("redriven jobs that succeeded", len(dead), sum(s == {State.SUCCEEDED} for s in again.values())),
        Check("redriven jobs nobody asked for", 0, len({job_id for job_id, _ in again} - dead)),
        Check(f"that began at row {FAILS_AT}, where they had failed", len(dead), _count(first_rows, FAILS_AT)),
        Check("dead letters since", 0, sum(seen.dead.values()) - len(dead)),
        Check("records sent twice to the due lane", 0, sum(count > 1 for count in seen.due.values())),
    ]


def lines(folder: Path) -> Iterator[list[str]]:
    """The ledger of all processes."""
    for path in folder.glob("ledger.*"):
        for line in path.read_text("utf-8").splitlines():
            yield line.split()


def _count(values: dict[str, int], wanted: int) -> int:
    return sum(value == wanted for value in values.values())


def _records(broker: Broker, topic: str) -> Iterator[Record]:
    return read_to_end(broker, partitions_of(broker, [topic]))
