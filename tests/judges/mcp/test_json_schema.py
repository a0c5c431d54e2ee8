"""Structured content, checked by us and by the library that the protocol's SDK checks it with."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import SchemaError  # type: ignore[import-untyped]  # its stubs are a separate package
from jsonschema.validators import validator_for  # type: ignore[import-untyped]
from referencing import Registry
from referencing.exceptions import Unresolvable

from orchestrator.runtime.mcp.json_schema import find_problem
from orchestrator.runtime.mcp.schema_keywords import DRAFTS, InvalidSchemaError

pytestmark = [pytest.mark.judges]

DIALECTS = [None, *DRAFTS, *(f"{uri}#" for uri in DRAFTS)]

NAMES = st.sampled_from(["a", "b", "aa"])
COUNTS = st.integers(0, 3)
TYPES = st.sampled_from(["array", "boolean", "integer", "null", "number", "object", "string"])
SIMPLE = st.sampled_from([None, True, False, 0, 1, -1, 1.0, 1.5, 3, 4, "", "a", "aa", "ab"])
VALUES = st.recursive(
    SIMPLE, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)
PATTERNS = st.sampled_from(["a", "^a$", "b+", "^$"])
REFERENCES = st.sampled_from(["#", "#/$defs/a", "#/definitions/a", "#a", "#/properties/a", "#/nowhere", "b"])


def schemas(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Schemas with others in them, and each keyword with a value that is nearly always allowed."""
    named = st.dictionaries(NAMES, inner, max_size=2)
    several = st.lists(inner, min_size=1, max_size=2)
    names = st.lists(NAMES, max_size=2, unique=True)
    keywords: dict[str, st.SearchStrategy[Any]] = {
        "type": TYPES | st.lists(TYPES, min_size=1, max_size=2, unique=True),
        "enum": st.lists(VALUES, min_size=1, max_size=2),
        "const": VALUES,
        "multipleOf": st.sampled_from([1, 2, 0.5, 1.5, 0]),
        "maximum": st.sampled_from([0, 1, 1.5]),
        "minimum": st.sampled_from([0, 1, 1.5]),
        "exclusiveMaximum": st.sampled_from([0, 1, True, False]),
        "exclusiveMinimum": st.sampled_from([0, 1, True, False]),
        "maxLength": COUNTS,
        "minLength": COUNTS,
        "pattern": PATTERNS | st.just("("),
        "maxItems": COUNTS,
        "minItems": COUNTS,
        "uniqueItems": st.booleans(),
        "maxProperties": COUNTS,
        "minProperties": COUNTS | st.just(-1),
        "required": names,
        "properties": named,
        "patternProperties": st.dictionaries(PATTERNS, inner, max_size=2),
        "additionalProperties": inner,
        "propertyNames": inner,
        "dependencies": st.dictionaries(NAMES, inner | names, max_size=2),
        "dependentSchemas": named,
        "dependentRequired": st.dictionaries(NAMES, names, max_size=2),
        "items": inner | several,
        "prefixItems": several,
        "additionalItems": inner,
        "contains": inner,
        "minContains": COUNTS,
        "maxContains": COUNTS,
        "unevaluatedItems": inner,
        "unevaluatedProperties": inner,
        "allOf": several,
        "anyOf": several,
        "oneOf": several,
        "not": inner,
        "if": inner,
        "then": inner,
        "else": inner,
        "$ref": REFERENCES,
        "$defs": named,
        "definitions": named,
        "$anchor": NAMES,
        "format": st.just("date-time"),
    }
    return st.lists(st.sampled_from(sorted(keywords)), max_size=4, unique=True).flatmap(
        lambda chosen: st.fixed_dictionaries({keyword: keywords[keyword] for keyword in chosen})
    )


SCHEMAS: st.SearchStrategy[Any] = st.recursive(
    st.booleans() | st.just({}) | schemas(st.just({"type": "string"})), schemas, max_leaves=6
)


def by_library(schema: dict[str, Any], value: Any) -> str:
    """What the library returns, called as the SDK calls it."""
    kind = validator_for(schema)
    try:
        kind.check_schema(schema)
        return "matches" if kind(schema, registry=Registry()).is_valid(value) else "does not match"
    except (SchemaError, Unresolvable, RecursionError):
        return "invalid schema"
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # Of its part in Rust, on references in a circle.
            raise
        return "invalid schema"


def by_us(schema: dict[str, Any], value: Any) -> str:
    """What we return."""
    try:
        return "matches" if find_problem(schema, value) is None else "does not match"
    except InvalidSchemaError:
        return "invalid schema"


