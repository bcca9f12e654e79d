"""SIGTERM, SIGINT and SIGHUP of one process, heard from before the user's code is imported until the process ends.

Python runs a signal's handler on the main thread, when that comes round to it: not while an import connects to a
database or a start hook waits for a broker that is away. So a thread listens on the pipe that the interpreter writes
each signal to (`set_wakeup_fd`), and sees to it that a stop is over in time whatever the main thread is doing:

1. Before there is a worker nothing has been begun: the main thread is told by a SystemExit, and what does not listen
   to that is ended `START_PATIENCE` later. Exit code 0.
2. Then the worker is asked to stop. What is not over `LATE` after its grace is ended: its jobs go on elsewhere from
   their last checkpoint, as after a crash. Exit code 0 as well: nothing is wrong with this process.
3. A second stop ends at once, with exit code 1; one that comes within `SAME_WISH` is the same: `timeout` sends its
   signal to its command and then to the whole group. Under a supervisor only that one's second stop counts.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from processor import events
from processor.executors.fork_signals import STOPS, default_in_forks
from processor.signals import ProcessStopped

log = events.logger(__name__)

SAME_WISH = 1.0
"""Seconds within which another signal is the same wish to stop."""
START_PATIENCE = 1.5
"""Seconds until a process that has no worker yet is ended."""
LATE = 1.5
"""Seconds after the grace until a worker that has not come to its end is ended."""

LAST_WORDS = 0.3
"""Seconds that what was printed and the log have to leave a process that is ended."""

Act = Callable[[bool], None]
"""Asks the worker to stop; whether it is to leave its group."""


class StopSignals:
    """The signals of this process. Made on the main thread; `hand_to` gives them to the worker once there is one."""

    def __init__(self, *, supervised: bool = False, hang_up: bool = True) -> None:
        """Listen from now on.

        Args:
            supervised: a supervisor passes on what is meant for this process: SIGINT, and a second stop.
            hang_up: SIGHUP ends the process, which somebody starts anew. False: there is nothing to start anew yet.
        """
        self.pending: list[int] = []
        """Signals that nobody has acted on, once it is closed."""
        self._stops = {signal.SIGTERM} if supervised else {signal.SIGTERM, signal.SIGINT}
        self._supervised = supervised
        self._hang_up = hang_up
        self._lock = threading.Lock()
        self._act: Act | None = None
        self._patience = START_PATIENCE
        self._wish: bool | None = None
        """Whether to leave the group; None: nobody wants it to stop."""
        self._wished_at = 0.0
        self._stopped_at: float | None = None
        """When the first stop came; a SIGHUP is none."""
        self._raised = False
        """The main thread was told of a stop by an exception."""
        self._closed = False
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        default_in_forks()
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in STOPS:
            signal.signal(number, self._heard)
        self.thread = threading.Thread(target=self._listen, name="signals", daemon=True)
        self.thread.start()

    def hand_to(self, act: Act, grace: float) -> None:
        """From now on `act` is called, also for a wish that came before. `grace`: seconds a stop may take."""
        with self._lock:
            self._act, self._patience = act, grace + LATE
            if self._wish is not None:
                act(self._wish)
        self._wake()

    def close(self) -> None:
        """End the thread: a process that is to fork has one. Signals that come from now on are `pending`."""
        self._closed = True
        self._wake()
        self.thread.join()
        if self._wish is not None:
            # The user's module has swallowed it.
            self.pending.insert(0, signal.SIGTERM)

    # --- the main thread -----------------------------------------------------------------------------------------

    def _heard(self, number: int, _frame: FrameType | None) -> None:
        if self._closed:
            self.pending.append(number)
            return
        # An event loop of the main thread, in a start hook, takes the descriptor for itself and lets go of it.
        if signal.set_wakeup_fd(self._write, warn_on_full_buffer=False) != self._write:
            self._wake(number)
        if self._act is None and self._is_wish(number):
            self._raised = True
            raise ProcessStopped(0)

    @contextmanager
    def outlives_c_code(self) -> Iterator[None]:
        """Around a start: a stop that is raised inside a library's C code may come out of it as some other error.

        Raises:
            ProcessStopped: a stop came, whatever has become of its exception.
        """
        try:
            yield
        except Exception:
            if self._raised and self._act is None:
                raise ProcessStopped(0) from None
            raise

    # --- the listening thread ------------------------------------------------------------------------------------

    def _listen(self) -> None:
        while not self._closed:
            due = self._due()
            readable, _, _ = select.select([self._read], [], [], due)
            if readable:
                for number in os.read(self._read, 4096):
                    self._take(number)
            elif due is not None and not self._due():
                self._end(0, "worker.stop_overdue")

    def _due(self) -> float | None:
        """Seconds until the process is to be over; None: nobody wants that."""
        if self._wish is None:
            return None
        return max(0.0, self._wished_at + self._patience - time.monotonic())

    def _is_wish(self, number: int) -> bool:
        return number in self._stops or (number == signal.SIGHUP and self._hang_up)

    def _take(self, number: int) -> None:
        if not self._is_wish(number):
            return
        now = time.monotonic()
        leave = number != signal.SIGHUP
        if leave:
            if self._stopped_at is not None and now - self._stopped_at >= SAME_WISH and not self._supervised:
                self._end(1, "worker.stopped_at_once")
            self._stopped_at = self._stopped_at or now
        with self._lock:
            self._wished_at = self._wished_at or now
            self._wish = leave or bool(self._wish)
            if self._act is not None:
                self._act(self._wish)

    def _end(self, code: int, event: str) -> None:
        seconds = round(time.monotonic() - self._wished_at, 1)

        def last_words() -> None:
            log.warning(event, extra={"seconds": seconds, "exit_code": code})
            with suppress(Exception):
                sys.stdout.flush()

        # Not here: whoever reads may have stopped reading.
        saying = threading.Thread(target=last_words, name="last-words", daemon=True)
        saying.start()
        saying.join(LAST_WORDS)
        os._exit(code)

    def _wake(self, number: int = 0) -> None:
        with suppress(BlockingIOError):
            os.write(self._write, bytes([number]))
