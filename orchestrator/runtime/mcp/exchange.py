"""Requests and their replies over one connection, in both directions.

A transport sends what it is given and passes on what arrives. Here a reply finds its request, and requests of the
server are answered at once.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import count
from typing import Any, Protocol

from orchestrator.runtime.mcp.messages import Failure, Message, Notification, Request, RequestId, Response, same_id
from orchestrator.runtime.mcp.protocol import CANCELLED, CONNECTION_CLOSED, REQUEST_TIMEOUT, McpError

_GIVE_UP_SECONDS = 5.0
_ANSWERS_AT_ONCE = 8
_CLOSED = "Connection closed"

Headers = Mapping[str, str]
"""HTTP headers of one message, with names in lower case; transports without headers ignore them."""

_NONE: Headers = {}


class Receiver(Protocol):
    """What a transport passes messages to."""

    async def receive(self, message: Message) -> None:
        """Handle a message of the server; waits while too many of its requests are unanswered."""

    def close(self, problem: str | None = None) -> None:
        """End the connection: no message can follow. `problem` is that of `McpError`."""


class Transport(Protocol):
    """A connection to a server, ready to send."""

    def start(self, receiver: Receiver) -> None:
        """Pass on everything that arrives from now on."""

    async def send(self, message: Message, headers: Headers) -> None:
        """Send a message; for a request, its reply may arrive before this returns.

        Raises:
            McpError: the connection has ended.
            ValueError: the message cannot be written as JSON.
        """


class Exchange:
    """One connection's requests and replies.

    Args:
        transport: the connection.
        answer: returns the reply to a request of the server.
    """

    def __init__(self, transport: Transport, answer: Callable[[Request], Response | Failure]) -> None:
        self._transport = transport
        self._answer = answer
        self._numbers = count(1)
        self._waiting: dict[RequestId, asyncio.Future[Response | Failure]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._free = asyncio.Semaphore(_ANSWERS_AT_ONCE)
        self._is_closed = False
        self._problem: str | None = None

    async def request(
        self,
        method: str,
        params: Mapping[str, Any],
        headers: Headers = _NONE,
        *,
        seconds: float | None = None,
        may_cancel: bool = True,
    ) -> dict[str, Any]:
        """Send a request and return its result.

        If the caller is cancelled, so is the request, unless the protocol forbids it for this method (`may_cancel`).

        Raises:
            McpError: the server returned an error, no reply came within `seconds`, or the connection ended.
        """
        if self._is_closed:
            raise McpError(CONNECTION_CLOSED, _CLOSED, problem=self._problem)
        number = next(self._numbers)
        waiter: asyncio.Future[Response | Failure] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiter
        try:
            async with asyncio.timeout(seconds):
                await self._transport.send(Request(number, method, dict(params) or None), headers)
                reply = await waiter
        except TimeoutError as error:
            message = f"Request {method!r} timed out"
            raise McpError(REQUEST_TIMEOUT, message) from error
        except asyncio.CancelledError:
            if may_cancel:
                await self._give_up(number)
            raise
        finally:
            del self._waiting[number]
        if isinstance(reply, Failure):
            failed = McpError(reply.code, reply.message, reply.data, reply.problem, reply.status)
            failed.is_remote = reply.is_remote
            raise failed
        return reply.result

    async def notify(self, method: str, params: Mapping[str, Any] | None = None, headers: Headers = _NONE) -> None:
        """Send a message without a reply; after the end of the connection, nothing is sent."""
        if self._is_closed:
            return
        with suppress(McpError):
            await self._transport.send(Notification(method, None if params is None else dict(params)), headers)

    async def receive(self, message: Message) -> None:
        """Handle a message of the server; waits while too many of its requests are unanswered.

        Replies to unknown requests, and notifications, are ignored: tools are listed once, and nothing is shown of
        progress or logs.
        """
        match message:
            case Response() | Failure():
                number = same_id(message.id)
                waiter = None if number is None else self._waiting.get(number)
                if waiter is not None and not waiter.done():
                    waiter.set_result(message)
            case Request():
                await self._free.acquire()
                # Its own task: a server may read an answer only after it has sent something else.
                task = asyncio.get_running_loop().create_task(self._send_answer(self._answer(message)))
                self._answering.add(task)
                task.add_done_callback(self._answered)
                if self._is_closed:
                    task.cancel()

    def close(self, problem: str | None = None) -> None:
        """Fail everything that waits for a reply, and all later requests; the first `problem` is what they report."""
        if not self._is_closed:
            self._is_closed, self._problem = True, problem
        for waiter in self._waiting.values():
            if not waiter.done():
                waiter.set_result(Failure(None, CONNECTION_CLOSED, _CLOSED, problem=self._problem))
        for task in self._answering:
            task.cancel()

    async def _send_answer(self, answer: Response | Failure) -> None:
        with suppress(McpError):
            await self._transport.send(answer, _NONE)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._answering.discard(task)
        self._free.release()

    async def _give_up(self, number: RequestId) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_GIVE_UP_SECONDS):
                await self.notify(CANCELLED, {"requestId": number, "reason": "caller cancelled"})
