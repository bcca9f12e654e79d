"""What becomes of a job that failed, as frozen values: one vocabulary for every outcome.

    retry=Retry(5, Backoff("5s", "30s", "10m")).on(ConnectionError, times=20).on(ValueError, Dead("bad file"))

Version 0.1 checks and keeps these values and does not act on them yet: a failed job goes to the dead-letter topic at
once. They act from version 0.2 on, as written here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from processor.errors import DefinitionError
from processor.wire.durations import Duration, parse_duration

_LONGEST_DELAY = 30 * 86_400.0


@dataclass(frozen=True, slots=True, init=False)
class Backoff:
    """Waits before the second, third, ... attempt; the last one repeats.

    Raises:
        DefinitionError: no delay, or one that is no length of time or over 30 days.
    """

    delays: tuple[float, ...]
    """Seconds."""

    def __init__(self, *delays: Duration) -> None:
        if not delays:
            raise DefinitionError("a Backoff needs at least one delay", hint='write Backoff("5s", "30s", "10m")')
        object.__setattr__(self, "delays", tuple(_delay(delay) for delay in delays))

    def delay(self, attempt: int) -> float:
        """Seconds to wait after the given attempt, counted from 1."""
        return self.delays[min(max(attempt, 1), len(self.delays)) - 1]


@dataclass(frozen=True, slots=True)
class Dead:
    """To the dead-letter topic: no further attempt by itself."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Discard:
    """Ended, without a dead letter."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Park:
    """Wait, without a slot, until an operator decides."""

    reason: str = ""


@dataclass(frozen=True, slots=True, init=False)
class After:
    """Try again after a fixed delay, however often it fails.

    Raises:
        DefinitionError: the delay is no length of time.
    """

    delay: float
    """Seconds."""

    def __init__(self, delay: Duration) -> None:
        object.__setattr__(self, "delay", _delay(delay))


Decision = Dead | Discard | Park | After
"""What may become of one kind of exception, instead of a retry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What happens on one kind of exception."""

    exception: type[Exception]
    times: int | None = None
    """Attempts in all; None: as many as the Retry says."""
    decision: Decision | None = None
    """None: try again."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a failed job is tried, and how long it waits in between.

    Raises:
        DefinitionError: fewer than one attempt.
    """

    times: int = 5
    """Attempts in all, the first included."""
    backoff: Backoff = field(default_factory=lambda: Backoff("5s", "30s", "10m"))
    rules: tuple[Rule, ...] = ()
    """Exceptions with their own; the first that fits decides."""

    def __post_init__(self) -> None:
        _check_times(self.times)

    def on(self, exception: type[Exception], decision: Decision | None = None, *, times: int | None = None) -> Retry:
        """A copy that treats `exception` (and its subclasses) in its own way.

        Raises:
            DefinitionError: not an exception class, or neither or both of a decision and `times`.
        """
        if not _is_exception_class(exception):
            raise DefinitionError(f"on({exception!r}): not an exception class", hint="write .on(ConnectionError, ...)")
        if (decision is None) == (times is None):
            raise DefinitionError(
                f"on({exception.__qualname__}): give either a decision or times=",
                hint='write .on(ConnectionError, times=20) or .on(ValueError, Dead("bad file"))',
            )
        if times is not None:
            _check_times(times)
        elif not _is_decision(decision):
            raise DefinitionError(
                f"on({exception.__qualname__}): {decision!r} is no decision", hint="use Dead, Discard, Park or After"
            )
        return replace(self, rules=(*self.rules, Rule(exception=exception, times=times, decision=decision)))

    def rule(self, error: Exception) -> Rule | None:
        """The first rule that fits, if any."""
        return next((rule for rule in self.rules if isinstance(error, rule.exception)), None)


def _is_exception_class(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Exception)


def _is_decision(value: object) -> bool:
    return isinstance(value, Decision)


def _check_times(times: int) -> None:
    if times < 1:
        raise DefinitionError(
            f"{times!r} attempts make no sense", hint="count the first attempt too: 1 means no second try"
        )


def _delay(value: Duration) -> float:
    seconds = parse_duration(value, name="delay")
    if seconds > _LONGEST_DELAY:
        raise DefinitionError(f"a delay of {value!r} is over 30 days", hint="use a schedule for dates that far away")
    return seconds
