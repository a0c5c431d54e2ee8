"""Events to lines and back: one ASCII JSON object a line, bounded in size."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from msgspec.json import Decoder

from orchestrator.errors import WireError
from orchestrator.wire.any_event import AnyEvent
from orchestrator.wire.event import Event
from orchestrator.wire.frozen import ascii_json, read_json
from orchestrator.wire.run import EventDetail

LINE_BYTES = {EventDetail.DEFAULT: 64 * 1024, EventDetail.FULL: 64 * 1024 * 1024}
"""The longest line, newline included. By default a whole event fits four records of an engine's log."""

_HEAD = ("id", "type", "timestamp", "jobId", "runId", "attempt", "seq", "position", "expertKey", "stepNumber")
_CAPS = (8192, 2048, 512, 128)
_MARK = " [cut: {} characters in all]"


@cache
def _decoder() -> Decoder[Event]:
    return Decoder(Event)


def encode(event: AnyEvent, detail: EventDetail = EventDetail.DEFAULT) -> bytes:
    """Write an event as one line, newline included.

    Text that would break the bound is cut and marked with its size; it is whole in the checkpoint.
    """
    limit = LINE_BYTES[detail]
    line = event.to_json()
    if len(line) < limit:
        return line + b"\n"
    whole = json.loads(line)
    for cap in _CAPS:
        cut = ascii_json(_cut(whole, cap))
        if len(cut) < limit:
            return cut + b"\n"
    # Not text but sheer numbers break the bound: keep what says which event it was, and that something is missing.
    head = {name: whole[name] for name in _HEAD if name in whole}
    return ascii_json(head | {"cut": len(line)}) + b"\n"


def decode(line: bytes | str) -> Event:
    """Read one line.

    Raises:
        WireError: it is not an event.
    """
    try:
        return read_json(_decoder(), line)
    except WireError as error:
        message = f"not an event: {error}"
        raise WireError(message) from error


def _cut(value: Any, cap: int) -> Any:
    if isinstance(value, str) and len(value) > cap:
        return value[:cap] + _MARK.format(len(value))
    if isinstance(value, Mapping):
        return {key: _cut(item, cap) for key, item in value.items()}
    if isinstance(value, list):
        return [_cut(item, cap) for item in value]
    return value
