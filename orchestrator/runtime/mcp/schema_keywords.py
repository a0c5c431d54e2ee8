"""The keywords of JSON Schema in each draft: which exist, what their values must be, and where schemas are in them."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

DRAFTS = {
    "http://json-schema.org/draft-04/schema": 4,
    "http://json-schema.org/draft-06/schema": 6,
    "http://json-schema.org/draft-07/schema": 7,
    "https://json-schema.org/draft/2019-09/schema": 2019,
    "https://json-schema.org/draft/2020-12/schema": 2020,
}
"""Drafts, or years, by the URI of their meta-schema."""

_LATEST = 2020
TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")


class InvalidSchemaError(Exception):
    """A schema breaks the rules of its draft."""


def dialect_of(schema: Mapping[str, Any]) -> int:
    """The draft that `$schema` names; the latest if it names none, or one that is not known here."""
    named = schema.get("$schema")
    return DRAFTS.get(named.removesuffix("#"), _LATEST) if isinstance(named, str) else _LATEST


def check_schema(schema: Any, draft: int, path: str = "") -> None:
    """Check the values of all keywords, in all schemas inside too.

    Raises:
        InvalidSchemaError: one of them is not allowed in this draft.
    """
    if isinstance(schema, bool) and draft > 4:  # noqa: PLR2004 - the draft
        return
    if not isinstance(schema, dict):
        message = f"{path or 'it'} must be a schema"
        raise InvalidSchemaError(message)
    for keyword, value in schema.items():
        expected, is_allowed = _rule(keyword, draft)
        if not is_allowed(value):
            message = f"{path}/{keyword} must be {expected}"
            raise InvalidSchemaError(message)
    for steps, inner in subschemas(schema, draft):
        may_be_flag = steps in (("additionalProperties",), ("additionalItems",)) and isinstance(inner, bool)
        if not may_be_flag:
            check_schema(inner, draft, "/".join((path, *steps)))


def exists(keyword: str, draft: int) -> bool:
    """Whether a draft has a keyword; what is in none of them counts as existing, and means nothing."""
    first, last, *_ = _PLACES.get(keyword) or _RULES.get(keyword) or (4, _LATEST)
    return first <= draft <= last


def subschemas(schema: Mapping[str, Any], draft: int) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The schemas directly inside a schema, each with the keys and positions that lead to it."""
    for keyword, value in schema.items():
        first, last, kind = _PLACES.get(keyword, (_LATEST + 1, 0, ""))
        if not first <= draft <= last:
            continue
        if kind == "one" or (kind == "items" and (draft == _LATEST or not isinstance(value, list))):
            yield (keyword,), value
        elif isinstance(value, list):
            yield from (((keyword, str(position)), inner) for position, inner in enumerate(value))
        elif isinstance(value, dict):
            # The other form of `dependencies` is a list of names.
            yield from (((keyword, name), inner) for name, inner in value.items() if not isinstance(inner, list))


_PLACES: Mapping[str, tuple[int, int, str]] = {
    "additionalItems": (4, 2019, "one"),
    "additionalProperties": (4, 2020, "one"),
    "allOf": (4, 2020, "several"),
    "anyOf": (4, 2020, "several"),
    "contains": (6, 2020, "one"),
    "definitions": (4, 2020, "named"),
    "$defs": (2019, 2020, "named"),
    "dependencies": (4, 7, "named"),
    "dependentSchemas": (2019, 2020, "named"),
    "else": (7, 2020, "one"),
    "if": (7, 2020, "one"),
    "items": (4, 2020, "items"),
    "not": (4, 2020, "one"),
    "oneOf": (4, 2020, "several"),
    "patternProperties": (4, 2020, "named"),
    "prefixItems": (2020, 2020, "several"),
    "properties": (4, 2020, "named"),
    "propertyNames": (6, 2020, "one"),
    "then": (7, 2020, "one"),
    "unevaluatedItems": (2019, 2020, "one"),
    "unevaluatedProperties": (2019, 2020, "one"),
}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_number(value) and value >= 0 and value == value // 1


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value)) and len(set(value)) == len(value)


