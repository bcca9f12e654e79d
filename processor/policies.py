"""What becomes of a job that failed, as frozen values: one vocabulary for every outcome.

    retry=Retry(5, Backoff("5s", "30s", "10m")).on(ConnectionError, times=20).on(ValueError, Dead("bad file"))

`processor.core.retry` decides by them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from processor.errors import DefinitionError
from processor.wire.durations import Duration, parse_duration

LONGEST_DELAY = 30 * 86_400.0
ENDLESS = 2**31 - 1
"""Attempts of a critical job: as many as there is time for."""
LONGEST_REASON = 500
"""Characters."""
_DOUBLINGS = 64
"""An exponential backoff has reached any cap by then."""


@dataclass(frozen=True, slots=True, init=False)
class Backoff:
    """Waits before the second, third, ... attempt; the last one repeats.

    Args:
        delays: the waits.
        jitter: between 0 and 1: each wait is made shorter by a random part of up to this share, so that jobs which
            failed together do not come back together.

    Raises:
        DefinitionError: no delay, one that is no length of time or over 30 days, or a jitter outside 0 to 1.
    """

    delays: tuple[float, ...]
    """Seconds."""
    jitter: float

    def __init__(self, *delays: Duration, jitter: float = 0.0) -> None:
        if not delays:
            raise DefinitionError("a Backoff needs at least one delay", hint='write Backoff("5s", "30s", "10m")')
        if not _is_number(jitter) or not 0.0 <= jitter <= 1.0:
            raise DefinitionError(f"a jitter of {jitter!r}", hint="use a share between 0 and 1, for instance 0.2")
        object.__setattr__(self, "delays", tuple(_delay(delay) for delay in delays))
        object.__setattr__(self, "jitter", jitter)

    @classmethod
    def exponential(cls, first: Duration, *, factor: float = 2.0, cap: Duration = "1h", jitter: float = 0.0) -> Backoff:
        """Waits that grow by `factor` from `first` up to `cap`.

        Raises:
            DefinitionError: as `Backoff`, or the factor does not let them grow, or `first` is 0 or over the cap.
        """
        begin, most = _delay(first), _delay(cap)
        if not _is_number(factor) or not 1.0 < factor <= 1e9:
            raise DefinitionError(f"a factor of {factor!r}", hint="use more than 1; 2 doubles each wait")
        if not 0.0 < begin <= most:
            raise DefinitionError(f"waits from {first!r} up to {cap!r}", hint="begin with more than 0, below the cap")
        delays = [begin]
        while delays[-1] < most and len(delays) < _DOUBLINGS:
            delays.append(min(delays[-1] * factor, most))
        return cls(*delays, jitter=jitter)

    def delay(self, attempt: int, draw: float = 0.0) -> float:
        """Seconds to wait after the given attempt, counted from 1. `draw`: a random number from 0 up to 1."""
        return self.delays[min(max(attempt, 1), len(self.delays)) - 1] * (1.0 - self.jitter * draw)


@dataclass(frozen=True, slots=True)
class Dead:
    """To the dead-letter topic: no further attempt by itself."""

    reason: str = ""

    def __post_init__(self) -> None:
        _check_reason(self.reason)


@dataclass(frozen=True, slots=True)
class Discard:
    """Ended, without a dead letter."""

    reason: str = ""

    def __post_init__(self) -> None:
        _check_reason(self.reason)


@dataclass(frozen=True, slots=True)
class Park:
    """Wait, without a slot, until an operator decides."""

    reason: str = ""

    def __post_init__(self) -> None:
        _check_reason(self.reason)


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
    backoff: Backoff | None = None
    """None: that of the Retry."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a failed job is tried, and how long it waits in between.

    Raises:
        DefinitionError: fewer than one attempt, or a maximal age that is no length of time.
    """

    times: int = 5
    """Attempts in all, the first included."""
    backoff: Backoff = field(default_factory=lambda: Backoff("5s", "30s", "10m"))
    rules: tuple[Rule, ...] = ()
    """Exceptions with their own; the first that fits decides."""
    max_age: Duration | None = None
    """No attempt begins later than this after the job was enqueued (or redriven). Seconds once the value is made."""

    def __post_init__(self) -> None:
        _check_times(self.times)
        _check_backoff(self.backoff)
        if self.max_age is not None:
            object.__setattr__(self, "max_age", parse_duration(self.max_age, name="max_age"))

    def on(
        self,
        exception: type[Exception],
        decision: Decision | None = None,
        *,
        times: int | None = None,
        backoff: Backoff | None = None,
    ) -> Retry:
        """A copy that treats `exception` (and its subclasses) in its own way.

        Raises:
            DefinitionError: not an exception class, or neither or both of a decision and `times` or `backoff`.
        """
        if not _is_exception_class(exception):
            raise DefinitionError(f"on({exception!r}): not an exception class", hint="write .on(ConnectionError, ...)")
        if (decision is None) == (times is None and backoff is None):
            raise DefinitionError(
                f"on({exception.__qualname__}): give either a decision or times= and backoff=",
                hint='write .on(ConnectionError, times=20) or .on(ValueError, Dead("bad file"))',
            )
        if times is not None:
            _check_times(times)
        if backoff is not None:
            _check_backoff(backoff)
        if decision is not None and not _is_decision(decision):
            raise DefinitionError(
                f"on({exception.__qualname__}): {decision!r} is no decision", hint="use Dead, Discard, Park or After"
            )
        rule = Rule(exception=exception, times=times, decision=decision, backoff=backoff)
        return replace(self, rules=(*self.rules, rule))

    def rule(self, error: BaseException) -> Rule | None:
        """The first rule that fits, if any."""
        return next((rule for rule in self.rules if isinstance(error, rule.exception)), None)


def unlimited(name: str, retry: Retry | None) -> Retry:
    """The retry policy of a critical job type: as it is, without an end.

    Raises:
        DefinitionError: it drops jobs, or ends before the kill date.
    """
    chosen = Retry() if retry is None else retry
    if any(isinstance(rule.decision, Discard) for rule in chosen.rules):
        raise DefinitionError(f"job type {name} is critical and has a rule that discards it", hint="use Dead or Park")
    if chosen.max_age is not None:
        raise DefinitionError(f"job type {name} is critical and has a max_age", hint="use kill_after")
    rules = tuple(replace(rule, times=None) if rule.times is not None else rule for rule in chosen.rules)
    return replace(chosen, times=ENDLESS, rules=rules)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """The policy of a job type. Durations in seconds."""

    retry: Retry | None = None
    """None: one attempt."""
    attempt_timeout: float | None = None
    """The longest one attempt may take."""
    stall_timeout: float | None = None
    """The longest a handler may go without saving anything and without a heartbeat."""
    queue_timeout: float | None = None
    """How long after it was due a job may begin at the latest; else it is expired."""
    kill_after: float | None = None
    """How long after its enqueue a job is given up, whatever it does."""
    critical: bool | None = None
    """True: no attempt is the last, and its death alerts. False: its enqueue may drop it."""

    def __post_init__(self) -> None:
        if self.retry is not None and not isinstance(self.retry, Retry):
            raise DefinitionError(
                f"retry={self.retry!r} is no policy", hint='write retry=Retry(5, Backoff("5s", "30s"))'
            )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_exception_class(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Exception)


def _is_decision(value: object) -> bool:
    return isinstance(value, Decision)


def _check_backoff(backoff: object) -> None:
    if not isinstance(backoff, Backoff):
        raise DefinitionError(f"backoff {backoff!r} is none", hint='write Backoff("5s", "30s", "10m")')


def _check_reason(reason: object) -> None:
    if not isinstance(reason, str) or len(reason) > LONGEST_REASON:
        raise DefinitionError(
            f"{str(reason)[:60]!r} is no reason", hint=f"a text of at most {LONGEST_REASON} characters"
        )


def _check_times(times: int) -> None:
    if type(times) is not int:
        raise DefinitionError(f"{times!r} attempts make no sense", hint="give a whole number, 1 or more")
    if times < 1:
        raise DefinitionError(
            f"{times!r} attempts make no sense", hint="count the first attempt too: 1 means no second try"
        )


def _delay(value: Duration) -> float:
    seconds = parse_duration(value, name="delay")
    if seconds > LONGEST_DELAY:
        raise DefinitionError(f"a delay of {value!r} is over 30 days", hint="use a schedule for dates that far away")
    return seconds
