"""Events as lines: one ASCII JSON object per line, limited in size."""

import json
import re
import sys
from functools import cache
from typing import Any

from msgspec import Struct
from msgspec.json import Decoder

from orchestrator.errors import WireError
from orchestrator.wire.event import AnyEvent, Event
from orchestrator.wire.frozen import ascii_json, read_json
from orchestrator.wire.run import EventDetail

LINE_BYTES = {EventDetail.DEFAULT: 64 * 1024, EventDetail.FULL: 64 * 1024 * 1024}
"""The longest line in bytes, newline included. By default an event fits into four records of an engine's log."""

SPOOL_BYTES = 1024 * 1024 * 1024
"""How much of a spool is read at most; a runaway container cannot fill the store."""

_ALL = sys.maxsize
_LIMITS = ((8192, _ALL), (2048, _ALL), (512, _ALL), (128, _ALL), (128, 64), (128, 8), (128, 1))
"""Remaining characters of a text and items of a list: tried in order until a line fits. The last one always fits."""

_FREE_FORM = frozenset({"args", "metadata", "interactiveToolCall", "serverInfo"})
"""Fields with arbitrary content. If items must be left out, these are removed whole: no reader relies on them."""

_FREE_FORM_BYTES = 512
_MARK = "[cut: {} characters in all]"
_FILE_CONTENT = re.compile(rb'(?<="encodedData":")[^"]+(?=")')


class EventLine(Struct, frozen=True):
    """An event and the line that it was read from or written as, without the newline.

    Its `position` is None until the store has given one; then it is in the line, too.
    """

    event: Event
    line: bytes

    @classmethod
    def from_event(cls, event: Event) -> "EventLine":
        """Return an event that the host itself made."""
        return cls(event, encode(event).rstrip())


@cache
def _decoder() -> Decoder[Event]:
    return Decoder(Event)


def encode(event: AnyEvent, detail: EventDetail = EventDetail.DEFAULT) -> bytes:
    """Encode an event as one line, newline included.

    By default images and documents are left out, and a line over the limit has its texts cut and marked with their
    size; it is still a valid event. The checkpoint holds the complete content.
    """
    limit = LINE_BYTES[detail]
    line = event.to_json()
    if detail is EventDetail.DEFAULT and b'"encodedData":"' in line:
        line = _FILE_CONTENT.sub(lambda found: _MARK.format(len(found[0])).encode(), line)
    if len(line) < limit:
        return line + b"\n"
    complete = json.loads(line)
    for cap, values in _LIMITS:
        shorter = _cut(complete, cap, values)
        cut = ascii_json(shorter if values == _ALL else shorter | {"cut": len(line)})
        if len(cut) < limit:
            break
    return cut + b"\n"


def decode(line: bytes | str) -> Event:
    """Decode one line.

    Raises:
        WireError: the line is not an event.
    """
    try:
        return read_json(_decoder(), line)
    except WireError as error:
        message = f"not an event: {error}"
        raise WireError(message) from error


def shortened(text: str, cap: int) -> str:
    """The first `cap` characters of a text; if it was longer, a mark with its length follows."""
    return text if len(text) <= cap else f"{text[:cap]} {_MARK.format(len(text))}"


def _cut(value: Any, cap: int, values: int) -> Any:
    if isinstance(value, str):
        return shortened(value, cap)
    if isinstance(value, dict):
        return {name: _cut_field(name, item, cap, values) for name, item in value.items()}
    if isinstance(value, list):
        return [_cut(item, cap, values) for item in value[:values]]
    return value


def _cut_field(name: str, value: Any, cap: int, values: int) -> Any:
    if name in _FREE_FORM and values != _ALL and isinstance(value, dict):
        size = len(ascii_json(value))
        if size > _FREE_FORM_BYTES:
            return {"cut": _MARK.format(size)}
    return _cut(value, cap, values)
