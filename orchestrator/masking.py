"""Known secret values, replaced wherever text leaves the orchestrator: events, logs, records."""

import base64
import json
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from functools import cache
from typing import Any

import orchestrator.wire.event  # noqa: F401 - its models are found as subclasses
from orchestrator.wire.checkpoint import Status
from orchestrator.wire.frozen import Frozen, tag_of
from orchestrator.wire.generation import FinishReason
from orchestrator.wire.job import JobStatus
from orchestrator.wire.run import EventDetail

MARK = "[masked]"

MIN_LENGTH = 6
"""Shorter values are in too much innocent text to be replaced."""

_ENUMS: tuple[type[StrEnum], ...] = (Status, JobStatus, FinishReason, EventDetail)
_GROUP = 3
_BYTE_TO_GROUP = {0: 0, 1: 2, 2: 3}
_ESCAPES = 2


def mask(secrets: Iterable[str]) -> Callable[[bytes], bytes]:
    """Make what replaces `secrets` by `[masked]` in text or in a JSON document, which stays one.

    Found are the values as they are, JSON-escaped once or twice, and inside base64 at any offset. What somebody
    deliberately encodes in another way is not. Values under six characters and words of the wire format itself
    (`completed`, `stepNumber`) are left alone: without those no record could be read.
    """
    words = _words()
    known = {value for value in secrets if len(value) >= MIN_LENGTH and not any(value in word for word in words)}
    # The longest first, or what a shorter one leaves of it would stay.
    forms = sorted({form for value in known for form in _forms(value)}, key=lambda form: (-len(form), form))
    encoded = [form.encode("utf-8", "surrogateescape") for form in forms]

    def masked(data: bytes) -> bytes:
        if not any(form in data for form in encoded):
            return data
        try:
            document = json.loads(data)
        except ValueError:
            return _replace(data.decode("utf-8", "surrogateescape"), forms).encode("utf-8", "surrogateescape")
        # A value of digits may stand in the middle of a number: only strings are touched.
        return json.dumps(_in_strings(document, forms), separators=(",", ":")).encode("ascii")

    return masked


def _in_strings(value: Any, forms: list[str]) -> Any:
    if isinstance(value, str):
        return _replace(value, forms)
    if isinstance(value, dict):
        return {_replace(key, forms): _in_strings(item, forms) for key, item in value.items()}
    if isinstance(value, list):
        return [_in_strings(item, forms) for item in value]
    return value


def _replace(text: str, forms: list[str]) -> str:
    for form in forms:
        text = text.replace(form, MARK)
    return text


def _forms(value: str) -> Iterator[str]:
    escaped = {value}
    for _ in range(_ESCAPES):
        escaped |= {form for text in escaped for form in _escaped(text)}
    yield from escaped
    yield from _base64_forms(value.encode("utf-8", "surrogateescape"))


def _escaped(text: str) -> Iterator[str]:
    for written in (json.dumps(text), json.dumps(text, ensure_ascii=False)):
        inside = written[1:-1]
        yield inside
        yield inside.replace("/", "\\/")


def _base64_forms(value: bytes) -> Iterator[str]:
    """Give the characters of base64 that depend on `value` alone, whatever stands before and after it."""
    for offset, first in _BYTE_TO_GROUP.items():
        whole = base64.b64encode(b"\0" * offset + value).decode("ascii")
        unfinished = (offset + len(value)) % _GROUP
        certain = whole.rstrip("=")[first : -1 if unfinished else None]
        yield certain
        yield certain.replace("+", "-").replace("/", "_")


@cache
def _words() -> frozenset[str]:
    """List what the wire format itself says: names of fields, types, states."""
    words = {str(member) for enum in _ENUMS for member in enum}
    waiting: list[type[Frozen]] = [Frozen]
    while waiting:
        model = waiting.pop()
        waiting += model.__subclasses__()
        words.update(model.__struct_encode_fields__)
        words.add(tag_of(model))
    return frozenset(words)
