"""What a type says of its JSON before there is a value: by which names its fields are written, and what can never be.

Read from the schema that pydantic compiled (`TypeAdapter.core_schema`), where models, dataclasses and typed dicts look
alike and aliases, generators of aliases and inherited settings are resolved.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from processor.errors import DefinitionError

Schema = dict[str, Any]

_NEVER = {
    "callable": "a callable",
    "is-instance": "an object of a class that pydantic does not know",
    "is-subclass": "a class",
    "generator": "a generator",
}
"""Kinds of schema that no JSON is ever accepted by, or (generators) that are used up by being written."""
_LISTS_OF_FIELDS = ("model-fields", "typed-dict", "dataclass-args")
_HOLDERS = ("model", "dataclass", "typed-dict")


class Field(NamedTuple):
    """A field of a model, a dataclass or a typed dict."""

    owner: str
    name: str
    schema: Schema
    config: Schema
    """The settings of its owner."""


def by_alias(schema: Schema) -> bool:
    """Whether values of the type are to be written with aliases, so that they are read back.

    Raises:
        DefinitionError: neither way suits all of its fields.
    """
    needs: dict[bool, Field] = {}
    for field in _fields(schema, {}):
        accepted = _accepted(field)
        written = field.schema.get("serialization_alias") or field.name
        fits = [way for way, name in ((False, field.name), (True, written)) if name in accepted]
        if not fits:
            raise DefinitionError(
                f"field {field.name} of {field.owner} is read as {' or '.join(sorted(accepted)) or 'nothing'} "
                f"and written as {written}: what was written could not be read back",
                hint="give it one alias=, or set populate_by_name=True in the config of its class",
            )
        if len(fits) == 1:
            needs.setdefault(fits[0], field)
    if len(needs) == 2:
        aliased, named = needs[True], needs[False]
        raise DefinitionError(
            f"{aliased.owner}.{aliased.name} is read by its alias alone and {named.owner}.{named.name} by its "
            "name alone",
            hint="set populate_by_name=True in the config of both classes",
        )
    return True in needs


def _accepted(field: Field) -> set[str]:
    config = field.config
    # Either may be said in two ways, by the age of pydantic.
    by_name = bool(config.get("validate_by_name") or config.get("populate_by_name"))
    alias = field.schema.get("validation_alias")
    if alias is None:
        return {field.name}
    accepted = {field.name} if by_name else set()
    if config.get("validate_by_alias") is False:
        return accepted
    if isinstance(alias, str):
        return accepted | {alias}
    # A list of choices, each a path; a path of one part is a plain name. A lone path is a list of its parts.
    paths = alias if alias and isinstance(alias[0], list) else [alias]
    return accepted | {path[0] for path in paths if len(path) == 1 and isinstance(path[0], str)}


def enums(schema: Any) -> frozenset[type]:
    """The enums that the type has a place for."""
    found: set[type] = set()
    rest = [schema]
    while rest:
        node = rest.pop()
        if isinstance(node, dict):
            if node.get("type") == "enum":
                found.add(node["cls"])
            rest.extend(each for key, each in node.items() if key not in ("metadata", "serialization", "config"))
        elif isinstance(node, list | tuple):
            rest.extend(node)
    return frozenset(found)


def _fields(node: Any, config: Schema, owner: str = "") -> Iterator[Field]:
    """Every field in a schema, at any depth."""
    if isinstance(node, list | tuple):
        for each in node:
            yield from _fields(each, config, owner)
    if not isinstance(node, dict):
        return
    kind = node.get("type")
    if kind in _HOLDERS:
        config = node.get("config") or {}
        owner = getattr(node.get("cls"), "__qualname__", owner)
    if kind in _LISTS_OF_FIELDS:
        for name, field in _named_fields(node):
            yield Field(owner, name, field, config)
    for key, each in node.items():
        if key not in ("metadata", "serialization", "config", "computed_fields"):
            yield from _fields(each, config, owner)


def _named_fields(node: Schema) -> list[tuple[str, Schema]]:
    own = node["fields"]
    return list(own.items()) if isinstance(own, dict) else [(field["name"], field) for field in own]


def never(schema: Schema) -> str | None:
    """Why no value of the type can be written as JSON and be read back; None: some can.

    Fields with defaults and members of collections do not count: they may be left out.
    """
    return _Never().of(schema, "")


class _Never:
    def __init__(self) -> None:
        self._definitions: dict[str, Schema] = {}
        self._open: set[str] = set()

    def of(self, node: Schema, path: str) -> str | None:
        kind = node["type"]
        if kind in _NEVER:
            return f"{_at(path)} is {_NEVER[kind]}"
        if _is_secret(node):
            return f"{_at(path)} is a secret: it would be written as asterisks"
        if _written_otherwise(node):
            return None
        if kind in _LISTS_OF_FIELDS:
            return self._of_fields(node, path)
        if kind == "definitions":
            self._definitions.update({each["ref"]: each for each in node["definitions"]})
            return self.of(node["schema"], path)
        if kind == "definition-ref":
            return self._of_reference(node["schema_ref"], path)
        if kind == "union":
            reasons = [self.of(each[0] if isinstance(each, tuple) else each, path) for each in node["choices"]]
            return None if None in reasons else reasons[0]
        return self._of_inner(kind, node, path)

    def _of_inner(self, kind: str, node: Schema, path: str) -> str | None:
        if kind in ("model", "dataclass", "function-after", "custom-error"):
            return self.of(node["schema"], path)
        if kind == "lax-or-strict":
            return self.of(node["lax_schema"], path)
        if kind == "json-or-python":
            return self.of(node["json_schema"], path)
        if kind == "chain":
            return self.of(node["steps"][0], path)
        return None

    def _of_reference(self, ref: str, path: str) -> str | None:
        if ref in self._open or ref not in self._definitions:
            return None
        self._open.add(ref)
        try:
            return self.of(self._definitions[ref], path)
        finally:
            self._open.discard(ref)

    def _of_fields(self, node: Schema, path: str) -> str | None:
        for name, field in _named_fields(node):
            if field["schema"]["type"] == "default" or field.get("required") is False:
                continue
            inner = f"{path}.{name}" if path else name
            if field.get("serialization_exclude"):
                return f"field {inner} is required and excluded from JSON"
            found = self.of(field["schema"], inner)
            if found is not None:
                return found
        return None


def _is_secret(node: Schema) -> bool:
    """Whether a schema makes a secret and leaves it to that how it is written."""
    if node["type"] == "lax-or-strict" and "serialization" not in node:
        return _is_secret(node["lax_schema"])
    if node["type"] != "json-or-python":
        return False
    made = node["json_schema"]
    function = made.get("function", {}).get("function") if made["type"] == "function-after" else None
    written = node.get("serialization", {}).get("function")
    return hasattr(function, "get_secret_value") and getattr(written, "__module__", "").startswith("pydantic.")


def _written_otherwise(node: Schema) -> bool:
    return str(node.get("serialization", {}).get("type", "")).startswith("function")


def _at(path: str) -> str:
    return f"field {path}" if path else "it"
