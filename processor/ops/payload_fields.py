"""What the payload models of an app's job types say of their fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter

from processor.app import App


def secret_fields(app: App, job_type: str) -> frozenset[str]:
    """Names of the fields that hold secrets (`SecretStr`, `SecretBytes`), at whatever depth."""
    known = app.job_types.get(job_type)
    if known is None or known.payload is None:
        return frozenset()
    try:
        adapter = TypeAdapter(known.payload)
        # Payloads are written by alias where a model wants it so: neither name is to be shown.
        schemas = [adapter.json_schema(by_alias=by_alias) for by_alias in (True, False)]
    except Exception:  # noqa: BLE001  (a model of the user's; without a schema it declares no secrets)
        return frozenset()
    return frozenset(name for schema in schemas for name in _secrets(schema, schema.get("$defs") or {}))


def _secrets(schema: Any, defined: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(schema, list):
        for inner in schema:
            yield from _secrets(inner, defined)
    if not isinstance(schema, dict):
        return
    properties = schema.get("properties")
    for name, field in (properties if isinstance(properties, dict) else {}).items():
        if _is_secret(field, defined):
            yield name
    for inner in schema.values():
        yield from _secrets(inner, defined)


def _is_secret(field: Any, defined: Mapping[str, Any], within: frozenset[str] = frozenset()) -> bool:
    """Whether a field holds a secret itself: as such, as one of several types, or in a list, tuple or mapping."""
    if not isinstance(field, dict):
        return False
    if field.get("format") == "password" or field.get("writeOnly"):
        return True
    name = str(field.get("$ref", "")).removeprefix("#/$defs/")
    inner = [] if name in within else [defined.get(name)]
    inner += [field.get("items"), field.get("additionalProperties"), *(field.get("patternProperties") or {}).values()]
    inner += [each for several in _SEVERAL for each in field.get(several, ())]
    return any(_is_secret(each, defined, within | {name}) for each in inner)


_SEVERAL = ("anyOf", "allOf", "oneOf", "prefixItems")
