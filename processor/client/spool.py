"""Jobs that wait in a local file while the log cannot be reached: sent in order, once, when it is back.

A folder holds one file per process that spooled, `{namespace}.{pid}-{time}.spool`, locked by that process: one JSON
line per job, on the disk before its enqueue returns. Beside it `.sent` says up to which byte the log has confirmed. Who
finds a file that nobody holds the lock of (its process has died) sends it. What was sent and not noted as sent when a
process died is sent again with the same id, as a repeat: the worker runs it once.

1. Read from where `.sent` points. 2. Send, in order, and wait for the log. 3. Note it. 4. A file that is sent whole is
emptied, after its note was set back: a crash between the two sends it again, which changes nothing.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from processor import events
from processor.core.idempotency import UNTILS
from processor.errors import EnqueueError, EnqueueUnconfirmed, ProcessorError, RecordError
from processor.job import Job, Lane
from processor.wire.codec import decode_job, encode

log = events.logger(__name__)

CHUNK = 500
"""Jobs that are sent and noted together."""
REFUSED = ".refused"
"""Ends the file of jobs that the log did not take; the next process that opens the folder tries them once more."""
PERIOD = 0.5
"""Seconds until the log is tried again."""


class Spooled(NamedTuple):
    """A job in the file."""

    job: Job
    lane: Lane
    until: str | None
    """How long its idempotency key keeps others out."""


Send = Callable[[list[Spooled]], object]
"""Sends jobs in order and waits for the log; raises a ProcessorError if it does not have all of them."""


class SpoolFile:
    """One file, locked."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._note = path.with_suffix(".sent")
        self._lock = threading.Lock()
        whole = self._end = self._whole()
        """Behind the last line that is on the disk: only what is before it is sent."""
        if whole < os.fstat(descriptor).st_size:
            # The process died while it wrote the last line: that enqueue never returned.
            os.ftruncate(descriptor, whole)
        self._sent = min(self._read_note(), whole)

    @classmethod
    def take(cls, path: Path, *, create: bool = False) -> SpoolFile | None:
        """Lock a file; None: another process has it, or it is gone, or we have no right to it.

        Raises:
            OSError: it could not be made.
        """
        flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        try:
            descriptor = os.open(path, flags, 0o600)
        except FileNotFoundError:
            if create:
                raise
            return None
        except OSError as error:
            if create:
                raise
            log.warning("client.spool.unusable", extra={"file": str(path), "error": str(error)})
            return None
        try:
            if create:
                _sync_names(path.parent)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        return cls(path, descriptor)

    @property
    def waiting(self) -> bool:
        """Whether something is to be sent."""
        return self._sent < self._end

    def append(self, job: Job, lane: Lane, until: str | None) -> None:
        """Keep a job; it is on the disk when this returns.

        Raises:
            OSError: the disk is full, or the like; nothing is kept.
        """
        line = _line_of(job, lane, until)
        with self._lock:
            before = self._end
            try:
                written = os.write(self._descriptor, line)
                if written < len(line):
                    raise OSError(f"{self.path}: only {written} of {len(line)} bytes were written")
                os.fdatasync(self._descriptor)
            except OSError:
                os.ftruncate(self._descriptor, before)
                raise
            self._end = before + len(line)

    def send(self, send: Send) -> int:
        """Send what waits; how many jobs that were.

        Raises:
            ProcessorError: the log does not have all of it; what it confirmed is noted.
        """
        count = 0
        while self.waiting:
            chunk, end = self._chunk()
            if end == self._sent:
                break  # a line that is being written
            if chunk:
                self._deliver(chunk, send)
            count += len(chunk)
            self._write_note(end)
        with self._lock:
            if self._sent and self._sent >= self._end:
                self._write_note(0)
                # Were the old note still there after a crash, it would hide the jobs that come next.
                _sync_names(self.path.parent)
                os.ftruncate(self._descriptor, 0)
                self._end = 0
        return count

    def _deliver(self, chunk: list[Spooled], send: Send) -> None:
        """Send; a job that the log will never take is kept aside, and holds up no other."""
        try:
            send(chunk)
            return
        except EnqueueUnconfirmed:
            raise
        except EnqueueError as error:
            if len(chunk) == 1:
                told = {"job_id": chunk[0].job.id, "file": str(self.path.with_suffix(REFUSED)), "error": str(error)}
                log.error("client.spool.refused", extra=told)
                self._keep_aside(REFUSED, _line_of(*chunk[0]))
                return
        for spooled in chunk:
            self._deliver([spooled], send)

    def _keep_aside(self, suffix: str, line: bytes) -> None:
        with self.path.with_suffix(suffix).open("ab") as kept:
            kept.write(line)
            kept.flush()
            os.fdatasync(kept.fileno())

    def _chunk(self) -> tuple[list[Spooled], int]:
        """The next jobs, and where what comes behind them begins."""
        chunk: list[Spooled] = []
        end = self._sent
        with self.path.open("rb") as lines:
            lines.seek(end)
            for _ in range(CHUNK):
                line = lines.readline()
                if not line.endswith(b"\n") or end + len(line) > self._end:
                    break
                end += len(line)
                try:
                    chunk.append(_spooled(line))
                except (ValueError, LookupError, TypeError, RecursionError, RecordError):
                    log.exception("client.spool.unreadable", extra={"file": str(self.path), "end": end})
                    self._keep_aside(".unreadable", line)
        return chunk, end

    def _whole(self) -> int:
        """Where the last whole line ends."""
        data = self.path.read_bytes()
        return data.rfind(b"\n") + 1

    def _read_note(self) -> int:
        try:
            return max(0, int(self._note.read_text() or 0))
        except (OSError, ValueError):
            return 0  # everything once more: the repeats run once

    def _write_note(self, end: int) -> None:
        self._sent = end
        fresh = self._note.with_suffix(".new")
        with fresh.open("w") as note:
            note.write(str(end))
            note.flush()
            os.fdatasync(note.fileno())
        fresh.replace(self._note)

    def forget(self) -> None:
        """The lock is another process's as well: let only that one have it."""
        os.close(self._descriptor)

    def close(self) -> None:
        """Let go of it, and delete it if nothing waits."""
        if not self.waiting:
            self.path.unlink(missing_ok=True)
            self._note.unlink(missing_ok=True)
        os.close(self._descriptor)


