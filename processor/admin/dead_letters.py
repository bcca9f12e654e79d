"""The dead-letter topic as operators see it: every letter with its address and what became of it.

A letter is never changed or removed: it lies there until retention takes it. What operators did with it stands in the
audit topic, and the two are folded together here, anew for each question.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from processor.admin.reading import partitions_of, read_to_end
from processor.broker.base import Broker, Record, TopicPartition
from processor.core.redrive import Address, LetterState, Settled, job_of, parse_address
from processor.errors import DeadLetterError, RecordError
from processor.wire import codec, topics
from processor.wire.records import AuditRecord, DeadLetterRecord

GROUPS = ("fingerprint", "type", "reason")
"""What letters can be grouped by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterRow:
    """One dead letter, as a list shows it."""

    address: Address
    id: str
    """The job's; empty if the record was none."""
    type: str
    queue: str
    reason: str
    at: int
    """When the job was given up, milliseconds since the epoch."""
    state: LetterState
    life: int
    """0: what it holds is no job to this version."""
    attempts: int
    """Failures of that life that it kept."""
    error: str
    """The last failure, first line."""
    fingerprint: str
    """Same for the same error at the same place; empty if the error has none."""
    size: int
    """Bytes of its record."""
    settled: AuditRecord | None = None
    """Who redrove or discarded it, when and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterFilter:
    """Which letters are meant: those that every given condition allows."""

    states: frozenset[LetterState] = frozenset()
    """Empty: any. So for all that follow."""
    reasons: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()
    queues: frozenset[str] = frozenset()
    fingerprints: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    """Addresses or job ids."""
    since: int | None = None
    """Given up at this moment or later, milliseconds since the epoch."""

    def allows(self, row: LetterRow) -> bool:
        """Whether this letter is meant."""
        return (
            (not self.states or row.state in self.states)
            and (not self.reasons or row.reason in self.reasons)
            and (not self.types or row.type in self.types)
            and (not self.queues or row.queue in self.queues)
            and (not self.fingerprints or row.fingerprint in self.fingerprints)
            and (self.since is None or row.at >= self.since)
            and (not self.names or not self.names.isdisjoint((str(row.address), row.id)))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterGroup:
    """Letters that have something in common."""

    name: str
    count: int
    open: int
    first: int
    """When its first job was given up, milliseconds since the epoch."""
    last: int
    types: Sequence[str]
    reasons: Sequence[str]
    error: str
    """Of its newest letter."""
    example: Address
    """Its newest letter."""


@dataclass(slots=True)
class _Found:
    """A letter that was read and is not yet judged."""

    address: Address
    record: DeadLetterRecord
    size: int
    attempts: int
    type: str = ""
    queue: str = ""
    life: int = 0


def list_letters(broker: Broker, namespace: str, where: LetterFilter | None = None) -> list[LetterRow]:
    """The letters that are meant, newest last. Reads the whole dead-letter and audit topics.

    Raises:
        TopicMissing: there is no dead-letter or audit topic.
    """
    places = partitions_of(broker, [topics.dlq_topic(namespace)])
    settled = settled_letters(broker, namespace)
    found = []
    for address, record, size in _letters(broker, places):
        job = job_of(record)
        # Only what a list shows stays in memory: payloads and tracebacks may be large.
        attempts = sum(failure.attempt > 0 for failure in record.failures or ())
        last = [failure._replace(traceback="") for failure in (record.failures or ())[-1:]]
        brief = record._replace(job=None, raw=None, progress=None, steps=None, failures=last)
        if job is None:
            found.append(_Found(address, brief, size, attempts, queue=_queue_of(record)))
            continue
        settled.saw(job.id, job.life)
        found.append(_Found(address, brief._replace(id=job.id), size, attempts, job.type, job.queue, job.life))
    rows = (_row(letter, settled) for letter in found)
    chosen = [row for row in rows if where is None or where.allows(row)]
    return sorted(chosen, key=lambda row: (row.at, row.address))


def settled_letters(broker: Broker, namespace: str, since: Mapping[TopicPartition, int] | None = None) -> Settled:
    """What operators did with dead letters, from the audit topic: all of it, or from these offsets on."""
    settled = Settled()
    for record in read_to_end(broker, partitions_of(broker, [topics.audit_topic(namespace)]), since):
        value = record.value()
        if value is None:
            continue
        try:
            settled.note(codec.decode_audit(value))
        except RecordError:
            # One record of a newer version must not hide all the others.
            continue
    return settled


def read_letters(
    broker: Broker, namespace: str, rows: Iterable[LetterRow]
) -> Iterator[tuple[LetterRow, DeadLetterRecord]]:
    """These letters, whole, in the order in which they are read; those that retention took meanwhile are left out."""
    topic = topics.dlq_topic(namespace)
    wanted = {row.address: row for row in rows}
    starts: dict[TopicPartition, int] = {}
    for address in wanted:
        place = TopicPartition(topic, address.partition)
        starts[place] = min(address.offset, starts.get(place, address.offset))
    for address, record, _ in _letters(broker, list(starts), starts):
        row = wanted.pop(address, None)
        if row is not None:
            yield row, record
        if not wanted:
            return


def find_letters(broker: Broker, namespace: str, name: str) -> list[LetterRow]:
    """The letters of an address or a job id, newest last.

    Raises:
        DeadLetterError: there is none.
    """
    rows = list_letters(broker, namespace, LetterFilter(names=frozenset({name})))
    if rows:
        return rows
    raise missing_letter(namespace, name)


def missing_letter(namespace: str, name: str) -> DeadLetterError:
    """The error that an address or a job id means no letter."""
    if parse_address(name) is not None:
        return DeadLetterError(
            f"there is no dead letter {name} in namespace {namespace}",
            hint="processor dlq list shows the addresses; letters go when they are older than topics.dlq_retention",
        )
    return DeadLetterError(
        f"there is no dead letter of a job {name} in namespace {namespace}",
        hint=f"processor job show {name} tells where the job stands; processor dlq list shows what was given up",
    )


def group_letters(rows: Sequence[LetterRow], by: str) -> list[LetterGroup]:
    """Letters by `fingerprint`, `type` or `reason`, the largest group first; what has no name comes as `-`."""
    groups: dict[str, list[LetterRow]] = {}
    for row in rows:
        groups.setdefault(getattr(row, by) or "-", []).append(row)
    made = [
        LetterGroup(
            name=name,
            count=len(members),
            open=sum(row.state is LetterState.OPEN for row in members),
            first=members[0].at,
            last=members[-1].at,
            types=sorted({row.type for row in members if row.type}),
            reasons=sorted({row.reason for row in members}),
            error=members[-1].error,
            example=members[-1].address,
        )
        for name, members in groups.items()
    ]
    return sorted(made, key=lambda group: (-group.count, group.name))


def _row(letter: _Found, settled: Settled) -> LetterRow:
    record = letter.record
    last = record.failures[-1] if record.failures else None
    return LetterRow(
        address=letter.address,
        id=record.id,
        type=letter.type,
        queue=letter.queue,
        reason=record.reason,
        at=record.at,
        state=settled.state(letter.address, record.id, letter.life),
        life=letter.life,
        attempts=letter.attempts,
        error=f"{last.kind}: {last.message}".partition("\n")[0] if last else "",
        fingerprint=last.fingerprint if last else "",
        size=letter.size,
        settled=settled.by(letter.address, record.id, letter.life),
    )


def _queue_of(record: DeadLetterRecord) -> str:
    """Where a record lay that is no job."""
    place = topics.parse_topic(record.topic)
    return (place.queue if place is not None else None) or ""


def _letters(
    broker: Broker, places: Sequence[TopicPartition], starts: dict[TopicPartition, int] | None = None
) -> Iterator[tuple[Address, DeadLetterRecord, int]]:
    for record in read_to_end(broker, places, starts):
        value = record.value()
        if value is not None:
            address = Address(record.partition() or 0, record.offset() or 0)
            yield address, _decoded(record, value), len(value)


def _decoded(record: Record, value: bytes) -> DeadLetterRecord:
    """A letter. What lies there and is none (of a newer version, or foreign) is shown as well, and can be discarded."""
    try:
        return codec.decode_dead_letter(value)
    except RecordError as error:
        place = ("", record.topic() or "", record.partition() or 0, record.offset() or 0)
        return DeadLetterRecord("", error.code, record.timestamp()[1], *place, raw=value, raw_key=record.key())
