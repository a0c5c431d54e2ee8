"""The HTTP transport to one https endpoint: through the skill's own proxy, with size limits for responses."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from http import HTTPStatus

import httpx2

from orchestrator.runtime.skills.stdio_transport import LINE_BYTES

_SECONDS = 30.0
_IDLE_SECONDS = 300.0
_DELETE_SECONDS = 2.0


class HttpTransport(httpx2.AsyncBaseTransport):
    """HTTP to an endpoint.

    Failures become responses: after an exception the SDK would end the whole connection without an error, and callers
    would wait forever. `problem` describes the last failure, `status` is the last response's.

    Args:
        proxy_url: the proxy on 127.0.0.1; TLS passes through it unchanged.
        credential: the proxy's password.
    """

    def __init__(self, proxy_url: str, credential: str) -> None:
        self.problem: str | None = None
        self.status: int | None = None
        # The system's CAs, or those in SSL_CERT_FILE, which OpenSSL reads itself.
        proxy = httpx2.Proxy(proxy_url, auth=("x", credential))
        self._inner = httpx2.AsyncHTTPTransport(verify=ssl.create_default_context(), trust_env=False, proxy=proxy)

    def client(self) -> httpx2.AsyncClient:
        """Create a client that uses only this transport, regardless of the environment."""
        return httpx2.AsyncClient(
            transport=self,
            trust_env=False,
            headers={"accept-encoding": "identity"},
            timeout=httpx2.Timeout(_SECONDS, read=_IDLE_SECONDS),
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request."""
        try:
            # A server that takes long to delete the session must not delay the end of the Run.
            async with asyncio.timeout(_DELETE_SECONDS if request.method == "DELETE" else None):
                response = await self._inner.handle_async_request(request)
        except (httpx2.TransportError, TimeoutError) as error:
            return self._no_answer(f"could not be reached: {_cause(error)}")
        self.status = response.status_code
        self.problem = None if response.status_code < HTTPStatus.BAD_REQUEST else f"answered {_named(self.status)}"
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()
            return self._no_answer("answered compressed, which was not asked for")
        is_stream = response.headers.get("content-type", "").lower().startswith("text/event-stream")
        if isinstance(response.stream, httpx2.AsyncByteStream):
            response.stream = _Body(response.stream, self, None if is_stream else LINE_BYTES)
        return response

    async def aclose(self) -> None:
        """Close its connections."""
        await self._inner.aclose()

    def _no_answer(self, problem: str) -> httpx2.Response:
        self.status = None
        self.problem = problem
        return httpx2.Response(HTTPStatus.BAD_GATEWAY)


class _Body(httpx2.AsyncByteStream):
    """A response body that ends early if it breaks or grows too large; then only this response is unreadable.

    `limit` is in bytes; None for an event stream, whose events the SDK limits individually.
    """

    def __init__(self, inner: httpx2.AsyncByteStream, owner: HttpTransport, limit: int | None) -> None:
        self._inner = inner
        self._owner = owner
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        try:
            async for chunk in self._inner:
                size += len(chunk)
                if self._limit is not None and size > self._limit:
                    self._owner.problem = f"answered with more than {self._limit // 2**20} MiB"
                    return
                yield chunk
        except httpx2.TransportError as error:
            self._owner.problem = f"broke off its answer: {_cause(error)}"

    async def aclose(self) -> None:
        await self._inner.aclose()


def _named(status: int) -> str:
    try:
        return f"HTTP status {status} ({HTTPStatus(status).phrase})"
    except ValueError:
        return f"HTTP status {status}"


def _cause(error: Exception) -> str:
    return str(error) or type(error).__name__
