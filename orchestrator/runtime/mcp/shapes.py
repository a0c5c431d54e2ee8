"""Checks of values that a server sent, with the path of the first wrong one.

Texts and numbers in place of others count where MCP's SDK accepts them: `"true"` for true, `"5"` and 5.0 for 5.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from orchestrator.runtime.mcp.protocol import ViolationError

Check = Callable[[Any, str], Any]
"""Returns the value, converted if needed. The second argument is its path, for the error.

Raises:
    ViolationError: the value is of another type.
"""

_TRUE = frozenset(("1", "on", "t", "true", "y", "yes"))
_FALSE = frozenset(("0", "off", "f", "false", "n", "no"))
_INTEGER = re.compile(r"\s*[+-]?[0-9]+(?:_[0-9]+)*(?:\.0*)?\s*", re.ASCII)
_DIGITS = 4000
"""How long a number in a text may be: Python refuses to convert longer ones."""


def anything(value: Any, _path: str) -> Any:
    """Accept every value."""
    return value


def text(value: Any, path: str) -> str:
    """A string."""
    return value if isinstance(value, str) else _refuse(path, "a string", value)


def boolean(value: Any, path: str) -> bool:
    """True or false."""
    if isinstance(value, str):
        word = value.lower()
        return word in _TRUE if word in _TRUE | _FALSE else _refuse(path, "true or false", value)
    return (
        bool(value) if isinstance(value, bool | int | float) and value in (0, 1) else _refuse(path, "a boolean", value)
    )


def integer(value: Any, path: str) -> int:
    """A whole number."""
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and len(value) <= _DIGITS and _INTEGER.fullmatch(value):
        return int(value.partition(".")[0])
    return _refuse(path, "a whole number", value)


def number(value: Any, path: str) -> float:
    """A number."""
    try:
        return float(value) if isinstance(value, int | float | str) else _refuse(path, "a number", value)
    except (ValueError, OverflowError):
        return _refuse(path, "a number", value)


def fraction(value: Any, path: str) -> float:
    """A number from 0 to 1."""
    found = number(value, path)
    return found if 0 <= found <= 1 else _refuse(path, "a number from 0 to 1", value)


def milliseconds(value: Any, path: str) -> int:
    """A whole number that is not negative."""
    found = integer(value, path)
    return found if found >= 0 else _refuse(path, "a number that is not negative", value)


def mapping(value: Any, path: str) -> dict[str, Any]:
    """An object with any members."""
    return value if isinstance(value, dict) else _refuse(path, "an object", value)


def constant(*allowed: str) -> Check:
    """One of these strings."""

    def check(value: Any, path: str) -> str:
        if isinstance(value, str) and value in allowed:
            return value
        return _refuse(path, " or ".join(map(repr, allowed)), value)

    return check


def optional(inner: Check) -> Check:
    """None, or what `inner` accepts."""
    return lambda value, path: None if value is None else inner(value, path)


def listed(inner: Check) -> Check:
    """A list whose items `inner` accepts."""

    def check(value: Any, path: str) -> list[Any]:
        if not isinstance(value, list):
            return _refuse(path, "a list", value)
        return [inner(item, f"{path}[{position}]") for position, item in enumerate(value)]

    return check


def mapped(inner: Check) -> Check:
    """An object whose values `inner` accepts."""

    def check(value: Any, path: str) -> dict[str, Any]:
        return {key: inner(item, f"{path}.{key}") for key, item in mapping(value, path).items()}

    return check


def fields(required: Mapping[str, Check], others: Mapping[str, Check]) -> Check:
    """An object with these fields. Others in it are dropped, and `others` that it lacks stay absent."""

    def check(value: Any, path: str) -> dict[str, Any]:
        members = mapping(value, path)
        found = {}
        for name, inner in required.items():
            if name not in members:
                message = f"{_joined(path, name)} is missing"
                raise ViolationError(message)
            found[name] = inner(members[name], _joined(path, name))
        for name, inner in others.items():
            if name in members:
                found[name] = inner(members[name], _joined(path, name))
        return found

    return check


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


_KINDS = {str: "a string", bool: "a boolean", list: "a list", dict: "an object", type(None): "null"}


def _refuse(path: str, expected: str, value: Any) -> NoReturn:
    message = f"{path or 'the result'} must be {expected}, not {_KINDS.get(type(value), 'a number')}"
    raise ViolationError(message)
