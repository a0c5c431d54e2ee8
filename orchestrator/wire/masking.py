"""Known secret values, replaced wherever text leaves the orchestrator: events, logs, records, messages."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, lru_cache
from typing import Any

import orchestrator.wire.event  # noqa: F401 - its models are found as subclasses
from orchestrator.errors import OrchestratorError
from orchestrator.wire.checkpoint import Status
from orchestrator.wire.forms import forms
from orchestrator.wire.frozen import Frozen, tag_of
from orchestrator.wire.generation import FinishReason
from orchestrator.wire.job import JobStatus
from orchestrator.wire.run import EventDetail

MARK = "[masked]"

MIN_LENGTH = 6
"""Shorter values are in too much innocent text to be replaced."""

_PLAIN = re.compile(r"[A-Za-z0-9]+")
_CORE = 5
"""A shorter core is in too much text to spare the search for forms."""

_ENUMS: tuple[type[StrEnum], ...] = (Status, JobStatus, FinishReason, EventDetail)


@dataclass(frozen=True, slots=True)
class _Known:
    """Forms of all values, the longest first: what a shorter one leaves of a longer would stay.

    A form that begins with a backslash is looked for where it can begin, behind others in their full number: else one
    that belongs to the text before it would be taken for its own, and what is left of that be no JSON any more. What
    is still there then is replaced wherever it stands.
    """

    texts: tuple[str, ...]
    aligned: "Mapping[str, re.Pattern[str]]"
    needles: tuple[bytes, ...]
    """One of them is in whatever holds a form."""

    def replace(self, text: str) -> str:
        for form in self.texts:
            pattern = self.aligned.get(form)
            text = text.replace(form, MARK) if pattern is None else pattern.sub(rf"\1{MARK}", text)
        for form in self.aligned:
            text = text.replace(form, MARK)
        return text


def mask(secrets: Iterable[str]) -> Callable[[bytes], bytes]:
    """Make what replaces `secrets` by `[masked]` in text or in a JSON document, which stays one.

    Found are the values as they are, JSON-escaped up to three times, percent-encoded, and inside base64 at any offset;
    of a value of several lines each longer line, too. What somebody deliberately encodes in another way is not. Values
    under six characters and words of the wire format itself (`completed`, `stepNumber`) are left alone: without those
    no record could be read.
    """
    known = _known(tuple(secrets))

    def masked(data: bytes) -> bytes:
        if not any(needle in data for needle in known.needles):
            return data
        try:
            document = json.loads(data)
        except ValueError:
            return known.replace(data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
        # A value of digits may stand in the middle of a number: only strings are touched.
        cleaned = _in_strings(document, known)
        return data if cleaned == document else json.dumps(cleaned, separators=(",", ":")).encode("ascii")

    return masked


def hide(secrets: Iterable[str]) -> Callable[[str], str]:
    """The same for a piece of text."""
    return _known(tuple(secrets)).replace


@contextmanager
def hidden_in_errors(secrets: Iterable[str]) -> Iterator[None]:
    """Take `secrets` out of the text of an error that leaves the block."""
    try:
        yield
    except OrchestratorError as error:
        text = hide(secrets)(str(error))
        if text == str(error):
            raise
        raise type(error)(text) from None


class Flow:
    """Masks text that comes in pieces: what could be the begin of a value waits for the next piece.

    It waits as it came: one value may begin with another, which must not be replaced in it.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        self._known = _known(tuple(secrets))
        self._begins, self._longest = _begins(self._known.texts)
        self._waiting = ""

    def feed(self, text: str) -> str:
        """Give as much of the text so far as cannot be part of a value any more."""
        text = self._waiting + text
        sizes = range(min(self._longest, len(text)), 0, -1)
        end = len(text) - next((size for size in sizes if text[-size:] in self._begins), 0)
        while (earlier := self._cut_in_two(text, end)) is not None:
            end = earlier
        self._waiting = text[end:]
        return self._known.replace(text[:end])

    def rest(self) -> str:
        """Give what still waits, at the end of the text."""
        text, self._waiting = self._waiting, ""
        return self._known.replace(text)

    def _cut_in_two(self, text: str, end: int) -> int | None:
        """Where a form begins that a cut before `end` would go through."""
        for form in self._known.texts if end < len(text) else ():
            start = text.find(form, max(0, end - len(form) + 1), end + len(form) - 1)
            if start >= 0:
                return start
        return None


@lru_cache(maxsize=8)
def _begins(texts: tuple[str, ...]) -> tuple[frozenset[str], int]:
    """Give all that a text may begin with and not be whole, and how long the longest is."""
    begins = frozenset(text[:size] for text in texts for size in range(1, len(text)))
    return begins, max(map(len, begins), default=0)


@lru_cache(maxsize=8)
def _known(secrets: tuple[str, ...]) -> _Known:
    words = _words()
    values = {value for value in secrets if len(value) >= MIN_LENGTH and not any(value in word for word in words)}
    found = {form for value in values for form in forms(value) if len(form.text) >= MIN_LENGTH}
    ordered = sorted(found, key=lambda form: (-len(form.text), form.text, form.escapes))
    aligned = {
        form.text: re.compile(rf"(?<!\\)((?:\\{{{2**form.escapes}}})*){re.escape(form.text)}")
        for form in ordered
        if form.escapes and form.text.startswith("\\")
    }
    texts = tuple(dict.fromkeys(form.text for form in ordered))
    # What no writer escapes stands in most forms of a value as it is, so most need not be looked for.
    cores = {core for value in values if len(core := max(_PLAIN.findall(value), key=len, default="")) >= _CORE}
    needles = (*cores, *(text for text in texts if not any(core in text for core in cores)))
    return _Known(texts, aligned, tuple(needle.encode("utf-8", "surrogateescape") for needle in needles))


def _in_strings(value: Any, known: _Known) -> Any:
    if isinstance(value, str):
        return known.replace(value)
    if isinstance(value, dict):
        return {known.replace(key): _in_strings(item, known) for key, item in value.items()}
    if isinstance(value, list):
        return [_in_strings(item, known) for item in value]
    return value


@cache
def _words() -> frozenset[str]:
    """List what the wire format itself says: names of fields, types, states; and the mark."""
    words = {MARK, *(str(member) for enum in _ENUMS for member in enum)}
    waiting: list[type[Frozen]] = [Frozen]
    while waiting:
        model = waiting.pop()
        waiting += model.__subclasses__()
        words.update(model.__struct_encode_fields__)
        words.add(tag_of(model))
    return frozenset(words)
