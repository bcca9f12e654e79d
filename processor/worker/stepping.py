"""A runtime that runs exactly one actor at a time, in an order drawn from a seed, on a manual clock.

Each actor is a thread, but it only runs while it holds the baton. It gives the baton away when it waits. When nobody can
run, the clock jumps to the earliest deadline. The same seed and the same program give the same run: simulation and the
Testbed stand on this.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Final

from processor.clock import ManualClock
from processor.worker.runtime import Actor, Signal


class ActorKilled(BaseException):
    """Ends an actor of a killed group at its next wait: the simulation's SIGKILL."""


class Deadlock(RuntimeError):
    """Every actor waits without a deadline: nothing can ever happen again."""


class _SteppingActor:
    def __init__(self, name: str, group: str) -> None:
        self.name = name
        self.group = group
        self.turn = threading.Semaphore(0)
        self.alive = True
        self.killed = False
        self.ready: Callable[[], bool] | None = None
        """While waiting: whether it may go on before its deadline."""
        self.deadline: float | None = None
        self.runtime: SteppingRuntime | None = None

    def join(self, timeout: float | None = None) -> bool:
        assert self.runtime is not None  # noqa: S101  (set by start)
        return self.runtime.wait_for(lambda: not self.alive, timeout)


class _SteppingSignal:
    __slots__ = ("_flag", "_runtime")

    def __init__(self, runtime: SteppingRuntime) -> None:
        self._runtime = runtime
        self._flag = False

    def set(self) -> None:
        self._flag = True

    def wait(self, timeout: float | None) -> bool:
        self._runtime.wait_for(lambda: self._flag, timeout)
        was, self._flag = self._flag, False
        return was


MAIN: Final = "main"


class SteppingRuntime:
    """See the module. The thread that makes it is an actor too (group `main`)."""

    def __init__(self, *, seed: int = 0, clock: ManualClock | None = None) -> None:
        self.clock = clock or ManualClock()
        self.random = random.Random(seed)
        self._group = MAIN
        main = _SteppingActor(MAIN, MAIN)
        self._actors: list[_SteppingActor] = [main]
        self._current = main
        self.steps = 0

    def start(self, name: str, run: Callable[[], None]) -> Actor:
        actor = _SteppingActor(name, self._current.group if self._group == MAIN else self._group)
        actor.runtime = self
        actor.ready = lambda: True
        self._actors.append(actor)
        threading.Thread(target=self._live, args=(actor, run), name=name, daemon=True).start()
        return actor

    def signal(self) -> Signal:
        return _SteppingSignal(self)

    def group(self, name: str) -> _Group:
        """Actors started inside `with runtime.group("worker-1")` (and by those actors) can be killed together."""
        return _Group(self, name)

    def kill(self, group: str) -> None:
        """Every actor of the group ends at its next wait; nothing of it runs again."""
        for actor in self._actors:
            if actor.group == group:
                actor.killed = True
        if self._current.killed:
            raise ActorKilled(group)

    def wait_for(self, ready: Callable[[], bool], timeout: float | None) -> bool:
        """Give the baton away until `ready()` holds or `timeout` virtual seconds passed; whether it holds."""
        me = self._current
        if me.killed:
            raise ActorKilled(me.name)
        if timeout is not None and timeout <= 0:
            return ready()
        me.ready = ready
        me.deadline = None if timeout is None else self.clock.monotonic() + timeout
        self._hand_over(me)
        if me.killed:
            raise ActorKilled(me.name)
        return ready()

    def breathe(self) -> None:
        """Let others run before going on."""
        self.wait_for(lambda: True, 0.000_001)

    def _live(self, actor: _SteppingActor, run: Callable[[], None]) -> None:
        actor.turn.acquire()
        try:
            if not actor.killed:
                run()
        except ActorKilled:
            pass
        finally:
            actor.alive = False
            self._actors.remove(actor)
            self._pass_baton(None)

    def _hand_over(self, me: _SteppingActor) -> None:
        if self._pass_baton(me):
            me.turn.acquire()

    def _pass_baton(self, me: _SteppingActor | None) -> bool:
        """Choose who runs next; False if it is `me`."""
        chosen = self._choose()
        self.steps += 1
        self._current = chosen
        chosen.ready = None
        if chosen is me:
            return False
        chosen.turn.release()
        return True

    def _choose(self) -> _SteppingActor:
        while True:
            now = self.clock.monotonic()
            runnable = [
                a
                for a in self._actors
                if a.killed or (a.deadline is not None and a.deadline <= now) or (a.ready is not None and a.ready())
            ]
            if runnable:
                return runnable[0] if len(runnable) == 1 else self.random.choice(runnable)
            deadlines = [a.deadline for a in self._actors if a.deadline is not None]
            if not deadlines:
                raise Deadlock(", ".join(a.name for a in self._actors))
            self.clock.advance(max(min(deadlines) - now, 0.000_001))


class _Group:
    def __init__(self, runtime: SteppingRuntime, name: str) -> None:
        self._runtime = runtime
        self._name = name

    def __enter__(self) -> None:
        self._runtime._group = self._name

    def __exit__(self, *exc: object) -> None:
        self._runtime._group = MAIN
