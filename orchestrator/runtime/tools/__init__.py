"""Built-in tools, one module each (docs/reference/perstack.md#built-in-tools).

A module has `DEFINITION`, the tool as the model sees it, and `execute`, which returns the result as JSON text.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.wire.generation import ToolDefinition

_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "string": str,
    "number": (int, float),
    "integer": int,
    "boolean": bool,
    "array": list,
    "object": dict,
}


class ToolError(Exception):
    """A tool failed in a way that the model can react to.

    Args:
        message: what happened, to which path, what to do.
        kind: the kind of failure; None if the message itself is the error, as in `exec`.
        more: further members of the result.
        more: further members of the result.
    """

    def __init__(self, message: str, kind: str | None = "Error", **more: Any) -> None:
        super().__init__(message)
        self.result = ({"error": message} if kind is None else {"error": kind, "message": message}) | more

    def to_json(self) -> str:
        """The result that the model reads."""
        return to_json(self.result)


@dataclass(frozen=True, slots=True)
class Inline:
    """A result that is a file's bytes, for the model to view."""

    kind: Literal["image", "file"]
    mime_type: str
    data: bytes


def to_json(result: Mapping[str, Any]) -> str:
    """A result as the model reads it; invalid Unicode, as in file names, becomes question marks."""
    text = json.dumps(result, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", errors="replace").decode("utf-8")


def define(
    name: str, description: str, *, required: tuple[str, ...] = (), **properties: Mapping[str, Any]
) -> ToolDefinition:
    """Describe a tool whose arguments are `properties`, each a JSON Schema."""
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        schema["required"] = list(required)
    return ToolDefinition(name=name, description=description, input_schema=schema)


def check(definition: ToolDefinition, args: Mapping[str, Any]) -> None:
    """Check arguments against the tool's schema.

    Raises:
        ToolError: an argument is missing or of another type.
    """
    properties = definition.input_schema["properties"]
    for name in definition.input_schema.get("required", ()):
        if args.get(name) is None:
            message = f"{definition.name} needs the argument {name!r}"
            raise ToolError(message, "InvalidArguments")
    for name, value in args.items():
        if name in properties and value is not None:
            _check_type(f"{definition.name}: argument {name!r}", properties[name], value)


def _check_type(subject: str, schema: Mapping[str, Any], value: Any) -> None:
    expected = schema.get("type")
    types = _TYPES.get(expected) if isinstance(expected, str) else None
    if types is None:
        return
    if not isinstance(value, types) or (isinstance(value, bool) and expected != "boolean"):
        message = f"{subject} must be of type {expected}"
        raise ToolError(message, "InvalidArguments")
    if isinstance(value, list) and "items" in schema:
        for item in value:
            _check_type(f"each item of {subject}", schema["items"], item)
    if isinstance(value, dict) and "additionalProperties" in schema:
        for item in value.values():
            _check_type(f"each value of {subject}", schema["additionalProperties"], item)
