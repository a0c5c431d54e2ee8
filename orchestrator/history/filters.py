"""Filters for events: by step, by type, by the value of a field (docs/reference/perstack.md#log)."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import ge, gt, le, lt
from typing import Any

from orchestrator.errors import ConfigError

ERRORS = frozenset({"stopRunByError", "retry"})
TOOLS = frozenset({"callTools", "resolveToolResults", "callInteractiveTool"})
DELEGATIONS = frozenset({"callDelegate", "stopRunByDelegate"})

_ORDER: Mapping[str, Callable[[Any, Any], bool]] = {">": gt, ">=": ge, "<": lt, "<=": le}
_STEP = re.compile(r"(?P<sign>>=|<=|>|<)?\s*(?P<number>[0-9]{1,9})")
_RANGE = re.compile(r"(?P<first>[0-9]{1,9})\s*-\s*(?P<last>[0-9]{1,9})")
_CONDITION = re.compile(
    r"(?P<path>(?:\.(?:[\w$-]+|(?=\[\]))(?:\[\])*)+)\s*(?P<sign>==|!=|>=|<=|>|<)\s*(?P<value>\S.*)", re.DOTALL
)
_SEGMENT = re.compile(r"\[\]|[\w$-]+")
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_ANY = "[]"


@dataclass(frozen=True, slots=True)
class Steps:
    """Steps from `first` to `last`, both included; `last` None means no end."""

    first: int = 0
    last: int | None = None

    def holds(self, event: Mapping[str, Any]) -> bool:
        """Whether the event, as JSON, belongs to one of the steps; an event without a step does not."""
        step = event.get("stepNumber")
        return isinstance(step, int) and self.first <= step and (self.last is None or step <= self.last)


def parse_steps(text: str) -> Steps:
    """Parse `5`, `>5`, `>=5`, `<5`, `<=5` or `1-10`.

    Raises:
        ConfigError: the text is none of these, or the range is inverted.
    """
    trimmed = text.strip()
    if match := _RANGE.fullmatch(trimmed):
        first, last = int(match["first"]), int(match["last"])
        if first > last:
            message = f"invalid step filter {text!r}: the range is inverted; write {last}-{first}"
            raise ConfigError(message)
        return Steps(first, last)
    match = _STEP.fullmatch(trimmed)
    if match is None:
        message = f"invalid step filter {text!r}; write 5, >5, >=5, <5, <=5 or 1-10"
        raise ConfigError(message)
    number = int(match["number"])
    return {
        ">": Steps(number + 1),
        ">=": Steps(number),
        "<": Steps(last=number - 1),
        "<=": Steps(last=number),
    }.get(match["sign"], Steps(number, number))


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on a field. A segment of `path` is a field's name, or `[]` for any element of a list."""

    path: tuple[str, ...]
    sign: str
    value: str | bool | float

    def holds(self, event: Mapping[str, Any]) -> bool:
        """Whether any value at the path in the event, given as JSON, matches; false if there is no value."""
        found: list[Any] = [event]
        for segment in self.path:
            found = [inner for value in found for inner in _inside(value, segment)]
        return any(self._fits(value) for value in found)

    def _fits(self, value: Any) -> bool:
        if self.sign in _ORDER:
            return _is_number(value) and _ORDER[self.sign](value, self.value)
        same = isinstance(value, bool) == isinstance(self.value, bool) and value == self.value
        return same == (self.sign == "==")


def parse_condition(text: str) -> Condition:
    """Parse `.path op value`, for instance `.toolCalls[].skillName == "@perstack/base"`.

    The operators are `== != > >= < <=`; a value is true, false, a quoted string, a number, or else a bare string.

    Raises:
        ConfigError: the text is not of this form, or compares the order of values that are not numbers.
    """
    match = _CONDITION.fullmatch(text.strip())
    if match is None:
        message = f"invalid filter {text!r}; write .path op value, where op is one of == != > >= < <="
        raise ConfigError(message)
    value = _value(text, match["value"].strip())
    if match["sign"] in _ORDER and not _is_number(value):
        message = f"invalid filter {text!r}: {match['sign']} compares numbers only; use == or != for {value!r}"
        raise ConfigError(message)
    return Condition(tuple(_SEGMENT.findall(match["path"])), match["sign"], value)


def _value(text: str, raw: str) -> str | bool | float:
    if raw in ("true", "false"):
        return raw == "true"
    if raw[0] in "\"'":
        if len(raw) == 1 or raw[-1] != raw[0] or raw[0] in raw[1:-1]:
            message = f"invalid filter {text!r}: the string is not closed, or text follows it"
            raise ConfigError(message)
        return raw[1:-1]
    if raw[0] in "=<>!":
        message = f"invalid filter {text!r}: two operators follow each other; quote a value that begins with {raw[0]}"
        raise ConfigError(message)
    if _INTEGER.fullmatch(raw):
        return int(raw)
    return float(raw) if _NUMBER.fullmatch(raw) else raw


def _inside(value: Any, segment: str) -> list[Any]:
    if segment == _ANY:
        return value if isinstance(value, list) else []
    return [value[segment]] if isinstance(value, dict) and segment in value else []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
