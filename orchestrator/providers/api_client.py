"""One model call over HTTP: a JSON request, the events of its answer, and all that can fail on the way."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, suppress
from http import HTTPStatus
from typing import Any

from orchestrator.http.connect import Connector
from orchestrator.http.connection_pool import ConnectionPool
from orchestrator.http.encoding import ACCEPTED, decoded
from orchestrator.http.errors import ConnectionBrokenError, StatusError
from orchestrator.http.headers import merged
from orchestrator.http.response import Response
from orchestrator.providers.call import Call, Refusal, ReplyStream, StreamParser
from orchestrator.providers.failures import broken, masked, off_format, silent, unreachable
from orchestrator.version import VERSION
from orchestrator.wire.generation import Failure, Reply

_OWN = {
    "User-Agent": f"perstack-orch/{VERSION}",
    "Accept": "application/json",
    "Accept-Encoding": ACCEPTED,
    "Content-Type": "application/json",
}
_KEPT = 20
_KEPT_SECONDS = 30.0
"""How long a connection waits for the next call. Firewalls drop what is silent for longer, and report it to neither end
(decision 103)."""
_DRAIN_SECONDS = 0.1
"""How long the end of a complete reply may take, so that its connection can be used again."""
_REFUSAL_BYTES = 256 * 1024


class ApiClient:
    """One API. Connections are shared by all calls, of parallel Runs too, and used again. Close it.

    `headers` go with each call, and replace its own. `secrets` are masked in failures. Redirects are not followed: they
    would send the key and the conversation to another address.
    """

    def __init__(self, connector: Connector, headers: Mapping[str, str], secrets: tuple[str, ...]) -> None:
        self._host = connector.address.host
        self._headers = headers
        self._secrets = secrets
        self._pool = ConnectionPool(connector, _KEPT, _KEPT_SECONDS)

    def close(self) -> None:
        """Close the connections that wait."""
        self._pool.close()

    async def reply(self, call: Call, arriving: ReplyStream) -> Reply | Failure:
        """Send a request, pass the events of its answer to `arriving`, and return the outcome."""
        try:
            outcome = await self._reply(call, arriving)
        except TimeoutError:
            outcome = silent(call.timeout)
        except ConnectionBrokenError as error:
            outcome = self._broken(error)
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            outcome = off_format(error)
        return masked(outcome, self._secrets)

    async def _reply(self, call: Call, arriving: ReplyStream) -> Reply | Failure:
        # A lone surrogate has no encoding, and must not end a conversation permanently.
        body = json.dumps(call.body, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
        headers = merged(_OWN, call.headers, self._headers)
        loop = asyncio.get_running_loop()
        async with (
            asyncio.timeout(call.timeout) as silence,
            self._pool.exchange("POST", call.path, body=body, headers=headers) as response,
            aclosing(decoded(response)) as chunks,
        ):

            def extend() -> None:
                silence.reschedule(loop.time() + call.timeout)

            if not HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES:
                return call.refused(Refusal(response.status, response.headers, await _content(chunks, extend)))
            await _read(chunks, extend, call.parser(), arriving)
            if arriving.is_complete:
                await _drain(response)
        return arriving.outcome()

    def _broken(self, error: ConnectionBrokenError) -> Failure:
        cause: object = error.__cause__
        if isinstance(cause, StatusError | ConnectionBrokenError) or not str(cause or ""):
            cause = error
        if error.sent and error.answered:
            return broken(f"the connection to the model's API broke: {cause}")
        return unreachable(self._host, cause)


async def _read(
    chunks: AsyncIterator[bytes], extend: Callable[[], None], parser: StreamParser, arriving: ReplyStream
) -> None:
    async for chunk in chunks:
        extend()
        for event in parser.feed(chunk):
            arriving.take(event)
            if arriving.is_complete:
                return
    for event in parser.end():
        arriving.take(event)


async def _content(chunks: AsyncIterator[bytes], extend: Callable[[], None]) -> Any:
    body = bytearray()
    async for chunk in chunks:
        extend()
        body += chunk
        if len(body) > _REFUSAL_BYTES:
            break
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body[:_REFUSAL_BYTES].decode(errors="replace").strip()


async def _drain(response: Response) -> None:
    """Read the end of a body, so that its connection can be used again; a server that does not end it loses it."""
    with suppress(TimeoutError, ConnectionBrokenError):
        async with asyncio.timeout(_DRAIN_SECONDS), aclosing(response.chunks()) as chunks:
            async for _ in chunks:
                pass
