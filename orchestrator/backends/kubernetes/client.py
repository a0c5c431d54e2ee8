"""The calls of the Kubernetes API that Sandboxes need, on raw JSON; their failures become our errors."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from orchestrator.backends.kubernetes.auth import ClusterCredentials
from orchestrator.errors import BackendError, BackendUnavailableError
from orchestrator.http.address import Address
from orchestrator.http.connect import Connector
from orchestrator.http.connection import Connection
from orchestrator.http.connection_pool import ConnectionPool
from orchestrator.http.errors import ConnectionBrokenError, StatusError, retrying
from orchestrator.http.response import Response

ANSWER_SECONDS = 30.0
"""An API server under load takes seconds; one that takes longer than this is stuck."""

_AT_ONCE = 16
"""Requests at a time, streams not counted: an API server bounds all of its clients together."""

_NOT_DONE = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
_BUSY = {*_NOT_DONE, HTTPStatus.GATEWAY_TIMEOUT}
_PAUSES = (0.2, 0.5, 1.0, 2.0)

_waited_for: ContextVar[float] = ContextVar("_waited_for", default=float("-inf"))
"""Until when, by the loop's clock, the caller waits for an answer; set by `translating_errors`."""

_ACCEPTED = "application/json, application/jwk-set+json"

Object = dict[str, Any]
Path = str


def selector(labels: Mapping[str, str]) -> str:
    """Return a selector for objects that carry all `labels`."""
    return ",".join(f"{name}={value}" for name, value in labels.items())


def jobs(namespace: str, name: str = "") -> Path:
    """The path of Jobs, or of one."""
    return _path("/apis/batch/v1", namespace, "jobs", name)


def pods(namespace: str, name: str = "", part: str = "") -> Path:
    """The path of Pods, of one, or of a subresource."""
    return _path("/api/v1", namespace, "pods", name) + (f"/{part}" if part else "")


def claims(namespace: str, name: str = "") -> Path:
    """The path of PersistentVolumeClaims, or of one."""
    return _path("/api/v1", namespace, "persistentvolumeclaims", name)


def config_maps(namespace: str) -> Path:
    """The path of ConfigMaps."""
    return _path("/api/v1", namespace, "configmaps", "")


def secrets(namespace: str) -> Path:
    """The path for creating Secrets."""
    return _path("/api/v1", namespace, "secrets", "")


def services(namespace: str, name: str = "") -> Path:
    """The path of Services, or of one."""
    return _path("/api/v1", namespace, "services", name)


def leases(namespace: str, name: str = "") -> Path:
    """The path of Leases, or of one."""
    return _path("/apis/coordination.k8s.io/v1", namespace, "leases", name)


def events(namespace: str) -> Path:
    """The path of events."""
    return _path("/api/v1", namespace, "events", "")


def policies(namespace: str, name: str = "") -> Path:
    """The path of NetworkPolicies, or of one."""
    return _path("/apis/networking.k8s.io/v1", namespace, "networkpolicies", name)


def _path(group: str, namespace: str, kind: str, name: str) -> Path:
    return f"{group}/namespaces/{namespace}/{kind}" + (f"/{name}" if name else "")


