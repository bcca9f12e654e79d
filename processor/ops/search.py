"""Which payload fields the job types of an app can be searched by."""

from __future__ import annotations

from processor.app import App
from processor.ops.folding import Search


def search_of(app: App) -> Search:
    """The declared fields, by job type; empty for an app that is known by its namespace only."""
    return {name: job_type.search for name, job_type in app.job_types.items() if job_type.search}


def search_names(search: Search) -> list[str]:
    """The fields of all types, each once."""
    return sorted({name for names in search.values() for name in names})
