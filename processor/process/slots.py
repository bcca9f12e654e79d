"""Slots: a name for this process that its restart takes again, and nobody else meanwhile.

The slot is the `group.instance.id` and the end of the `transactional.id`. A restarted process that takes its old slot
keeps its numbers without a rebalance and ends its predecessor's transaction at once; two processes in one slot would
fence each other. So a slot is a locked file in the state folder: the lowest free number of this host, or a given name.
The kernel drops the lock with the last process that holds the file, however that process ends.

In a container the host's name is the pod's and the folder is empty, so a pod of a StatefulSet gets the same slot again.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
from pathlib import Path

from processor.errors import SettingsError

MOST_SLOTS = 1000
"""Slots of one host and namespace; more is a mistake somewhere."""


class Slot:
    """A taken slot. It is free again when it is closed in every process that holds it."""

    def __init__(self, name: str, path: Path, descriptor: int) -> None:
        self.name = name
        self.path = path
        self._descriptor: int | None = descriptor

    def __repr__(self) -> str:
        return f"Slot({self.name!r})"

    def close(self) -> None:
        """Let go in this process. A process forked meanwhile holds the slot until it lets go too, or ends."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def default_state_dir() -> Path:
    """Where the locks lie unless `worker.state_dir` says otherwise: `$XDG_STATE_HOME`, else `~/.local/state`."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "kafka-job-processor"


def take_slots(namespace: str, state_dir: str, count: int = 1, *, instance: str | None = None) -> list[Slot]:
    """Take `count` slots: the lowest free numbers of this host, or `instance` (several: `instance-0`, ...).

    Args:
        namespace: of the app; the same name in another namespace is another slot.
        state_dir: the folder of the locks; empty: `default_state_dir`.
        count: how many.
        instance: a name of the caller's choice.

    Raises:
        SettingsError: the named slot is taken, all are, or the folder cannot be written.
    """
    folder = (Path(state_dir) if state_dir else default_state_dir()) / "slots" / namespace
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if instance is None:
            return _lowest_free(folder, count)
        names = [instance] if count == 1 else [f"{instance}-{index}" for index in range(count)]
        return _named(folder, names)
    except OSError as error:
        raise SettingsError(
            f"slots are locked in {folder}, which cannot be written: {error.strerror}",
            hint="set worker.state_dir to a folder that this user can write",
        ) from error


def _lowest_free(folder: Path, count: int) -> list[Slot]:
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname()) or "host"
    slots: list[Slot] = []
    for number in range(MOST_SLOTS):
        slot = _try(folder, f"{host}-{number}")
        if slot is not None:
            slots.append(slot)
        if len(slots) == count:
            return slots
    for slot in slots:
        slot.close()
    raise SettingsError(f"{MOST_SLOTS} slots of {folder} are taken", hint="stop workers that are not needed")


def _named(folder: Path, names: list[str]) -> list[Slot]:
    slots: list[Slot] = []
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,120}", name):
            raise SettingsError(f"instance {name!r} is not allowed", hint="use 1 to 120 of letters, digits, . _ and -")
        slot = _try(folder, name)
        if slot is None:
            for taken in slots:
                taken.close()
            holder = (folder / f"{name}.lock").read_text("utf-8").strip()
            raise SettingsError(
                f"slot {name} is taken by process {holder or 'unknown'}",
                hint="stop that worker, give another --instance, or none to get a free slot",
            )
        slots.append(slot)
    return slots


def _try(folder: Path, name: str) -> Slot | None:
    path = folder / f"{name}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    # For whoever looks which process it is. The file stays: removing it would let two processes lock two files.
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return Slot(name, path, descriptor)
