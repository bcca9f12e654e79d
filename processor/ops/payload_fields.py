"""What the payload models of an app's job types say of their fields."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter

from processor.app import App


def secret_fields(app: App, job_type: str) -> frozenset[str]:
    """Names of the fields that hold secrets (`SecretStr`, `SecretBytes`), at whatever depth."""
    known = app.job_types.get(job_type)
    if known is None or known.payload is None:
        return frozenset()
    try:
        schema = TypeAdapter(known.payload).json_schema()
    except Exception:  # noqa: BLE001  (a model of the user's; without a schema it declares no secrets)
        return frozenset()
    return frozenset(_secrets(schema))


def _secrets(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for inner in schema:
            yield from _secrets(inner)
    if not isinstance(schema, dict):
        return
    for name, field in (schema.get("properties") or {}).items():
        if _is_secret(field):
            yield name
    for inner in schema.values():
        yield from _secrets(inner)


def _is_secret(field: Any) -> bool:
    if not isinstance(field, dict):
        return False
    inner = [*field.get("anyOf", ()), *field.get("allOf", ()), field.get("items")]
    return bool(field.get("format") == "password" or field.get("writeOnly") or any(map(_is_secret, inner)))