@dataclass(slots=True)
class KubernetesClient:
    """An API server. Calls give what it answered, and raise StatusError and ConnectionBrokenError as they come."""

    access: ClusterCredentials
    _pool: ConnectionPool = field(init=False)
    _turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))
    _has_answered: bool = False

    def __post_init__(self) -> None:
        """Connect to nothing yet."""
        access = self.access
        self._pool = ConnectionPool(Connector(Address.parse(access.server), access.tls, access.server_name), _AT_ONCE)

    @property
    def server(self) -> str:
        """Its URL."""
        return self.access.server

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    async def read(self, path: Path, query: Mapping[str, str] | None = None) -> Object:
        """Read an object or a list; asked again where that can help."""
        return await self._request("GET", path, query)

    async def listed(self, path: Path, labels: Mapping[str, str]) -> list[Object]:
        """List the objects of a kind that carry all `labels`."""
        query = {"labelSelector": selector(labels)} if labels else None
        found: list[Object] = (await self.read(path, query))["items"]
        return found

    async def create(self, path: Path, body: Object, *, dry: bool = False, idempotent: bool = False) -> Object:
        """Create an object; `dry` only asks whether it would be.

        `idempotent` sends it again also if the answer was lost: a conflict may then be with what was sent first.
        """
        return await self._request("POST", path, {"dryRun": "All"} if dry else None, body, idempotent=idempotent)

    async def replace(self, path: Path, body: Object, *, idempotent: bool = False) -> Object:
        """Replace an object; `idempotent` as in `create`."""
        return await self._request("PUT", path, None, body, idempotent=idempotent)

    async def delete(self, path: Path, uid: str | None = None) -> bool:
        """Delete an object, and in the background what it owns; return whether it existed.

        With `uid`, an object that has another one counts as absent.
        """
        body: Object = {"propagationPolicy": "Background"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        try:
            await self._request("DELETE", path, None, body)
        except StatusError as error:
            if error.status not in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
                raise
            return False
        return True

    @asynccontextmanager
    async def stream(self, path: Path, query: Mapping[str, str]) -> AsyncIterator[Response]:
        """Open a response without an end: a watch, or a log that is followed."""
        async with self._pool.stream(path, query, await self._headers()) as response:
            yield response

    @asynccontextmanager
    async def upgrade(
        self, path: Path, query: Mapping[str, str], headers: Mapping[str, str]
    ) -> AsyncIterator[tuple[Connection, bytes]]:
        """Open a connection that changes to another protocol; yield it with the bytes that came with the answer."""
        async with self._pool.upgrade(path, query, await self._headers() | dict(headers)) as upgraded:
            yield upgraded

    async def _request(
        self,
        method: str,
        path: Path,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        *,
        idempotent: bool = True,
    ) -> Object:
        async def ask() -> Object:
            found: Object = await self._pool.json(method, path, query, body, await self._headers()) or {}
            self._has_answered = True
            return found

        return await retrying(ask, self._pauses(), idempotent=idempotent, statuses=_BUSY if idempotent else _NOT_DONE)

    def _pauses(self) -> Iterator[float]:
        """Wait for a server that has answered before as long as the caller waits, for any other for seconds."""
        yield from _PAUSES
        clock = asyncio.get_running_loop().time
        while self._has_answered and clock() + _PAUSES[-1] <= _waited_for.get():
            yield _PAUSES[-1]

    async def _headers(self) -> dict[str, str]:
        headers = {"User-Agent": "perstack-orch", "Accept": _ACCEPTED}
        try:
            authorization = await self.access.authorization()
        except (OSError, ValueError, KeyError, TypeError) as error:
            message = "the credential could not be looked up"
            raise ConnectionBrokenError(message, answered=False, sent=False) from error
        return headers if authorization is None else headers | {"Authorization": authorization}

    @asynccontextmanager
    async def translating_errors(self, doing: str, seconds: float = ANSWER_SECONDS) -> AsyncIterator[None]:
        """Turn what calls raise into our errors, and bound how long they take. `doing` is, say, "create the Job x".

        If many run at once, each waits for its turn first; that wait has no limit.

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
        except StatusError as error:
            raise refused(doing, error) from error
        except ConnectionBrokenError as error:
            why = ": ".join(str(each) for each in (error, error.__cause__) if each is not None)
            message = (
                f"the API server {self.server} did not answer the request to {doing} ({why}): "
                "try `kubectl get --raw /readyz`"
            )
            raise BackendUnavailableError(message) from error
        except TimeoutError as error:
            message = (
                f"the API server {self.server} did not {doing} within {seconds:.0f} s: "
                "check `kubectl get --raw /readyz`"
            )
            raise BackendUnavailableError(message) from error


def refused(doing: str, error: StatusError) -> BackendError:
    """Say what the API server refused, and what may be done about it."""
    if error.status == HTTPStatus.UNAUTHORIZED:
        message = f"the cluster does not know who asks it to {doing}: log in again, or look at the kubeconfig"
        return BackendUnavailableError(message)
    if error.status == HTTPStatus.FORBIDDEN and " cannot " in str(error):
        message = f"you may not {doing} ({error}): bind the Role of perstack-orch to the account that runs this command"
        return BackendUnavailableError(message)
    return BackendError(f"the cluster refused to {doing}: {error}")
