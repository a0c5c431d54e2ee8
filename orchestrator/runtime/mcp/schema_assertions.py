"""The keywords of JSON Schema that look at one value alone."""

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from math import inf, isfinite
from typing import Any

_SHOWN = 200
_DRAFT_4 = 4


def assertion_problem(keyword: str, argument: Any, value: Any, schema: Mapping[str, Any], draft: int) -> str | None:
    """Return why `value` breaks one keyword of `schema`; None if it does not, or if the keyword is none of these."""
    check = _ASSERTIONS.get(keyword)
    if check is None or check(argument, value, schema, draft):
        return None
    return f"{shown(value)} does not match {keyword} {shown(argument)}"


def shown(value: Any) -> str:
    """The start of a value, for an error."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_integer(value: Any, draft: int) -> bool:
    if isinstance(value, float):
        return draft > _DRAFT_4 and value.is_integer()
    return _is_number(value)


_TYPES: Mapping[str, Callable[[Any, int], bool]] = {
    "array": lambda value, _: isinstance(value, list),
    "boolean": lambda value, _: isinstance(value, bool),
    "integer": _is_integer,
    "null": lambda value, _: value is None,
    "number": lambda value, _: _is_number(value),
    "object": lambda value, _: isinstance(value, dict),
    "string": lambda value, _: isinstance(value, str),
}


def _type(names: str | list[str], value: Any, _schema: Any, draft: int) -> bool:
    return any(_TYPES[name](value, draft) for name in ([names] if isinstance(names, str) else names))


def _equal(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON: 1 is 1.0, and not true."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)


def _are_different(items: list[Any]) -> bool:
    simple = {(item is True or item is False, item) for item in items if isinstance(item, str | int | float | None)}
    others = [item for item in items if isinstance(item, dict | list)]
    return len(simple) + len(others) == len(items) and not any(
        _equal(item, earlier) for index, item in enumerate(others) for earlier in others[:index]
    )


def _maximum(limit: float, value: Any, schema: Mapping[str, Any], draft: int) -> bool:
    is_exclusive = draft == _DRAFT_4 and schema.get("exclusiveMaximum") is True
    return not _is_number(value) or value < limit or (value == limit and not is_exclusive)


def _minimum(limit: float, value: Any, schema: Mapping[str, Any], draft: int) -> bool:
    is_exclusive = draft == _DRAFT_4 and schema.get("exclusiveMinimum") is True
    return not _is_number(value) or value > limit or (value == limit and not is_exclusive)


def _multiple_of(step: float, value: float) -> bool:
    if not isfinite(value):
        return False
    if isinstance(step, int):
        return value % step == 0
    try:
        quotient = value / step
    except OverflowError:
        quotient = inf
    return quotient.is_integer() if isfinite(quotient) else Fraction(value) % Fraction(step) == 0


def _counted(kind: type[str | list[Any] | dict[str, Any]], holds: Callable[[int, float], bool]) -> Callable[..., bool]:
    """A limit for the length of strings, lists or objects."""
    return lambda limit, value, _schema, _draft: not isinstance(value, kind) or holds(len(value), limit)


def _at_most(length: int, limit: float) -> bool:
    return length <= limit


def _at_least(length: int, limit: float) -> bool:
    return length >= limit


_ASSERTIONS: Mapping[str, Callable[..., bool]] = {
    "const": lambda argument, value, _schema, _draft: _equal(argument, value),
    "enum": lambda allowed, value, _schema, _draft: any(_equal(item, value) for item in allowed),
    "exclusiveMaximum": lambda limit, value, _schema, draft: (
        draft == _DRAFT_4 or not _is_number(value) or value < limit
    ),
    "exclusiveMinimum": lambda limit, value, _schema, draft: (
        draft == _DRAFT_4 or not _is_number(value) or value > limit
    ),
    "maxItems": _counted(list, _at_most),
    "maxLength": _counted(str, _at_most),
    "maxProperties": _counted(dict, _at_most),
    "maximum": _maximum,
    "minItems": _counted(list, _at_least),
    "minLength": _counted(str, _at_least),
    "minProperties": _counted(dict, _at_least),
    "minimum": _minimum,
    "multipleOf": lambda step, value, _schema, _draft: not _is_number(value) or _multiple_of(step, value),
    "pattern": lambda pattern, value, _schema, _draft: (
        not isinstance(value, str) or re.search(pattern, value) is not None
    ),
    "required": lambda names, value, _schema, _draft: (
        not isinstance(value, dict) or all(name in value for name in names)
    ),
    "type": _type,
    "uniqueItems": lambda is_asked, value, _schema, _draft: (
        not is_asked or not isinstance(value, list) or _are_different(value)
    ),
}
