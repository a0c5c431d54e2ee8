"""HTTP/1.1 to an engine, a connection for each request.

A client library of the engine's takes as long to import as the engine takes to start a Sandbox; h11 does not. A
connection to a local engine costs a tenth of a millisecond, so none is kept.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode, urlsplit

import h11

_CONNECT_SECONDS = 5.0
_CHUNK = 64 * 1024
_MESSAGE_BYTES = 64 * 1024

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class RefusalError(Exception):
    """The engine answered that it will not; the text is what it said."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status = status


class BrokenError(Exception):
    """The engine could not be reached, or left in the middle of an answer.

    `sent` is whether it may have got the request, `answered` whether it had begun to answer. The cause, where there is
    one, is the system's error.
    """

    def __init__(self, message: str, *, answered: bool, sent: bool = True) -> None:
        super().__init__(message)
        self.answered = answered
        self.sent = sent


@dataclass(slots=True)
class Answer:
    """The engine's answer to one request, its body still to be read."""

    status: int
    _protocol: h11.Connection
    _reader: asyncio.StreamReader

    async def chunks(self) -> AsyncIterator[bytes]:
        """Give the body as it arrives.

        Raises:
            BrokenError: the connection ended before the body did.
        """
        while not isinstance(event := await _next_event(self._protocol, self._reader), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                yield bytes(event.data)

    async def document(self) -> Any:
        """Read the whole body as JSON; None where it is empty.

        Raises:
            BrokenError: as `chunks`, or it is no JSON.
        """
        body = b"".join([chunk async for chunk in self.chunks()])
        try:
            return json.loads(body) if body.strip() else None
        except ValueError as error:
            message = "the answer is not JSON"
            raise BrokenError(message, answered=True) from error


@asynccontextmanager
async def request(
    address: str, method: str, path: str, query: Mapping[str, str] | None = None, body: object = None
) -> AsyncIterator[Answer]:
    """Ask the engine at `address` (`unix://PATH` or `tcp://HOST:PORT`); `body` is sent as JSON.

    Raises:
        RefusalError: it answers with a status of 400 or more.
        BrokenError: it cannot be reached, or what comes is no HTTP.
    """
    reader, writer = await _connect(address)
    try:
        protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MESSAGE_BYTES)
        content = b"" if body is None else json.dumps(body).encode()
        target = f"{path}?{urlencode(query)}" if query else path
        headers = [("Host", "engine"), ("Connection", "close"), ("Content-Length", str(len(content)))]
        if body is not None:
            headers.append(("Content-Type", "application/json"))
        head = h11.Request(method=method, target=target, headers=headers)
        events = (head, h11.Data(data=content), h11.EndOfMessage())
        writer.write(b"".join(protocol.send(event) or b"" for event in events))
        yield await _begun(protocol, reader)
    finally:
        writer.transport.abort()


async def _connect(address: str) -> Connection:
    parts = urlsplit(address)
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            if parts.scheme == "unix":
                return await asyncio.open_unix_connection(parts.path)
            return await asyncio.open_connection(parts.hostname, parts.port)
    except OSError as error:
        message = f"no connection to {address}"
        raise BrokenError(message, answered=False, sent=False) from error


async def _begun(protocol: h11.Connection, reader: asyncio.StreamReader) -> Answer:
    event: Any = None
    while not isinstance(event, h11.Response):
        event = await _next_event(protocol, reader, answered=False)
    answer = Answer(event.status_code, protocol, reader)
    if event.status_code >= HTTPStatus.BAD_REQUEST:
        raise RefusalError(event.status_code, await _said(answer))
    return answer


async def _said(answer: Answer) -> str:
    said = await answer.document()
    return str(said.get("message", said) if isinstance(said, dict) else said).strip()


async def _next_event(protocol: h11.Connection, reader: asyncio.StreamReader, *, answered: bool = True) -> Any:
    try:
        while (event := protocol.next_event()) is h11.NEED_DATA:
            protocol.receive_data(await reader.read(_CHUNK))
    except (OSError, h11.RemoteProtocolError) as error:
        message = "the connection broke"
        raise BrokenError(message, answered=answered) from error
    if isinstance(event, h11.ConnectionClosed):
        message = "it hung up"
        raise BrokenError(message, answered=answered)
    return event
