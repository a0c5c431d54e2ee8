"""JSON Schema for the structured content of tools: drafts 4, 6 and 7, 2019-09 and 2020-12.

`format` and `content…` are annotations, which is the specification's default. References lead nowhere but into the
schema itself and to the published meta-schemas.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

from orchestrator.runtime.mcp.schema_assertions import assertion_problem, shown
from orchestrator.runtime.mcp.schema_keywords import (
    DRAFTS,
    InvalidSchemaError,
    check_schema,
    dialect_of,
    exists,
    subschemas,
)

_DRAFT_4, _DRAFT_7, _DRAFT_2019 = 4, 7, 2019


def find_problem(schema: Mapping[str, Any], value: Any) -> str | None:
    """Return why `value` does not match `schema`, with the path of what is wrong in it; None if it matches.

    Raises:
        InvalidSchemaError: the schema is not valid, or a reference in it leads nowhere or around in a circle.
    """
    draft = dialect_of(schema)
    try:
        check_schema(schema, draft)
        return _Evaluation(schema, draft).evaluate(schema, value, _Place()).problem
    except RecursionError as error:
        message = "it is nested too deep, or its references lead around in a circle"
        raise InvalidSchemaError(message) from error


@dataclass(slots=True)
class _Outcome:
    """Whether a schema matches a value, and which of its properties and items were looked at."""

    problem: str | None = None
    keys: set[str] = field(default_factory=set)
    items: set[int] = field(default_factory=set)

    def add(self, other: "_Outcome") -> None:
        self.keys |= other.keys
        self.items |= other.items


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an evaluation is: the path in the value, the base URI of the schema, and those of the way to it."""

    path: str = ""
    base: str = ""
    scope: tuple[str, ...] = ("",)

    def at(self, step: str | int) -> "_Place":
        joined = f"{self.path}[{step}]" if isinstance(step, int) else f"{self.path}.{step}"
        return _Place(joined, self.base, self.scope)

    def within(self, base: str) -> "_Place":
        return self if base == self.base else _Place(self.path, base, (*self.scope, base))

    def problem(self, text: str) -> str:
        return f"{self.path.removeprefix('.')}: {text}" if self.path else text


