"""The calls of the Engine API that Sandboxes need; their failures become our errors."""

import asyncio
import errno
import functools
import json
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from http import HTTPMethod, HTTPStatus
from itertools import repeat
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from orchestrator.backends.docker.endpoint import EngineEndpoint, SshEndpoint, TcpEndpoint, UnixEndpoint
from orchestrator.backends.docker.engine_tls import tls_failure
from orchestrator.backends.docker.ssh_failures import SshError
from orchestrator.backends.engine_info import EngineInfo, docker_engine_info
from orchestrator.errors import BackendError, BackendUnavailableError
from orchestrator.http.address import Address
from orchestrator.http.connect import Connector
from orchestrator.http.connection import Connection
from orchestrator.http.connection_pool import ConnectionPool, Connects
from orchestrator.http.errors import ConnectionBrokenError, StatusError, retrying
from orchestrator.http.response import Response
from orchestrator.log import get_logger

if TYPE_CHECKING:
    # A local engine does not need it, and every start waits for this module.
    from orchestrator.backends.docker.ssh_tunnel import SshTunnel

ANSWER_SECONDS = 30.0
"""An engine under load takes seconds for a start; one that takes longer than this hangs."""

OLDEST_API = (1, 40)
"""Docker 19.03: the first whose `Mounts`, `wait` and limits work as a Sandbox needs."""

_NEWEST_API = (1, 51)
"""The newest that was reviewed for changes to these calls; engines refuse versions below their own minimum."""

_KEPT = 8
"""How many connections to a remote engine wait for the next request. A new one takes 15 ms of CPU time with TLS, up to
50 ms with ssh, and several round trips."""

_PAUSE_SECONDS = 0.2
_WANTS_TLS = "Client sent an HTTP request to an HTTPS server"
"""What an engine behind TLS, a server of Go's net/http, answers without it."""

_INSTALL = "install it (https://docs.docker.com/engine/install/)"

T = TypeVar("T")

_log = get_logger(__name__)


