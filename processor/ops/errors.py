"""What can go wrong on this floor.

ProcessorError
├── ProjectionError   the projection is of another log than the one it was pointed at
├── FilterInvalid     a filter cannot be read
├── NotThere          what was asked for is not in the projection
├── SetChanged        the jobs that are meant are not those that were shown
├── NotAllowed        this role may not do that
├── TooManyViewers    too many streams of events are open
├── LoginRequired     nobody is logged in, or with a wrong password
├── LoginFailed       what came back from the identity provider is not to be believed
└── ProviderUnreachable   the identity provider does not answer
"""

from __future__ import annotations

from processor.errors import ProcessorError


class ProjectionError(ProcessorError):
    """The projection is of another namespace or cluster, or ahead of the log."""

    code = "projection"


class FilterInvalid(ProcessorError):
    """A filter cannot be read, or names a field that is not known."""

    code = "filter"
    exit_code = 2


class NotThere(ProcessorError):
    """The projection knows no such thing (yet)."""

    code = "not_there"


class SetChanged(ProcessorError):
    """The jobs that are meant are not those that were shown: look again before doing something to them."""

    code = "set_changed"


class NotAllowed(ProcessorError):
    """This role may not do that, or the request came from another site."""

    code = "not_allowed"


class TooManyViewers(ProcessorError):
    """Too many streams of events are open: close some, or come again later."""

    code = "too_many_viewers"


class LoginRequired(ProcessorError):
    """Nobody is logged in, or with a wrong password."""

    code = "login_required"


class LoginFailed(ProcessorError):
    """What came back from the identity provider belongs to no login of this browser, or is not to be believed."""

    code = "login_failed"


class ProviderUnreachable(ProcessorError):
    """The identity provider does not answer, or not as one."""

    code = "provider_unreachable"
