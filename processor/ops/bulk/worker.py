"""Runs bulk actions, on a thread beside the dashboard. Of several dashboards one does; another goes on when it dies.

It is the engine with one queue. It joins once the queue is there: a namespace in which nobody has ever begun a bulk has
neither its topics nor its worker. Like every worker it helps to move on what waits in the retry chain; it fires no
schedules, which are the app's.
"""

from __future__ import annotations

import re
import socket
import threading
from dataclasses import replace

from processor import events
from processor.admin import verify_topics
from processor.engine.config import WorkerConfig
from processor.engine.loop import Worker
from processor.errors import ProcessorError, SettingsError
from processor.executors.pools import make_pool
from processor.ops.bulk.job import Bulks
from processor.process.service import ServeOptions, worker_config
from processor.process.slots import Slot, take_slots
from processor.runtime import ThreadedRuntime

log = events.logger(__name__)

LOOK_EVERY = 10.0
"""Seconds between two looks whether somebody has begun a bulk elsewhere."""
AFTER_ERROR = 5.0
IDLE = 0.05
"""Longest sleep of its loop, seconds: it has mostly nothing to do."""
STOP = 10.0
"""Seconds until it is left behind, as in a crash, when the process ends."""
_SLOTS = 100


class BulkWorker:
    """Serves the queue of bulk actions from a thread of its own."""

    def __init__(self, bulks: Bulks) -> None:
        self._bulks = bulks
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._worker: Worker | None = None
        self._thread = threading.Thread(target=self._run, name="bulk", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End: what runs saves and yields, for another dashboard or the next start of this one."""
        self._stopping.set()
        self._bulks.begun.set()
        with self._lock:
            if self._worker is not None:
                self._worker.stop(leave=True)
        self._thread.join(STOP)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if self._bulks.is_begun():
                    self._serve()
                else:
                    self._bulks.begun.wait(LOOK_EVERY)
            except ProcessorError as error:
                log.warning("bulk.worker.waits", extra={"error": str(error)})
                self._stopping.wait(AFTER_ERROR)

    def _serve(self) -> None:
        app = self._bulks.app
        self._bulks.open()
        broker = app.broker()
        verify_topics(broker, app.topic_plan())
        slot = _slot(app.namespace, app.settings().worker.state_dir)
        try:
            config = self._config(slot)
            with self._lock:
                if self._stopping.is_set():
                    return
                self._worker = Worker(ThreadedRuntime(), broker, config, app.job_types, make_pool)
            self._worker.run()
        finally:
            slot.close()
            with self._lock:
                self._worker = None

    def _config(self, slot: Slot) -> WorkerConfig:
        app = self._bulks.app
        made = worker_config(app, app.settings(), slot.name, ServeOptions(concurrency=4))
        return replace(made, schedules=False, idle_wait_max=IDLE, grace=min(made.grace, STOP / 2))


def _slot(namespace: str, state_dir: str) -> Slot:
    """One that no worker of the app would take."""
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:80] or "host"
    for number in range(_SLOTS):
        try:
            return take_slots(namespace, state_dir, instance=f"dashboard-{host}-{number}")[0]
        except SettingsError:
            if number == _SLOTS - 1:
                raise
    raise AssertionError("the last one returns or raises")
