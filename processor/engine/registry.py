"""What the worker asks of the application: which job types there are and what to run for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from processor.policies import JobOptions


class RunnableJob(Protocol):
    """A job type as the worker sees it; `processor.app.JobType` is one."""

    name: str
    kind: str
    """`sync` or `async`."""
    executor: str
    """`thread` or `process` for sync handlers."""
    handler: Callable[..., Any]
    takes_payload: bool
    options: JobOptions
    """Its policy: retries and deadlines."""

    def check(self) -> None:
        """Find out what can never work, before anything runs.

        Raises:
            DefinitionError: for instance a return annotation that cannot be read back from JSON.
        """
        ...

    def decode_payload(self, data: bytes, version: int) -> Any:
        """The payload, upgraded to the current version.

        Raises:
            PayloadInvalid: the model refuses it.
            NewerRecord: written by a newer version of the code.
        """
        ...

    def encode_result(self, value: Any, max_bytes: int) -> bytes | None:
        """JSON of a handler's return value.

        Raises:
            ResultType: it cannot be written.
            ResultTooLarge: it is longer than `max_bytes`.
        """
        ...


JobTypes = Mapping[str, RunnableJob]
