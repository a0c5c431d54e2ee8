"""A connection to a Docker engine whose failures are our errors."""

import asyncio
import errno
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiodocker import Docker, DockerError

from orchestrator.errors import BackendError, BackendUnavailableError

ANSWER_SECONDS = 30.0
"""An engine under load takes seconds for a start; one that takes longer than this is stuck."""

_CONNECT_SECONDS = 5.0
_UNREACHABLE = 900
"""aiodocker's own status for "no connection"."""
_INSTALL = "install it (https://docs.docker.com/engine/install/), or run `make engine` on Debian as root"


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine and the address it was asked at."""

    client: Docker
    address: str

    @contextmanager
    def translated(self, doing: str) -> Iterator[None]:
        """Turn what the client library raises into our errors. `doing` says what failed: "start the Sandbox x".

        Raises:
            BackendUnavailableError: the engine cannot be reached.
            BackendError: it refused.
        """
        try:
            yield
        except DockerError as error:
            if is_unreachable(error):
                raise BackendUnavailableError(_remedy(self.address, error)) from error
            message = f"the Docker engine at {self.address} could not {doing}: {sentence(error)}"
            raise BackendError(message) from error
        except aiohttp.ClientError as error:
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

    def log(self, container: str, **params: str) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Open a container's log as raw frames (see `docker_log`): the library's own reader drops stream numbers."""
        url = f"{self.client.docker_host}/{self.client.api_version}/containers/{container}/logs"
        endless = aiohttp.ClientTimeout(sock_connect=_CONNECT_SECONDS)
        return self.client.session.get(url, params=params, timeout=endless)

    async def inspect(self, container: str) -> Mapping[str, Any]:
        """Ask for all that is known of a container; library errors pass."""
        async with asyncio.timeout(ANSWER_SECONDS):
            return await self.client.containers.container(container).show()


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[Engine]:
    """Hold a client for the engine at `address`; nothing is sent yet."""
    # Two connections stay open for each Sandbox, so the library's limit of 100 would stop the fifty-first.
    url: str
    connector: aiohttp.BaseConnector
    if address.startswith("unix://"):
        url, connector = "unix://localhost", aiohttp.UnixConnector(urlsplit(address).path, limit=0)
    else:
        url, connector = address, aiohttp.TCPConnector(limit=0)
    async with (
        connector,
        Docker(url, connector=connector, timeout=aiohttp.ClientTimeout(sock_connect=_CONNECT_SECONDS)) as client,
    ):
        yield Engine(client, address)


def is_status(error: DockerError, status: HTTPStatus) -> bool:
    """Whether the engine answered with `status`."""
    return bool(error.status == status)


def is_unreachable(error: DockerError) -> bool:
    """Whether no engine answered at all."""
    return bool(error.status == _UNREACHABLE)


def sentence(error: DockerError) -> str:
    """What the engine said."""
    return str(error.message).strip()


def _remedy(address: str, error: DockerError) -> str:
    match _errno(error):
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


def _errno(error: BaseException | None) -> int | None:
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        error = error.__cause__ or error.__context__
    return None
