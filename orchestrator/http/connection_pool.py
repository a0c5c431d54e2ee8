"""Requests to one server, over connections that are used again."""

import math
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPMethod
from typing import Any, Protocol

from orchestrator.http.connection import Connection, Query
from orchestrator.http.errors import ConnectionBrokenError
from orchestrator.http.headers import Headers, merged
from orchestrator.http.response import Response


class Connects(Protocol):
    """What makes connections to one server."""

    async def connect(self) -> Connection:
        """Connect.

        Raises:
            ConnectionBrokenError: there is no connection; the request was not sent.
        """


class ConnectionPool:
    """The connections to one server. At most `keep` of them wait for the next request; with 0 each serves only one.

    One that has waited for `seconds` is not used again: what is between here and the server may have forgotten it.
    """

    def __init__(self, connector: Connects, keep: int, seconds: float = math.inf) -> None:
        self._connector = connector
        self._keep = keep
        self._seconds = seconds
        self._idle: list[tuple[float, Connection]] = []

    @asynccontextmanager
    async def request(
        self, method: str, path: str, query: Query | None = None, body: object = None, headers: Headers | None = None
    ) -> AsyncIterator[Response]:
        """Send a request, `body` as JSON unless it is bytes.

        The block reads the response's body; if it does not, the connection closes.

        Raises:
            StatusError: the response's status is 400 or more.
            ConnectionBrokenError: the server cannot be reached, or the connection broke.
        """
        connection = await self._take_idle() or await self._connector.connect()
        try:
            yield await connection.request(method, path, query, body, {**self._closing(), **(headers or {})})
        finally:
            self._put_back(connection)

    @asynccontextmanager
    async def exchange(
        self, method: str, path: str, query: Query | None = None, body: object = None, headers: Headers | None = None
    ) -> AsyncIterator[Response]:
        """Send a request as `request` does, and yield the response whatever its status.

        A server may close a connection that waits at the moment when a request is on its way. If nothing at all has
        arrived by then, the request is sent again, over a new connection.

        Raises:
            ConnectionBrokenError: as `request`.
        """
        connection, response = await self._exchanged(method, path, query, body, headers)
        try:
            yield response
        finally:
            self._put_back(connection)

    async def _exchanged(
        self, method: str, path: str, query: Query | None, body: object, headers: Headers | None
    ) -> tuple[Connection, Response]:
        given = merged(self._closing(), headers or {})
        connection = await self._take_idle()
        if connection is not None:
            try:
                return connection, await connection.exchange(method, path, query, body, given)
            except ConnectionBrokenError as error:
                connection.close()
                # A connection that timed out may have delivered the request long before.
                if connection.heard or not isinstance(error.__cause__, ConnectionResetError | BrokenPipeError | None):
                    raise
            except BaseException:
                connection.close()
                raise
        connection = await self._connector.connect()
        try:
            return connection, await connection.exchange(method, path, query, body, given)
        except BaseException:
            connection.close()
            raise

    async def json(
        self, method: str, path: str, query: Query | None = None, body: object = None, headers: Headers | None = None
    ) -> Any:
        """Send a request and read the response as JSON; None if it is empty.

        Raises:
            StatusError: as `request`.
            ConnectionBrokenError: as `request`, or the response is not JSON.
        """
        async with self.request(method, path, query, body, headers) as response:
            return await response.json()

    @asynccontextmanager
    async def stream(self, path: str, query: Query, headers: Headers | None = None) -> AsyncIterator[Response]:
        """Open a response that may have no end, over a new connection: one that waited may be closing unseen.

        Raises:
            StatusError: as `request`.
            ConnectionBrokenError: as `request`.
        """
        connection = await self._connector.connect()
        try:
            yield await connection.request(HTTPMethod.GET, path, query, None, headers)
        finally:
            connection.close()

    @asynccontextmanager
    async def upgrade(
        self, path: str, query: Query, headers: Headers, method: str = HTTPMethod.GET
    ) -> AsyncIterator[tuple[Connection, bytes]]:
        """Open a connection that changes to another protocol, for the block; yield it with the bytes that came at once.

        Raises:
            StatusError: the server does not change to it.
            ConnectionBrokenError: as `request`.
        """
        connection = await self._connector.connect()
        try:
            yield connection, await connection.upgrade(path, query, headers, method)
        finally:
            connection.close()

    async def upload(self, path: str, query: Query, chunks: AsyncIterator[bytes], headers: Headers) -> None:
        """Send a PUT request with a body that is not held in memory, over a new connection.

        Raises:
            StatusError: as `request`.
            ConnectionBrokenError: as `request`.
        """
        connection = await self._connector.connect()
        try:
            response = await connection.upload(path, query, chunks, headers)
            async for _ in response.chunks():
                pass
        finally:
            connection.close()

    def close(self) -> None:
        """Close the connections that wait; those in use close after their request."""
        self._keep = 0
        while self._idle:
            self._idle.pop()[1].close()

    def _closing(self) -> Mapping[str, str]:
        return {} if self._keep else {"Connection": "close"}

    async def _take_idle(self) -> Connection | None:
        while self._idle:
            since, connection = self._idle.pop()
            # A server closes what waits for long.
            if time.monotonic() - since < self._seconds and await self._is_usable(connection):
                return connection
            connection.close()
        return None

    async def _is_usable(self, connection: Connection) -> bool:
        try:
            return await connection.is_quiet()
        except BaseException:
            connection.close()
            raise

    def _put_back(self, connection: Connection) -> None:
        if len(self._idle) < self._keep and connection.recycle():
            self._idle.append((time.monotonic(), connection))
        else:
            connection.close()
