"""A response: its head, and a body that is read as it arrives."""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import h11

from orchestrator.http.errors import ConnectionBrokenError

_MESSAGE_BYTES = 64 * 1024
"""How much of the body of a failure is read: enough for its message, and no server can fill the memory."""


@dataclass(slots=True)
class Response:
    """The response to one request. `headers` are by name in lower case; repeated ones are joined with commas.

    `_next_event` reads h11's next event from the connection.
    """

    status: int
    headers: Mapping[str, str]
    _next_event: Callable[[], Awaitable[Any]]
    _ended: bool = False

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Give the body as it arrives; nothing if it has been read.

        Raises:
            ConnectionBrokenError: the connection ended before the body did.
        """
        while not self._ended:
            event = await self._next_event()
            self._ended = isinstance(event, h11.EndOfMessage)
            if isinstance(event, h11.Data):
                yield bytes(event.data)

    async def json(self) -> Any:
        """Read the whole body as JSON; None if it is empty.

        Raises:
            ConnectionBrokenError: as `chunks`, or the body is not JSON.
        """
        body = b"".join([chunk async for chunk in self.chunks()])
        try:
            return json.loads(body) if body.strip() else None
        except (ValueError, RecursionError) as error:
            message = "the response is not JSON"
            raise ConnectionBrokenError(message, answered=True) from error

    async def message(self) -> str:
        """Read the message of a failure's body: the text at `message` in a JSON object, else the body, to 64 KiB.

        Raises:
            ConnectionBrokenError: as `chunks`.
        """
        body = bytearray()
        async with aclosing(self.chunks()) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) >= _MESSAGE_BYTES:
                    break
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            return body[:_MESSAGE_BYTES].decode(errors="replace").strip()
        return str(found.get("message", found) if isinstance(found, dict) else found).strip()


def headers_of(event: h11.Response | h11.InformationalResponse) -> dict[str, str]:
    """Read the headers of a response."""
    headers: dict[str, str] = {}
    for name, value in event.headers:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers
