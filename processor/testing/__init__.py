"""Testing jobs without a broker: `Testbed` runs the real worker on a log in memory, in virtual time.

`testbed` is what a test touches, `fleet` its worker processes, `watch` what it sees of the log, `event_loop` lets async
handlers wait in virtual time, `plugin` is the pytest fixture `bed`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from processor.testing.fleet import TestbedError as TestbedError
    from processor.testing.testbed import Testbed as Testbed

_EXPORTS = {"Testbed": "testbed", "TestbedError": "fleet"}


def __getattr__(name: str) -> object:
    # Loaded when it is used: pytest imports this package for its plugin in every run, also in those without jobs.
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"processor.testing.{_EXPORTS[name]}"), name)
