"""The calls of the Engine API that Sandboxes need, their failures as our errors."""

import asyncio
import errno
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from orchestrator.backends.docker_http import request
from orchestrator.backends.ground import Ground, docker_ground
from orchestrator.backends.http import Answer, BrokenError, RefusalError
from orchestrator.errors import BackendError, BackendUnavailableError

ANSWER_SECONDS = 30.0
"""An engine under load takes seconds for a start; one that takes longer than this is stuck."""

OLDEST_API = (1, 40)
"""Docker 19.03: the first whose `Mounts`, `wait` and limits are what a Sandbox relies on."""

_NEWEST_API = (1, 51)
"""The newest that was read for changes to these calls; engines refuse versions older than some minimum of theirs."""

_PAUSE_SECONDS = 0.2
_INSTALL = "install it (https://docs.docker.com/engine/install/), or run `make engine` on Debian as root"

T = TypeVar("T")


@dataclass(slots=True)
class Engine:
    """An engine at an address. Calls give what it answered, and raise RefusalError and BrokenError as they come."""

    address: str
    _version: Mapping[str, Any] | None = None
    _ground: Ground | None = None
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def version(self) -> Mapping[str, Any]:
        """Ask what it is, once."""
        async with self._asking:
            if self._version is None:
                self._version = dict(await self._ask("GET", "/version"))
            return self._version

    async def ground(self) -> Ground:
        """Ask for what it can do and whose it is, once."""
        version, path = await self.version(), await self._path("/info")
        async with self._asking:
            if self._ground is None:
                self._ground = docker_ground(await self._ask("GET", path), version, self._owner())
            return self._ground

    def _owner(self) -> int:
        """Whose the engine is, as far as its socket tells."""
        parts = urlsplit(self.address)
        with suppress(OSError):
            if parts.scheme == "unix":
                return Path(parts.path).stat().st_uid
        return os.geteuid()

    async def image(self, name: str) -> Mapping[str, Any]:
        """Ask for all that is known of an image."""
        return dict(await self._call("GET", f"/images/{quote(name, safe='')}/json"))

    async def create(self, name: str, body: Mapping[str, Any]) -> str:
        """Create a container, not started; give its id."""
        return str((await self._call("POST", "/containers/create", {"name": name}, body))["Id"])

    async def start(self, container: str) -> None:
        """Start a container."""
        await self._call("POST", f"/containers/{container}/start")

    async def stop(self, container: str, grace: int) -> None:
        """Send SIGTERM, after `grace` seconds SIGKILL, and wait for the end."""
        await self._call("POST", f"/containers/{container}/stop", {"t": str(grace)})

    async def wait(self, container: str, condition: str = "not-running") -> None:
        """Wait until a container is `not-running` or `removed`."""
        await self._call("POST", f"/containers/{container}/wait", {"condition": condition})

    async def inspect(self, container: str) -> Mapping[str, Any]:
        """Ask for all that is known of a container."""
        async with asyncio.timeout(ANSWER_SECONDS):
            return dict(await self._call("GET", f"/containers/{container}/json"))

    async def delete(self, container: str) -> None:
        """Remove a container by force, with its anonymous volumes."""
        await self._call("DELETE", f"/containers/{container}", {"force": "1", "v": "1"})

    async def labelled(self, labels: Mapping[str, str]) -> list[Mapping[str, Any]]:
        """List the containers, running or not, that carry all `labels`."""
        filters = json.dumps({"label": [f"{key}={value}" for key, value in labels.items()]})
        return list(await self._call("GET", "/containers/json", {"all": "1", "filters": filters}))

    @asynccontextmanager
    async def log(self, container: str, **query: str) -> AsyncIterator[Answer]:
        """Open a container's log as raw frames (see `docker_log`)."""
        async with request(self.address, "GET", await self._path(f"/containers/{container}/logs"), query) as answer:
            yield answer

    async def _call(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None
    ) -> Any:
        return await self._ask(method, await self._path(path), query, body)

    async def _ask(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None
    ) -> Any:
        async with request(self.address, method, path, query, body) as answer:
            return await answer.document()

    async def _path(self, path: str) -> str:
        version = min(api_version(await self.version()), _NEWEST_API)
        return f"/v{'.'.join(map(str, version))}{path}"

    @contextmanager
    def translated(self, doing: str) -> Iterator[None]:
        """Turn what calls raise into our errors. `doing` says what failed: "start the Sandbox x".

        Raises:
            BackendUnavailableError: the engine cannot be reached.
            BackendError: it refused.
        """
        try:
            yield
        except RefusalError as error:
            message = f"the Docker engine at {self.address} could not {doing}: {error}"
            raise BackendError(message) from error
        except BrokenError as error:
            if not error.answered:
                raise BackendUnavailableError(_remedy(self.address, error)) from error
            message = f"the connection to the Docker engine at {self.address} broke while it was to {doing}: try again"
            raise BackendUnavailableError(message) from error

    @asynccontextmanager
    async def asked(self, doing: str, seconds: float = ANSWER_SECONDS) -> AsyncIterator[None]:
        """The same for a question that must be answered within `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                with self.translated(doing):
                    yield
        except TimeoutError as error:
            message = f"the Docker engine at {self.address} did not {doing} within {seconds:.0f} s: look at its log"
            raise BackendUnavailableError(message) from error


async def patiently(call: Callable[[], Awaitable[T]], *, again: bool = False) -> T:
    """Make a call again while nobody answers at the engine's address: it may be starting. The caller sets the limit.

    One that may be made `again` though it was perhaps carried out is also repeated where the engine left in the middle.

    Raises:
        BrokenError: the engine left in the middle, and nobody knows what it did.
    """
    while True:
        try:
            return await call()
        except BrokenError as error:
            if error.sent and not again:
                raise
        await asyncio.sleep(_PAUSE_SECONDS)


def api_version(version: Mapping[str, Any]) -> tuple[int, ...]:
    """Read the API's version out of what the engine says of itself."""
    return tuple(int(part) for part in version["ApiVersion"].split("."))


def is_status(error: RefusalError, status: HTTPStatus) -> bool:
    """Whether the engine answered with `status`."""
    return error.status == status


def _remedy(address: str, error: BrokenError) -> str:
    cause = error.__cause__
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
