"""Connections to an engine through `ssh`: started when it is needed, and again when it has ended."""

import asyncio
import shlex
import shutil
import time
from collections.abc import Mapping

from orchestrator.aio import shielded
from orchestrator.backends.docker.endpoint import SshEndpoint
from orchestrator.backends.docker.ssh_failures import (
    SshError,
    does_not_answer,
    found_socket,
    not_installed,
    not_logged_in,
    ssh_ended,
)
from orchestrator.backends.docker.ssh_process import CONNECT_SECONDS, SshProcess, ask, by_hand, ssh_command
from orchestrator.backends.docker.usual_sockets import DEFAULT
from orchestrator.http.address import Address
from orchestrator.http.connect import Connector
from orchestrator.http.connection import Connection
from orchestrator.http.connection_pool import ConnectionPool
from orchestrator.http.errors import ConnectionBrokenError, StatusError
from orchestrator.log import get_logger

_log = get_logger(__name__)

_LOGIN_SECONDS = CONNECT_SECONDS + 10.0
_ANSWER_SECONDS = 5.0
_POLL_SECONDS = 0.02
_PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Until ssh is started again, after so many failures in a row: hosts lock out a user who tries too often."""

_ELSEWHERE = (
    '"$XDG_RUNTIME_DIR"/docker.sock',
    '"/run/user/$(id -u)"/docker.sock',
    '"$HOME"/.docker/run/docker.sock',
    '"$HOME"/.orbstack/run/docker.sock',
    '"$HOME"/.colima/default/docker.sock',
    '"$HOME"/.rd/docker.sock',
    '"$XDG_RUNTIME_DIR"/podman/podman.sock',
    '"/run/user/$(id -u)"/podman/podman.sock',
    "/run/podman/podman.sock",
)
"""Where another machine may have the socket of its engine, in the syntax of its shell."""

_SEARCH = (
    'for path in {places}; do if [ -S "$path" ]; then'
    ' if [ -r "$path" ] && [ -w "$path" ]; then echo "usable $path"; else echo "denied $path"; fi; exit; fi; done'
)
"""Prints the first socket that exists there, and whether this user may use it. One line: csh allows no more."""


class SshTunnel:
    """Connects to an engine on another machine. All connections share one ssh.

    `environ` is the environment of ssh: PATH finds it, and its configuration may need the rest.
    """

    def __init__(self, endpoint: SshEndpoint, environ: Mapping[str, str]) -> None:
        self._endpoint = endpoint
        self._environ = environ
        self._path = endpoint.path or str(DEFAULT)
        self._running: SshProcess | None = None
        self._lock = asyncio.Lock()
        self._failure: SshError | None = None
        self._failures = 0
        self._not_before = 0.0

    @property
    def failure(self) -> str | None:
        """Why there is no connection at present; None while there is one, or none was needed yet."""
        return None if self._failure is None else str(self._failure)

    async def connect(self) -> Connection:
        """Connect to the engine.

        Raises:
            ConnectionBrokenError: there is no connection; the request was not sent. The cause may be an `SshError`.
        """
        async with self._lock:
            if self._running is None or not self._running.runs:
                await self._restart()
            socket = self._running_socket()
        return await socket.connect()

    async def close(self) -> None:
        """End ssh, if it runs."""
        async with self._lock:
            await self._stop()

    async def _restart(self) -> None:
        if self._failure is not None and time.monotonic() < self._not_before:
            raise _broken(self._failure)
        if self._running is not None:
            reason = " ".join(self._running.report.split()) or "no message"
            _log.warning("ssh to the engine at %s ended (%s); starting it again", self._endpoint.address, reason)
        await self._stop()
        try:
            await self._open()
        except BaseException as error:
            await shielded(self._stop())
            if not isinstance(error, SshError):
                raise
            self._failure = error
            self._not_before = time.monotonic() + _PAUSES[min(self._failures, len(_PAUSES) - 1)]
            self._failures += 1
            raise _broken(error) from error
        self._failure, self._failures = None, 0

    async def _open(self) -> None:
        """Start ssh; if no engine is behind the usual socket, ask the other machine where its socket is."""
        program = shutil.which("ssh", path=self._environ.get("PATH"))
        if program is None:
            raise not_installed(self._endpoint)
        command = ssh_command(program, self._endpoint)
        await self._start(command)
        if await self._answers():
            return
        path = await self._find(command)
        if path != self._path:
            self._path = path
            await self._stop()
            await self._start(command)
            if await self._answers():
                return
        raise does_not_answer(self._endpoint, path)

    async def _start(self, command: tuple[str, ...]) -> None:
        # Cancelled in the middle, it would leave a process that only this call knows.
        running = await shielded(self._spawn(command))
        try:
            async with asyncio.timeout(_LOGIN_SECONDS):
                while not running.socket.exists():
                    if not running.runs:
                        raise ssh_ended(self._endpoint, by_hand(self._endpoint), running.report)
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError as error:
            raise not_logged_in(self._endpoint, by_hand(self._endpoint), _LOGIN_SECONDS) from error

    async def _spawn(self, command: tuple[str, ...]) -> SshProcess:
        try:
            self._running = await SshProcess.start(command, self._environ, self._path)
        except OSError as error:
            message = f"ssh to the Docker engine at {self._endpoint.address} cannot be started: {error}"
            raise SshError(message) from error
        return self._running

    async def _answers(self) -> bool:
        """Whether an engine is at the other end: ssh accepts a connection before it knows."""
        pool = ConnectionPool(self._running_socket(), keep=0)
        try:
            async with asyncio.timeout(_ANSWER_SECONDS), pool.request("GET", "/_ping"):
                return True
        except StatusError:
            return True
        except (ConnectionBrokenError, TimeoutError):
            return False

    async def _find(self, command: tuple[str, ...]) -> str:
        """Ask the other machine for the socket of an engine that this user may use."""
        places = [shlex.quote(self._path)] if self._endpoint.path else [str(DEFAULT), *_ELSEWHERE]
        answer = await ask(command, self._environ, _SEARCH.format(places=" ".join(places)), _LOGIN_SECONDS)
        return found_socket(self._endpoint, answer)

    def _running_socket(self) -> Connector:
        assert self._running is not None  # noqa: S101 - for mypy: called while it runs
        return Connector(Address.parse(f"unix://{self._running.socket}"))

    async def _stop(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            await shielded(running.end())


def _broken(error: SshError) -> ConnectionBrokenError:
    broken = ConnectionBrokenError(str(error), answered=False, sent=False)
    broken.__cause__ = error
    return broken
