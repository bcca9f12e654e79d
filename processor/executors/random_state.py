"""Global random states that processes would share: whoever is forked draws the same numbers as its siblings.

Python's own `random` is seeded anew in a forked process; that of other libraries is not, so two workers' jobs would
have the same "random" names, samples and backoffs, and again after each restart. Who wants a fixed seed sets it in a
start hook, which runs later.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from types import ModuleType

from processor import events
from processor.texts import message_of

log = events.logger(__name__)

_RESEED: dict[str, Callable[[ModuleType], object]] = {
    "numpy.random": lambda module: module.seed(),
    "cupy.random": lambda module: module.seed(),
    "torch": lambda module: module.seed(),
}
"""Loaded modules with a global state -> how to seed it by chance."""


def reseed() -> None:
    """Seed the global random states of what is loaded, by chance, in this process alone. Raises nothing."""
    random.seed()
    for name, seed in _RESEED.items():
        module = sys.modules.get(name)
        if module is None:
            continue
        try:
            seed(module)
        except Exception as error:  # noqa: BLE001  (a library's own code, of whatever version)
            log.warning("random.not_reseeded", extra={"library": name, "error": message_of(error)})
