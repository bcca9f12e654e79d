"""What an operator wants replayed, as it was typed. Pure.

The same words give the same name, and the name gives the ids of the new jobs: so a command that is run again is the
same replay, and goes on with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, NamedTuple

from processor.errors import ReplayError
from processor.job import Job
from processor.states import State
from processor.wire.durations import parse_duration

UNKNOWN = "unknown"
"""State of a finished job whose status the log has forgotten (`topics.status_retention`)."""
STATES = (*(state.value for state in State), UNKNOWN)
"""What a job can be chosen by."""
_INDEX = re.compile(r"\d{1,18}", re.ASCII)
_OFFSET = re.compile(r"(?:(\d{1,9})@)?(\d{1,18})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One replay. Empty sets of words mean: any."""

    namespace: str
    queues: tuple[str, ...] = ()
    everything: bool = False
    """All that the queues still hold."""
    ids: tuple[str, ...] = ()
    since: str | None = None
    """Enqueued at this moment or later: ISO 8601, or a length of time ago."""
    until: str | None = None
    """Enqueued before this moment."""
    from_offsets: tuple[str, ...] = ()
    """`OFFSET` of every partition, or `NUMBER@OFFSET`: then only the partitions that are named."""
    to_offsets: tuple[str, ...] = ()
    """The first offset that is not meant any more, in the same form."""
    source_lane: str | None = None
    """Only this lane."""
    types: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    """Ordering keys."""
    states: tuple[str, ...] = ()
    where: tuple[str, ...] = ()
    """Payload tests, `PATH=VALUE`; all must hold."""
    to_namespace: str | None = None
    to_queue: str | None = None
    lane: str = "normal"
    """Of the queue that it goes into."""
    same_ids: bool = False
    from_checkpoint: bool = False

    @property
    def target(self) -> str:
        """The namespace that it goes into."""
        return self.to_namespace or self.namespace

    @property
    def moves(self) -> bool:
        """Whether it goes into another namespace."""
        return self.target != self.namespace

    def __post_init__(self) -> None:
        # The order in which options were typed says nothing: they are the same replay.
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, tuple):
                object.__setattr__(self, one.name, tuple(sorted(set(value))))

    def name(self) -> str:
        """The name of a replay that was given none: a digest of what is wanted.

        What was not said is left out: a later version may know more options, and must find the replays of this one.
        """
        said = {one.name: getattr(self, one.name) for one in fields(self) if getattr(self, one.name) != one.default}
        return blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=6).hexdigest()

    def check(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ReplayError: it says what is wrong.
        """
        ways = [bool(self.ids), bool(self.since or self.until), bool(self.from_offsets or self.to_offsets)]
        if sum(ways) + self.everything != 1:
            raise ReplayError(
                "which part of the history?",
                hint="give one of: job ids, --since/--until, --from-offset/--to-offset, or --all",
            )
        if not self.queues and not self.ids:
            raise ReplayError("which queues?", hint="name them with --queue")
        if ways[2] and len(self.queues) != 1:
            raise ReplayError("offsets belong to one queue", hint="give one --queue")
        if self.same_ids and not self.moves and self.to_queue is not None and self.queues != (self.to_queue,):
            raise ReplayError(
                "a job keeps its id in its own queue, or in another namespace",
                hint="leave --same-ids out: the new jobs are linked to the old ones",
            )
        for option, texts in (("--from-offset", self.from_offsets), ("--to-offset", self.to_offsets)):
            numbers = [parse_offset(text)[0] for text in texts]
            if len(set(numbers)) < len(numbers):
                raise ReplayError(f"{option} twice for one partition", hint="which of them? Give one for each")
        starts = dict(map(parse_offset, self.from_offsets))
        for number, stop in map(parse_offset, self.to_offsets):
            start = starts.get(number, 0)
            if stop < start:
                raise ReplayError(
                    f"--to-offset {stop} is before --from-offset {start}", hint="the end itself is not included"
                )
        for text in self.where:
            parse_test(text)


def spec_of(values: Mapping[str, Any]) -> Spec:
    """A spec out of its JSON.

    Raises:
        ReplayError: a newer version wrote it.
    """
    known = {field.name for field in fields(Spec)}
    if not set(values) <= known:
        raise ReplayError("the replay was begun by a newer version of this program", hint="go on with that one")
    typed: dict[str, Any] = {name: tuple(it) if isinstance(it, list) else it for name, it in values.items()}
    return Spec(**typed)


def differences(one: Spec, other: Spec) -> list[str]:
    """The names of what is not the same."""
    return [field.name for field in fields(Spec) if getattr(one, field.name) != getattr(other, field.name)]


def parse_moment(text: str, now_ms: int, option: str) -> int:
    """Milliseconds since the epoch of `2026-11-28T09:00Z` (UTC if it names no zone), or of `2h`: two hours ago.

    Raises:
        ReplayError: it is neither.
    """
    if "-" not in text:
        return max(0, now_ms - round(parse_duration(text, name=option, error=ReplayError) * 1000))
    try:
        moment = datetime.fromisoformat(text)
        return max(0, round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000))
    except (ValueError, OverflowError) as error:
        raise ReplayError(
            f"{option}: {text!r} is no moment", hint="write 2026-11-28T09:00:00Z, or 2h for two hours ago"
        ) from error


def parse_offset(text: str) -> tuple[int | None, int]:
    """Number and offset of `NUMBER@OFFSET`, or None and the offset.

    Raises:
        ReplayError: it is none.
    """
    found = _OFFSET.fullmatch(text)
    if found is None:
        raise ReplayError(f"{text!r} is no offset", hint="write OFFSET, or NUMBER@OFFSET for one partition")
    return None if found[1] is None else int(found[1]), int(found[2])


class PayloadTest(NamedTuple):
    """What a place in the payload must hold."""

    path: tuple[str, ...]
    text: str
    """As it was typed."""
    value: Any
    """The same as JSON; as text if it is none."""

    def holds(self, payload: Any) -> bool:
        """Whether the payload holds it there; numbers select from lists."""
        found = payload
        for part in self.path:
            if isinstance(found, dict) and part in found:
                found = found[part]
            elif isinstance(found, list) and _INDEX.fullmatch(part) and int(part) < len(found):
                found = found[int(part)]
            else:
                return False
        if isinstance(found, str) and found == self.text:
            return True
        # In Python True equals 1; in JSON it does not.
        return isinstance(found, bool) == isinstance(self.value, bool) and bool(found == self.value)


def parse_test(text: str) -> PayloadTest:
    """`customer.id=7`, `lines.0.kind=refund`.

    Raises:
        ReplayError: it is no such test.
    """
    path, equals, wanted = text.partition("=")
    if not equals or not all(path.split(".")):
        raise ReplayError(f"{text!r} tests nothing", hint="write PATH=VALUE, such as customer.id=7")
    try:
        value = json.loads(wanted)
    except (ValueError, RecursionError):
        value = wanted
    return PayloadTest(tuple(path.split(".")), wanted, value)


class Filters:
    """The filters of a spec, ready to be asked for each job."""

    def __init__(self, spec: Spec) -> None:
        self._ids = frozenset(spec.ids)
        self._types = frozenset(spec.types)
        self._keys = frozenset(spec.keys)
        self._states = frozenset(spec.states)
        self._tests = tuple(map(parse_test, spec.where))

    def concerns(self, job: Job) -> bool:
        """Whether a job may be meant, by what stays the same in all its records."""
        return (
            (not self._ids or job.id in self._ids)
            and (not self._types or job.type in self._types)
            and (not self._keys or job.key in self._keys)
        )

    def holds(self, job: Job) -> bool:
        """Whether the payload is as wanted; one that is no JSON holds nothing."""
        if not self._tests:
            return True
        try:
            payload = json.loads(job.payload) if job.payload else None
        except (ValueError, RecursionError):
            return False
        return all(test.holds(payload) for test in self._tests)

    def wants_state(self, state: str) -> bool:
        """Whether jobs in this state are meant."""
        return not self._states or state in self._states
