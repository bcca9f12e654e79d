"""Numbers come and go: assign, restore, claim, revoke, lost. Runs on the owning thread; the callbacks inside its poll.

The group consumer only holds the membership: it is subscribed to the normal lanes and reads none. Whoever the group
gives `jobs.{queue}`-p owns number p whole, and reads p of every lane by hand. Left to an assignor, lanes p and p.due
land on different workers (measured: 8 of 8), and then steps run twice and key order is gone without any fault.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from processor.broker.base import Membership, Reader, TopicPartition
from processor.core.completer import Origin
from processor.core.window import Window
from processor.job import Job, Lane
from processor.states import State
from processor.wire.codec import decode_job, decode_live_job
from processor.worker.intake import resume
from processor.worker.number import Number, Standing

if TYPE_CHECKING:
    from processor.core.live import LiveView
    from processor.worker.attempt import Attempt
    from processor.worker.desk import Desk
    from processor.worker.dispatch import Dispatch
    from processor.worker.restore import Restored, Restorer

log = logging.getLogger(__name__)


class Ownership:
    """See the module. Implements `processor.broker.base.RebalanceListener`."""

    def __init__(
        self,
        desk: Desk,
        dispatch: Dispatch,
        restorer: Restorer,
        readers: dict[Lane, Reader],
        hand_over: Callable[[Sequence[Number]], None],
    ) -> None:
        self._desk = desk
        self._dispatch = dispatch
        self._restorer = restorer
        self._readers = readers
        self._hand_over = hand_over
        """Waits (bounded) until the jobs of these numbers have yielded and their last flush is committed."""
        self.callbacks = 0
        """How often the group has spoken; after a group error nothing is flushed until it speaks again."""
        self.leaving = False
        """The worker stops: what the group still hands to it is not taken up, the next owner begins with it."""

    # --- the group's callbacks -----------------------------------------------------------------------------------

    def on_assigned(self, partitions: Sequence[TopicPartition], membership: Membership) -> None:
        """Assign p.

        1. A new assignment: late results of an older one are told apart by it.
        2. The snapshot of the membership, taken on entering the callback (also if it brings nothing).
        3. to 4. The restorer reads offsets and checkpoints; other numbers keep running.
        5. to 6. follow in `restored` and `claimed`.
        """
        self._desk.membership = membership
        self.callbacks += 1
        self._desk.tally.events["rebalance.assigned"] += 1
        if self.leaving:
            return
        numbers = []
        for topic, partition in partitions:
            queue = self._desk.normal_topics.get(topic)
            if queue is not None:
                numbers.append(self._desk.new_number(queue, partition))
        if numbers:
            log.info("numbers.assigned", extra={"numbers": _names(numbers)})
            self._restorer.submit(numbers)

    def on_revoked(self, partitions: Sequence[TopicPartition], membership: Membership) -> None:
        """Revoke p: stop starting, ask running jobs to save and yield, wait a little, flush as released, let go."""
        self._desk.membership = membership
        self.callbacks += 1
        self._desk.tally.events["rebalance.revoked"] += 1
        numbers = self._owned(partitions)
        if not numbers:
            return
        log.info("numbers.revoked", extra={"numbers": _names(numbers)})
        try:
            self.yield_numbers(numbers)
            self._hand_over(numbers)
        finally:
            self._give_up(numbers)

    def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Lost p: it belongs to somebody else already. Drop at once, write nothing."""
        self.callbacks += 1
        self._desk.membership = None
        self._desk.tally.events["rebalance.lost"] += 1
        numbers = self._owned(partitions)
        log.warning("numbers.lost", extra={"numbers": _names(numbers)})
        self._give_up(numbers)

    # --- the way in ----------------------------------------------------------------------------------------------

    def restored(self, found: Restored) -> None:
        """The restorer has read a number back: set it up, then claim it with the next flush."""
        number, desk = found.number, self._desk
        if self.leaving or found.assignment != number.assignment or number.standing is not Standing.RESTORING:
            return
        if found.error is not None:
            self.hold(number, f"restore failed: {found.error}")
            return
        number.epoch = found.epoch
        number.live, number.marks = found.live, found.marks
        number.checkpoint_end = found.checkpoint_end
        for lane, start in found.lanes.items():
            state = number.lanes[lane]
            ranges = start.meta.ranges if start.meta is not None else ()
            state.window = Window(start.offset, ranges)
            state.mark_below = start.meta.read_mark if found.unclean and start.meta is not None else 0
        for unreadable in found.unreadable:
            desk.keep_unreadable(number, *unreadable)
        number.standing = Standing.CLAIMING
        number.touched = True
        desk.urgent = True
        desk.wrote(0, 0)
        desk.tally.sample(desk.tally.restore_seconds, found.seconds)
        desk.tally.events["restores"] += 1
        desk.tally.events["takeovers"] += found.unclean
        log.info(
            "number.restored",
            extra={
                "queue": number.queue.name,
                "number": number.partition,
                "epoch": number.epoch,
                "live": len(number.live),
                "records": found.records,
                "unclean": found.unclean,
                "seconds": round(found.seconds, 3),
            },
        )

    def claimed(self, number: Number) -> None:
        """The claim is committed: live jobs go on, then the lanes are read from where the last owner stopped."""
        desk = self._desk
        number.standing = Standing.ACTIVE
        number.progress_at = desk.clock.monotonic()
        self._bury_leftovers(number)
        lived = [(decode_live_job(view.job), view) for view in number.live.promoted() if view.job is not None]
        lived.sort(key=lambda pair: (pair[0].lane_topic, pair[0].lane_offset))
        restarts = []
        for record, view in lived:
            job = decode_job(record.job)
            if job.key is not None:
                # Live jobs hold their keys before anything is fetched, so order survives a crash.
                number.order.block(job.key, job.id)
            if self._stays_parked(job, record.state):
                number.parked[job.id] = record.until
            else:
                restarts.append((job, record.job, view))
        for job, raw, view in restarts:
            self.restart(number, job, raw, view)
        self._fetch(number)

    def restart(self, number: Number, job: Job, raw: bytes, view: LiveView) -> None:
        """Go on with a job that lives in the checkpoint topic."""
        self._dispatch.ready(self.resumed(number, job, raw, view))

    def resumed(self, number: Number, job: Job, raw: bytes, view: LiveView) -> Attempt:
        """An attempt of a job that lives in the checkpoint topic, with its progress; not started."""
        attempt = self._desk.attempt(number, None, Origin(*number.checkpoints, -1), job, raw)
        resume(attempt, view)
        if view.job is not None:
            attempt.parked_until = decode_live_job(view.job).until
        number.parked.pop(job.id, None)
        self._desk.take(attempt)
        return attempt

    def hold(self, number: Number, reason: str) -> None:
        """One bad partition stops only itself: this number rests until it is assigned anew, with an alarm."""
        self._stop_reading(number)
        number.standing = Standing.HELD
        self._desk.tally.events["held"] += 1
        log.error("number.held", extra={"queue": number.queue.name, "number": number.partition, "reason": reason})

    def yield_numbers(self, numbers: Sequence[Number]) -> None:
        """Stop starting their jobs, and ask the running ones to save and stop."""
        for number in numbers:
            if number.standing in (Standing.ACTIVE, Standing.CLAIMING):
                number.standing = Standing.YIELDING
                number.released = number.touched = True
            for attempt in number.attempts.values():
                attempt.interrupted = True
            self._stop_reading(number)

    # --- parts ---------------------------------------------------------------------------------------------------

    def _owned(self, partitions: Sequence[TopicPartition]) -> list[Number]:
        keys = [
            (queue.name, partition)
            for topic, partition in partitions
            if (queue := self._desk.normal_topics.get(topic)) is not None
        ]
        return [self._desk.numbers[key] for key in keys if key in self._desk.numbers]

    def _give_up(self, numbers: Sequence[Number]) -> None:
        for number in numbers:
            self._stop_reading(number)
            self._desk.drop_number(number)

    def _fetch(self, number: Number) -> None:
        for lane, state in number.lanes.items():
            self._desk.lanes[state.key] = state
            self._readers[lane].assign({state.key: state.window.low})

    def _stop_reading(self, number: Number) -> None:
        for lane in number.lanes.values():
            if self._desk.lanes.pop(lane.key, None) is not None:
                self._readers[lane.lane].unassign([lane.key])

    def _stays_parked(self, job: Job, state: State) -> bool:
        """An unknown type that is known here now goes on at once; a doubt stays until a person decides."""
        return state is State.IN_DOUBT or (state is State.WAITING and job.type not in self._desk.registry)

    def _bury_leftovers(self, number: Number) -> None:
        """Checkpoints whose job is over: ended ones whose mark has served, and those whose home is finished."""
        windows = {lane.topic: lane.window for lane in number.lanes.values()}
        live = number.live
        for job_id in {*live.ended(windows), *live.homeless(windows), *live.orphans()}:
            number.burials.extend(live.keys_of(job_id))
        if number.burials:
            number.touched = True
            self._desk.wrote(len(number.burials), 0)


def _names(numbers: Sequence[Number]) -> str:
    return ",".join(f"{number.queue.name}-{number.partition}" for number in numbers)
