"""Events to lines and back: one ASCII JSON object a line, bounded in size."""

import json
import re
import sys
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

_ALL = sys.maxsize
_CUTS = ((8192, _ALL), (2048, _ALL), (512, _ALL), (128, _ALL), (128, 64), (128, 8), (128, 1))
"""Characters of a text, and values of a list, that are left: each is tried until a line fits. The last always does."""

_SHAPELESS = frozenset({"args", "metadata", "interactiveToolCall", "serverInfo"})
"""Fields of any content. Where values are left out, theirs are left out whole, as no reader relies on them."""

_SHAPELESS_BYTES = 512
_MARK = "[cut: {} characters in all]"
_BYTES_OF_A_FILE = re.compile(rb'(?<="encodedData":")[^"]+(?=")')


@cache
def _decoder() -> Decoder[Event]:
    return Decoder(Event)


def encode(event: AnyEvent, detail: EventDetail = EventDetail.DEFAULT) -> bytes:
    """Write an event as one line, newline included.

    By default images and documents are not in it, and what would break the bound is cut and marked with its size; the
    line stays an event. All of it is in the checkpoint.
    """
    limit = LINE_BYTES[detail]
    line = event.to_json()
    if detail is EventDetail.DEFAULT and b'"encodedData":"' in line:
        line = _BYTES_OF_A_FILE.sub(lambda found: _MARK.format(len(found[0])).encode(), line)
    if len(line) < limit:
        return line + b"\n"
    whole = json.loads(line)
    for cap, values in _CUTS:
        shorter = _cut(whole, cap, values)
        cut = ascii_json(shorter if values == _ALL else shorter | {"cut": len(line)})
        if len(cut) < limit:
            break
    return cut + b"\n"


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


def shortened(text: str, cap: int) -> str:
    """The first `cap` characters of a text, marked with how many there were, if there were more."""
    return text if len(text) <= cap else f"{text[:cap]} {_MARK.format(len(text))}"


def _cut(value: Any, cap: int, values: int) -> Any:
    if isinstance(value, str):
        return shortened(value, cap)
    if isinstance(value, Mapping):
        return {name: _cut_field(name, item, cap, values) for name, item in value.items()}
    if isinstance(value, list):
        return [_cut(item, cap, values) for item in value[:values]]
    return value


def _cut_field(name: str, value: Any, cap: int, values: int) -> Any:
    if name in _SHAPELESS and values != _ALL and isinstance(value, Mapping):
        size = len(ascii_json(value))
        if size > _SHAPELESS_BYTES:
            return {"cut": _MARK.format(size)}
    return _cut(value, cap, values)
