"""Arguments of a call that go into HTTP headers too, so that a proxy can route by them (MCP 2026-07-28, SEP-2243).

A property of a tool's input schema names its header in `x-mcp-header`.
"""

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Any

_KEY = "x-mcp-header"
_PREFIX = "Mcp-Param-"
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PLAIN = re.compile(r"[\x20-\x7e]*")
_ENCODED = re.compile(r"=\?base64\?.*\?=")
_TYPES = ("string", "integer", "boolean")

# Keywords whose values are schemas: one, a list of them, or a mapping to them. Data, as in `default`, is none.
_ONE = (
    "items",
    "contains",
    "unevaluatedItems",
    "additionalProperties",
    "propertyNames",
    "unevaluatedProperties",
    "not",
    "if",
    "then",
    "else",
    "contentSchema",
)
_SEVERAL = ("allOf", "anyOf", "oneOf", "prefixItems")
_NAMED = ("patternProperties", "dependentSchemas", "$defs", "definitions")

_Path = tuple[str, ...]


def header_value(text: str) -> str:
    """`text` as the value of a header: as it is, or in base64 if a header would change or break it."""
    if _PLAIN.fullmatch(text) and text == text.strip() and not _ENCODED.fullmatch(text):
        return text
    return f"=?base64?{base64.b64encode(text.encode()).decode('ascii')}?="


def header_names(input_schema: Mapping[str, Any]) -> Mapping[_Path, str] | None:
    """The names of headers by the path of their argument; None if one is invalid, and the tool must not be offered."""
    names: dict[_Path, str] = {}
    for path, schema in _positions(input_schema):
        if _KEY not in schema:
            continue
        name, kind = schema[_KEY], schema.get("type")
        if not path or not isinstance(name, str) or not _TOKEN.fullmatch(name) or kind not in _TYPES:
            return None
        names[path] = name
    return names if len({name.lower() for name in names.values()}) == len(names) else None


def param_headers(names: Mapping[_Path, str], args: Mapping[str, Any]) -> dict[str, str]:
    """The headers of one call; an argument that is absent or no single value has none."""
    headers = {}
    for path, name in names.items():
        value: Any = args
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, bool):
            headers[_PREFIX + name] = "true" if value else "false"
        elif isinstance(value, str | int | float):
            headers[_PREFIX + name] = header_value(str(value))
    return headers


def _positions(root: Any) -> Iterator[tuple[_Path | None, Mapping[str, Any]]]:
    """Each schema in `root` with the properties that lead to it; None if the way leads through anything else."""
    waiting: list[tuple[_Path | None, Any]] = [((), root)]
    while waiting:
        path, schema = waiting.pop()
        if not isinstance(schema, dict):
            continue
        yield path, schema
        for key, value in schema.items():
            if key == "properties" and isinstance(value, dict):
                waiting.extend((None if path is None else (*path, name), inner) for name, inner in value.items())
            elif key in _ONE:
                waiting.append((None, value))
            elif key in _SEVERAL and isinstance(value, list):
                waiting.extend((None, inner) for inner in value)
            elif key in _NAMED and isinstance(value, dict):
                waiting.extend((None, inner) for inner in value.values())
