"""HTTP/1.1 (RFC 9112) on one connection: send a request, read its response.

Only what a client of MCP needs. A server that breaks the rules is refused, so that two readers cannot differ about
where a response ends.
"""

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

_HEAD_BYTES = 64 * 1024
_CHUNK_BYTES = 64 * 1024
_TRAILERS = 100
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_NOT_IN_VALUES = re.compile(rb"[\x00\r\n]")
_LENGTH = re.compile(r"[0-9]{1,18}", re.ASCII)
_CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;[^\r\n]*)?")
_SWITCHING = 101
_INFORMATIONAL = range(100, 200)
_WITHOUT_BODY = (204, 304)
_BROKEN = "the server closed the connection in the middle of the response"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class BrokenResponseError(Exception):
    """A response that ends too early, or does not follow the rules of HTTP."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request; `target` is path and query, and `headers` have names in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""

    def encode(self) -> bytes:
        """The request as it is sent.

        Raises:
            ValueError: a header cannot be sent.
        """
        length = {"content-length": str(len(self.body))} if self.body or self.method == "POST" else {}
        lines = [f"{self.method} {self.target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in {**self.headers, **length}.items()]
        if any("\r" in line or "\n" in line or "\0" in line for line in lines):
            message = "a header contains a line break"
            raise ValueError(message)
        return "\r\n".join((*lines, "", "")).encode("latin-1") + self.body


class Body(Protocol):
    """The body of a response, still to be read."""

    async def read(self) -> bytes:
        """Return the next piece; nothing at the end.

        Raises:
            BrokenResponseError: it breaks off, or does not follow the rules.
        """


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A response; `headers` have names in lower case.

    `is_reusable` is whether its connection can take another request, once the body has been read to its end.
    """

    status: int
    headers: Mapping[str, str]
    is_reusable: bool
    body: Body


async def exchange(streams: Streams, request: HttpRequest) -> HttpResponse:
    """Send a request and read the head of its response.

    Raises:
        BrokenResponseError: the server closed the connection, or its response does not follow the rules.
        ValueError: a header cannot be sent.
    """
    reader, writer = streams
    content = request.encode()
    # A server may refuse a request before it has read all of it: then writing fails, and a response follows.
    with suppress(OSError):
        writer.write(content)
        await writer.drain()
    minor, status, headers = await _head(reader)
    while status in _INFORMATIONAL and status != _SWITCHING:
        minor, status, headers = await _head(reader)
    if status == _SWITCHING:
        message = "the server switched to another protocol"
        raise BrokenResponseError(message)
    options = {option.strip().lower() for option in headers.get("connection", "").split(",")}
    stays = "close" not in options if minor else "keep-alive" in options
    has_body = request.method != "HEAD" and status not in _WITHOUT_BODY
    stated = _body(reader, headers)
    body = stated if has_body else _SizedBody(reader, 0)
    return HttpResponse(status, headers, stays and not isinstance(body, _OpenBody), body)


async def _head(reader: asyncio.StreamReader) -> tuple[int, int, dict[str, str]]:
    lines: list[bytes] = []
    size = 0
    while True:
        line = await _line(reader, "the server closed the connection without a response")
        size += len(line) + 2
        if size > _HEAD_BYTES:
            message = "the head of the response is too large"
            raise BrokenResponseError(message)
        if not line and lines:
            break
        if line:  # An empty line before the head is ignored (RFC 9112 2.2).
            lines.append(line)
    found = _STATUS_LINE.fullmatch(lines[0])
    if found is None:
        message = f"the response begins with {lines[0][:40].decode('latin-1')!r}, which is not HTTP/1.1"
        raise BrokenResponseError(message)
    return int(found[1]), int(found[2]), _fields(lines[1:])


def _fields(lines: list[bytes]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        # One expression for the line would go back and forth for days in one that has many spaces.
        field, colon, content = line.partition(b":")
        if not (colon and _NAME.fullmatch(field)) or _NOT_IN_VALUES.search(content):
            message = f"the response has the header {line[:40].decode('latin-1')!r}, which HTTP does not allow"
            raise BrokenResponseError(message)
        name, value = field.decode("ascii").lower(), content.strip(b" \t").decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


async def _line(reader: asyncio.StreamReader, at_end: str) -> bytes:
    try:
        line = await reader.readuntil(b"\n")
    except asyncio.LimitOverrunError as error:
        message = "the head of the response is too large"
        raise BrokenResponseError(message) from error
    except asyncio.IncompleteReadError as error:
        raise BrokenResponseError(at_end) from error
    except OSError as error:
        raise BrokenResponseError(str(error) or type(error).__name__) from error
    return line.removesuffix(b"\n").removesuffix(b"\r")


def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> "_SizedBody | _ChunkedBody | _OpenBody":
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    sizes = {size.strip() for size in (length or "0").split(",")}  # The same twice is allowed (RFC 9110 8.6).
    size = sizes.pop()
    if sizes or not _LENGTH.fullmatch(size):
        message = f"the response has the length {length!r}"
        raise BrokenResponseError(message)
    if coding is not None:  # It counts more than a length (RFC 9112 6.3).
        if coding.lower() != "chunked":
            message = f"the response has the transfer encoding {coding!r}"
            raise BrokenResponseError(message)
        return _ChunkedBody(reader)
    return _OpenBody(reader) if length is None else _SizedBody(reader, int(size))


class _OpenBody:
    """A body that ends with its connection."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    async def read(self) -> bytes:
        return await _some(self._reader, _CHUNK_BYTES)


class _SizedBody:
    """A body of a known number of bytes."""

    def __init__(self, reader: asyncio.StreamReader, size: int) -> None:
        self._reader = reader
        self._left = size

    async def read(self) -> bytes:
        if not self._left:
            return b""
        piece = await _some(self._reader, min(self._left, _CHUNK_BYTES))
        if not piece:
            raise BrokenResponseError(_BROKEN)
        self._left -= len(piece)
        return piece


class _ChunkedBody:
    """A body in chunks (RFC 9112 7.1)."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._chunk: _SizedBody | None = None
        self._has_ended = False

    async def read(self) -> bytes:
        while not self._has_ended:
            if self._chunk is None:
                self._chunk = await self._next()
            elif piece := await self._chunk.read():
                return piece
            else:
                await self._end_chunk()
        return b""

    async def _next(self) -> _SizedBody | None:
        found = _CHUNK_SIZE.fullmatch(await _line(self._reader, _BROKEN))
        if found is None:
            message = "the response has a chunk without a size"
            raise BrokenResponseError(message)
        if size := int(found[1], 16):
            return _SizedBody(self._reader, size)
        for _ in range(_TRAILERS):
            if not await _line(self._reader, _BROKEN):  # Trailers are ignored.
                self._has_ended = True
                return None
        message = "the response has too many trailers"
        raise BrokenResponseError(message)

    async def _end_chunk(self) -> None:
        if await _line(self._reader, _BROKEN):
            message = "the response has a chunk of another size than it states"
            raise BrokenResponseError(message)
        self._chunk = None


async def _some(reader: asyncio.StreamReader, size: int) -> bytes:
    try:
        return await reader.read(size)
    except OSError as error:
        raise BrokenResponseError(str(error) or type(error).__name__) from error
