"""Every route of an application, those of its routers as well."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from fastapi import FastAPI


def routes_of(application: FastAPI) -> list[tuple[str, str]]:
    """All that can be asked, as (method, path). A folder of files counts as one path."""
    return sorted(set(_walk(application.routes)))


def _walk(routes: Iterable[Any]) -> Iterator[tuple[str, str]]:
    for route in routes:
        # Newer versions of FastAPI keep an included router whole.
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from _walk(inner.routes)
        elif getattr(route, "methods", None):
            yield from ((method, route.path) for method in route.methods if method != "HEAD")
        else:
            yield "GET", f"{route.path}/"
