"""Events to lines and back: one ASCII JSON object a line, bounded in size."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from orchestrator.errors import WireError
from orchestrator.wire.any_event import AnyEvent
from orchestrator.wire.event import Event
from orchestrator.wire.run import EventDetail

LINE_BYTES = {EventDetail.DEFAULT: 64 * 1024, EventDetail.FULL: 64 * 1024 * 1024}
"""The longest line, newline included. By default a whole event fits four records of an engine's log."""

_HEAD = ("id", "type", "timestamp", "jobId", "runId", "attempt", "seq", "position", "expertKey", "stepNumber")
_CAPS = (8192, 2048, 512, 128)
_MARK = " [cut: {} characters in all]"


@cache
def _adapter() -> TypeAdapter[Event]:
    return TypeAdapter(Event)


def encode(event: AnyEvent, detail: EventDetail = EventDetail.DEFAULT) -> bytes:
    """Write an event as one line, newline included.

    Text that would break the bound is cut and marked with its size; it is whole in the checkpoint.
    """
    limit = LINE_BYTES[detail]
    line = event.to_json()
    if len(line) < limit:
        return line.encode("ascii") + b"\n"
    whole = json.loads(line)
    for cap in _CAPS:
        line = _dump(_cut(whole, cap))
        if len(line) < limit:
            return line.encode("ascii") + b"\n"
    # Not text but sheer numbers break the bound: keep what says which event it was, and that something is missing.
    head = {name: whole[name] for name in _HEAD if name in whole}
    return _dump(head | {"cut": len(event.to_json())}).encode("ascii") + b"\n"


def decode(line: bytes | str) -> Event:
    """Read one line.

    Raises:
        WireError: it is not an event.
    """
    try:
        return _adapter().validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        path = ".".join(str(part) for part in first["loc"])
        message = f"not an event: {path + ': ' if path else ''}{first['msg']}"
        raise WireError(message) from error


def _dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True)


def _cut(value: Any, cap: int) -> Any:
    if isinstance(value, str) and len(value) > cap:
        return value[:cap] + _MARK.format(len(value))
    if isinstance(value, Mapping):
        return {key: _cut(item, cap) for key, item in value.items()}
    if isinstance(value, list):
        return [_cut(item, cap) for item in value]
    return value
