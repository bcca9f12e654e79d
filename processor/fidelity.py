"""Whether data travels unchanged: a value beside what comes back of its JSON. Pure.

JSON and pydantic change much in silence: a secret arrives as asterisks, a subclass as its base class, an excluded field
as its default, `nan` as null, a `str` that looks like a UUID as one. So what was read back is compared with what was
given, part by part, and the first part that differs is named.

Equal is what means the same: 1 and 1.0, a `datetime` and the same moment with the offset instead of the zone's name, a
subclass of `str` or `float` with the same value, a member of a `StrEnum` where only `str` is asked for. Different is
what a program would notice: True and 1, another class, a missing field, a `time` without its zone, the second of two
equal hours when the clocks go back.

Nearly everything is the same exactly, so `same` looks for that first, in a tenth of the time.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence, Set
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from itertools import zip_longest
from typing import Any

from pydantic import BaseModel

from processor.texts import name_of_class, shown

_MISSING = object()
_EXACT = frozenset({str, int, float, bool, bytes, type(None)})
"""Two equal values of one of these types are the same; `nan` equals nothing."""


def same(given: Any, back: Any) -> bool:
    """Whether what came back is the same, exactly; False: `Comparison` tells."""
    kind = type(given)
    if kind is not type(back):
        return False
    if kind in _EXACT:
        return bool(given == back)
    if kind is list or kind is tuple:
        return len(given) == len(back) and all(map(same, given, back))
    if kind is dict:
        # Keys too, and in their order: True equals 1.
        return all(map(same, given, back)) and _same_fields(given, back)
    if BaseModel in kind.__mro__:  # isinstance asks pydantic's own hook, which costs five times as much
        extra = given.__pydantic_extra__
        return _same_fields(given.__dict__, back.__dict__) and (
            extra is back.__pydantic_extra__ or same(extra, back.__pydantic_extra__)
        )
    return False


def _same_fields(given: dict[Any, Any], back: dict[Any, Any]) -> bool:
    if len(given) != len(back):
        return False
    for key, mine in given.items():
        theirs = back.get(key, _MISSING)
        kind = type(mine)
        if kind in _EXACT:
            if kind is not type(theirs) or mine != theirs:
                return False
        elif not same(mine, theirs):
            return False
    return True


class Comparison:
    """One value beside what came back. `opaque` afterwards: parts of it have no equality of their own, and only their
    JSON can tell whether they are the same.

    Args:
        enums: those that the value's type has a place for. A member of another one may come back as the text or number
            that it is.
    """

    def __init__(self, enums: frozenset[type] = frozenset()) -> None:
        self.opaque = False
        self._enums = enums

    def difference(self, given: Any, back: object, path: str = "") -> str | None:
        """Where and how what came back differs; None: nowhere. `path` of the value, for the text."""
        if type(given) in _EXACT and type(back) is type(given):
            return None if given == back else _told(given, back, path)
        if hasattr(given, "get_secret_value"):
            revealed = type(given) is type(back) and given == back
            return None if revealed else f"{_at(path)} is a secret: it would be written as asterisks"
        if dataclasses.is_dataclass(given) and not isinstance(given, type):
            return self._dataclasses(given, back, path)
        for kinds, compare in _WAYS:
            if isinstance(given, kinds):
                found: str | None = compare(self, given, back, path)
                return found
        if type(given) is not type(back):
            return _told(given, back, path)
        if getattr(type(given), "__eq__", None) is object.__eq__:
            self.opaque = True
            return None
        return None if given == back else _told(given, back, path)

    def _models(self, given: BaseModel, back: object, path: str) -> str | None:
        if type(given) is not type(back):
            return _told(given, back, path)
        return self._fields(_names(given), given, back, path)

    def _dataclasses(self, given: Any, back: object, path: str) -> str | None:
        names = [field.name for field in dataclasses.fields(given)]
        if type(back) is not type(given):
            return _told(given, back, path)
        return self._fields(names, given, back, path)

    def _fields(self, names: list[str], given: object, back: object, path: str) -> str | None:
        pairs = ((name, getattr(given, name, _MISSING), getattr(back, name, _MISSING)) for name in names)
        return _first(self.difference(mine, theirs, _join(path, name)) for name, mine, theirs in pairs)

    def _mappings(self, given: Mapping[Any, Any], back: object, path: str) -> str | None:
        if not isinstance(back, Mapping) or len(given) != len(back):
            return _told(given, back, path)
        for (key, mine), (other, theirs) in zip(given.items(), back.items(), strict=True):
            found = self.difference(key, other, f"the key {shown(key, 60)} of {_at(path)}")
            found = found or self.difference(mine, theirs, _join_key(path, key))
            if found is not None:
                return found
        return None

    def _sequences(self, given: Sequence[Any], back: object, path: str) -> str | None:
        kind = tuple if isinstance(given, tuple) else list if isinstance(given, list) else type(given)
        if not isinstance(back, kind) or (_is_named(given) and type(given) is not type(back)):
            return _told(given, back, path)
        pairs = enumerate(zip_longest(given, back, fillvalue=_MISSING))
        return _first(self.difference(mine, theirs, f"{path}[{place}]") for place, (mine, theirs) in pairs)

    def _sets(self, given: Set[Any], back: object, path: str) -> str | None:
        if not isinstance(back, Set) or len(given) != len(back):
            return _told(given, back, path)
        known = {each: each for each in back}
        for each in given:
            # A moment in the repeated hour equals no moment of another zone, so some are found one by one only.
            fits = [known[each]] if each in known else known
            found = [self.difference(each, other, f"a member of {_at(path)}") for other in fits]
            if None not in found:
                return found[0] if len(found) == 1 else _told(each, _MISSING, f"a member of {_at(path)}")
        return None

    def _flags(self, given: bool, back: object, path: str) -> str | None:
        return None if given is back else _told(given, back, path)

    def _members(self, given: Enum, back: object, path: str) -> str | None:
        plain = (
            type(given) not in self._enums
            and isinstance(given, str | int)
            and not isinstance(back, bool | Enum)
            and given == back
        )
        return None if given is back or plain else _told(given, back, path)

    def _numbers(self, given: float, back: object, path: str) -> str | None:
        equal = isinstance(back, int | float) and not isinstance(back, bool) and given == back
        return None if equal else _told(given, back, path)

    def _strings(self, given: str, back: object, path: str) -> str | None:
        equal = isinstance(back, str) and given == back and (not isinstance(back, Enum) or isinstance(given, Enum))
        return None if equal else _told(given, back, path)

    def _moments(self, given: datetime | time, back: object, path: str) -> str | None:
        kind = datetime if isinstance(given, datetime) else time
        if not isinstance(back, kind):
            return _told(given, back, path)
        equal = given.isoformat() == back.isoformat() and (given.tzinfo is None) == (back.tzinfo is None)
        if equal and given.tzinfo is None and given.fold != back.fold:
            equal = False
        return None if equal else _told(given, back, path)

    def _decimals(self, given: Decimal, back: object, path: str) -> str | None:
        return None if isinstance(back, Decimal) and str(given) == str(back) else _told(given, back, path)

    def _equals(self, given: object, back: object, path: str) -> str | None:
        return None if given == back else _told(given, back, path)


_WAYS: tuple[tuple[Any, Any], ...] = (
    (BaseModel, Comparison._models),
    (bool, Comparison._flags),
    (Enum, Comparison._members),
    (int | float, Comparison._numbers),
    (str, Comparison._strings),
    (datetime | time, Comparison._moments),
    (date, Comparison._equals),
    (Decimal, Comparison._decimals),
    (bytes | bytearray, Comparison._equals),
    (Mapping, Comparison._mappings),
    (Set, Comparison._sets),
    (Sequence, Comparison._sequences),
)


def difference(given: object, back: object) -> str | None:
    """Where and how what came back differs from what was given; None: nowhere."""
    return Comparison().difference(given, back)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, object]]:
    """Every part of a value that is no container of others, and the keys of mappings, each with what to call it."""
    if isinstance(value, BaseModel):
        for name in _names(value):
            yield from leaves(getattr(value, name, None), _join(path, name))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from leaves(getattr(value, field.name, None), _join(path, field.name))
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield f"the key {shown(key, 60)} of {_at(path)}", key
            yield from leaves(each, _join_key(path, key))
    elif isinstance(value, Sequence | Set) and not isinstance(value, str | bytes | bytearray | memoryview | range):
        for place, each in enumerate(value):
            yield from leaves(each, f"{path}[{place}]")
    else:
        yield _at(path), value


def unwritable(value: object) -> str | None:
    """Which part of a value JSON cannot hold as it is, whatever its type: secrets, `nan`, half surrogate pairs."""
    for place, leaf in leaves(value):
        if hasattr(leaf, "get_secret_value"):
            return f"{place} is a secret: it would be written as asterisks"
        if isinstance(leaf, float) and not math.isfinite(leaf):
            return f"{place} is {leaf!r}, which JSON does not have"
        if isinstance(leaf, str) and not _is_text(leaf):
            return f"{place} holds half a surrogate pair"
    return None


def not_utf8(value: object) -> str | None:
    """Which bytes of a value are no UTF-8."""
    for place, leaf in leaves(value):
        if isinstance(leaf, bytes | bytearray):
            try:
                leaf.decode()
            except UnicodeDecodeError:
                return f"{place} holds bytes that are no UTF-8; a model writes them with ser_json_bytes='base64'"
    return None


def _names(model: BaseModel) -> list[str]:
    return [*type(model).model_fields, *(model.__pydantic_extra__ or ())]


def _is_named(value: object) -> bool:
    return isinstance(value, tuple) and hasattr(value, "_fields")


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _first(found: Iterator[str | None]) -> str | None:
    return next((each for each in found if each is not None), None)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _join_key(path: str, key: object) -> str:
    return _join(path, key if isinstance(key, str) else shown(key, 60))


def _at(path: str) -> str:
    return path if path.startswith(("the key", "a member")) else f"field {path}" if path else "it"


def _told(given: object, back: object, path: str) -> str:
    kind = name_of_class(type(given)).removeprefix("builtins.")
    if back is _MISSING:
        return f"{_at(path)} ({shown(given, 80)}, {kind}) does not come back"
    theirs = name_of_class(type(back)).removeprefix("builtins.")
    return f"{_at(path)} ({shown(given, 80)}, {kind}) comes back as {shown(back, 80)} ({theirs})"
