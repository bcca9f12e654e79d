"""Values of one type to JSON and back, unchanged or refused: payloads, results, states.

Written and read in the way that pydantic reads back itself: computed fields stay out, and names are those that the
models accept (`by_alias` as all of them need it; models that no choice suits are refused before anything is written).
What is written is read back at once and compared (`processor.fidelity`).
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from pydantic import (
    BaseModel,
    PydanticSchemaGenerationError,
    PydanticUndefinedAnnotation,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import PydanticSerializationError, to_json

from processor.errors import DefinitionError
from processor.fidelity import Comparison, leaves, not_utf8, same, unwritable
from processor.texts import message_of, shown
from processor.type_facts import by_alias, enums, never


class Unfaithful(ValueError):
    """A value that would not come back as it is; the text names the place."""


class NotYetDefined(DefinitionError):
    """A type names a class that is not there, or not there yet."""


class _Prepared(NamedTuple):
    """What is found out once for each type."""

    adapter: TypeAdapter[Any]
    by_alias: bool
    never: str | None
    """Why no value of it can be written and read back."""
    enums: frozenset[type]
    """Enums that it has a place for."""


class TypedJson:
    """The JSON of one type.

    Args:
        annotation: the type.
        owner: whose it is, for errors.
        given: values may come from other programs as JSON (payloads), and it is no fault if none can be written here.

    Raises:
        DefinitionError: it cannot be read from JSON, its aliases contradict each other, or no value of it could be
            written and read back.
    """

    __slots__ = ("_adapter", "_by_alias", "_enums", "_read", "_write")

    def __init__(self, annotation: Any, owner: str, *, given: bool = False) -> None:
        try:
            prepared = (
                _prepared_once(annotation, repr(annotation)) if _is_hashable(annotation) else _prepare(annotation)
            )
        except PydanticUndefinedAnnotation as error:
            raise self._not_yet_defined(annotation, owner, error) from error
        except (PydanticSchemaGenerationError, PydanticUserError) as error:
            if getattr(error, "code", None) == "class-not-fully-defined":
                raise self._not_yet_defined(annotation, owner, error) from error
            raise DefinitionError(
                f"{owner}: {shown(annotation, 200)} cannot be read from JSON: {message_of(error, 300)}",
                hint="use a pydantic model, a dataclass or plain JSON types",
            ) from error
        except DefinitionError as error:
            raise DefinitionError(f"{owner}: {error}", hint=error.hint) from error
        if prepared.never is not None and not given:
            raise DefinitionError(
                f"{owner}: no {shown(annotation, 200)} can be written as JSON and be read back: {prepared.never}",
                hint="use a model with the fields that are to travel, of types that JSON can hold",
            )
        self._adapter = prepared.adapter
        self._by_alias = prepared.by_alias
        self._enums = prepared.enums
        self._read = self._adapter.validator.validate_json
        self._write = self._adapter.serializer.to_json

    @staticmethod
    def _not_yet_defined(annotation: Any, owner: str, error: Exception) -> NotYetDefined:
        return NotYetDefined(
            f"{owner}: {shown(annotation, 200)} names a class that is not there: {message_of(error, 300)}",
            hint="define or import it in the module of the model, not inside of a function",
        )

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
        try:
            return self._adapter.validate_python(value)
        except ValidationError:
            # A strict type takes a date's text from JSON, and from Python only a date: what came as JSON is read so.
            try:
                return self._read(to_json(value, inf_nan_mode="constants"))
            except ValueError:
                pass
            raise

    def encode(self, value: object) -> bytes:
        """JSON that comes back as it is.

        Raises:
            Unfaithful: it would not; the text says where.
        """
        try:
            data = self.dump(value)
        except Exception as error:  # a model's serializers are the user's code
            raise Unfaithful(_why_not_written(value, error)) from error
        self.verify(value, data)
        return data

    def verify(self, value: object, data: bytes) -> None:
        """See that `data`, the JSON of `value`, comes back as it is.

        Raises:
            Unfaithful: it does not; the text says where.
        """
        try:
            back = self._read(data)
            if same(value, back):
                return
            where = self._difference(value, back, data)
        except ValidationError as error:
            raise Unfaithful(_quietly(unwritable, value) or _refusal(error)) from error
        except Exception as error:  # a model's validators and properties are the user's code
            raise Unfaithful(f"{type(error).__name__}: {message_of(error, 500)}") from error
        if where is not None:
            raise Unfaithful(where)

    def _difference(self, value: object, back: object, data: bytes) -> str | None:
        comparison = Comparison(self._enums)
        where = comparison.difference(value, back)
        if where is None and comparison.opaque and self.dump(back) != data:
            where = f"its JSON {shown(data, 80)} becomes another one when it is read back"
        return where


def _why_not_written(value: object, error: Exception) -> str:
    """Why a value has no JSON, by the name of the field where that can be found."""
    text = message_of(error, 500)
    found = _quietly(unwritable, value)
    if found is None and "utf-8" in text:
        found = _quietly(not_utf8, value)
    if found is None and "unknown type" in text:
        found = _quietly(_of_unknown_type, value)
    return found or " ".join(text.split())


def _of_unknown_type(value: object) -> str | None:
    for place, leaf in leaves(value):
        try:
            to_json(leaf)
        except PydanticSerializationError:
            return f"{place} is of type {type(leaf).__name__}, which JSON does not have"
    return None


def _quietly(ask: Any, value: object) -> str | None:
    try:
        found: str | None = ask(value)
    except Exception:  # noqa: BLE001  (properties of the user's, or nested without end: there is a plainer answer)
        return None
    return found


def _refusal(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{f'field {place}: ' if place else ''}{message_of(first['msg'], 300)}"


def _prepare(annotation: Any) -> _Prepared:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        annotation.model_rebuild()  # nothing to do for a complete one
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    # Of a model that is built at its first use (defer_build) this is a stand-in, which builds it when it is read; of an
    # incomplete one reading it raises.
    schema: dict[str, Any] = dict(adapter.core_schema)
    return _Prepared(adapter, by_alias(schema), never(schema), enums(schema))


@functools.lru_cache(maxsize=512)
def _prepared_once(annotation: Any, text: str) -> _Prepared:
    """`text` tells apart what is equal and is read in another order: `date | datetime` and `datetime | date`."""
    return _prepare(annotation)


def _is_hashable(annotation: Any) -> bool:
    try:
        hash(annotation)
    except TypeError:  # e.g. Annotated[int, [..]]
        return False
    return True
