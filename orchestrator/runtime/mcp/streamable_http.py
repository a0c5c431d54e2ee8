"""MCP over HTTP: a POST for each message, whose response is JSON or a stream of events (2025-03-26 and later).

A stream that breaks off is resumed after the last event that had an id. A server with sessions may have a second
stream, a GET, for messages that belong to no request.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from orchestrator.runtime.mcp.event_stream import ServerEvent, server_events
from orchestrator.runtime.mcp.exchange import Headers, Receiver
from orchestrator.runtime.mcp.http_client import HttpClient, HttpReply, UnreachableError
from orchestrator.runtime.mcp.messages import (
    Failure,
    Message,
    Notification,
    Request,
    RequestId,
    Response,
    decode,
    encode,
)
from orchestrator.runtime.mcp.protocol import (
    CANCELLED,
    CONNECTION_CLOSED,
    HEADER_VERSION,
    INITIALIZED,
    INTERNAL_ERROR,
    INVALID_REQUEST,
    MESSAGE_BYTES,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    STATELESS_VERSIONS,
    ViolationError,
)

_SESSION = "mcp-session-id"
_LAST_EVENT = "last-event-id"
_ATTEMPTS = 2
_RETRY_MS = 1000
_LEAST_RETRY_MS = 50
"""So that a server that closes each stream at once, and asks for no wait, does not keep the processor busy."""
_DELETE_SECONDS = 2.0


@dataclass(slots=True)
class _Mark:
    """Where a broken stream is resumed: after this event, after this wait."""

    event_id: str = ""
    retry_ms: int = _RETRY_MS

    def note(self, event: ServerEvent) -> None:
        """Remember what an event states about a resumption."""
        self.event_id = event.id or self.event_id
        self.retry_ms = self.retry_ms if event.retry is None else event.retry

    async def wait(self) -> None:
        """Wait as long as the server asked for."""
        await asyncio.sleep(max(self.retry_ms, _LEAST_RETRY_MS) / 1000)


class StreamableHttp:
    """The transport to one endpoint.

    Args:
        client: the connections to its host.
    """

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        self._receiver: Receiver | None = None
        self._session: str | None = None
        self._version: str | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._posts: dict[RequestId, tuple[asyncio.Task[None], bool]] = {}

    def start(self, receiver: Receiver) -> None:
        """Pass on everything that arrives from now on."""
        self._receiver = receiver

    async def send(self, message: Message, headers: Headers) -> None:
        """Send a message. A failed request has a failure as its reply; a failed message of another kind is lost."""
        match message:
            case Notification(method=method, params=params) if method == CANCELLED and self._abort(params):
                return
            case Request(method="initialize"):
                self._version = None  # Not that of a question before the handshake.
            case _:
                self._version = headers.get(HEADER_VERSION, self._version)
        body = encode(message)
        fields = {**self._fields(), **headers}
        if isinstance(message, Request):
            task = self._spawn(self._call(message, body, fields))
            self._posts[message.id] = (task, self._version in STATELESS_VERSIONS)
            task.add_done_callback(lambda _: self._posts.pop(message.id, None))
            return
        try:
            async with self._client.request("POST", self._client.endpoint, fields, body) as reply:
                await reply.finish()
        except UnreachableError:
            pass
        finally:
            if isinstance(message, Notification):
                self._after(message)

    async def close(self) -> None:
        """End all requests, and the server's session."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._session is not None:
            # A server that takes long to delete the session must not delay the end of the Run.
            with suppress(UnreachableError, TimeoutError):
                async with (
                    asyncio.timeout(_DELETE_SECONDS),
                    self._client.request("DELETE", self._client.endpoint, self._fields()) as reply,
                ):
                    await reply.finish()
        self._client.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _after(self, sent: Notification) -> None:
        if sent.method == INITIALIZED and self._session is not None:
            self._tasks.add(self._spawn(self._listen()))
        found = self._posts.get((sent.params or {}).get("requestId", "")) if sent.method == CANCELLED else None
        if found is not None:
            found[0].cancel()  # Else a stream that is resumed again and again would last until the Run ends.

    def _abort(self, params: dict[str, Any] | None) -> bool:
        """Whether a cancellation needs no message: since 2026-07-28, closing the request's stream is the message."""
        found = self._posts.get((params or {}).get("requestId", ""))
        if found is None:
            return self._version in STATELESS_VERSIONS
        task, is_stateless = found
        if is_stateless:
            task.cancel()
        return is_stateless

    def _fields(self) -> dict[str, str]:
        fields = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
        if self._session is not None:
            fields[_SESSION] = self._session
        if self._version is not None:
            fields[HEADER_VERSION] = self._version
        return fields

    async def _deliver(self, message: Message) -> None:
        if self._receiver is not None:
            await self._receiver.receive(message)

    async def _call(self, request: Request, body: bytes, fields: Headers) -> None:
        """Send a request, and pass on its reply, or why no reply came."""
        mark, problem = _Mark(), None
        try:
            async with self._client.request("POST", self._client.endpoint, fields, body) as reply:
                self._keep_session(request, reply)
                if reply.status >= HTTPStatus.MULTIPLE_CHOICES or not reply.is_event_stream:
                    await self._deliver(await _single_reply(request, reply))
                    await reply.finish()
                    return
                if await self._stream(reply, mark, request.id):
                    await reply.finish()
                    return
        except UnreachableError as error:
            problem = str(error)
        except ViolationError as error:
            await self._deliver(Failure(request.id, CONNECTION_CLOSED, f"SSE stream failed: {error}"))
            return
        failure = await self._resume(request.id, mark, problem)
        if failure is not None:
            await self._deliver(failure)

    async def _resume(self, number: RequestId, mark: _Mark, problem: str | None) -> Failure | None:
        """Continue a stream that ended before the reply, if its events had ids; None once the reply was passed on."""
        attempts = 0
        while mark.event_id and attempts < _ATTEMPTS:
            await mark.wait()
            try:
                async with self._opened_stream(mark) as reply:
                    if await self._stream(reply, mark, number):
                        await reply.finish()
                        return None
                attempts, problem = 0, None
            except UnreachableError as error:
                attempts, problem = attempts + 1, str(error)
            except ViolationError as error:
                return Failure(number, CONNECTION_CLOSED, f"SSE stream failed: {error}")
        ended = "SSE stream ended and could not be resumed" if mark.event_id else "SSE stream ended without a response"
        return Failure(number, CONNECTION_CLOSED, ended, problem=problem)

    async def _listen(self) -> None:
        """Receive messages that belong to no request, while the server offers a stream of them."""
        mark, attempts = _Mark(), 0
        while attempts < _ATTEMPTS:
            try:
                async with self._opened_stream(mark) as reply:
                    await self._stream(reply, mark, None)
                attempts = 0
            except (UnreachableError, ViolationError):
                attempts += 1
            if attempts < _ATTEMPTS:
                await mark.wait()

    @asynccontextmanager
    async def _opened_stream(self, mark: _Mark) -> AsyncIterator[HttpReply]:
        fields = {"cache-control": "no-store", **self._fields()}
        if mark.event_id:
            # Headers have no encoding; the standard of event streams has UTF-8 here.
            fields[_LAST_EVENT] = mark.event_id.encode(errors="replace").decode("latin-1")
        async with self._client.request("GET", self._client.endpoint, fields) as reply:
            if reply.status >= HTTPStatus.MULTIPLE_CHOICES or not reply.is_event_stream:
                await reply.finish()
                raise UnreachableError(reply.problem or "answered without a stream of events")
            yield reply

    async def _stream(self, reply: HttpReply, mark: _Mark, number: RequestId | None) -> bool:
        """Pass on the messages of a stream; true once the reply to request `number` was among them.

        Raises:
            UnreachableError: the stream breaks off.
            ViolationError: an event is too long.
        """
        async with aclosing(server_events(reply.read_some, MESSAGE_BYTES)) as events:
            async for event in events:
                mark.note(event)
                message = _message(event, number)
                if message is None:
                    continue
                await self._deliver(message)
                if number is not None and isinstance(message, Response | Failure):
                    return True
        return False

    def _keep_session(self, request: Request, reply: HttpReply) -> None:
        if request.method == "initialize" and reply.status < HTTPStatus.MULTIPLE_CHOICES:
            self._session = reply.headers.get(_SESSION) or self._session


