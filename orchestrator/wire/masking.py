"""Mask known secret values wherever text leaves the orchestrator: events, logs, records, messages."""

import base64
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, lru_cache
from typing import Any
from urllib.parse import quote, quote_plus

import orchestrator.wire.event  # noqa: F401 - its models are found as subclasses
from orchestrator.errors import OrchestratorError
from orchestrator.wire.checkpoint import Status
from orchestrator.wire.frozen import Frozen, tag_of
from orchestrator.wire.generation import FinishReason
from orchestrator.wire.job_record import JobStatus
from orchestrator.wire.run import EventDetail

_LINE_CHARACTERS = 16
"""Shorter lines of a multi-line value also occur in harmless text."""
_FRAME = "-----"
"""The start of the first and last line of a key or certificate."""
_ESCAPES = 3
_GROUP = 3
_BYTE_TO_GROUP = {0: 0, 1: 2, 2: 3}
# Characters that some JSON writers also escape: DEL; HTML characters as Go does; the same as .NET does, in capitals.
_FURTHER = (
    str.maketrans({"\x7f": "\\u007f"}),
    str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}),
    str.maketrans({character: f"\\u{ord(character):04X}" for character in "<>&'+"}),
)


@dataclass(frozen=True, slots=True)
class Encoding:
    """One written form of a value. `escapes` counts JSON escapings; each of them doubles the backslashes."""

    text: str
    escapes: int = 0


def encodings(value: str) -> Iterator[Encoding]:
    """Yield the forms of a value, and of each longer line if it has several: output is read line by line."""
    lines = [line.strip() for line in value.splitlines()]
    longer = [line for line in lines if len(line) >= _LINE_CHARACTERS and not line.startswith(_FRAME)]
    for whole in dict.fromkeys((value, *(longer if len(lines) > 1 else ()))):
        yield from _escaped(whole)
        for text in (*_base64(whole.encode("utf-8", "surrogateescape")), *_percent(whole)):
            yield Encoding(text)


def _escaped(value: str) -> Iterator[Encoding]:
    found = {value: 0}
    for escapes in range(1, _ESCAPES + 1):
        for text in [text for text, before in found.items() if before == escapes - 1]:
            for form in _json(text):
                found.setdefault(form, escapes)
    return (Encoding(text, escapes) for text, escapes in found.items())


def _json(text: str) -> Iterator[str]:
    for written in (json.dumps(text), json.dumps(text, ensure_ascii=False)):
        inside = written[1:-1]
        yield inside
        yield inside.replace("/", "\\/")
        for table in _FURTHER:
            yield inside.translate(table)


def _base64(value: bytes) -> Iterator[str]:
    """Yield the base64 characters that depend on `value` alone, whatever stands before and after it."""
    for offset, first in _BYTE_TO_GROUP.items():
        whole = base64.b64encode(b"\0" * offset + value).decode("ascii")
        unfinished = (offset + len(value)) % _GROUP
        certain = whole.rstrip("=")[first : -1 if unfinished else None]
        yield certain
        yield certain.replace("+", "-").replace("/", "_")


def _percent(value: str) -> Iterator[str]:
    """Yield the forms of the value in a URL, because error messages contain URLs."""
    for written in (quote(value, safe="", errors="surrogateescape"), quote_plus(value, errors="surrogateescape")):
        yield written
        yield quote(value, errors="surrogateescape")


MARK = "[masked]"

MIN_LENGTH = 6
"""Shorter values occur in too much harmless text to be replaced."""

_PLAIN = re.compile(r"[A-Za-z0-9]+")
_CORE = 5
"""A shorter core occurs in too much text to save the search for all forms."""

_ENUMS: tuple[type[StrEnum], ...] = (Status, JobStatus, FinishReason, EventDetail)


@dataclass(frozen=True, slots=True)
class _SecretForms:
    """Forms of all values, longest first: replacing a shorter form inside a longer one would leave the rest visible.

    A form that begins with a backslash is searched only where an escape can begin, after complete escapes. Otherwise a
    backslash of the preceding text could be taken for its first character, and the rest would not be valid JSON.
    Occurrences that remain after that are replaced wherever they are.
    """

    texts: tuple[str, ...]
    aligned: "Mapping[str, re.Pattern[str]]"
    needles: tuple[bytes, ...]
    """Any text that contains a form contains at least one of these."""

    def replace(self, text: str) -> str:
        for form in self.texts:
            pattern = self.aligned.get(form)
            text = text.replace(form, MARK) if pattern is None else pattern.sub(rf"\1{MARK}", text)
        for form in self.aligned:
            text = text.replace(form, MARK)
        return text


