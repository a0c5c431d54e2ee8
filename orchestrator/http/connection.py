"""One connection to an HTTP server."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from http import HTTPMethod, HTTPStatus
from typing import Any
from urllib.parse import urlencode

import h11

from orchestrator.http.errors import ConnectionBrokenError, StatusError
from orchestrator.http.headers import Headers, merged
from orchestrator.http.response import Response, headers_of

_CHUNK = 64 * 1024
_HEAD_BYTES = 64 * 1024
"""How long the head of a response may be."""

Query = Mapping[str, str]


def _parser() -> h11.Connection:
    return h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_BYTES)


def _content(body: object) -> tuple[bytes, str | None]:
    """Return a body as it is sent, and its type; a caller with bytes knows their type."""
    if body is None:
        return b"", None
    if isinstance(body, bytes):
        return body, None
    return json.dumps(body).encode(), "application/json"


@dataclass(slots=True)
class Connection:
    """A connection; requests go over it one after another. `base` begins the target of each, `headers` go with each.

    `heard` is whether anything has arrived since the last request was sent.
    """

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    base: str = ""
    headers: Headers = field(default_factory=dict)
    heard: bool = False
    _protocol: h11.Connection = field(default_factory=_parser)

    async def request(
        self, method: str, path: str, query: Query | None = None, body: object = None, headers: Headers | None = None
    ) -> Response:
        """Send a request, `body` as JSON or, if it is bytes, as it is; wait until the response begins.

        Raises:
            StatusError: its status is 400 or more.
            ConnectionBrokenError: the connection ends first, or what comes is not HTTP.
        """
        return await _accepted(await self.exchange(method, path, query, body, headers))

    async def exchange(
        self, method: str, path: str, query: Query | None = None, body: object = None, headers: Headers | None = None
    ) -> Response:
        """Send a request as `request` does, and return the response whatever its status.

        Raises:
            ConnectionBrokenError: as `request`.
        """
        content, kind = _content(body)
        given = {"Content-Length": str(len(content))} | ({"Content-Type": kind} if kind else {})
        self._send(method, self._target(path, query), merged(given, headers or {}), content)
        return await self._response()

    async def upload(self, path: str, query: Query, chunks: AsyncIterator[bytes], headers: Headers) -> Response:
        """Send a PUT request whose body is `chunks`, and wait until the response begins.

        Raises:
            StatusError: its status is 400 or more; the server may have stopped reading the body.
            ConnectionBrokenError: as `request`.
        """
        head = h11.Request(
            method=HTTPMethod.PUT,
            target=self._target(path, query),
            headers=list(merged(self.headers, {"Transfer-Encoding": "chunked"}, headers).items()),
        )
        self.heard = False
        self.writer.write(self._protocol.send(head) or b"")
        async for chunk in chunks:
            self.writer.write(self._protocol.send(h11.Data(data=chunk)) or b"")
            try:
                await self.writer.drain()
            except OSError:
                break  # a server that refuses may close; its response has the reason
        else:
            self.writer.write(self._protocol.send(h11.EndOfMessage()) or b"")
        return await _accepted(await self._response())

    async def _response(self) -> Response:
        event: Any = None
        while not isinstance(event, h11.Response):
            event = await self._next_event(answered=False)
        return Response(event.status_code, headers_of(event), self._next_event)

    async def upgrade(self, path: str, query: Query, headers: Headers, method: str = HTTPMethod.GET) -> bytes:
        """Have the server change to the protocol that `headers` name; return what came of it after the response.

        Raises:
            StatusError: the server does not change.
            ConnectionBrokenError: as `request`.
        """
        self._send(method, self._target(path, query), headers)
        return await self._switched()

    async def tunnel(self, authority: str, headers: Headers) -> None:
        """Have a proxy connect to `authority`, a host and a port; what follows goes there.

        Raises:
            StatusError: the proxy does not connect.
            ConnectionBrokenError: as `request`, or the proxy sends something after its response.
        """
        self._send(HTTPMethod.CONNECT, authority, {"Host": authority} | dict(headers))
        # Whatever the proxy sends in advance would count as the answer of the server behind it.
        if await self._switched() or not await self.is_quiet():
            message = "the proxy sent something that was not asked for"
            raise ConnectionBrokenError(message, answered=True, sent=False)

    @property
    def is_open(self) -> bool:
        """Whether both sides have it open, as far as is known."""
        return not self.reader.at_eof() and not self.writer.is_closing()

    async def is_quiet(self) -> bool:
        """Whether it is open and nothing has arrived on it; only a server that closes sends something unasked."""
        # The first read waits until what the kernel has is here; the second takes it without waiting.
        for _ in range(2):
            try:
                async with asyncio.timeout(0):
                    await self.reader.read(1)
            except TimeoutError:
                continue
            except OSError:
                pass
            return False
        return self.is_open

    def recycle(self) -> bool:
        """Make it ready for another request; false if the response was not read whole, or something followed it."""
        whole = self._protocol.our_state is h11.DONE and self._protocol.their_state is h11.DONE
        # What followed the response would be taken for the answer of the next request.
        if not whole or not self.is_open or self._protocol.trailing_data[0]:
            return False
        self._protocol.start_next_cycle()
        return True

    def close(self) -> None:
        """Close it now; what has not been sent yet is dropped."""
        self.writer.transport.abort()

    def _target(self, path: str, query: Query | None) -> str:
        return f"{self.base}{path}?{urlencode(query)}" if query else f"{self.base}{path}"

    def _send(self, method: str, target: str, headers: Headers, content: bytes = b"") -> None:
        self.heard = False
        head = h11.Request(method=method, target=target, headers=list(merged(self.headers, headers).items()))
        events = (head, h11.Data(data=content), h11.EndOfMessage())
        self.writer.write(b"".join(self._protocol.send(event) or b"" for event in events))

    async def _switched(self) -> bytes:
        while True:
            event = await self._next_event(answered=False)
            # After a switch or a tunnel h11 passes over what comes: it is another protocol's.
            if self._protocol.their_state is h11.SWITCHED_PROTOCOL:
                return bytes(self._protocol.trailing_data[0])
            if isinstance(event, h11.Response):
                raise StatusError(event.status_code, await Response(0, {}, self._next_event).message())

    async def _next_event(self, *, answered: bool = True) -> Any:
        try:
            while (event := self._protocol.next_event()) is h11.NEED_DATA:
                content = await self.reader.read(_CHUNK)
                if not content and self._protocol.their_state is h11.SEND_RESPONSE:
                    # The error of h11 would name its states.
                    message = "the server closed the connection before it answered"
                    raise ConnectionBrokenError(message, answered=answered)
                self.heard = self.heard or bool(content)
                self._protocol.receive_data(content)
        except (OSError, h11.RemoteProtocolError) as error:
            message = "the connection broke"
            raise ConnectionBrokenError(message, answered=answered) from error
        if isinstance(event, h11.ConnectionClosed):
            message = "the server closed the connection"
            raise ConnectionBrokenError(message, answered=answered)
        return event


async def _accepted(response: Response) -> Response:
    """Return a response that is no failure.

    Raises:
        StatusError: its status is 400 or more.
    """
    if response.status >= HTTPStatus.BAD_REQUEST:
        raise StatusError(response.status, await response.message())
    return response