def _is_pattern(value: Any) -> bool:
    try:
        return isinstance(value, str) and re.compile(value) is not None
    except (re.error, RecursionError, OverflowError):
        return False


def _are_types(value: Any) -> bool:
    if isinstance(value, str):
        return value in TYPES
    return _are_names(value) and bool(value) and set(value) <= set(TYPES)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _are_dependencies(value: Any) -> bool:
    return _is_object(value) and all(not isinstance(names, list) or _are_names(names) for names in value.values())


_Rule = tuple[str, Callable[[Any], bool]]
_ANYTHING: _Rule = ("anything", lambda _: True)
_COUNT: _Rule = ("a whole number, not negative", _is_count)
_NUMBER: _Rule = ("a number", _is_number)
_FLAG: _Rule = ("true or false", _is_flag)
_TEXT: _Rule = ("a string", _is_text)
_NAMES: _Rule = ("a list of different strings", _are_names)
_OBJECT: _Rule = ("an object", _is_object)
_SEVERAL: _Rule = ("a list of schemas", lambda value: isinstance(value, list) and bool(value))

_RULES: Mapping[str, tuple[int, int, _Rule]] = {
    "$anchor": (2019, 2020, _TEXT),
    "$dynamicAnchor": (2020, 2020, _TEXT),
    "$dynamicRef": (2020, 2020, _TEXT),
    "$id": (6, 2020, _TEXT),
    "$recursiveAnchor": (2019, 2019, _FLAG),
    "$recursiveRef": (2019, 2019, _TEXT),
    "$ref": (4, 2020, _TEXT),
    "allOf": (4, 2020, _SEVERAL),
    "anyOf": (4, 2020, _SEVERAL),
    "definitions": (4, 2020, _OBJECT),
    "$defs": (2019, 2020, _OBJECT),
    "const": (6, 2020, _ANYTHING),
    "dependencies": (4, 7, ("an object of schemas and lists of names", _are_dependencies)),
    "dependentRequired": (
        2019,
        2020,
        ("an object of lists of names", lambda value: _is_object(value) and all(map(_are_names, value.values()))),
    ),
    "dependentSchemas": (2019, 2020, _OBJECT),
    "description": (4, 2020, _TEXT),
    "enum": (4, 2020, ("a list", lambda value: isinstance(value, list))),
    "exclusiveMaximum": (6, 2020, _NUMBER),
    "exclusiveMinimum": (6, 2020, _NUMBER),
    "format": (4, 2020, _TEXT),
    "id": (4, 4, _TEXT),
    "maxContains": (2019, 2020, _COUNT),
    "maxItems": (4, 2020, _COUNT),
    "maxLength": (4, 2020, _COUNT),
    "maxProperties": (4, 2020, _COUNT),
    "maximum": (4, 2020, _NUMBER),
    "minContains": (2019, 2020, _COUNT),
    "minItems": (4, 2020, _COUNT),
    "minLength": (4, 2020, _COUNT),
    "minProperties": (4, 2020, _COUNT),
    "minimum": (4, 2020, _NUMBER),
    "multipleOf": (4, 2020, ("a number above 0", lambda value: _is_number(value) and value > 0)),
    "oneOf": (4, 2020, _SEVERAL),
    "pattern": (4, 2020, ("a regular expression", _is_pattern)),
    "patternProperties": (
        4,
        2020,
        (
            "an object whose keys are regular expressions",
            lambda value: _is_object(value) and all(map(_is_pattern, value)),
        ),
    ),
    "prefixItems": (2020, 2020, _SEVERAL),
    "properties": (4, 2020, _OBJECT),
    "required": (4, 2020, _NAMES),
    "title": (4, 2020, _TEXT),
    "type": (4, 2020, ("a type, or a list of types", _are_types)),
    "uniqueItems": (4, 2020, _FLAG),
}


def _rule(keyword: str, draft: int) -> _Rule:
    if keyword in ("exclusiveMaximum", "exclusiveMinimum") and draft == 4:  # noqa: PLR2004 - the draft
        return _FLAG
    first, last, rule = _RULES.get(keyword, (4, 2020, _ANYTHING))
    return rule if first <= draft <= last else _ANYTHING
