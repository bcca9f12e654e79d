"""The owning thread: it polls, decides and freezes. Handlers, Kafka transactions and restores run elsewhere.

One turn of the loop:

1. Take what executors, flusher, restorer and rereader have posted (`Posts`).
2. Hand out attempts to the pools (`Dispatch`): the next of a key waits for it, so it comes before what costs time.
3. Serve the group: the callbacks of `Ownership` run here.
4. Take records from the lanes, as far as there is room, and admit them (`Fetching`, `Intake`).
5. Freeze a batch and give it to the flusher, if it is time (`Flushing`, `Outbox`).
6. Look after what goes by the clock (`Housekeeping`, `Timers`).
7. Nothing happened: wait a millisecond for something to be posted.

The parts are made and put together in `processor.engine.assembly`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from processor import events
from processor.broker.base import Broker
from processor.engine.assembly import Parts, assemble
from processor.engine.attempt import Sync
from processor.engine.config import WorkerConfig
from processor.engine.groups import Groups
from processor.engine.posts import Posts
from processor.engine.queue_partition import PartitionPhase, QueuePartition
from processor.engine.restore import Restored
from processor.engine.state import EngineState
from processor.errors import BrokerError, MemberFenced
from processor.runtime import Runtime

if TYPE_CHECKING:
    from processor.engine.assembly import MakePool
    from processor.engine.registry import JobTypes

log = events.logger(__name__)

HAND_OVER_FLUSH = 5.0
"""Seconds a revoke waits for its last flush, after the jobs have yielded."""


class Worker:
    """One worker process' engine. `run` is the loop; `stop` may be called from a signal handler or another thread."""

    def __init__(
        self, runtime: Runtime, broker: Broker, config: WorkerConfig, registry: JobTypes, make_pool: MakePool
    ) -> None:
        self.config = config
        self.state = EngineState(runtime, broker, config, registry)
        parts = assemble(self.state, make_pool, self._hand_over)
        self.dispatch = parts.dispatch
        self.ownership = parts.ownership
        self.fetching = parts.fetching
        self.flushing = parts.flushing
        self.housekeeping = parts.housekeeping
        self.background = parts.background
        self.groups = Groups(broker, config, self.ownership.listener)
        self.posts = Posts(self.state.inbox)
        self._listen(parts)
        self._busy_at = 0.0
        self._stopping = False
        self._leave = True
        self.last_turn = 0.0
        """Monotonic seconds of the last turn of the loop: the liveness probe looks at it."""
        self.recycled = False
        """It stopped to get rid of threads that could not be ended."""

    def _listen(self, parts: Parts) -> None:
        """Who takes which kind of post."""
        outcomes, ownership, guard = parts.outcomes, parts.ownership, self.state.guard
        self.posts.of_attempts(outcomes.all_reported)
        self.posts.of(Sync, outcomes.synced)
        self.posts.of(
            Restored,
            lambda found: guard.number_act(found.number, "it was restored", lambda: ownership.restored(found)),
        )
        parts.fetching.listen(self.posts)
        parts.flushing.listen(self.posts)
        parts.housekeeping.listen(self.posts, self.groups)

    # --- from outside --------------------------------------------------------------------------------------------

    def recycle(self) -> None:
        """End the process in good order, to be started anew: threads that nobody can end are ended with it."""
        if not self._stopping:
            log.error("worker.recycles", extra={"stuck": self.housekeeping.timers.stuck})
            self.recycled = True
            self.stop(leave=False)

    def stop(self, *, leave: bool = True) -> None:
        """Ask the loop to end in good order. `leave` False: the same slot restarts at once, without a rebalance."""
        self._stopping = True
        self._leave = leave
        self.state.inbox.wake()

    @property
    def ready(self) -> bool:
        """Whether every number this worker owns is restored, and the group has spoken at least once."""
        standings = {number.phase for number in list(self.state.numbers.values())}
        heard = all(fence.callbacks for fence in self.state.fences.values())
        return heard and not standings & {PartitionPhase.RESTORING, PartitionPhase.CLAIMING}

    def run(self) -> None:
        """Serve until stopped.

        Raises:
            MemberFenced: another process runs with this instance id.
            BrokerRefused: wrong password or missing permission.
        """
        self.flushing.prepare()
        subscribed = False
        try:
            while not self._stopping:
                # No job starts before what operators want is known.
                if self.flushing.prepared and self.housekeeping.operators.informed and not subscribed:
                    self.groups.subscribe_all()
                    subscribed = True
                self._turn(subscribed=subscribed)
            self._shut_down(subscribed=subscribed)
        except BaseException as error:
            log.error("worker.ended", extra={"error": repr(error)})
            self._drop_everything()
            raise

    # --- one turn ------------------------------------------------------------------------------------------------

    def _turn(self, *, subscribed: bool) -> None:
        engine = self.state
        now = self.last_turn = engine.clock.monotonic()
        busy = self.posts.take()
        if self.groups.to_rejoin and not self._stopping:
            # Not among the posts: behind this one there may be the result of the flush under way.
            self._join_again(self.groups.to_rejoin.pop())
        busy += self.dispatch.hand_out()
        if subscribed:
            self._poll_groups()
        busy += self.fetching.turn()
        self.flushing.turn(now, idle=not busy)
        self.housekeeping.turn(now)
        if self.housekeeping.timers.too_many_abandoned:
            self.recycle()
        if not busy:
            config = self.config
            quiet = not engine.inflight_records and now - self._busy_at > config.idle_after
            engine.inbox.wait(config.idle_wait_max if quiet else config.idle_wait)
        else:
            self._busy_at = now

    def _poll_groups(self) -> None:
        try:
            self.groups.poll()
        except MemberFenced:
            raise
        except BrokerError as error:
            if error.code == "broker_refused":
                raise
            log.warning("group.poll_failed", extra={"error": str(error)})

    def _join_again(self, queue: str) -> None:
        """Leave and join: the group rebalances, and what had no owner finds one."""
        log.error("group.orphans", extra={"slot": self.config.slot, "queue": queue})
        self.state.counters.events["rejoined"] += 1
        self.groups.leave(queue)
        self._serve_until(lambda: not any(name == queue for name, _ in self.state.numbers), 5.0, poll=True)
        self.groups.subscribe(queue)

    # --- giving up -----------------------------------------------------------------------------------------------

    def _hand_over(self, numbers: Sequence[QueuePartition]) -> None:
        """Wait until the jobs of these numbers have yielded (bounded), then until their last flush is committed."""
        self._serve_until(lambda: not any(number.jobs.running for number in numbers), self.config.revoke_wait)
        self._serve_until(lambda: self.flushing.is_over_for(numbers), HAND_OVER_FLUSH, flush=True)

    def _serve_until(
        self, done: Callable[[], bool], seconds: float, *, flush: bool = False, poll: bool = False
    ) -> bool:
        """Keep serving posts (and the group, if `poll`) until `done()` or the time is over; whether it is done."""
        engine = self.state
        deadline = engine.clock.monotonic() + seconds
        while not done():
            now = self.last_turn = engine.clock.monotonic()
            if now >= deadline:
                return False
            if poll:
                self._poll_groups()
            if not self.posts.take():
                engine.inbox.wait(0.002)
            self.flushing.turn(now, idle=False, at_once=flush)
            for ready_queue in self.dispatch.ready_queues.values():
                ready_queue.pool.nudge()
        return True

    def _shut_down(self, *, subscribed: bool) -> None:
        """Stop: yield, wait (bounded by the grace), flush as released, leave the group, close."""
        self.ownership.leaving = True
        numbers = list(self.state.numbers.values())
        self.ownership.yield_numbers(numbers)
        finished = self._serve_until(lambda: not self.dispatch.awaited, self.config.grace, poll=subscribed)
        if not finished:
            log.warning("worker.grace_over", extra={"running": len(self.dispatch.awaited)})
        self.housekeeping.timers.save_running()
        self._serve_until(lambda: self.flushing.is_over_for(numbers), HAND_OVER_FLUSH, flush=True, poll=subscribed)
        if subscribed and self._leave:
            # With static membership a plain close would leave partitions idle until the session times out
            # (measured: 10 s against 0.9 s).
            self.groups.leave_all()
            self._serve_until(lambda: not self.state.numbers, 2.0, poll=True)
        self._close()

    def _drop_everything(self) -> None:
        for number in list(self.state.numbers.values()):
            self.state.drop_number(number)
        self._close()

    def _close(self) -> None:
        for ready_queue in self.dispatch.ready_queues.values():
            ready_queue.pool.stop(0.5)
        self.flushing.stop(2.0)
        self.background.stop()
        self.fetching.close()
        self.groups.close()
