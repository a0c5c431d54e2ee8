"""One `ssh` process that forwards a unix socket of this machine, and ends with the orchestrator."""

import asyncio
import os
import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import IO

from orchestrator.aio import shielded
from orchestrator.backends.docker.endpoint import SshEndpoint

CONNECT_SECONDS = 10
"""How long ssh tries to connect; the login comes on top."""

_ENDING_SECONDS = 5.0
_SOCKET = "engine.sock"
_SOCKET_BYTES = 100
"""A socket's path has at most 104 bytes on macOS, and 108 on Linux."""
_REPORT_BYTES = 64 * 1024

_OPTIONS = (
    # No person is there to answer a question: a host key or a password that is needed is an error.
    "BatchMode=yes",
    f"ConnectTimeout={CONNECT_SECONDS}",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=3",
    # Over a shared connection the socket would be the other process's, and stay when this one ends.
    "ControlMaster=no",
    "ControlPath=none",
    # Ports that the user's configuration forwards may be in use by another session.
    "ExitOnForwardFailure=no",
    "ForwardAgent=no",
    "ForwardX11=no",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
    "StreamLocalBindMask=0177",
    # At this level ssh reports a socket that it cannot reach.
    "LogLevel=INFO",
)

_SUPERVISOR = f"""
directory=$1; shift
exec 3<&0
"$@" </dev/null & ssh=$!
{{ read -r _ <&3; kill "$ssh"; }} 2>/dev/null & watcher=$!
wait "$ssh"; code=$?
kill "$watcher" 2>/dev/null
rm -f "$directory/{_SOCKET}"; rmdir "$directory"
exit "$code"
"""
"""Runs ssh until standard input ends, as it does with the orchestrator, however that ends; then removes the socket.

Alone, ssh would outlive an orchestrator that is killed, because it does not read its input.
"""


@dataclass(slots=True)
class SshProcess:
    """A running ssh below its supervisor. `socket` exists once ssh has logged in."""

    socket: Path
    _supervisor: asyncio.subprocess.Process
    _stderr: IO[bytes]

    @classmethod
    async def start(cls, command: Sequence[str], environ: Mapping[str, str], path: str) -> "SshProcess":
        """Start ssh. `command` is ssh with its options and host, `path` the socket on the other machine.

        Raises:
            OSError: no process or no directory for the socket can be made.
        """
        directory = _private_directory(environ)
        forwarding = ("-N", "-T", "-L", f"{directory / _SOCKET}:{path}")
        arguments = (command[0], *forwarding, *command[1:])
        stderr = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        try:
            supervisor = await asyncio.create_subprocess_exec(
                "/bin/sh", "-c", _SUPERVISOR, "sh", str(directory), *arguments,
                stdin=PIPE, stdout=DEVNULL, stderr=stderr, env=environ,
                # A terminal's Ctrl-C is for the orchestrator, which needs the engine to clean up.
                start_new_session=True,
            )  # fmt: skip
        except BaseException:
            stderr.close()
            directory.rmdir()
            raise
        return cls(directory / _SOCKET, supervisor, stderr)

    @property
    def runs(self) -> bool:
        """Whether it has not ended, as far as is known."""
        return self._supervisor.returncode is None

    @property
    def report(self) -> str:
        """What ssh has written to stderr so far, its last 64 KiB."""
        # `read` would move the position at which ssh writes.
        descriptor = self._stderr.fileno()
        start = max(0, os.fstat(descriptor).st_size - _REPORT_BYTES)
        return os.pread(descriptor, _REPORT_BYTES, start).decode(errors="replace")

    async def end(self) -> None:
        """End ssh and remove its socket."""
        assert self._supervisor.stdin is not None  # noqa: S101 - for mypy: it is a pipe
        self._supervisor.stdin.close()
        try:
            async with asyncio.timeout(_ENDING_SECONDS):
                await self._supervisor.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                os.killpg(self._supervisor.pid, 9)
            await self._supervisor.wait()
        # The supervisor did this, unless it was killed.
        shutil.rmtree(self.socket.parent, ignore_errors=True)
        self._stderr.close()


def ssh_command(program: str, endpoint: SshEndpoint) -> tuple[str, ...]:
    """Return the words that start ssh without a question, up to the host; a command there may follow."""
    options = (word for option in _OPTIONS for word in ("-o", option))
    return (program, *options, *_target(endpoint))


def by_hand(endpoint: SshEndpoint) -> str:
    """Return the command that a person types to log in at the same place."""
    return shlex.join(("ssh", *(word for word in _target(endpoint) if word != "--")))


def _target(endpoint: SshEndpoint) -> tuple[str, ...]:
    port = () if endpoint.port is None else ("-p", str(endpoint.port))
    user = () if endpoint.user is None else ("-l", endpoint.user)
    return (*port, *user, "--", endpoint.host)


def _private_directory(environ: Mapping[str, str]) -> Path:
    """Make a directory that only this user can use; its path is short enough for a socket."""
    usual = (environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp")  # noqa: S108 - the last is short everywhere
    for place in filter(None, usual):
        sample = Path(place) / "perstack-ssh-12345678" / _SOCKET
        if os.access(place, os.W_OK | os.X_OK) and len(os.fsencode(sample)) <= _SOCKET_BYTES:
            return Path(tempfile.mkdtemp(prefix="perstack-ssh-", dir=place))
    message = "no directory for a socket can be made: set XDG_RUNTIME_DIR or TMPDIR to one with a short path"
    raise OSError(message)


async def ask(command: Sequence[str], environ: Mapping[str, str], program: str, seconds: float) -> str:
    """Run a shell program on the other machine and return what it prints; empty if it cannot be run there."""
    process = await asyncio.create_subprocess_exec(
        *command, f"sh -c {shlex.quote(program)}",
        stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, env=environ, start_new_session=True,
    )  # fmt: skip
    try:
        async with asyncio.timeout(seconds):
            output, _ = await process.communicate()
            return output.decode(errors="replace")
    except TimeoutError:
        return ""
    finally:
        if process.returncode is None:
            process.kill()
            await shielded(process.wait())
