"""MCP over HTTP as in 2024-11-05: one stream of events from the server, and a POST for each message to it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from http import HTTPStatus
from urllib.parse import urljoin

from orchestrator.runtime.mcp.event_stream import ServerEvent, server_events
from orchestrator.runtime.mcp.exchange import Headers, Receiver
from orchestrator.runtime.mcp.http_client import HttpClient, HttpReply, UnreachableError, same_origin
from orchestrator.runtime.mcp.messages import Failure, Message, Request, decode, encode
from orchestrator.runtime.mcp.protocol import (
    CONNECTION_CLOSED,
    INTERNAL_ERROR,
    INVALID_REQUEST,
    MESSAGE_BYTES,
    McpError,
    ViolationError,
)

_JSON = {"accept": "*/*", "content-type": "application/json"}
_STREAM = {"accept": "text/event-stream", "cache-control": "no-store"}


class LegacySse:
    """The transport once the server has named the address for messages.

    Args:
        client: the connections to its host.
        address: the URL for messages.
        events: the rest of the stream.
    """

    def __init__(self, client: HttpClient, address: str, events: AsyncIterator[ServerEvent]) -> None:
        self._client = client
        self._address = address
        self._events = events
        self._receiver: Receiver | None = None
        self._reading: asyncio.Task[None] | None = None

    def start(self, receiver: Receiver) -> None:
        """Pass on everything that arrives from now on."""
        self._receiver = receiver
        self._reading = asyncio.get_running_loop().create_task(self._read(receiver))

    async def send(self, message: Message, _headers: Headers) -> None:
        """Send a message. A request that is refused has a failure as its reply; others are lost."""
        failure: tuple[str, int | None] | None = None
        try:
            async with self._client.request("POST", self._address, _JSON, encode(message)) as reply:
                await reply.finish()
                if reply.status >= HTTPStatus.MULTIPLE_CHOICES:
                    failure = (reply.problem or "redirected a message", reply.status)
        except UnreachableError as error:
            failure = (str(error), None)
        if failure is not None and isinstance(message, Request) and self._receiver is not None:
            problem, status = failure
            text = "Server returned an error response"
            await self._receiver.receive(Failure(message.id, INTERNAL_ERROR, text, problem=problem, status=status))

    async def close(self) -> None:
        """Read no more."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait((self._reading,))

    async def _read(self, receiver: Receiver) -> None:
        problem = None
        try:
            async for event in self._events:
                if event.kind == "message" and event.data:
                    await _pass_on(event.data, receiver)
        except UnreachableError as error:
            problem = str(error)
        except ViolationError as error:
            problem = f"broke off its answer: {error}"
        receiver.close(problem)


@asynccontextmanager
async def legacy_sse(client: HttpClient) -> AsyncIterator[LegacySse]:
    """Open the stream of an endpoint; leaving the block closes it.

    Raises:
        McpError: the endpoint refused.
        UnreachableError: no usable response came.
        ViolationError: the stream does not begin as the protocol has it.
    """
    try:
        async with client.request("GET", client.endpoint, _STREAM) as reply:
            if reply.status >= HTTPStatus.MULTIPLE_CHOICES:
                raise _refused(reply)
            if not reply.is_event_stream:
                message = f"Expected response with content type 'text/event-stream', got {reply.content_type!r}."
                raise ViolationError(message)
            async with aclosing(server_events(reply.read_some, MESSAGE_BYTES)) as events:
                transport = LegacySse(client, await _address(client.endpoint, events), events)
                try:
                    yield transport
                finally:
                    await transport.close()
    finally:
        client.close()


async def _address(endpoint: str, events: AsyncIterator[ServerEvent]) -> str:
    async for event in events:
        if event.kind != "endpoint":
            continue
        try:
            address = urljoin(endpoint, event.data)
        except ValueError:
            address = event.data
        if not same_origin(endpoint, address):
            message = f"Endpoint origin does not match connection origin: {address}"
            raise ViolationError(message)
        return address
    raise McpError(CONNECTION_CLOSED, "Connection closed")


async def _pass_on(data: str, receiver: Receiver) -> None:
    try:
        message = decode(data.encode())
    except ViolationError:
        return
    await receiver.receive(message)


def _refused(reply: HttpReply) -> McpError:
    text = reply.redirect or "Server returned an error response"
    return McpError(INVALID_REQUEST if reply.redirect else INTERNAL_ERROR, text, None, reply.problem, reply.status)