@given(SCHEMAS, st.sampled_from(DIALECTS), VALUES)
def test_a_value_matches_for_both_or_for_neither(schema: Any, dialect: str | None, value: Any) -> None:
    """In every draft, for values and schemas of all kinds."""
    if isinstance(schema, bool):
        return
    schema = schema if dialect is None else {"$schema": dialect, **schema}
    ours, theirs = by_us(schema, value), by_library(schema, value)
    if theirs == "invalid schema" and ("draft-0" in (dialect or "") or "dependencies" in str(schema)):
        return  # Old meta-schemas have stricter rules, as of equal values in `enum`, and new ones check old words.
    # Where a reference leads nowhere, the answer depends on which keyword comes first.
    if "invalid schema" not in (ours, theirs) or "$ref" not in str(schema):
        assert ours == theirs


REALISTIC = {
    "type": "object",
    "$defs": {
        "Node": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "pattern": "^[a-z]+$"},
                "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
            },
            "required": ["name"],
            "additionalProperties": False,
        }
    },
    "properties": {"result": {"$ref": "#/$defs/Node"}, "at": {"type": "string", "format": "date-time"}},
    "required": ["result"],
}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"result": {"name": "a", "next": {"name": "b"}}, "at": "never"}, None),
        ({"result": {"name": "a", "next": {"name": 5}}}, "result.next: {'name': 5} matches none of the alternatives"),
        ({"result": {"name": "A"}}, "result.name: 'A' does not match pattern '^[a-z]+$'"),
        ({"result": {"name": "a", "more": 1}}, "result.more: 1 is not allowed"),
        ({}, "{} does not match required ['result']"),
        (None, "None does not match type 'object'"),
    ],
)
def test_the_path_of_a_mistake_is_named(value: Any, problem: str | None) -> None:
    """A server's author finds it; the library agrees that it is one."""
    assert find_problem(REALISTIC, value) == problem
    assert (by_library(REALISTIC, value) == "matches") == (problem is None)


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ({"properties": {"a": True}, "unevaluatedProperties": False}, {"a": 1}, "matches"),
        ({"properties": {"a": True}, "unevaluatedProperties": False}, {"b": 1}, "does not match"),
        ({"allOf": [{"patternProperties": {"^a": {}}}], "unevaluatedProperties": False}, {"ab": 1}, "matches"),
        (
            {"anyOf": [{"properties": {"a": False}}, {"properties": {"b": {}}}], "unevaluatedProperties": False},
            {"b": 1},
            "matches",
        ),
        ({"not": {"properties": {"a": True}}, "unevaluatedProperties": False}, {}, "does not match"),
        ({"prefixItems": [True], "unevaluatedItems": False}, [1], "matches"),
        ({"prefixItems": [True], "unevaluatedItems": False}, [1, 2], "does not match"),
        ({"contains": {"const": 1}, "unevaluatedItems": {"const": 2}}, [1, 2], "matches"),
        (
            {"if": {"properties": {"a": {"const": 1}}}, "then": {"required": ["b"]}, "unevaluatedProperties": False},
            {"a": 1, "b": 1},
            "does not match",
        ),
        (
            {"dependentSchemas": {"a": {"properties": {"b": {}}}}, "unevaluatedProperties": {"const": 1}},
            {"a": 1, "b": 2},
            "matches",
        ),
        ({"enum": [1, [True]]}, 1.0, "matches"),
        ({"enum": [1, [True]]}, [1], "does not match"),
        ({"uniqueItems": True}, [1, True, {"a": 1}, {"a": True}], "matches"),
        ({"uniqueItems": True}, [{"a": 1}, {"a": 1.0}], "does not match"),
        ({"multipleOf": 0.01}, 0.07, "does not match"),
        ({"multipleOf": 0.5}, 1e308, "matches"),
        ({"type": "integer"}, 1.0, "matches"),
        ({"type": "number"}, True, "does not match"),
        ({"$ref": "https://json-schema.org/draft/2020-12/schema"}, {"type": "string"}, "matches"),
        ({"$ref": "https://json-schema.org/draft/2020-12/schema"}, {"type": "text"}, "does not match"),
        ({"$ref": "https://example.com/elsewhere"}, 1, "invalid schema"),
        (
            {
                "$id": "https://example.com/a",
                "$defs": {"b": {"$id": "b", "$anchor": "c", "type": "null"}},
                "$ref": "b#c",
            },
            None,
            "matches",
        ),
    ],
)
def test_what_is_easily_missed(schema: dict[str, Any], value: Any, expected: str) -> None:
    """What was looked at before, equality, and references."""
    assert by_us(schema, value) == by_library(schema, value) == expected


@pytest.mark.parametrize("depth", [100, 100_000])
def test_a_schema_without_end_is_an_error(depth: int) -> None:
    """References in a circle, and values nested too deep for them."""
    value: Any = None
    for _ in range(depth):
        value = [value]
    assert by_us({"$ref": "#"}, 1) == by_library({"$ref": "#"}, 1) == "invalid schema"
    nested = {"type": ["array", "null"], "items": {"$ref": "#"}}
    assert by_us(nested, value) == ("matches" if depth < 1000 else "invalid schema")