def mask(secrets: Iterable[str]) -> Callable[[bytes], bytes]:
    """Return a function that replaces `secrets` by `[masked]` in text or in a JSON document, which stays valid.

    It finds the values as they are, JSON-escaped up to three times, percent-encoded, and inside base64 at any offset;
    of a multi-line value also each longer line. It does not find values that were deliberately encoded in another way.
    Values under six characters and words of the wire format itself (`completed`, `stepNumber`) are not replaced:
    otherwise records could not be read.
    """
    forms = _forms_of(tuple(secrets))

    def masked(data: bytes) -> bytes:
        if not any(needle in data for needle in forms.needles):
            return data
        try:
            document = json.loads(data)
        except ValueError:
            return forms.replace(data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
        # A value made of digits may be part of a number, so only strings are changed.
        cleaned = _in_strings(document, forms)
        return data if cleaned == document else json.dumps(cleaned, separators=(",", ":")).encode("ascii")

    return masked


def hide(secrets: Iterable[str]) -> Callable[[str], str]:
    """Return a function that does the same for plain text."""
    return _forms_of(tuple(secrets)).replace


@contextmanager
def hide_in_errors(secrets: Iterable[str]) -> Iterator[None]:
    """Mask `secrets` in the text of an OrchestratorError that leaves the block."""
    try:
        yield
    except OrchestratorError as error:
        text = hide(secrets)(str(error))
        if text == str(error):
            raise
        raise type(error)(text) from None


class StreamMasker:
    """Masks text that arrives in pieces: a possible start of a value is held back until the next piece.

    Held text stays unmasked, since one value may be the start of another, longer one.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        self._forms = _forms_of(tuple(secrets))
        self._prefixes, self._longest = _prefixes(self._forms.texts)
        self._held = ""

    def feed(self, text: str) -> str:
        """Return the part of the text so far that can no longer belong to a value."""
        text = self._held + text
        sizes = range(min(self._longest, len(text)), 0, -1)
        end = len(text) - next((size for size in sizes if text[-size:] in self._prefixes), 0)
        while (earlier := self._cut_in_two(text, end)) is not None:
            end = earlier
        self._held = text[end:]
        return self._forms.replace(text[:end])

    def rest(self) -> str:
        """Return the held text at the end of the stream."""
        text, self._held = self._held, ""
        return self._forms.replace(text)

    def _cut_in_two(self, text: str, end: int) -> int | None:
        """The start of a form that a cut before `end` would split."""
        for form in self._forms.texts if end < len(text) else ():
            start = text.find(form, max(0, end - len(form) + 1), end + len(form) - 1)
            if start >= 0:
                return start
        return None


@lru_cache(maxsize=8)
def _prefixes(texts: tuple[str, ...]) -> tuple[frozenset[str], int]:
    """All proper prefixes of `texts`, and the length of the longest."""
    prefixes = frozenset(text[:size] for text in texts for size in range(1, len(text)))
    return prefixes, max(map(len, prefixes), default=0)


@lru_cache(maxsize=8)
def _forms_of(secrets: tuple[str, ...]) -> _SecretForms:
    words = _words()
    values = {value for value in secrets if len(value) >= MIN_LENGTH and not any(value in word for word in words)}
    found = {form for value in values for form in encodings(value) if len(form.text) >= MIN_LENGTH}
    ordered = sorted(found, key=lambda form: (-len(form.text), form.text, form.escapes))
    aligned = {
        form.text: re.compile(rf"(?<!\\)((?:\\{{{2**form.escapes}}})*){re.escape(form.text)}")
        for form in ordered
        if form.escapes and form.text.startswith("\\")
    }
    texts = tuple(dict.fromkeys(form.text for form in ordered))
    # Unescaped characters stand in most forms of a value unchanged, so one core replaces a search for most forms.
    cores = {core for value in values if len(core := max(_PLAIN.findall(value), key=len, default="")) >= _CORE}
    needles = (*cores, *(text for text in texts if not any(core in text for core in cores)))
    return _SecretForms(texts, aligned, tuple(needle.encode("utf-8", "surrogateescape") for needle in needles))


def _in_strings(value: Any, forms: _SecretForms) -> Any:
    if isinstance(value, str):
        return forms.replace(value)
    if isinstance(value, dict):
        return {forms.replace(key): _in_strings(item, forms) for key, item in value.items()}
    if isinstance(value, list):
        return [_in_strings(item, forms) for item in value]
    return value


@cache
def _words() -> frozenset[str]:
    """All words of the wire format itself: names of fields, types, states; and the mark."""
    words = {MARK, *(str(member) for enum in _ENUMS for member in enum)}
    waiting: list[type[Frozen]] = [Frozen]
    while waiting:
        model = waiting.pop()
        waiting += model.__subclasses__()
        words.update(model.__struct_encode_fields__)
        words.add(tag_of(model))
    return frozenset(words)