@asynccontextmanager
async def streamable_http(client: HttpClient) -> AsyncIterator[StreamableHttp]:
    """Open the transport; leaving the block ends the server's session and all connections."""
    transport = StreamableHttp(client)
    try:
        yield transport
    finally:
        await transport.close()


def _message(event: ServerEvent, number: RequestId | None) -> Message | None:
    """The message of an event, None if it has none; a reply belongs to request `number`, whatever its id."""
    if event.kind != "message" or not event.data:
        return None
    try:
        message = decode(event.data.encode())
    except ViolationError as error:
        return None if number is None else Failure(number, PARSE_ERROR, f"Failed to parse SSE message: {error}")
    if number is not None and isinstance(message, Response | Failure):
        return replace(message, id=number)
    return message


async def _single_reply(request: Request, reply: HttpReply) -> Message:
    """What a response that is no stream means for its request.

    Raises:
        UnreachableError: the response breaks off, or is too large.
    """
    if reply.status == HTTPStatus.ACCEPTED:
        return Failure(request.id, INVALID_REQUEST, "server answered a request with 202 Accepted")
    if reply.redirect is not None:
        return Failure(request.id, INVALID_REQUEST, reply.redirect)
    is_json = reply.content_type.startswith("application/json")
    found: Message | str = f"Unexpected content type: {reply.content_type}"
    if is_json:
        try:
            found = decode(await reply.read(MESSAGE_BYTES))
        except ViolationError as error:
            found = f"Failed to parse JSON response: {error}"
    if reply.status >= HTTPStatus.BAD_REQUEST:
        refusal = found if isinstance(found, Failure) else _refusal(request.id, reply.status)
        return replace(refusal, id=request.id, problem=reply.problem, status=reply.status)
    if isinstance(found, str):
        return Failure(request.id, PARSE_ERROR if is_json else INVALID_REQUEST, found)
    if isinstance(found, Response | Failure):
        # It can only answer this request, whatever its id.
        return replace(found, id=request.id)
    return Failure(request.id, INVALID_REQUEST, "server answered a request with a message that is no reply")


def _refusal(number: RequestId, status: int) -> Failure:
    if status == HTTPStatus.NOT_FOUND:
        return Failure(number, METHOD_NOT_FOUND, "Not Found")
    return Failure(number, INTERNAL_ERROR, "Server returned an error response")
