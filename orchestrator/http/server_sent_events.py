"""Server-sent events: how APIs of models stream (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_LINE_END = re.compile(rb"\r\n|\n|\r")
_MARK = b"\xef\xbb\xbf"
"""What may precede the first line: UTF-8's byte order mark."""
_EVENT_BYTES = 64 * 1024 * 1024
_OTHER_CHARACTERS = 256 * 1024


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """An event; `type` is empty if it has no name."""

    data: str
    type: str = ""


@dataclass(slots=True)
class EventParser:
    """Turns the bytes of a stream, cut anywhere, into its events.

    `others` are the first lines that belong to no field, which the format ignores: 256 Ki characters at most.
    """

    others: list[str] = field(default_factory=list)
    _other_characters: int = 0
    _pieces: list[bytes] = field(default_factory=list)
    _size: int = 0
    _after_return: bool = False
    _begun: bool = False
    _type: str = ""
    _data: list[str] = field(default_factory=list)

    def feed(self, content: bytes) -> Iterator[ServerSentEvent]:
        """Take the next bytes, and give the events that they complete.

        Raises:
            ValueError: what comes is not UTF-8, or an event is longer than 64 MiB.
        """
        self._size += len(content)
        if self._size > _EVENT_BYTES:
            message = "an event is too long"
            raise ValueError(message)
        for line in self._lines(content):
            event = self._take(line)
            if event is not None:
                yield event

    def end(self) -> Iterator[ServerSentEvent]:
        """End the stream: an event that is not complete is none."""
        return iter(())

    def rest(self) -> ServerSentEvent | None:
        """End the stream, and return an incomplete event that has data; the format ignores such an event."""
        for line in self._lines(b"\n" if self._pieces else b""):
            self._take(line)
        return self._event()

    def _lines(self, content: bytes) -> Iterator[str]:
        if self._after_return and content.startswith(b"\n"):
            content = content[1:]
            self._after_return = False
        if not content:
            return
        self._after_return = content.endswith(b"\r")
        *ended, left = _LINE_END.split(content)
        for piece in ended:
            line = b"".join((*self._pieces, piece))
            self._pieces.clear()
            yield (line if self._begun else line.removeprefix(_MARK)).decode()
            self._begun = True
        if left:
            self._pieces.append(left)

    def _take(self, line: str) -> ServerSentEvent | None:
        if not line:
            return self._event()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "data":
                self._data.append(value)
            case "event":
                self._type = value
            case "" | "id" | "retry":
                pass
            case _ if self._other_characters + len(line) < _OTHER_CHARACTERS:
                self._other_characters += len(line) + 1
                self.others.append(line)
        return None

    def _event(self) -> ServerSentEvent | None:
        """End the event; one without data is none."""
        event = ServerSentEvent("\n".join(self._data), self._type) if self._data else None
        self._data.clear()
        self._type = ""
        self._size = 0
        return event
