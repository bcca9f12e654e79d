"""What can go wrong on this floor.

ProcessorError
├── ProjectionError   the projection is of another log than the one it was pointed at
├── FilterInvalid     a filter cannot be read
└── NotThere          what was asked for is not in the projection
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