def _line_of(job: Job, lane: Lane, until: str | None) -> bytes:
    text = {"job": base64.b64encode(encode(job)).decode(), "id": job.id, "lane": lane.value, "until": until}
    return json.dumps(text).encode() + b"\n"


def _spooled(line: bytes) -> Spooled:
    """A line as the job in it.

    Raises:
        ValueError, LookupError, TypeError, RecursionError, RecordError: it is none.
    """
    told = json.loads(line)
    found = Spooled(decode_job(base64.b64decode(told["job"])), Lane(told["lane"]), told["until"])
    if not found.job.queue or found.until not in (None, *UNTILS):
        raise ValueError("a job without a queue, or until nobody knows when")
    return found


def _sync_names(folder: Path) -> None:
    """See that what was made or renamed in a folder is on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Spool:
    """The folder of a namespace: this process's own file, those that dead processes left, and the thread that sends."""

    def __init__(self, folder: Path, namespace: str, send: Send) -> None:
        self._folder = folder
        self._namespace = namespace
        self._send = send
        self._lock = threading.Lock()
        self._own: SpoolFile | None = None
        self._left: list[SpoolFile] = []
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Look for what dead processes left, and begin to send it."""
        with self._lock:
            try:
                self._adopt()
            except OSError as error:  # no reason to refuse an enqueue while the log answers
                log.warning("client.spool.unusable", extra={"folder": str(self._folder), "error": str(error)})
            if self._left:
                self._start()

    @property
    def waiting(self) -> bool:
        """Whether jobs wait here: then the next one goes behind them."""
        own = self._own
        return bool(self._left) or (own is not None and own.waiting)

    @property
    def closing(self) -> bool:
        """Whether nobody is to wait for the log any more: what it does not have stays in the file."""
        return self._stop.is_set()

    def append(self, job: Job, lane: Lane, until: str | None) -> bool:
        """Keep a job until the log can be reached; False: this was closed, its files are free for the next one.

        Raises:
            OSError: it could not be written.
        """
        with self._lock:
            if self.closing:
                return False
            if self._own is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                name = f"{self._namespace}.{os.getpid()}-{time.time_ns()}.spool"
                self._own = SpoolFile.take(self._folder / name, create=True)
                if self._own is None:
                    raise OSError(f"{self._folder / name} cannot be locked")
            self._own.append(job, lane, until)
            self._start()
            return True

    def close(self) -> None:
        """Stop sending. What waits stays in its file. Who appends meanwhile waits, and then finds it closed."""
        self._stop.set()
        self._wake.set()
        with self._lock:
            if self._thread is not None:
                self._thread.join()
            for file in [*self._left, *([] if self._own is None else [self._own])]:
                file.close()
            self._left, self._own = [], None

    def forget(self) -> None:
        """In the child of a fork: the files, and the jobs in them, are the parent's."""
        for file in [*self._left, *([] if self._own is None else [self._own])]:
            file.forget()

    def _adopt(self) -> None:
        for path in sorted(self._folder.glob(f"{self._namespace}.*{REFUSED}")):
            # Once more, in case the cause is mended; whose spool is still there may still write to it.
            if not path.with_suffix(".spool").exists():
                with suppress(FileNotFoundError):  # another process was faster
                    path.rename(self._folder / f"{self._namespace}.{os.getpid()}-{time.time_ns()}.spool")
        mine = {file.path for file in self._left} | (set() if self._own is None else {self._own.path})
        for path in sorted(self._folder.glob(f"{self._namespace}.*.spool")):
            file = None if path in mine else SpoolFile.take(path)
            if file is not None:
                self._left.append(file)

    def _start(self) -> None:
        self._wake.set()
        if self._thread is None:
            # A daemon: what it has not sent is on the disk.
            self._thread = threading.Thread(target=self._run, name="processor-spool", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait()
            self._wake.clear()
            while self.waiting and not self._stop.is_set():
                try:
                    self._send_all()
                except (ProcessorError, OSError) as error:
                    log.warning("client.spool.waits", extra={"folder": str(self._folder), "error": str(error)})
                    self._stop.wait(PERIOD)
                except Exception:
                    # Whatever it is: without this thread nothing that is kept here would ever be sent.
                    log.exception("client.spool.failed", extra={"folder": str(self._folder)})
                    self._stop.wait(PERIOD)

    def _send_all(self) -> None:
        """The oldest first: what dead processes left, then this one's."""
        while self._left:
            file = self._left[0]
            count = file.send(self._send)
            log.info("client.spool.sent", extra={"file": str(file.path), "jobs": count})
            file.close()
            del self._left[0]
        own = self._own
        if own is not None and own.waiting:
            count = own.send(self._send)
            log.info("client.spool.sent", extra={"file": str(own.path), "jobs": count})
