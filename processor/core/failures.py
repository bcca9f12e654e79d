"""The failed attempts of a life, as they are carried from one attempt to the next and into the dead letter. Pure.

Every failure is kept, with its class, message, place and time. What is cut to fit, in this order: a traceback that is
the same as the one before it, the older tracebacks, long messages, and at last the failures in the middle, so that how
it began and how it ended is always there.
"""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Sequence

from processor.errors import ProcessorError
from processor.job import ErrorInfo, Failure
from processor.texts import message_of, name_of_class, place_of, plain, traceback_of

BUDGET = 64 * 1024
"""Bytes of text that the failures of a life may take in its record."""
MESSAGE = 300
"""Characters left of a message once there is no room."""
_OVERHEAD = 24
"""Bytes of a failure beside its text."""


def failed(error: ErrorInfo, *, attempt: int, worker: str, at: int) -> Failure:
    """An error as a failed attempt."""
    return Failure(*error, attempt, worker, at)


def brief(error: ErrorInfo) -> ErrorInfo:
    """As a status tells it: in place of the traceback where it was raised."""
    return error._replace(traceback=place_of(error.traceback))


def remembered(before: Sequence[Failure], last: Failure, budget: int = BUDGET) -> list[Failure]:
    """The failures of a life with one more, oldest first, within `budget` bytes of text; the last is never left out."""
    kept = [*before, last]
    if before and before[-1].traceback and before[-1].traceback == last.traceback:
        kept[-2] = before[-1]._replace(traceback="")
    size = sum(map(_size, kept))
    for index in range(len(kept) - 1):
        if size <= budget:
            return kept
        size -= _bytes(kept[index].traceback)
        kept[index] = kept[index]._replace(traceback="")
    for index, failure in enumerate(kept):
        if size <= budget:
            return kept
        kept[index] = _shortened(failure)
        size += _size(kept[index]) - _size(failure)
    while size > budget and len(kept) > 2:
        size -= _size(kept.pop(len(kept) // 2))
    return kept


def _shortened(failure: Failure) -> Failure:
    return failure._replace(message=failure.message[:MESSAGE], traceback=failure.traceback[-4 * MESSAGE :])


def _size(failure: Failure) -> int:
    texts = (failure.kind, failure.message, failure.traceback, failure.fingerprint, failure.worker)
    return sum(map(_bytes, texts)) + _OVERHEAD


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def error_info(error: BaseException) -> ErrorInfo:
    """An exception as strings, with a fingerprint that is the same for the same error at the same place.

    Never raises: whatever the exception's own code does, what comes out is plain and bounded.
    """
    kind = name_of_class(type(error))
    frames = traceback.extract_tb(error.__traceback__)
    place = "|".join(f"{frame.filename.rsplit('/', 1)[-1]}:{frame.name}" for frame in frames[-3:])
    digest = hashlib.blake2b(f"{kind}|{place}".encode(errors="replace"), digest_size=6).hexdigest()
    message = message_of(error)
    if isinstance(error, ProcessorError) and error.hint:
        message = plain(f"{message} ({message_of(error.hint)})")
    return ErrorInfo(kind, message, traceback_of(error), digest)
