"""Numbers come and go: assign, restore, claim, revoke, lost. Runs on the owning thread; the callbacks inside its poll.

The group of a queue only holds the membership: it is subscribed to the normal lane and reads none. Whoever the group
gives `jobs.{queue}`-p owns number p whole, and reads p of every lane by hand. Left to an assignor, lanes p and p.due
land on different workers (measured: 8 of 8), and then steps run twice and key order is gone without any fault.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from processor import events
from processor.broker.base import Membership, Reader, TopicPartition
from processor.core.deadlines import look_again_at
from processor.core.idempotency import is_keyed
from processor.core.outcome import Parked
from processor.core.process_deaths import QUARANTINE, Death, noted
from processor.core.verdict import Fate, fate
from processor.core.window import Window
from processor.core.write_set import Origin
from processor.engine.alerting import tell_of_hold
from processor.engine.attempt import History
from processor.engine.groups import Listener
from processor.engine.intake import resume
from processor.engine.partition_jobs import Caution
from processor.engine.queue_partition import PartitionPhase, QueuePartition
from processor.engine.tellings import RestoredNumbers, names
from processor.job import Job, Lane, StepPhase
from processor.states import State
from processor.wire.codec import decode_job, decode_live_job, encode

if TYPE_CHECKING:
    from processor.core.live import LiveView
    from processor.engine.attempt import Attempt
    from processor.engine.dispatch import Dispatch
    from processor.engine.fence import Fence
    from processor.engine.restore import Restored, Restorer
    from processor.engine.state import EngineState
    from processor.wire.records import LiveJobRecord

log = events.logger(__name__)

HandOver = Callable[[Sequence[QueuePartition]], None]
"""Waits (bounded) until the jobs of these numbers have yielded and their last flush is committed."""

HELD_AT_FIRST = 10.0
"""Seconds that a held number rests before it is tried again."""
HELD_AT_MOST = 300.0
CAUTIOUS = 60.0
"""Seconds after a process died during which its successor starts a job only once the log says that it was read. A job
that ends its process at once would else die unseen, again and again.
"""


class Ownership:
    """Takes partitions up and gives them away, as the groups of the queues say."""

    def __init__(
        self,
        engine: EngineState,
        dispatch: Dispatch,
        restorer: Restorer,
        readers: dict[Lane, Reader],
        hand_over: HandOver,
    ) -> None:
        self._engine = engine
        self._dispatch = dispatch
        self._restorer = restorer
        self._readers = readers
        self._hand_over = hand_over
        self._restored = RestoredNumbers()
        self._holds: dict[tuple[str, int], tuple[float, float]] = {}
        """Numbers that were held: for how many seconds, and until when a new fault counts as the same one."""
        self.leaving = False
        """The worker stops: what the group still hands to it is not taken up, the next owner begins with it."""

    # --- a group's callbacks -------------------------------------------------------------------------------------

    def listener(self, queue: str) -> Listener:
        """For the group of a queue."""
        # Looked up at the call, so that whoever looks on can stand before them.
        return Listener(
            self._engine.fences[queue],
            lambda *told: self.on_assigned(*told),
            lambda *told: self.on_revoked(*told),
            lambda *told: self.on_lost(*told),
        )

    def on_assigned(self, fence: Fence, partitions: Sequence[TopicPartition], membership: Membership) -> None:
        """Assign p.

        1. A new assignment: late results of an older one are told apart by it.
        2. The snapshot of the membership, taken on entering the callback (also if it brings nothing).
        3. to 4. The restorer reads offsets and checkpoints; other numbers keep running.
        5. to 6. follow in `restored` and `claimed`.
        """
        fence.heard(membership)
        self._engine.counters.events["rebalance.assigned"] += 1
        if self.leaving:
            return
        numbers = []
        for topic, partition in partitions:
            queue = self._engine.normal_topics.get(topic)
            if queue is not None:
                numbers.append(self._engine.new_number(queue, partition))
        if numbers:
            log.info("numbers.assigned", extra={"numbers": names(numbers)})
            self._restorer.submit(numbers)

    def on_revoked(self, fence: Fence, partitions: Sequence[TopicPartition], membership: Membership) -> None:
        """Revoke p: stop starting, ask running jobs to save and yield, wait a little, flush as released, let go."""
        fence.heard(membership)
        self._engine.counters.events["rebalance.revoked"] += 1
        numbers = self._owned(partitions)
        if not numbers:
            return
        log.info("numbers.revoked", extra={"numbers": names(numbers)})
        try:
            self.yield_numbers(numbers)
            self._hand_over(numbers)
        finally:
            self._give_up(numbers)

    def on_lost(self, fence: Fence, partitions: Sequence[TopicPartition]) -> None:
        """Lost p: it belongs to somebody else already. Drop at once, write nothing."""
        fence.heard(None)
        self._engine.counters.events["rebalance.lost"] += 1
        numbers = self._owned(partitions)
        log.warning("numbers.lost", extra={"numbers": names(numbers)})
        self._give_up(numbers)

    # --- the way in ----------------------------------------------------------------------------------------------

    def restored(self, found: Restored) -> None:
        """The restorer has read a number back: set it up, then claim it with the next flush."""
        number, engine = found.number, self._engine
        if self.leaving or found.assignment != number.assignment or number.phase is not PartitionPhase.RESTORING:
            return
        if found.error is not None:
            self.hold(number, f"restore failed: {found.error}")
            self._tell_restored()
            return
        number.tenure.epoch = found.epoch
        number.live, number.marks = found.live, found.marks
        number.checkpoint_end = found.checkpoint_end
        number.own_mark.bound = found.mark_bound
        for lane, start in found.lanes.items():
            state, meta = number.lanes[lane], start.meta
            state.window = Window(start.offset, start.ranges)
            state.mark_below = start.read_mark if found.unclean else 0
            if meta is not None:
                death = Death(meta.epoch, meta.read_mark) if found.died else None
                state.deaths = noted(meta.deaths, death, start.offset)
                marks = [known.mark for known in state.deaths]
                state.mark_below = max([state.mark_below, *marks])
        if found.died:
            number.caution = Caution(engine.clock.monotonic() + CAUTIOUS)
            self._count_deaths(number)
        for unreadable in found.unreadable:
            engine.keep_unreadable(number, *unreadable)
        number.phase = PartitionPhase.CLAIMING
        number.touched = True
        engine.outbox_load.request_flush(urgent=True)
        engine.counters.sample(engine.counters.restore_seconds, found.seconds)
        engine.counters.events["restores"] += 1
        engine.counters.events["takeovers"] += found.unclean
        self._restored.add(found)
        self._tell_restored()

    def _tell_restored(self) -> None:
        if not any(number.phase is PartitionPhase.RESTORING for number in self._engine.numbers.values()):
            self._restored.tell()

    def _count_deaths(self, number: QueuePartition) -> None:
        """The promoted jobs that a process died with: in their records, with the claim."""
        engine, live = self._engine, number.live
        for view in live.promoted():
            record = decode_live_job(view.job or b"")
            if record.state is not State.RUNNING:
                continue
            job = decode_job(record.job)
            deaths = 0 if live.saved_in(job.id) >= number.epoch - 1 else job.deaths + 1
            if deaths != job.deaths:
                job = job._replace(deaths=deaths)
                origin = Origin(record.lane_topic, number.partition, record.lane_offset)
                # One that is to run alone waits for its turn first; it says when it starts.
                waits = Parked(State.QUEUED, "", None) if deaths >= QUARANTINE else None
                saved = engine.completer.promotion(
                    number.topics, job, encode(job), origin, number.version(job), engine.clock.now_ms(), waits
                )
                number.outbox.save(saved)

    def claimed(self, number: QueuePartition) -> None:
        """The claim is committed: live jobs go on, then the lanes are read from where the last owner stopped."""
        engine = self._engine
        number.phase = PartitionPhase.ACTIVE
        engine.claimed[number.queue.name, number.partition] = number.epoch
        self._bury_leftovers(number)
        # Their places only: together their records may be far more than the memory holds.
        records = (decode_live_job(view.job) for view in number.live.promoted() if view.job is not None)
        lived = sorted((record.lane_topic, record.lane_offset, record.id) for record in records)
        self._keep_keys(number)
        restarts = [job_id for _, _, job_id in lived if self._takes_up(number, job_id)]
        for job_id in restarts:
            view = number.live.view(job_id)
            if view is None or view.job is None:
                continue
            raw = decode_live_job(view.job).job
            try:
                self.restart(number, decode_job(raw), raw, view)
            except Exception as error:  # noqa: BLE001  (as above)
                engine.guard.live(number, job_id, raw, error)
        self._fetch(number)

    def _takes_up(self, number: QueuePartition, job_id: str) -> bool:
        """A live job has its key and its place again; whether it goes on now."""
        view = number.live.view(job_id)
        if view is None or view.job is None:
            return False
        record = decode_live_job(view.job)
        try:
            return self._goes_on(number, record, decode_job(record.job))
        except Exception as error:  # noqa: BLE001  (the owner's guard)
            self._engine.guard.live(number, job_id, record.job, error)
            return False

    def _goes_on(self, number: QueuePartition, record: LiveJobRecord, job: Job) -> bool:
        engine = self._engine
        if job.key is not None:
            # Live jobs hold their keys before anything is fetched, so order survives a crash.
            number.order.block(job.key, job.id)
        if record.state is State.RETRYING:
            return False  # it waits for its retry elsewhere; this is the mark that keeps its key
        known, now_ms = job.type in engine.registry, engine.clock.now_ms()
        if fate(job, record, engine.gate.control, now_ms, known=known, anew=True) is Fate.GOES_ON:
            return True
        wanted = engine.gate.control.concerns(job.id, job.type)
        number.jobs.parked.put(job.id, look_again_at(job, record.until), wanted=wanted)
        return False

    def restart(self, number: QueuePartition, job: Job, raw: bytes, view: LiveView) -> None:
        """Go on with a job that lives in the checkpoint topic."""
        self._dispatch.ready(self.resumed(number, job, raw, view))

    def resumed(self, number: QueuePartition, job: Job, raw: bytes, view: LiveView) -> Attempt:
        """An attempt of a job that lives in the checkpoint topic, with its progress; not started."""
        attempt = self._engine.attempt(number, None, Origin(*number.checkpoints, -1), job, raw)
        resume(attempt, view)
        attempt.logged.saved = attempt.logged.promoted = True
        until: int | None = None
        if view.job is not None:
            live = decode_live_job(view.job)
            until = live.until
            if live.state is State.IN_DOUBT:
                # Somebody has looked, and lets it go on: what was found half done is to run again.
                done = {
                    name: step for name, step in attempt.logged.steps.items() if step.phase is not StepPhase.STARTED
                }
                attempt.logged.steps = done
        attempt.history = History(derived=is_keyed(job.id), deaths=job.deaths, parked_until=until)
        number.jobs.parked.leave(job.id)
        self._engine.take(attempt)
        return attempt

    def hold(self, number: QueuePartition, reason: str) -> None:
        """One bad partition stops only itself, with an alarm: it is not read on, its jobs save and yield, what they did
        is written, its slots, memory and waiting callers are let go. After a while it is taken up again.
        """
        if not self._begin_hold(number, reason):
            return
        if number.phase is PartitionPhase.ACTIVE:
            self.yield_numbers([number])
        elif number.phase is not PartitionPhase.YIELDING:
            self._rest(number)

    def hold_unwritten(self, number: QueuePartition, reason: str) -> None:
        """As `hold`, at once: what is in its outbox cannot be trusted. The log says where to begin."""
        self._begin_hold(number, reason)
        self._rest(number)

    def _begin_hold(self, number: QueuePartition, reason: str) -> bool:
        """Whether it was not held already."""
        self._stop_reading(number)
        if number.take_up_at is not None or number.assignment < 0:
            return False
        key, now = (number.queue.name, number.partition), self._engine.clock.monotonic()
        delay, until = self._holds.get(key, (0.0, 0.0))
        # Twice as long each time, unless it has gone well for a while since.
        delay = min(max(2 * delay, HELD_AT_FIRST), HELD_AT_MOST) if now < until else HELD_AT_FIRST
        self._holds[key] = (delay, now + 3 * delay + HELD_AT_MOST)
        number.take_up_at = now + delay
        self._engine.counters.events["held"] += 1
        log.error(
            "number.held",
            extra={
                "queue": number.queue.name,
                "number": number.partition,
                "reason": reason,
                "again_in": round(delay),
            },
        )
        tell_of_hold(self._engine, number, reason)
        return True

    def _rest(self, number: QueuePartition) -> None:
        number.phase = PartitionPhase.HELD
        # Nothing of it is written any more: who waits for that would wait for ever.
        self._engine.abandon(number)

    def look_at_held(self, number: QueuePartition, now: float) -> None:
        """Called now and then for every number: those that are held rest once they have yielded, and begin anew."""
        if number.take_up_at is None or self.leaving:
            return
        if number.phase is PartitionPhase.YIELDING:
            written = not (number.touched or number.outbox or number.jobs.running)
            if written or now >= number.take_up_at:
                self._rest(number)
        elif number.phase is PartitionPhase.HELD and now >= number.take_up_at:
            log.warning("number.taken_up", extra={"queue": number.queue.name, "number": number.partition})
            self._engine.drop_number(number)
            self._restorer.submit([self._engine.new_number(number.queue, number.partition)])

    def yield_numbers(self, numbers: Sequence[QueuePartition]) -> None:
        """Stop starting their jobs, and ask the running ones to save and stop."""
        for number in numbers:
            if number.phase in (PartitionPhase.ACTIVE, PartitionPhase.CLAIMING):
                number.phase = PartitionPhase.YIELDING
                number.released = number.touched = True
            for attempt in number.jobs.attempts.values():
                attempt.mailbox.interrupt()
            self._stop_reading(number)
        # What nobody has begun comes back at once: all slots may be in the hands of handlers that do not listen.
        self._dispatch.interrupt(lambda attempt: attempt.mailbox.interrupted)

    # --- parts ---------------------------------------------------------------------------------------------------

    def _owned(self, partitions: Sequence[TopicPartition]) -> list[QueuePartition]:
        keys = [
            (queue.name, partition)
            for topic, partition in partitions
            if (queue := self._engine.normal_topics.get(topic)) is not None
        ]
        return [self._engine.numbers[key] for key in keys if key in self._engine.numbers]

    def _give_up(self, numbers: Sequence[QueuePartition]) -> None:
        for number in numbers:
            self._stop_reading(number)
            self._engine.drop_number(number)

    def _fetch(self, number: QueuePartition) -> None:
        for lane, state in number.lanes.items():
            self._engine.lanes[state.key] = state
            self._readers[lane].assign({state.key: state.window.low})
        if self._is_to_rest(number):
            self.rest(number)

    def _is_to_rest(self, number: QueuePartition) -> bool:
        return number.load.held_back or number.queue.name in self._engine.gate.resting

    def rest(self, number: QueuePartition) -> None:
        """Read no more of its lanes for now: its queue is paused, or has its share of what is in flight."""
        for lane in number.lanes.values():
            self._readers[lane.lane].pause([lane.key])

    def go_on(self, number: QueuePartition) -> None:
        """Read its lanes again, unless there is another reason to rest."""
        if self._is_to_rest(number):
            return
        for lane in number.lanes.values():
            self._readers[lane.lane].resume([lane.key])

    def _stop_reading(self, number: QueuePartition) -> None:
        for lane in number.lanes.values():
            if self._engine.lanes.pop(lane.key, None) is not None:
                self._readers[lane.lane].unassign([lane.key])

    @staticmethod
    def _keep_keys(number: QueuePartition) -> None:
        """Jobs that wait for their retry and keep their key meanwhile hold it before anything is fetched."""
        for job_id, value in number.live.left_records():
            mark = decode_live_job(value)
            job = decode_job(mark.job)
            if mark.state is State.RETRYING and job.key is not None:
                number.order.block(job.key, job_id)

    def _bury_leftovers(self, number: QueuePartition) -> None:
        """Checkpoints whose job is over: ended ones whose mark has served, and those whose home is finished."""
        windows = {lane.topic: lane.window for lane in number.lanes.values()}
        live = number.live
        for job_id in {*live.ended(windows), *live.homeless(windows), *live.orphans()}:
            number.outbox.bury(live.keys_of(job_id))
        if number.outbox.burials:
            number.touched = True
            self._engine.outbox_load.request_flush()
