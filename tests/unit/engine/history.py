"""What happened in a scene, told to the guarantees: effects by the handlers, everything durable by reading the log.

Before each effect the log is read on to its end, so effects and commits come in the order in which they happened. What
a zombie does after another worker has claimed its number is counted apart: nothing can stop it from running on, it only
must not leave a trace in the log.
"""

from __future__ import annotations

import sys
from typing import Any

from processor.broker.base import Isolation, Record, TopicPartition
from processor.broker.memory.log import Fate, MemoryRecord
from processor.core.checkpoint import KeyKind, parse_key
from processor.core.offset_metadata import decode as decode_metadata
from processor.errors import RecordError
from processor.job import Lane, StepPhase
from processor.states import TERMINAL, State
from processor.wire import topics
from processor.wire.codec import decode_checkpoint, decode_dead_letter, decode_job, decode_status, decode_step
from tests.guarantees import (
    EVERY,
    Claimed,
    Committed,
    Crashed,
    Effect,
    Ended,
    Event,
    KeyOrdered,
    LifeOf,
    Moved,
    NoLoss,
    Partition,
    Produced,
    Saved,
    Started,
    StepSaved,
    Stopped,
    Violation,
    Watch,
)
from tests.unit.engine.scene import NS, QUEUE, TOPICS, Scene, Simulated

ANOTHER_QUEUE = b"other-"
"""How the ids of jobs begin that belong to another queue: this history is of one."""


class KeyOrderedByHandlers(KeyOrdered):
    """The next job of a key may start once the handler before it has returned, durable or not. A new owner of the
    number begins again with the first whose end is not durable.
    """

    def __init__(self) -> None:
        super().__init__()
        self._durable: set[LifeOf] = set()

    def returned(self, job: LifeOf) -> None:
        """A handler returned or raised for good."""
        self._running.pop(job, None)
        self._ended.add(job)

    def on_process(self, event: Event) -> None:
        if isinstance(event, Ended) and event.state in TERMINAL:
            self._durable.add(event.job)
        super().on_process(event)

    def rewind(self, jobs: set[LifeOf]) -> None:
        """A number has a new owner."""
        self._ended -= jobs - self._durable
        for job in jobs:
            self._running.pop(job, None)