@dataclass(slots=True)
class DockerClient:
    """An engine. Calls give what it answered; they raise `StatusError` and `ConnectionBrokenError`.

    `environ` is the environment of ssh, if the engine is reached by it. Close it: ssh runs until then.
    """

    endpoint: EngineEndpoint
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    _pool: ConnectionPool = field(init=False)
    _tunnel: "SshTunnel | None" = None
    _version: Mapping[str, Any] | None = None
    _engine_info: EngineInfo | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        """Connect to nothing yet. Each request to a local engine has its own connection, which costs 0.1 ms.

        Raises:
            BackendUnavailableError: the certificates for an engine behind TLS cannot be used.
        """
        connector: Connects
        match self.endpoint:
            case UnixEndpoint():
                connector = Connector(Address.parse(self.endpoint.address))
            case TcpEndpoint(tls=tls):
                _warn_of_open_connection(self.endpoint)
                connector = Connector(Address.parse(self.endpoint.url), None if tls is None else tls.context())
            case SshEndpoint():
                from orchestrator.backends.docker.ssh_tunnel import SshTunnel  # noqa: PLC0415 - see above

                connector = self._tunnel = SshTunnel(self.endpoint, self.environ)
        self._pool = ConnectionPool(connector, keep=_KEPT if self.endpoint.remote else 0)

    async def aclose(self) -> None:
        """Close the connections that wait, and end ssh, if the engine was reached by it."""
        self._pool.close()
        if self._tunnel is not None:
            await self._tunnel.close()

    @property
    def address(self) -> str:
        """The engine's address as a person reads it."""
        return self.endpoint.address

    async def version(self) -> Mapping[str, Any]:
        """Ask for its version document; asked once, then cached."""
        async with self._lock:
            if self._version is None:
                self._version = dict(await self._pool.json("GET", "/version"))
            return self._version

    async def engine_info(self) -> EngineInfo:
        """Ask for its capabilities and owner; asked once, then cached."""
        version, path = await self.version(), await self._path("/info")
        async with self._lock:
            if self._engine_info is None:
                found = docker_engine_info(await self._pool.json("GET", path), version, self._owner())
                self._engine_info = replace(found, address=self.address)
            return self._engine_info

    def _owner(self) -> int | None:
        """The owner's user id, as far as the socket shows it; None for one of another machine."""
        if self.endpoint.remote:
            return None
        with suppress(OSError):
            if isinstance(self.endpoint, UnixEndpoint):
                return self.endpoint.path.stat().st_uid
        return os.geteuid()

    async def image(self, name: str) -> Mapping[str, Any]:
        """Return all that the engine knows of an image."""
        return dict(await self.call("GET", f"/images/{quote(name, safe='')}/json"))

    async def create(self, name: str, body: Mapping[str, Any]) -> str:
        """Create a container without starting it; return its id."""
        return str((await self.call("POST", "/containers/create", {"name": name}, body))["Id"])

    async def start(self, container: str) -> None:
        """Start a container."""
        await self.call("POST", f"/containers/{container}/start")

    async def stop(self, container: str, grace: int) -> None:
        """Send SIGTERM, after `grace` seconds SIGKILL, and wait for the end."""
        await self.call("POST", f"/containers/{container}/stop", {"t": str(grace)})

    async def wait(self, container: str, condition: str = "not-running") -> None:
        """Wait until a container is `not-running` or `removed`."""
        await self.call("POST", f"/containers/{container}/wait", {"condition": condition})

    async def inspect(self, container: str) -> Mapping[str, Any]:
        """Return all that the engine knows of a container."""
        async with asyncio.timeout(ANSWER_SECONDS):
            return dict(await self.call("GET", f"/containers/{container}/json"))

    async def delete(self, container: str) -> None:
        """Remove a container by force, with its anonymous volumes."""
        await self.call("DELETE", f"/containers/{container}", {"force": "1", "v": "1"})

    async def actions(self, container: str, since: str) -> list[str]:
        """List what happened to a container since a time (RFC 3339), as Podman's events name it; Docker would wait."""
        query = {"since": since, "stream": "false", "filters": json.dumps({"container": [container]})}
        async with self._pool.request("GET", await self._path("/events"), query) as response:
            lines = b"".join([chunk async for chunk in response.chunks()]).splitlines()
        return [json.loads(line)["Action"] for line in lines if line.strip()]

    async def labelled(self, labels: Mapping[str, str]) -> list[Mapping[str, Any]]:
        """List the containers, running or not, that carry all `labels`."""
        filters = json.dumps({"label": [f"{key}={value}" for key, value in labels.items()]})
        return list(await self.call("GET", "/containers/json", {"all": "1", "filters": filters}))

    @asynccontextmanager
    async def log(self, container: str, **query: str) -> AsyncIterator[Response]:
        """Open a container's log as raw frames (see `logs`)."""
        async with self._pool.stream(await self._path(f"/containers/{container}/logs"), query) as response:
            yield response

    @asynccontextmanager
    async def attach(self, container: str) -> AsyncIterator[tuple[Connection, bytes]]:
        """Open a container's stdin and stdout; yield the connection, and the bytes that came at once.

        What comes are raw frames (see `logs`); what is written goes to stdin as it is.
        """
        path, query = await self._path(f"/containers/{container}/attach"), {"stream": "1", "stdin": "1", "stdout": "1"}
        headers = {"Connection": "Upgrade", "Upgrade": "tcp", "Content-Length": "0"}
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(ANSWER_SECONDS):
                opened = self._pool.upgrade(path, query, headers, HTTPMethod.POST)
                upgraded = await stack.enter_async_context(opened)
            yield upgraded

    async def archive(
        self, container: str, path: str, silent_seconds: float = ANSWER_SECONDS
    ) -> AsyncGenerator[bytes, None]:
        """Yield a tar archive of a file or directory of a container, running or not.

        Raises:
            TimeoutError: the engine sent nothing for `silent_seconds`.
        """
        async with self._pool.stream(await self._path(f"/containers/{container}/archive"), {"path": path}) as response:
            pieces = response.chunks()
            while True:
                async with asyncio.timeout(silent_seconds):
                    piece = await anext(pieces, None)
                if piece is None:
                    return
                yield piece

    @asynccontextmanager
    async def work(
        self, path: str, query: Mapping[str, str], body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[Response]:
        """POST something that takes long, such as a build; the response reports its progress."""
        async with self._pool.request(HTTPMethod.POST, await self._path(path), query, body, headers) as response:
            yield response

    async def unpack(self, container: str, path: str, archive: AsyncIterator[bytes]) -> None:
        """Unpack a tar archive into a directory of a container."""
        target, headers = await self._path(f"/containers/{container}/archive"), {"Content-Type": "application/x-tar"}
        await self._pool.upload(target, {"path": path, "noOverwriteDirNonDir": "1"}, archive, headers)

    async def create_volume(self, name: str, labels: Mapping[str, str]) -> None:
        """Create a volume, unless one of that name exists."""
        await self.call("POST", "/volumes/create", body={"Name": name, "Labels": dict(labels)})

    async def volumes(self, labels: Mapping[str, str], name: str | None = None) -> list[Mapping[str, Any]]:
        """List the volumes that carry all `labels`, or only the one of that name."""
        wanted: dict[str, list[str]] = {"label": [f"{key}={value}" for key, value in labels.items()]}
        filters = json.dumps(wanted if name is None else wanted | {"name": [name]})
        found = (await self.call("GET", "/volumes", {"filters": filters}))["Volumes"] or []
        # The engine's filter finds a part of a name too, and that of Podman what carries one of several labels.
        return [
            volume
            for volume in found
            if name in {None, volume["Name"]} and labels.items() <= (volume["Labels"] or {}).items()
        ]

    async def volume_users(self, name: str) -> list[Mapping[str, Any]]:
        """List the containers, running or not, that mount a volume."""
        query = {"all": "1", "filters": json.dumps({"volume": [name]})}
        return list(await self.call("GET", "/containers/json", query))

    async def delete_volume(self, name: str) -> None:
        """Remove a volume."""
        await self.call("DELETE", f"/volumes/{quote(name, safe='')}")

    async def call(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None
    ) -> Any:
        """Make a call; return its JSON."""
        return await self._pool.json(method, await self._path(path), query, body)

    async def _path(self, path: str) -> str:
        version = min(api_version(await self.version()), _NEWEST_API)
        return f"/v{'.'.join(map(str, version))}{path}"

    @contextmanager
    def translate_errors(self, doing: str) -> Iterator[None]:
        """Turn what calls raise into our errors. `doing` names what failed: "start the Sandbox x".

        Raises:
            BackendUnavailableError: the engine cannot be reached.
            BackendError: it refused.
        """
        try:
            yield
        except StatusError as error:
            if _WANTS_TLS in str(error):
                message = (
                    f"the Docker engine at {self.address} uses TLS: set DOCKER_TLS_VERIFY=1, and DOCKER_CERT_PATH to"
                    " the directory of ca.pem, cert.pem and key.pem"
                )
                raise BackendUnavailableError(message) from error
            message = f"the Docker engine at {self.address} could not {doing}: {error}"
            raise BackendError(message) from error
        except ConnectionBrokenError as error:
            if not error.answered:
                raise BackendUnavailableError(_remedy(self.endpoint, error)) from error
            message = (
                f"the connection to the Docker engine at {self.address} broke during the request to {doing}: try again"
            )
            raise BackendUnavailableError(message) from error

    @asynccontextmanager
    async def translating_errors(self, doing: str, seconds: float = ANSWER_SECONDS) -> AsyncIterator[None]:
        """The same for a question that must be answered within `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                with self.translate_errors(doing):
                    yield
        except TimeoutError as error:
            message = f"the Docker engine at {self.address} did not {doing} within {seconds:.0f} s: look at its log"
            if self._tunnel is not None and self._tunnel.failure is not None:
                message = self._tunnel.failure
            raise BackendUnavailableError(message) from error


async def until_answered(call: Callable[[], Awaitable[T]], *, idempotent: bool = False) -> T:
    """Make a call again while the engine is away: it may be starting. The caller sets the limit; as `retrying`.

    Raises:
        ConnectionBrokenError: the engine left in the middle of a call that is not idempotent.
    """
    return await retrying(call, repeat(_PAUSE_SECONDS), idempotent=idempotent)


def api_version(version: Mapping[str, Any]) -> tuple[int, ...]:
    """Read the API's version from the engine's version document."""
    return tuple(int(part) for part in version["ApiVersion"].split("."))


def is_status(error: StatusError, status: HTTPStatus) -> bool:
    """Whether the engine answered with `status`."""
    return error.status == status


@functools.cache
def _warn_of_open_connection(endpoint: TcpEndpoint) -> None:
    """Warn, once, if others on the network to the engine can read secrets and start containers."""
    if not endpoint.remote or (endpoint.tls is not None and endpoint.tls.verifies):
        return
    lack = "is reached without TLS" if endpoint.tls is None else "is not verified (skip-tls-verify of its context)"
    _log.warning(
        "the Docker engine at %s %s: others on the network can read what is sent and control the engine; use ssh://, or"
        " TLS with certificates",
        endpoint.address,
        lack,
    )


def _remedy(endpoint: EngineEndpoint, error: ConnectionBrokenError) -> str:
    address, cause = endpoint.address, error.__cause__
    if isinstance(cause, SshError):
        return str(cause)
    if isinstance(endpoint, TcpEndpoint) and isinstance(cause, ssl.SSLError):
        return tls_failure(address, cause, endpoint.tls)
    if endpoint.remote:
        reason = f" ({cause.strerror or 'timed out'})" if isinstance(cause, OSError) else ""
        return f"the Docker engine at {address} does not answer{reason}: start it on that machine, or check the address"
    match cause.errno if isinstance(cause, OSError) else None:
        case errno.ENOENT:
            return f"no Docker engine at {address}: start it, or {_INSTALL}"
        case errno.EACCES | errno.EPERM:
            return (
                f"you may not use the Docker engine at {address}: add yourself to its group"
                " (`sudo usermod -aG docker $USER`, then log in again), or use rootless Docker"
            )
        case _:
            start = "start it (`sudo systemctl start docker`)"
            return f"the Docker engine at {address} does not answer: {start}, or {_INSTALL}"