class _Evaluation:
    """One schema, with everything that a reference in it can lead to."""

    def __init__(self, root: Mapping[str, Any], draft: int) -> None:
        self._draft = draft
        self._resources: dict[str, Any] = {"": root}
        self._bases: dict[int, str] = {}  # Of each schema, by its identity: `root` keeps them alive.
        self._anchors: dict[tuple[str, str], Any] = {}
        self._dynamic: dict[tuple[str, str], Any] = {}
        self._index(root, "")
        self._handlers: Mapping[str, Callable[[Any, Any, Any, _Place], _Outcome]] = {
            "$ref": self._ref,
            "$dynamicRef": self._dynamic_ref,
            "$recursiveRef": self._recursive_ref,
            "allOf": self._all_of,
            "anyOf": self._any_of,
            "oneOf": self._one_of,
            "not": self._not,
            "if": self._if,
            "properties": self._properties,
            "patternProperties": self._pattern_properties,
            "additionalProperties": self._additional_properties,
            "propertyNames": self._property_names,
            "dependencies": self._dependencies,
            "dependentSchemas": self._dependencies,
            "dependentRequired": self._dependencies,
            "items": self._items,
            "prefixItems": self._prefix_items,
            "additionalItems": self._additional_items,
            "contains": self._contains,
        }

    def evaluate(self, schema: Any, value: Any, place: _Place) -> _Outcome:
        """Evaluate a schema at one place of the value."""
        if isinstance(schema, bool):
            return _Outcome(None if schema else place.problem(f"{shown(value)} is not allowed"))
        is_alone = self._draft <= _DRAFT_7 and "$ref" in schema
        if not is_alone:
            place = place.within(self._bases.get(id(schema), place.base))
        found = _Outcome()
        for keyword, argument in [("$ref", schema["$ref"])] if is_alone else schema.items():
            if not exists(keyword, self._draft):
                continue
            if keyword in self._handlers:
                inner = self._handlers[keyword](argument, value, schema, place)
                found.add(inner)
                problem = inner.problem
            else:
                text = assertion_problem(keyword, argument, value, schema, self._draft)
                problem = None if text is None else place.problem(text)
            if problem is not None:
                return _Outcome(problem)
        return found if is_alone else self._unevaluated(schema, value, place, found)

    def _base_of(self, schema: Mapping[str, Any], base: str) -> str:
        name = schema.get("id" if self._draft == _DRAFT_4 else "$id")
        return urldefrag(urljoin(base, name)).url if isinstance(name, str) and not name.startswith("#") else base

    def _index(self, schema: Any, base: str) -> None:
        if not isinstance(schema, dict):
            return
        if not (self._draft <= _DRAFT_7 and "$ref" in schema):
            base = self._base_of(schema, base)
            if base != "" and base not in self._resources:
                self._resources[base] = schema
            name = schema.get("id" if self._draft == _DRAFT_4 else "$id")
            if self._draft <= _DRAFT_7 and isinstance(name, str) and name.startswith("#"):
                self._anchors[base, name[1:]] = schema
            if isinstance(schema.get("$anchor"), str):
                self._anchors[base, schema["$anchor"]] = schema
            if isinstance(schema.get("$dynamicAnchor"), str):
                self._anchors[base, schema["$dynamicAnchor"]] = schema
                self._dynamic[base, schema["$dynamicAnchor"]] = schema
        self._bases[id(schema)] = base
        for _, inner in subschemas(schema, self._draft):
            self._index(inner, base)

    def _resolve(self, reference: str, base: str) -> tuple[Any, str]:
        """The schema that a reference leads to, and its base URI."""
        target, fragment = urldefrag(base + reference if reference.startswith("#") else urljoin(base, reference))
        fragment = unquote(fragment)
        found = self._resources.get(target, ...)
        if found is not ... and (not fragment or fragment.startswith("/")):
            found, target = self._follow(found, fragment, target)
        elif fragment:
            found = self._anchors.get((target, fragment), ...)
        if found is ... or not isinstance(found, dict | bool):
            message = f"the reference {reference!r} leads nowhere"
            raise InvalidSchemaError(message)
        return found, target

    def _follow(self, schema: Any, pointer: str, base: str) -> tuple[Any, str]:
        for step in pointer.split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            if isinstance(schema, list):
                schema = schema[int(key)] if key.isdecimal() and int(key) < len(schema) else ...
            else:
                schema = schema.get(key, ...) if isinstance(schema, dict) else ...
            if isinstance(schema, dict):
                base = self._bases.get(id(schema), base)
        return schema, base

    def _ref(self, reference: str, value: Any, _schema: Any, place: _Place) -> _Outcome:
        known = DRAFTS.get(urldefrag(urljoin(place.base, reference)).url)
        if known is not None and urldefrag(urljoin(place.base, reference)).url not in self._resources:
            return _published(known, value, place)
        target, base = self._resolve(reference, place.base)
        return self.evaluate(target, value, place.within(base))

    def _dynamic_ref(self, reference: str, value: Any, _schema: Any, place: _Place) -> _Outcome:
        target, base = self._resolve(reference, place.base)
        fragment = urldefrag(reference).fragment
        if isinstance(target, dict) and target.get("$dynamicAnchor") == fragment:
            base = next((outer for outer in (*place.scope, base) if (outer, fragment) in self._dynamic), base)
            target = self._dynamic.get((base, fragment), target)
        return self.evaluate(target, value, place.within(base))

    def _recursive_ref(self, reference: str, value: Any, _schema: Any, place: _Place) -> _Outcome:
        target, base = self._resolve(reference, place.base)
        if isinstance(target, dict) and target.get("$recursiveAnchor") is True:
            for outer in place.scope:
                found = self._resources.get(outer)
                if isinstance(found, dict) and found.get("$recursiveAnchor") is True:
                    target, base = found, outer
                    break
        return self.evaluate(target, value, place.within(base))

    def _all_of(self, schemas: list[Any], value: Any, _schema: Any, place: _Place) -> _Outcome:
        return _merged(self.evaluate(schema, value, place) for schema in schemas)

    def _any_of(self, schemas: list[Any], value: Any, _schema: Any, place: _Place) -> _Outcome:
        outcomes = [self.evaluate(schema, value, place) for schema in schemas]
        if all(outcome.problem for outcome in outcomes):
            return _Outcome(place.problem(f"{shown(value)} matches none of the alternatives"))
        return _merged(outcome for outcome in outcomes if outcome.problem is None)

    def _one_of(self, schemas: list[Any], value: Any, _schema: Any, place: _Place) -> _Outcome:
        matching = [outcome for schema in schemas if (outcome := self.evaluate(schema, value, place)).problem is None]
        if len(matching) == 1:
            return matching[0]
        many = "more than one" if matching else "none"
        return _Outcome(place.problem(f"{shown(value)} matches {many} of the alternatives"))

    def _not(self, schema: Any, value: Any, _schema: Any, place: _Place) -> _Outcome:
        if self.evaluate(schema, value, place).problem is None:
            return _Outcome(place.problem(f"{shown(value)} matches what it must not match"))
        return _Outcome()

    def _if(self, condition: Any, value: Any, schema: Any, place: _Place) -> _Outcome:
        found = self.evaluate(condition, value, place)
        then = "then" if found.problem is None else "else"
        kept = found if found.problem is None else _Outcome()
        return _merged((kept, self.evaluate(schema[then], value, place))) if then in schema else kept

    def _properties(self, schemas: Mapping[str, Any], value: Any, _schema: Any, place: _Place) -> _Outcome:
        if not isinstance(value, dict):
            return _Outcome()
        return self._members(((key, schemas[key]) for key in schemas if key in value), value, place)

    def _pattern_properties(self, schemas: Mapping[str, Any], value: Any, _schema: Any, place: _Place) -> _Outcome:
        if not isinstance(value, dict):
            return _Outcome()
        matching = ((key, schema) for pattern, schema in schemas.items() for key in value if re.search(pattern, key))
        return self._members(matching, value, place)

    def _additional_properties(self, inner: Any, value: Any, schema: Any, place: _Place) -> _Outcome:
        if not isinstance(value, dict):
            return _Outcome()
        patterns = schema.get("patternProperties", ())
        known = schema.get("properties", ())
        others = [key for key in value if key not in known and not any(re.search(pattern, key) for pattern in patterns)]
        return self._members(((key, inner) for key in others), value, place)

    def _members(self, schemas: Iterable[tuple[str, Any]], value: Mapping[str, Any], place: _Place) -> _Outcome:
        found = _Outcome()
        for key, schema in schemas:
            problem = self.evaluate(schema, value[key], place.at(key)).problem
            if problem is not None:
                return _Outcome(problem)
            found.keys.add(key)
        return found

    def _property_names(self, inner: Any, value: Any, _schema: Any, place: _Place) -> _Outcome:
        names = value if isinstance(value, dict) else ()
        return _Outcome(next(filter(None, (self.evaluate(inner, name, place).problem for name in names)), None))

    def _dependencies(self, needs: Mapping[str, Any], value: Any, _schema: Any, place: _Place) -> _Outcome:
        found = _Outcome()
        for key, need in needs.items() if isinstance(value, dict) else ():
            if key not in value:
                continue
            if isinstance(need, list):
                text = assertion_problem("required", need, value, {}, self._draft)
                inner = _Outcome(None if text is None else place.problem(text))
            else:
                inner = self.evaluate(need, value, place)
            if inner.problem is not None:
                return inner
            found.add(inner)
        return found

    def _items(self, inner: Any, value: Any, schema: Any, place: _Place) -> _Outcome:
        if not isinstance(value, list):
            return _Outcome()
        if isinstance(inner, list):
            return self._prefix_items(inner, value, schema, place)
        first = len(schema.get("prefixItems", ())) if exists("prefixItems", self._draft) else 0
        return self._each(inner, value, range(first, len(value)), place)

    def _prefix_items(self, schemas: list[Any], value: Any, _schema: Any, place: _Place) -> _Outcome:
        pairs = list(zip(schemas, value, strict=False)) if isinstance(value, list) else []
        found = [self.evaluate(schema, item, place.at(index)).problem for index, (schema, item) in enumerate(pairs)]
        return _Outcome(next(filter(None, found), None), items=set(range(len(pairs))))

    def _additional_items(self, inner: Any, value: Any, schema: Any, place: _Place) -> _Outcome:
        known = schema.get("items")
        if not isinstance(value, list) or not isinstance(known, list):
            return _Outcome()
        return self._each(inner, value, range(len(known), len(value)), place)

    def _each(self, schema: Any, value: list[Any], positions: Iterable[int], place: _Place) -> _Outcome:
        found = _Outcome()
        for index in positions:
            problem = self.evaluate(schema, value[index], place.at(index)).problem
            if problem is not None:
                return _Outcome(problem)
            found.items.add(index)
        return found

    def _contains(self, inner: Any, value: Any, schema: Any, place: _Place) -> _Outcome:
        if not isinstance(value, list):
            return _Outcome()
        matching = {
            index for index, item in enumerate(value) if self.evaluate(inner, item, place.at(index)).problem is None
        }
        counts = schema if self._draft >= _DRAFT_2019 else {}
        least, most = counts.get("minContains", 1), counts.get("maxContains", len(value))
        if least <= len(matching) <= most:
            return _Outcome(items=matching)
        return _Outcome(place.problem(f"{len(matching)} of its items match, which is not the number that must"))

    def _unevaluated(self, schema: Mapping[str, Any], value: Any, place: _Place, found: _Outcome) -> _Outcome:
        if "unevaluatedItems" in schema and isinstance(value, list) and self._draft >= _DRAFT_2019:
            rest = [index for index in range(len(value)) if index not in found.items]
            inner = self._each(schema["unevaluatedItems"], value, rest, place)
            if inner.problem is not None:
                return inner
            found.add(inner)
        if "unevaluatedProperties" in schema and isinstance(value, dict) and self._draft >= _DRAFT_2019:
            others = [(key, schema["unevaluatedProperties"]) for key in value if key not in found.keys]
            inner = self._members(others, value, place)
            if inner.problem is not None:
                return inner
            found.add(inner)
        return found


def _merged(outcomes: Iterable[_Outcome]) -> _Outcome:
    found = _Outcome()
    for outcome in outcomes:
        if outcome.problem is not None:
            return outcome
        found.add(outcome)
    return found


def _published(draft: int, value: Any, place: _Place) -> _Outcome:
    """Evaluate a published meta-schema, which the rules for keywords stand for."""
    try:
        check_schema(value, draft)
    except InvalidSchemaError as error:
        return _Outcome(place.problem(f"{shown(value)} is not a schema: {error}"))
    return _Outcome()
