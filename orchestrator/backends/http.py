"""HTTP/1.1 to an engine or a cluster, over h11.

A client library of either takes as long to import as a Sandbox takes to start; h11 does not.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

import h11

_CONNECT_SECONDS = 5.0
_CHUNK = 64 * 1024
_MESSAGE_BYTES = 64 * 1024

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class RefusalError(Exception):
    """The other side answered that it will not; the text is what it said."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status = status


class BrokenError(Exception):
    """The other side could not be reached, or left in the middle of an answer.

    `sent` is whether it may have got the request, `answered` whether it had begun to answer. The cause, where there is
    one, is the system's error.
    """

    def __init__(self, message: str, *, answered: bool, sent: bool = True) -> None:
        super().__init__(message)
        self.answered = answered
        self.sent = sent


@dataclass(slots=True)
class Channel:
    """One connection; requests go over it one after another."""

    protocol: h11.Connection
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def open(cls, connect: Callable[[], Awaitable[Connection]], address: str) -> "Channel":
        """Connect; `address` says where, for people.

        Raises:
            BrokenError: nobody is there.
        """
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                reader, writer = await connect()
        except OSError as error:
            message = f"no connection to {address}"
            raise BrokenError(message, answered=False, sent=False) from error
        return cls(h11.Connection(h11.CLIENT, max_incomplete_event_size=_MESSAGE_BYTES), reader, writer)

    async def ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> "Answer":
        """Send a request, `body` as JSON, and wait for the answer's beginning.

        Raises:
            RefusalError: it answers with a status of 400 or more.
            BrokenError: it leaves before it answers, or what comes is no HTTP.
        """
        content = b"" if body is None else json.dumps(body).encode()
        target = f"{path}?{urlencode(query)}" if query else path
        given = {"Content-Length": str(len(content))} | ({} if body is None else {"Content-Type": "application/json"})
        head = h11.Request(method=method, target=target, headers=list((given | dict(headers or {})).items()))
        events = (head, h11.Data(data=content), h11.EndOfMessage())
        self.writer.write(b"".join(self.protocol.send(event) or b"" for event in events))
        event: Any = None
        while not isinstance(event, h11.Response):
            event = await self._next_event(answered=False)
        answer = Answer(event.status_code, self)
        if event.status_code >= HTTPStatus.BAD_REQUEST:
            raise RefusalError(event.status_code, await _said(answer))
        return answer

    async def switch(self, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> bytes:
        """Ask to speak another protocol from here on; give what of it came with the answer.

        Raises:
            RefusalError: it would rather not.
            BrokenError: as `ask`.
        """
        head = h11.Request(method="GET", target=f"{path}?{urlencode(query)}", headers=list(headers.items()))
        self.writer.write(b"".join(self.protocol.send(event) or b"" for event in (head, h11.EndOfMessage())))
        event = await self._next_event(answered=False)
        if isinstance(event, h11.Response):
            raise RefusalError(event.status_code, await _said(Answer(event.status_code, self)))
        return bytes(self.protocol.trailing_data[0])

    def is_free(self) -> bool:
        """Make ready for another request, if the answer was read whole and the other side is still there."""
        whole = self.protocol.our_state is h11.DONE and self.protocol.their_state is h11.DONE
        if not whole or self.reader.at_eof() or self.writer.is_closing():
            return False
        self.protocol.start_next_cycle()
        return True

    def close(self) -> None:
        """Close it now."""
        self.writer.transport.abort()

    async def _next_event(self, *, answered: bool = True) -> Any:
        try:
            while (event := self.protocol.next_event()) is h11.NEED_DATA:
                self.protocol.receive_data(await self.reader.read(_CHUNK))
        except (OSError, h11.RemoteProtocolError) as error:
            message = "the connection broke"
            raise BrokenError(message, answered=answered) from error
        if isinstance(event, h11.ConnectionClosed):
            message = "it hung up"
            raise BrokenError(message, answered=answered)
        return event


@dataclass(slots=True)
class Answer:
    """The answer to one request, its body still to be read."""

    status: int
    _channel: Channel

    async def chunks(self) -> AsyncIterator[bytes]:
        """Give the body as it arrives.

        Raises:
            BrokenError: the connection ended before the body did.
        """
        while not isinstance(event := await self._channel._next_event(), h11.EndOfMessage):  # noqa: SLF001 - its other half
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


async def _said(answer: Answer) -> str:
    body = b"".join([chunk async for chunk in answer.chunks()])
    try:
        said = json.loads(body)
    except ValueError:
        return body.decode(errors="replace").strip()
    return str(said.get("message", said) if isinstance(said, dict) else said).strip()
