"""Which attempt goes to which pool, and when: the local backlog of each queue and the keys that jobs wait for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Protocol

from processor.core.ordering import Reclaimed, Spilled
from processor.core.outcome import Outcome
from processor.core.process_deaths import QUARANTINE
from processor.engine.attempt import Attempt
from processor.engine.pool import Pool
from processor.engine.queue_partition import LaneState, PartitionPhase, QueuePartition
from processor.engine.ready_queue import ReadyQueue, is_due

if TYPE_CHECKING:
    from processor.engine.config import QueueConfig
    from processor.engine.partition_jobs import Caution
    from processor.engine.registry import RunnableJob
    from processor.engine.state import EngineState

CAUTIOUS_AHEAD = 16
"""Beyond twice the slots: so many jobs of a kind are let go at a time where a process has just died."""


class Settles(Protocol):
    """What becomes of an attempt that is not to start as it is; `processor.engine.outcomes.Outcomes`."""

    def park_unknown(self, attempt: Attempt) -> None: ...
    def end_unstarted(self, attempt: Attempt, outcome: Outcome) -> None: ...
    def name(self, attempt: Attempt) -> None: ...


class Dispatch:
    """Hands attempts to the pools, a little ahead of their slots, and keeps the order of keys."""

    def __init__(
        self,
        engine: EngineState,
        make_pool: Callable[[str, int, str], Pool],
        refetch: Callable[[QueuePartition, str, Sequence[Spilled]], None],
        look_for_first: Callable[[Attempt, bool], None],
    ) -> None:
        self._engine = engine
        self._make_pool = make_pool
        self._refetch = refetch
        self._look_for_first = look_for_first
        self._gate = engine.gate
        self.ready_queues: dict[tuple[str, str], ReadyQueue] = {}
        self._unused: tuple[tuple[int, int], frozenset[str]] = ((-1, -1), frozenset())
        """Of how many job types and pools it was found, and the queues with a kind of executor that job types need and
        nothing has used so far.
        """
        self._cautious: dict[QueuePartition, None] = {}
        """Those with jobs that wait until the log says that they may start."""
        self._settles: Settles

    def settle_by(self, settles: Settles) -> None:
        """Who deals with those that do not start; it is made later, since it starts others."""
        self._settles = settles

    def ready(self, attempt: Attempt, *, follows: bool = False) -> None:
        """The attempt may start as soon as a slot is free. `follows`: it has waited for its key."""
        if attempt.settled:
            self.release_key(attempt.number, attempt.job.key, attempt.job.id)  # it has ended where it waited
            return
        job_type = attempt.job_type
        if job_type is None:
            if not (self._gate.looks_at(attempt) and self._turned_away(attempt)):
                self._settles.park_unknown(attempt)
            return
        number, lane = attempt.number, attempt.lane
        if attempt.history.repeated:
            self._look_for_first(attempt, follows)
            return
        if number.caution is not None and lane is not None and attempt.origin.offset >= lane.durable_mark:
            number.caution.held.setdefault(_kind_of(job_type), []).append((attempt, follows))
            self._cautious[number] = None
            return
        kind = _kind_of(job_type)
        if attempt.history.deaths >= QUARANTINE:
            kind = "quarantine" if self._engine.config.quarantine else f"alone-{kind}"
        queue = number.queue.name
        ready_queue = self.ready_queues.get((queue, kind))
        if ready_queue is None:
            ready_queue = self._new_ready_queue(queue, kind)
        attempt.ready_queue = ready_queue
        if follows:
            ready_queue.followers.append(attempt)
        elif is_due(attempt):
            ready_queue.due.append(attempt)
        else:
            ready_queue.waiting.append(attempt)

    def read_durably(self, number: QueuePartition, marks: Sequence[tuple[LaneState, int]]) -> None:
        """The log says which of its jobs a cautious number is about to start: those may."""
        for lane, mark in marks:
            lane.durable_mark = max(lane.durable_mark, mark)
        caution = number.caution
        if caution is None:
            return
        held, caution.held = caution.held, {}
        if self._engine.clock.monotonic() >= caution.until:
            number.caution = None
        for attempt, follows in chain.from_iterable(held.values()):
            if not attempt.settled:
                self.ready(attempt, follows=follows)

    def _let_go(self) -> None:
        """Cautious numbers: as many as there is room for start with the next flush. Who is behind them is no suspect if
        this process dies too, though it was read.
        """
        room: dict[tuple[str, str], int] = {}
        for number in list(self._cautious):
            if number.caution is None or not number.caution.held or number.phase is not PartitionPhase.ACTIVE:
                self._cautious.pop(number, None)
                continue
            if self._may_start(number, number.caution, room):
                number.touched = True
                self._engine.outbox_load.request_flush(urgent=True)

    def _may_start(self, number: QueuePartition, caution: Caution[Attempt], room: dict[tuple[str, str], int]) -> bool:
        """Raise the marks of its lanes over those for which there is room, and count them off.

        Returns:
            Whether a mark was raised.
        """
        raised, queue = False, number.queue
        for kind, held in caution.held.items():
            left = room.get((queue.name, kind))
            if left is None:
                left = self._cautious_room(queue, kind)
            for attempt, _ in held[: max(left, 0)]:
                lane, after = attempt.lane, attempt.origin.offset + 1
                if lane is not None and lane.start_mark < after:
                    lane.start_mark = after
                    raised = True
            room[queue.name, kind] = left - len(held)
        return raised

    def _cautious_room(self, queue: QueueConfig, kind: str) -> int:
        ready_queue = self.ready_queues.get((queue.name, kind))
        held = 0 if ready_queue is None else ready_queue.ready + ready_queue.outstanding
        return 2 * queue.concurrency + CAUTIOUS_AHEAD - held

    def _new_ready_queue(self, queue: str, kind: str) -> ReadyQueue:
        pool = self._make_pool(queue, self._engine.queues[queue].concurrency, kind)
        ready_queue = self.ready_queues[queue, kind] = ReadyQueue(pool, alone=kind.startswith(("quarantine", "alone")))
        return ready_queue

    def hand_out(self) -> int:
        """Give the pools what they have room for; how many attempts were handed out."""
        if self._cautious:
            self._let_go()
        handed = 0
        resting = self._gate.resting
        for (queue, _), ready_queue in self.ready_queues.items():
            room = ready_queue.turn()
            if room > 0 and ready_queue.ready and queue not in resting:
                handed += self._hand_out(ready_queue, room)
            if ready_queue.outstanding:
                ready_queue.pool.nudge()
        return handed

    def _hand_out(self, ready_queue: ReadyQueue, room: int) -> int:
        waiting, followers, due = ready_queue.waiting, ready_queue.followers, ready_queue.due
        gate = self._gate
        batch: list[Attempt] = []
        while len(batch) < room and (waiting or followers or due):
            attempt = ready_queue.next() if followers or due else waiting.popleft()
            # Jobs of a number that was given up meanwhile are not ours to start; one that was cancelled has ended.
            number = attempt.number
            if (
                number.assignment == attempt.assignment
                and number.phase is PartitionPhase.ACTIVE
                and not attempt.settled
            ):
                try:
                    if gate.looks_at(attempt) and self._turned_away(attempt):
                        continue
                except Exception as error:  # noqa: BLE001  (the owner's guard)
                    self._engine.guard.job(attempt, error, number.outbox.mark())
                    continue
                batch.append(attempt)
                number.jobs.running += 1
        if batch:
            job = batch[0].job
            due_at = job.enqueued_at if job.due_at is None else job.due_at
            self._engine.counters.waited(job.queue, max(self._engine.clock.now_ms() - due_at, 0) / 1000)
        ready_queue.running.update(dict.fromkeys(batch))
        if ready_queue.alone:
            for attempt in batch:
                mark = attempt.number.outbox.mark()
                try:
                    self._settles.name(attempt)
                    attempt.number.outbox.named.append(attempt)
                except Exception as error:  # noqa: BLE001  (as above)
                    self._engine.guard.job(attempt, error, mark)
        else:
            ready_queue.pool.submit(batch)
        return len(batch)

    def named(self, attempts: Sequence[Attempt]) -> None:
        """Suspects that are in the log by their own names now: they start."""
        for attempt in attempts:
            if attempt.ready_queue is not None and not attempt.settled:
                attempt.ready_queue.submit(attempt)

    def _turned_away(self, attempt: Attempt) -> bool:
        """Whether it may not start any more; then it ends here."""
        outcome = self._gate.outcome(attempt, self._engine.clock.now_ms())
        if outcome is not None:
            self._settles.end_unstarted(attempt, outcome)
        return outcome is not None

    def ended(self, attempt: Attempt) -> None:
        """A pool gave an attempt back."""
        if attempt.ready_queue is not None:
            attempt.ready_queue.ended(attempt)
            attempt.number.jobs.running -= 1

    def give_back(self, attempt: Attempt) -> None:
        """Its pool is done with it, or never got it: its slot is free."""
        if attempt in attempt.number.outbox.named:
            attempt.number.outbox.named.remove(attempt)
        if attempt.ready_queue is not None and attempt.ready_queue.holds(attempt):
            self.ended(attempt)

    def interrupt(self, wanted: Callable[[Attempt], bool]) -> None:
        """Ask running attempts to save and yield: their jobs go on later. Those that nobody has begun come back."""
        for ready_queue in self.ready_queues.values():
            recalled = [attempt for attempt in ready_queue.pool.recall() if attempt in ready_queue.running]
            ready_queue.back(recalled)
            for attempt in recalled:
                attempt.number.jobs.running -= 1
            for attempt in ready_queue.running:
                if wanted(attempt):
                    attempt.mailbox.interrupt()
            ready_queue.pool.nudge()

    def offer_key(self, attempt: Attempt, key: str) -> bool:
        """Whether the attempt holds its key now and may start; else it waits for it, whole or as its place only."""
        origin, order = attempt.origin, attempt.number.order
        spilled = order.spilled_count
        place = Spilled(origin.topic, origin.offset)
        if order.offer(key, attempt.job.id, attempt, place, len(attempt.raw), attempt.job.parent):
            return True
        if order.spilled_count > spilled:
            # Kept as its offset: the memory is free again, and reading goes on for other keys.
            self._engine.forget(attempt)
        return False

    def queue_for_key(self, attempt: Attempt) -> bool:
        """A later life of a job that has its key, or waits for it, waits behind it; False: as its place only."""
        origin, order = attempt.origin, attempt.number.order
        spilled, place = order.spilled_count, Spilled(origin.topic, origin.offset)
        order.queue(attempt.job.key or "", attempt.job.id, attempt, place, len(attempt.raw))
        return order.spilled_count == spilled

    def release_key(self, number: QueuePartition, key: str | None, holder: str | None) -> None:
        """A job is done with its ordering key: the next of that key may start."""
        if key is None:
            return
        order = number.order
        try:
            follower = order.finished(key, holder)
        except Exception as error:  # noqa: BLE001  (the owner's guard)
            # Who is next is not known any more; the log knows.
            self._engine.guard.number(number, "a key was freed", error)
            return
        if follower is None:
            return
        if not isinstance(follower, Spilled | Reclaimed):
            self.ready(follower, follows=True)
        places = order.wants(key)
        if places:
            if isinstance(follower, Spilled) and len(places) > 1:
                # Its turn has come: it does not wait until the others are found.
                self._refetch(number, key, places[:1])
                places = places[1:]
            self._refetch(number, key, places)

    def lacks(self, *, due: bool = False) -> int:
        """How many records should be read: 0 if no slot would take what they bring. `due`: of the `due` lanes.

        A reader serves all queues, and what it brings next may be for any kind of executor: one that has not enough is
        reason to read on, even if the others get more than they need. The bounds of what is in flight hold anyway.
        """
        most = 0
        for ready_queue in self.ready_queues.values():
            # What suspects leave room for says nothing about the others.
            if not ready_queue.alone:
                lacks = ready_queue.lacks_due if due else ready_queue.lacks
                if lacks > most:
                    most = lacks
        return most or (self._engine.config.fetch_records if self._may_lack() else 0)

    def _may_lack(self) -> bool:
        """Whether something unread may be for slots that were never used so far: of a queue, or, where those that were
        used will not be free soon, of another kind of executor.
        """
        seen, unused = self._unused
        found = len(self._engine.registry), len(self.ready_queues)
        if seen != found:
            unused = self._with_unused()
            self._unused = found, unused
        if not unused:
            return False
        short = {queue for (queue, _), each in self.ready_queues.items() if each.is_short and not each.alone}
        return any(number.queue.name in unused and number.queue.name not in short for number in self._engine.active())

    def _with_unused(self) -> frozenset[str]:
        """Queues that lack a kind of executor: one that no job has used at all counts also if no job type is known, for
        its jobs are to be read and parked.
        """
        kinds = set(map(_kind_of, self._engine.registry.values()))
        used: dict[str, set[str]] = {queue: set() for queue in self._engine.queues}
        for (queue, kind), ready_queue in self.ready_queues.items():
            if not ready_queue.alone:
                used[queue].add(kind)
        return frozenset(queue for queue, has in used.items() if not has or kinds - has)

    @property
    def outstanding(self) -> int:
        """Attempts in the hands of pools."""
        return sum(ready_queue.outstanding for ready_queue in self.ready_queues.values())

    def has_free_slot(self, queue: str) -> bool:
        """Whether a job of this queue would start at once, in at least one kind of executor."""
        ready_queues = [ready_queue for (name, _), ready_queue in self.ready_queues.items() if name == queue]
        return not ready_queues or any(ready_queue.outstanding < ready_queue.pool.slots for ready_queue in ready_queues)

    @property
    def awaited(self) -> list[Attempt]:
        """Attempts in the hands of pools whose end somebody waits for, and that will come."""
        able = [ready_queue for ready_queue in self.ready_queues.values() if not ready_queue.stuck]
        return [attempt for ready_queue in able for attempt in ready_queue.running if not attempt.mailbox.lost]

    @property
    def waiting(self) -> int:
        """Attempts that may start and wait for a slot."""
        return sum(ready_queue.ready for ready_queue in self.ready_queues.values())


def _kind_of(job_type: RunnableJob) -> str:
    """The kind of executor that runs a job type."""
    return "async" if job_type.kind == "async" else job_type.executor
