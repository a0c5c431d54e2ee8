"""Requests to the host of one endpoint, over connections that are kept for the next request.

A redirect is followed only on the same origin: everything in a request was meant for that one.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from orchestrator.runtime.mcp.http1 import BrokenResponseError, HttpRequest, HttpResponse, Streams, exchange
from orchestrator.version import VERSION

_CONNECT_SECONDS = 30.0
_IDLE_SECONDS = 300.0
_KEPT_SECONDS = 3.0
"""Many servers close after 5 s what waits for a request, by a clock that began earlier."""
_FINISH_SECONDS = 0.2
_REDIRECTS = 20
_KEEP_METHOD = (307, 308)
_REDIRECT = (301, 302, 303, *_KEEP_METHOD)
_COMPRESSED = ("gzip", "x-gzip", "deflate", "br", "zstd", "compress")
_PORTS = {"http": 80, "https": 443}
_SAFE = "/%:@!$&'()*+,;=~-._?"

Connect = Callable[[], Awaitable[Streams]]
"""Opens a connection to the endpoint's host.

Raises:
    OSError: the host cannot be reached; the text gives the reason.
"""


class UnreachableError(Exception):
    """No usable response came; the text is the end of a sentence about the host."""


class HttpReply:
    """A response of the endpoint, with `status` and `headers`, whose names are in lower case."""

    def __init__(self, url: str, response: HttpResponse) -> None:
        self._url = url
        self._response = response
        self.status = response.status
        self.headers = response.headers
        self.has_ended = False

    @property
    def is_reusable(self) -> bool:
        """Whether its connection can take another request."""
        return self.has_ended and self._response.is_reusable

    @property
    def content_type(self) -> str:
        """The type of the body in lower case, with its parameters."""
        return self.headers.get("content-type", "").lower()

    @property
    def is_event_stream(self) -> bool:
        """Whether the body consists of server-sent events."""
        return self.content_type.partition(";")[0].strip() == "text/event-stream"

    @property
    def problem(self) -> str | None:
        """The error that the status means, as the end of a sentence about the host; None below 400."""
        if self.status < HTTPStatus.BAD_REQUEST:
            return None
        try:
            return f"answered HTTP status {self.status} ({HTTPStatus(self.status).phrase})"
        except ValueError:
            return f"answered HTTP status {self.status}"

    @property
    def redirect(self) -> str | None:
        """A redirect that is not followed, as a sentence; None if it is none."""
        if self.status not in _REDIRECT or "location" not in self.headers:
            return None
        try:
            url = urlsplit(urljoin(self._url, self.headers["location"]))
            shown = f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"  # The rest may contain a token.
        except ValueError:
            shown = "an invalid address"
        return f"Redirect to {shown} not followed; use that URL as the endpoint if it is the intended server"

    async def read_some(self) -> bytes:
        """The next piece of the body; nothing at its end.

        Raises:
            UnreachableError: it breaks off, or nothing arrives for 300 s.
        """
        try:
            async with asyncio.timeout(_IDLE_SECONDS):
                piece = await self._response.body.read()
        except (BrokenResponseError, TimeoutError) as error:
            message = f"broke off its answer: {str(error) or f'nothing came for {_IDLE_SECONDS:g} s'}"
            raise UnreachableError(message) from error
        self.has_ended = not piece
        return piece

    async def read(self, limit: int) -> bytes:
        """The whole body.

        Raises:
            UnreachableError: it breaks off, or has more than `limit` bytes.
        """
        body = bytearray()
        while piece := await self.read_some():
            body += piece
            if len(body) > limit:
                message = f"answered with more than {limit // 2**20} MiB"
                raise UnreachableError(message)
        return bytes(body)

    async def finish(self) -> None:
        """Read the rest of the body if it ends soon, so that its connection can be used again."""
        with suppress(TimeoutError, UnreachableError):
            async with asyncio.timeout(_FINISH_SECONDS):
                while await self.read_some():
                    pass


class HttpClient:
    """The connections to one endpoint's host.

    Args:
        endpoint: its URL.
        connect: opens a connection to its host.
    """

    def __init__(self, endpoint: str, connect: Connect) -> None:
        self.endpoint = endpoint
        self._connect = connect
        self._idle: list[tuple[float, Streams]] = []

    @asynccontextmanager
    async def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes = b""
    ) -> AsyncIterator[HttpReply]:
        """Send a request to a URL on the endpoint's origin; leaving the block ends the response.

        Raises:
            UnreachableError: no usable response came.
        """
        for _ in range(_REDIRECTS):
            async with self._once(method, url, headers, body) as reply:
                onward = _onward(method, url, reply)
                if onward is None:
                    yield reply
                    return
                await reply.finish()
            url = onward
        async with self._once(method, url, headers, body) as reply:
            yield reply

    def close(self) -> None:
        """Close the connections that are kept."""
        while self._idle:
            _close(self._idle.pop()[1])

    @asynccontextmanager
    async def _once(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> AsyncIterator[HttpReply]:
        parts = urlsplit(url)
        fields = {
            "host": parts.netloc.removesuffix(f":{_PORTS.get(parts.scheme)}"),
            "user-agent": f"perstack-orch/{VERSION}",
            "accept-encoding": "identity",
            **headers,
        }
        request = HttpRequest(method, _target(parts), fields, body)
        streams, response = await self._exchange(request)
        reply = HttpReply(url, response)
        try:
            coding = response.headers.get("content-encoding", "").strip().lower()
            if coding in _COMPRESSED and response.status < HTTPStatus.BAD_REQUEST:
                message = "answered compressed, which was not asked for"
                raise UnreachableError(message)
            yield reply
        finally:
            if reply.is_reusable:
                self._idle.append((_now(), streams))
            else:
                _close(streams)

    async def _exchange(self, request: HttpRequest) -> tuple[Streams, HttpResponse]:
        try:
            streams = await self._kept() or await self._connected()
            try:
                async with asyncio.timeout(_IDLE_SECONDS):
                    return streams, await exchange(streams, request)
            except BaseException:
                _close(streams)
                raise
        except (OSError, BrokenResponseError, ValueError) as error:  # A timeout is an OSError.
            cause = str(error) or ("it took too long" if isinstance(error, TimeoutError) else type(error).__name__)
            message = f"could not be reached: {cause}"
            raise UnreachableError(message) from error

    async def _connected(self) -> Streams:
        async with asyncio.timeout(_CONNECT_SECONDS):
            return await self._connect()

    async def _kept(self) -> Streams | None:
        while self._idle:
            since, streams = self._idle.pop()
            if _now() - since < _KEPT_SECONDS and await _is_quiet(streams[0]):
                return streams
            _close(streams)
        return None


def same_origin(one: str, other: str) -> bool:
    """Whether two URLs have the same scheme, host and port."""
    try:
        return _origin(urlsplit(one)) == _origin(urlsplit(other))
    except ValueError:
        return False


def _origin(url: SplitResult) -> tuple[str, str | None, int | None]:
    return url.scheme, url.hostname, url.port or _PORTS.get(url.scheme)


def _onward(method: str, url: str, reply: HttpReply) -> str | None:
    """Where a redirect leads, if it is followed: on the same origin, and with the same method."""
    location = reply.headers.get("location")
    if location is None or reply.status not in (_REDIRECT if method == "GET" else _KEEP_METHOD):
        return None
    try:
        onward = urljoin(url, location)
        has_user = urlsplit(location).username is not None
    except ValueError:
        return None
    return onward if same_origin(url, onward) and not has_user else None


def _target(url: SplitResult) -> str:
    path = quote(url.path or "/", safe=_SAFE)
    return f"{path}?{quote(url.query, safe=_SAFE)}" if url.query else path


async def _is_quiet(reader: asyncio.StreamReader) -> bool:
    """Whether nothing arrived between two responses: neither the end, nor what would be taken for the next one."""
    try:
        async with asyncio.timeout(0):
            await reader.read(1)
    except TimeoutError:
        return True
    except OSError:
        pass
    return False


def _close(streams: Streams) -> None:
    # At once, and without an exchange of goodbyes: a server that does not answer must not hold the connection.
    streams[1].transport.abort()


def _now() -> float:
    return asyncio.get_running_loop().time()
