"""In what forms ordinary programs write a value: as it is, escaped, encoded. Pure."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote, quote_plus

_LINE_CHARACTERS = 16
"""Shorter lines of a value of several are in too much innocent text."""
_FRAME = "-----"
"""How the first and last line of a key or certificate begin."""
_ESCAPES = 3
_GROUP = 3
_BYTE_TO_GROUP = {0: 0, 1: 2, 2: 3}
# What some writers of JSON escape besides: DEL; for HTML in the way of Go, and of .NET, which does so in capitals.
_FURTHER = (
    str.maketrans({"\x7f": "\\u007f"}),
    str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}),
    str.maketrans({character: f"\\u{ord(character):04X}" for character in "<>&'+"}),
)


@dataclass(frozen=True, slots=True)
class Form:
    """A value as it may be written. `escapes` is how often it went through JSON, in which each doubles backslashes."""

    text: str
    escapes: int = 0


def forms(value: str) -> Iterator[Form]:
    """Give the forms of a value, and of each longer line where it has several: output is read by lines."""
    lines = [line.strip() for line in value.splitlines()]
    longer = [line for line in lines if len(line) >= _LINE_CHARACTERS and not line.startswith(_FRAME)]
    for whole in dict.fromkeys((value, *(longer if len(lines) > 1 else ()))):
        yield from _escaped(whole)
        for text in (*_base64(whole.encode("utf-8", "surrogateescape")), *_percent(whole)):
            yield Form(text)


def _escaped(value: str) -> Iterator[Form]:
    found = {value: 0}
    for escapes in range(1, _ESCAPES + 1):
        for text in [text for text, before in found.items() if before == escapes - 1]:
            for form in _json(text):
                found.setdefault(form, escapes)
    return (Form(text, escapes) for text, escapes in found.items())


def _json(text: str) -> Iterator[str]:
    for written in (json.dumps(text), json.dumps(text, ensure_ascii=False)):
        inside = written[1:-1]
        yield inside
        yield inside.replace("/", "\\/")
        for table in _FURTHER:
            yield inside.translate(table)


def _base64(value: bytes) -> Iterator[str]:
    """Give the characters of base64 that depend on `value` alone, whatever stands before and after it."""
    for offset, first in _BYTE_TO_GROUP.items():
        whole = base64.b64encode(b"\0" * offset + value).decode("ascii")
        unfinished = (offset + len(value)) % _GROUP
        certain = whole.rstrip("=")[first : -1 if unfinished else None]
        yield certain
        yield certain.replace("+", "-").replace("/", "_")


def _percent(value: str) -> Iterator[str]:
    """Give the value as it stands in a URL: error messages name those."""
    for written in (quote(value, safe="", errors="surrogateescape"), quote_plus(value, errors="surrogateescape")):
        yield written
        yield quote(value, errors="surrogateescape")
