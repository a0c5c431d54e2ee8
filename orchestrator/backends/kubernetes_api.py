"""The calls of the Kubernetes API that Sandboxes need, on raw JSON, their failures as our errors."""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from orchestrator.backends.http import Answer, BrokenError, Channel, Connection, RefusalError
from orchestrator.backends.kubernetes_access import Access
from orchestrator.errors import BackendError, BackendUnavailableError
from orchestrator.tls import Tls

ANSWER_SECONDS = 30.0
"""An API server under load takes seconds; one that takes longer than this is stuck."""

_AT_ONCE = 16
"""Requests at a time, streams not counted: an API server bounds all of its clients together."""

_NOT_DONE = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
_BUSY = {*_NOT_DONE, HTTPStatus.GATEWAY_TIMEOUT}
_PAUSES = (0.2, 0.5, 1.0, 2.0)

_waited_for: ContextVar[float] = ContextVar("_waited_for", default=float("-inf"))
"""Until when, by the loop's clock, whoever asks waits for an answer; set by `Api.asked`."""

_LINE = 256 * 1024
_ACCEPTED = "application/json, application/jwk-set+json"

Object = dict[str, Any]
Path = str


def selector(labels: Mapping[str, str]) -> str:
    """Write a selector of what carries all `labels`."""
    return ",".join(f"{name}={value}" for name, value in labels.items())


def jobs(namespace: str, name: str = "") -> Path:
    """Where Jobs are, or one of them."""
    return _path("/apis/batch/v1", namespace, "jobs", name)


def pods(namespace: str, name: str = "", part: str = "") -> Path:
    """Where Pods are, or one of them, or a part of it."""
    return _path("/api/v1", namespace, "pods", name) + (f"/{part}" if part else "")


def claims(namespace: str, name: str = "") -> Path:
    """Where PersistentVolumeClaims are, or one of them."""
    return _path("/api/v1", namespace, "persistentvolumeclaims", name)


def config_maps(namespace: str) -> Path:
    """Where ConfigMaps are."""
    return _path("/api/v1", namespace, "configmaps", "")


def secrets(namespace: str) -> Path:
    """Where Secrets are made."""
    return _path("/api/v1", namespace, "secrets", "")


def services(namespace: str, name: str = "") -> Path:
    """Where Services are, or one of them."""
    return _path("/api/v1", namespace, "services", name)


def leases(namespace: str, name: str = "") -> Path:
    """Where Leases are, or one of them."""
    return _path("/apis/coordination.k8s.io/v1", namespace, "leases", name)


def events(namespace: str) -> Path:
    """Where events are."""
    return _path("/api/v1", namespace, "events", "")


def policies(namespace: str, name: str = "") -> Path:
    """Where NetworkPolicies are, or one of them."""
    return _path("/apis/networking.k8s.io/v1", namespace, "networkpolicies", name)


def _path(group: str, namespace: str, kind: str, name: str) -> Path:
    return f"{group}/namespaces/{namespace}/{kind}" + (f"/{name}" if name else "")