class History:
    """Feeds the guarantees. `reading` reports of the log, the other methods are for handlers and the chaos."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.keyed = KeyOrderedByHandlers()
        self.watch = Watch(EVERY, without=(KeyOrdered,))
        self.trace: list[object] = []
        self.zombie_effects = 0
        self.claims: dict[int, tuple[int, str]] = {}
        """Epoch and slot of each number's last claim."""
        self.open: dict[LifeOf, int] = {}
        """Jobs without a terminal state, and their number."""
        self.ended: set[LifeOf] = set()
        self.in_doubt: set[LifeOf] = set()
        self._spawned: dict[tuple[LifeOf, str], tuple[str, ...]] = {}
        self._walks: set[tuple[LifeOf, int]] = set()
        """Lives and hops that were seen in the retry chain."""
        self._offsets: dict[TopicPartition, int] = {}
        self._positions: dict[TopicPartition, int] = {}
        self._undecided: dict[TopicPartition, list[MemoryRecord]] = {}

    # --- handlers -------------------------------------------------------------------------------------------------

    def started(self, context: Any) -> None:
        """A handler was entered."""
        self.read()
        resumed = context._port.resumed
        loops = resumed.loops if resumed is not None else {}
        position = loops["rows"].items if "rows" in loops else 0
        if not self._is_zombie(context):
            self._tell(Started(_life(context), self.scene.runtime.current_group, position))

    def effect(self, context: Any, step: str, *, once: bool = False) -> None:
        """A step's body runs."""
        self.read()
        if not self._is_zombie(context):
            self._tell(Effect(_life(context), step, once))

    def spawned(self, context: Any, step: str, children: tuple[str, ...]) -> None:
        """A step is about to be saved, after these children."""
        self._spawned[_life(context), step] = children

    def returned(self, context: Any) -> None:
        """A handler returned or failed."""
        self.trace.append(("returned", _life(context).id))
        if not self._is_zombie(context):
            self.keyed.returned(_life(context))

    def stopped(self, context: Any) -> None:
        """A handler yielded, or lost its number."""
        if not self._is_zombie(context):
            self._tell(Stopped(_life(context)))

    def _is_zombie(self, context: Any) -> bool:
        """Whether its process slept through the loss of its number, or another one took its slot: a successor, or a
        predecessor that woke up.
        """
        group = self.scene.runtime.current_group
        workers = self.scene.workers
        place = next(i for i, worker in enumerate(workers) if worker.name == group)
        worker = workers[place]
        replaced = any(
            other.slot == worker.slot and (i > place or not other.over) for i, other in enumerate(workers) if i != place
        )
        number = context._port.number
        claimed = self.claims.get(number.partition, (0, ""))[0]
        zombie = (worker.was_frozen or replaced) and number.epoch < claimed
        self.zombie_effects += zombie
        return zombie

    # --- chaos ----------------------------------------------------------------------------------------------------

    def crashed(self, worker: Simulated) -> None:
        """A process was killed, or put to sleep."""
        self.read()
        self._tell(Crashed(worker.name))

    # --- the log --------------------------------------------------------------------------------------------------

    def read(self) -> None:
        """Report everything durable since the last time. While no broker answers, nothing new becomes durable."""
        if self.scene.broker._cluster.plan.outage:
            return
        found = {name: self._new_records(name) for name in TOPICS}
        for lane in (Lane.NORMAL, Lane.DUE):
            for record in found[topics.jobs_topic(NS, QUEUE, lane)]:
                self._produced(record)
        checkpoints = found[topics.checkpoints_topic(NS, QUEUE)]
        # A flush that was repeated writes an older checkpoint once more, before the newer one: the last one counts.
        last = {record.key(): record for record in checkpoints}
        for record in checkpoints:
            self._checkpoint(record, counts=last[record.key()] is record)
        for delay in topics.RETRY_DELAYS:
            for record in found[topics.retry_topic(NS, delay)]:
                self._on_its_way(record)
        for record in found[topics.dlq_topic(NS)]:
            self._dead_letter(record)
        for record in found[topics.status_topic(NS)]:
            if not (record.key() or b"").startswith(ANOTHER_QUEUE):
                self._status(record)
        self._commits()

    def _new_records(self, topic: str) -> list[MemoryRecord]:
        """Newly committed ones. Not as a reader sees them: it would learn of a commit only once everything before it in
        the partition has ended, other workers' transactions too.
        """
        committed: list[MemoryRecord] = []
        for log in self.scene.broker._cluster.topics[topic].partitions:
            found, self._positions[log.partition] = log.read(
                self._positions.get(log.partition, 0), sys.maxsize, Isolation.UNCOMMITTED
            )
            undecided = []
            for record in [*self._undecided.get(log.partition, ()), *found]:
                if record.span is None or record.span.fate is Fate.COMMITTED:
                    committed.append(record)
                elif record.span.fate is Fate.OPEN:
                    undecided.append(record)
            self._undecided[log.partition] = undecided
        return committed

    def _produced(self, record: Record) -> None:
        try:
            job = decode_job(record.value() or b"")
        except RecordError:
            return
        life = LifeOf(job.id, job.life)
        where: Partition | None = Partition(record.topic() or "", record.partition() or 0)
        if life in self.ended or life in self.open:
            where = None  # a copy: whatever becomes of it, the job is the other one's
        else:
            self.open[life] = record.partition() or 0
        produced = Produced(life, job.key, job.parent, where, record.offset() or 0)
        self.trace.append(produced)
        self.watch.on_produce(produced)
        self.keyed.on_produce(produced)

    def _checkpoint(self, record: Record, *, counts: bool) -> None:
        key, value = parse_key(record.key() or b""), record.value()
        if value is None:
            return
        if key.kind is KeyKind.PROGRESS and counts:
            saved = decode_checkpoint(value)
            loops = saved.loops or {}
            if saved.final is None and "rows" in loops:
                self._tell(Saved(LifeOf(saved.id, saved.life), loops["rows"].items))
        elif key.kind is KeyKind.STEP:
            step = decode_step(value)
            life = LifeOf(step.id, step.life)
            if step.phase == StepPhase.FINISHED:
                self._tell(StepSaved(life, step.name, self._spawned.get((life, step.name), ())))
        elif key.kind is KeyKind.JOB:
            self._tell(Moved(self._life_of(key.id)))

    def _on_its_way(self, record: Record) -> None:
        """A job moved into the retry chain with what it had saved. Further rungs of its walk say nothing new: it may
        have been let go on meanwhile, and then its own record is a copy of the past.
        """
        job = decode_job(record.value() or b"")
        life = LifeOf(job.id, job.life)
        if (life, job.hop) in self._walks:
            return
        self._walks.add((life, job.hop))
        carried = job.carried
        if carried is not None and carried.progress is not None:
            loops = decode_checkpoint(carried.progress).loops or {}
            if "rows" in loops:
                self._tell(Saved(life, loops["rows"].items))
            for value in carried.steps or ():
                step = decode_step(value)
                if step.phase == StepPhase.FINISHED:
                    self._tell(StepSaved(life, step.name, self._spawned.get((life, step.name), ())))
        self._tell(Moved(life))

    def _dead_letter(self, record: Record) -> None:
        letter = decode_dead_letter(record.value() or b"")
        if letter.job is not None:
            job = decode_job(letter.job)
            self._tell(Moved(LifeOf(job.id, job.life)))

    def _life_of(self, job_id: str) -> LifeOf:
        return max((life for life in [*self.open, *self.ended] if life.id == job_id), default=LifeOf(job_id))

    def _status(self, record: Record) -> None:
        status = decode_status(record.value() or b"")
        life = LifeOf(status.id, status.life)
        if status.state is State.IN_DOUBT:
            self.in_doubt.add(life)
        if status.state in TERMINAL:
            self.open.pop(life, None)
            self.ended.add(life)
        self._tell(Ended(life, status.state))

    def _commits(self) -> None:
        for lane, entry in sorted(self.scene.committed().items()):
            if entry.offset is None:
                continue
            meta = decode_metadata(entry.metadata, entry.offset)
            if meta is not None and lane == self.scene.lane(Lane.NORMAL, lane.partition):
                claim = (meta.epoch, meta.slot)
                if self.claims.get(lane.partition) != claim:
                    self._claimed(lane.partition, claim)
            if self._offsets.get(lane) != entry.offset:
                self._offsets[lane] = entry.offset
                self._tell(Committed(Partition(lane.topic, lane.partition), entry.offset))

    def _claimed(self, number: int, claim: tuple[int, str]) -> None:
        """A new owner begins again with whatever has not durably ended."""
        self.claims[number] = claim
        self._tell(Claimed(number, *claim))
        rest = {life for life, where in self.open.items() if where == number}
        for life in sorted(rest):
            self._tell(Stopped(life))
        self.keyed.rewind(rest)

    def _tell(self, event: Event) -> None:
        self.trace.append(event)
        self.watch.on_process(event)
        self.keyed.on_process(event)

    # --- the verdict ----------------------------------------------------------------------------------------------

    def verdict(self) -> list[Violation]:
        """What was broken. A job in doubt waits for a person: it is not lost."""
        self.read()
        doubtful = {life.id for life in self.in_doubt & set(self.open)}
        found = [*self.watch.verify(), *self.keyed.verify()]
        return [v for v in found if not (v.guarantee == NoLoss.__name__ and v.job_id in doubtful)]


def _life(context: Any) -> LifeOf:
    return LifeOf(context.id, context._port.job.life)
