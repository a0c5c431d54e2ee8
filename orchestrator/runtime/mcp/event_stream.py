"""Server-sent events, as the HTML standard defines them (https://html.spec.whatwg.org/#event-stream-interpretation)."""

import codecs
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

from orchestrator.runtime.mcp.protocol import ViolationError

_RETRY_DIGITS = 9


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event. `id` is the last that the stream had so far, `retry` the wait before a reconnection, in ms."""

    kind: str
    data: str
    id: str
    retry: int | None


class EventParser:
    """The parser of one stream.

    Args:
        limit: bytes that an event, and a line that has not ended, may have.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
        self._rest: list[str] = []
        self._rest_bytes = 0
        self._ends_in_return = False
        self._kind = ""
        self._data: list[str] = []
        self._bytes = 0
        self._id = ""
        self._retry: int | None = None
        self._has_field = False

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """Return the events that are complete with the next bytes of the stream.

        Raises:
            ViolationError: an event is longer than the limit.
        """
        *lines, rest = self._lines(self._decoder.decode(chunk))
        events = [event for line in lines if (event := self._line(line)) is not None]
        self._keep(rest)
        return events

    def _lines(self, text: str) -> list[str]:
        # Lines end with CR, LF or both. An LF at the start of a chunk may belong to the CR before it.
        if text and self._ends_in_return:
            text, self._ends_in_return = text.removeprefix("\n"), False
        if text:
            self._ends_in_return = text.endswith("\r")
        lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        if len(lines) > 1:
            lines[0] = "".join((*self._rest, lines[0]))
            self._rest, self._rest_bytes = [], 0
        return lines

    def _keep(self, rest: str) -> None:
        self._rest.append(rest)
        self._rest_bytes += len(rest.encode())
        self._check_size(self._rest_bytes)

    def _check_size(self, more: int = 0) -> None:
        if self._bytes + more > self._limit:
            message = f"Server-sent event exceeded the {self._limit} byte limit."
            raise ViolationError(message)

    def _line(self, line: str) -> ServerEvent | None:
        if not line:
            return self._dispatch()
        if line.startswith(":"):
            return None
        self._bytes += len(line.encode())
        self._check_size()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                self._kind = value
            case "data":
                self._data.append(value)
            case "id" if "\0" not in value:
                self._id = value
            case "retry" if value.isascii() and value.isdecimal() and len(value) <= _RETRY_DIGITS:
                self._retry = int(value)
            case _:
                return None
        self._has_field = True
        return None

    def _dispatch(self) -> ServerEvent | None:
        self._bytes = 0
        if not self._has_field:
            return None
        event = ServerEvent(self._kind or "message", "\n".join(self._data), self._id, self._retry)
        self._kind, self._data, self._retry, self._has_field = "", [], None, False
        return event


async def server_events(read: Callable[[], Awaitable[bytes]], limit: int) -> AsyncGenerator[ServerEvent, None]:
    """The events of a stream; the last one counts only if an empty line ends it.

    Args:
        read: returns the next bytes of the stream; none at its end.
        limit: bytes that an event may have.

    Raises:
        ViolationError: an event is longer than `limit`.
    """
    parser = EventParser(limit)
    while chunk := await read():
        for event in parser.feed(chunk):
            yield event