@dataclass(slots=True)
class Api:
    """An API server. Calls give what it answered, and raise RefusalError and BrokenError as they come."""

    access: Access
    _idle: list[Channel] = field(default_factory=list)
    _turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))
    _has_answered: bool = False
    _tls: Tls | None = field(init=False)

    def __post_init__(self) -> None:
        self._tls = None if self.access.tls is None else Tls(self.access.tls, _LINE)

    @property
    def server(self) -> str:
        """Its URL."""
        return self.access.server

    def close(self) -> None:
        """Close all connections."""
        while self._idle:
            self._idle.pop().close()

    async def read(self, path: Path, query: Mapping[str, str] | None = None) -> Object:
        """Read an object or a list; asked again where that can help."""
        return await self._patiently("GET", path, query)

    async def listed(self, path: Path, labels: Mapping[str, str]) -> list[Object]:
        """List the objects of a kind that carry all `labels`."""
        query = {"labelSelector": selector(labels)} if labels else None
        found: list[Object] = (await self.read(path, query))["items"]
        return found

    async def create(self, path: Path, body: Object, *, dry: bool = False, twice: bool = False) -> Object:
        """Create an object; `dry` only asks whether it would be.

        `twice` asks again also where an answer was lost: a conflict may then be with what was asked for first.
        """
        return await self._patiently("POST", path, {"dryRun": "All"} if dry else None, body, twice=twice)

    async def replace(self, path: Path, body: Object, *, twice: bool = False) -> Object:
        """Write an object anew; `twice` as in `create`."""
        return await self._patiently("PUT", path, None, body, twice=twice)

    async def delete(self, path: Path, uid: str | None = None) -> bool:
        """Delete an object, and in the background what it owns; say whether it was there. `uid` says which is meant."""
        body: Object = {"propagationPolicy": "Background"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        try:
            await self._patiently("DELETE", path, None, body)
        except RefusalError as error:
            if error.status not in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
                raise
            return False
        return True

    @asynccontextmanager
    async def stream(self, path: Path, query: Mapping[str, str]) -> AsyncIterator[Answer]:
        """Open an answer without an end: a watch, or a log that is followed."""
        channel = await self._open()
        try:
            yield await channel.ask("GET", path, query, None, await self._headers())
        finally:
            channel.close()

    @asynccontextmanager
    async def switched(
        self, path: Path, query: Mapping[str, str], headers: Mapping[str, str]
    ) -> AsyncIterator[tuple[Channel, bytes]]:
        """Open a connection that speaks another protocol; with what of it came at once."""
        channel = await self._open()
        try:
            yield channel, await channel.switch(path, query, await self._headers() | dict(headers))
        finally:
            channel.close()

    async def _patiently(
        self,
        method: str,
        path: Path,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        *,
        twice: bool = True,
    ) -> Object:
        """Ask, and again of a server that is busy or being restarted; what may not be done `twice`, if it was not done.

        One that has answered before is waited for as long as the caller waits, any other for seconds: it may be none.
        """
        pauses, clock = iter(_PAUSES), asyncio.get_running_loop().time
        while True:
            try:
                return await self._ask(method, path, query, body)
            except (RefusalError, BrokenError) as error:
                pause = next(pauses, None)
                is_late = not self._has_answered or clock() + _PAUSES[-1] > _waited_for.get()
                if not _passes(error, twice=twice) or (pause is None and is_late):
                    raise
            await asyncio.sleep(pause or _PAUSES[-1])

    async def _ask(
        self, method: str, path: Path, query: Mapping[str, str] | None = None, body: Object | None = None
    ) -> Object:
        channel = self._kept() or await self._open()
        try:
            answer = await channel.ask(method, path, query, body, await self._headers())
            document: Object = await answer.document() or {}
            self._has_answered = True
        except RefusalError:
            self._keep(channel)
            raise
        except BaseException:
            channel.close()
            raise
        self._keep(channel)
        return document

    def _kept(self) -> Channel | None:
        while self._idle:
            channel = self._idle.pop()
            # The server closes what was idle for long; then it is at its end.
            if not channel.reader.at_eof() and not channel.writer.is_closing():
                return channel
            channel.close()
        return None

    def _keep(self, channel: Channel) -> None:
        if channel.is_free() and len(self._idle) < _AT_ONCE:
            self._idle.append(channel)
        else:
            channel.close()

    async def _open(self) -> Channel:
        return await Channel.open(self._connect, self.server)

    async def _connect(self) -> Connection:
        parts = urlsplit(self.server)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        host = parts.hostname or ""
        if self._tls is None:
            reader, writer = await asyncio.open_connection(host, port, limit=_LINE)
        else:
            reader, writer = await self._tls.connect(host, port, self.access.server_name or host)
        _keep_alive(writer.get_extra_info("socket"))
        return reader, writer

    async def _headers(self) -> dict[str, str]:
        headers = {"Host": urlsplit(self.server).netloc, "User-Agent": "perstack-orch", "Accept": _ACCEPTED}
        try:
            authorization = await self.access.authorization()
        except (OSError, ValueError, KeyError, TypeError) as error:
            message = "the credential could not be looked up"
            raise BrokenError(message, answered=False, sent=False) from error
        return headers if authorization is None else headers | {"Authorization": authorization}

    @asynccontextmanager
    async def asked(self, doing: str, seconds: float = ANSWER_SECONDS) -> AsyncIterator[None]:
        """Turn what calls raise into our errors, and bound how long they take. `doing` says what: "create the Job x".

        With many at once each waits for its turn first, which takes as long as it takes.

        Raises:
            BackendUnavailableError: the API server cannot be reached, or does not answer.
            BackendError: it refused.
        """
        try:
            async with self._turns, asyncio.timeout(seconds) as limit:
                before = _waited_for.set(limit.when() or float("inf"))
                try:
                    yield
                finally:
                    _waited_for.reset(before)
        except RefusalError as error:
            raise refused(doing, error) from error
        except BrokenError as error:
            message = (
                f"the API server {self.server} did not answer when it was to {doing} ({error}: {error.__cause__}): "
                "try `kubectl get --raw /readyz`"
            )
            raise BackendUnavailableError(message) from error
        except TimeoutError as error:
            message = f"the API server {self.server} did not {doing} within {seconds:.0f} s: look at how it is"
            raise BackendUnavailableError(message) from error


def _passes(error: RefusalError | BrokenError, *, twice: bool) -> bool:
    """Whether to ask again may help, and does nothing a second time unless it may be done `twice`."""
    if isinstance(error, BrokenError):
        return twice or not error.sent
    return error.status in (_BUSY if twice else _NOT_DONE)


def _keep_alive(connection: socket.socket) -> None:
    """Have the system notice that the other side is gone which did not say so: a watch waits for ever otherwise."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3)):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


def refused(doing: str, error: RefusalError) -> BackendError:
    """Say what the API server refused, and what may be done about it."""
    if error.status == HTTPStatus.UNAUTHORIZED:
        message = f"the cluster does not know who asks it to {doing}: log in again, or look at the kubeconfig"
        return BackendUnavailableError(message)
    if error.status == HTTPStatus.FORBIDDEN and " cannot " in str(error):
        message = f"you may not {doing} ({error}): bind the Role of perstack-orch to who runs this"
        return BackendUnavailableError(message)
    return BackendError(f"the cluster refused to {doing}: {error}")
