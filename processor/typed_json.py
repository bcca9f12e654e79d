"""Values of one type to JSON and back, unchanged or refused: payloads, results, states.

Written and read in the way that pydantic reads back itself: computed fields stay out, and names are those that the
models accept (`by_alias` as all of them need it; models that no choice suits are refused before anything is written).
What is written is read back at once and compared (`processor.fidelity`).
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import (
    AliasChoices,
    BaseModel,
    PydanticSchemaGenerationError,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import PydanticSerializationError

from processor.errors import DefinitionError
from processor.fidelity import difference, unfaithful
from processor.texts import message_of, shown

_PLAIN = frozenset({str, int, bool, type(None)})
"""Values of exactly these types come back as they are, if their annotation says so."""


class Unfaithful(ValueError):
    """A value that would not come back as it is; the text names the place."""


class TypedJson:
    """The JSON of one type.

    Raises:
        DefinitionError: it cannot be read from JSON, or its models' aliases contradict each other.
    """

    __slots__ = ("_adapter", "_by_alias", "_flat", "_only", "_read", "_write")

    def __init__(self, annotation: Any, owner: str) -> None:
        try:
            self._adapter: TypeAdapter[Any] = _adapter(annotation)
            self._read = self._adapter.validator.validate_json
            self._write = self._adapter.serializer.to_json
        except (PydanticSchemaGenerationError, PydanticUserError) as error:
            raise DefinitionError(
                f"{owner}: {shown(annotation, 200)} cannot be read from JSON: {message_of(error, 300)}",
                hint="use a pydantic model, a dataclass or plain JSON types",
            ) from error
        self._by_alias = _by_alias(annotation, owner)
        self._only: type | None = annotation if isinstance(annotation, type) and annotation in _PLAIN else None
        self._flat: type[BaseModel] | None = annotation if _is_flat(annotation) else None
        """A model of plain values only: it needs no comparing part by part."""

    def dump(self, value: object) -> bytes:
        """JSON, not compared.

        Raises:
            PydanticSerializationError, ValueError: there is none.
        """
        return self._write(value, by_alias=self._by_alias, round_trip=True, warnings="error")

    def load(self, data: bytes | str) -> Any:
        """The value of a JSON text.

        Raises:
            ValidationError: the type refuses it.
        """
        return self._read(data)

    def check(self, value: object) -> Any:
        """The value of plain data, or of an instance, as the type has it.

        Raises:
            ValidationError: the type refuses it.
        """
        return self._adapter.validate_python(value)

    def encode(self, value: object) -> bytes:
        """JSON that comes back as it is.

        Raises:
            Unfaithful: it would not; the text says where.
        """
        try:
            data = self.dump(value)
            back = self._read(data)
            if type(value) is self._only and type(back) is self._only:
                if value == back:
                    return data
            elif self._flat is not None and type(value) is self._flat and value.__dict__ == back.__dict__:
                return data
            where = difference(value, back)
            if where is None and self.dump(back) != data:
                where = f"its JSON {shown(data, 80)} becomes another one when it is read back"
        except ValidationError as error:
            raise Unfaithful(self._reason(value) or _refusal(error)) from error
        except (PydanticSerializationError, ValueError, TypeError, RecursionError, AttributeError) as error:
            raise Unfaithful(message_of(error, 500)) from error
        if where is not None:
            raise Unfaithful(where)
        return data

    @staticmethod
    def _reason(value: object) -> str | None:
        """What of a value its own type refuses once it is JSON, in words of the value: `nan`, a secret."""
        try:
            return unfaithful(value)
        except Exception:  # noqa: BLE001  (properties of the user's)
            return None


def _refusal(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{f'field {place}: ' if place else ''}{message_of(first['msg'], 300)}"


@functools.lru_cache(maxsize=512)
def _adapter_of_type(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    try:
        return _adapter_of_type(annotation)
    except TypeError:  # an unhashable annotation, e.g. Annotated[int, [..]]
        return TypeAdapter(annotation)


def _by_alias(annotation: Any, owner: str) -> bool:
    """Whether the models in a type are to be written with their aliases, so that they read what was written."""
    needs: dict[bool, str] = {}
    for model in _models(annotation, set()):
        config = model.model_config
        # Either may be said in two ways, by the age of pydantic.
        by_name = bool(config.get("validate_by_name") or config.get("populate_by_name"))
        by_alias = config.get("validate_by_alias", True) is not False
        for name, field in model.model_fields.items():
            accepted = _accepted(name, field, by_name=by_name, by_alias=by_alias)
            written = {False: name, True: field.serialization_alias or field.alias or name}
            fits = [way for way in (False, True) if written[way] in accepted]
            if not fits:
                names = " or ".join(sorted(accepted)) or "nothing"
                raise DefinitionError(
                    f"{owner}: field {name} of {model.__qualname__} is read as {names} and written as "
                    f"{written[True]}: what was written could not be read back",
                    hint="give it one alias=, or set populate_by_name=True in the model's config",
                )
            if len(fits) == 1:
                needs.setdefault(fits[0], f"{model.__qualname__}.{name}")
    if len(needs) == 2:
        raise DefinitionError(
            f"{owner}: {needs[True]} is read by its alias alone and {needs[False]} by its name alone",
            hint="set populate_by_name=True in the config of both models",
        )
    return True in needs


def _accepted(name: str, field: Any, *, by_name: bool, by_alias: bool) -> set[str]:
    alias = field.validation_alias
    if alias is None:
        return {name}
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
    accepted = {choice for choice in choices if isinstance(choice, str)} if by_alias else set()
    return accepted | ({name} if by_name else set())


def _models(annotation: Any, seen: set[Any]) -> Iterator[type[BaseModel]]:
    """Every pydantic model that a type holds."""
    try:
        if annotation in seen:
            return
        seen.add(annotation)
    except TypeError:
        pass
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from _models(field.annotation, seen)
    elif isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        try:
            hints = typing.get_type_hints(annotation)
        except Exception:  # noqa: BLE001  (names that are not there: pydantic has found its own way)
            hints = {}
        for hint in hints.values():
            yield from _models(hint, seen)
    else:
        for argument in typing.get_args(annotation):
            yield from _models(argument, seen)


def _is_flat(annotation: Any) -> bool:
    """A model with fields of plain types only, and nothing of its own about how they are written."""
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return False
    decorators = annotation.__pydantic_decorators__
    if decorators.field_serializers or decorators.model_serializers or annotation.model_config.get("extra") == "allow":
        return False
    return all(
        field.annotation in _PLAIN and not field.exclude and not field.metadata
        for field in annotation.model_fields.values()
    )
