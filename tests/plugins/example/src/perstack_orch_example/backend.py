"""The backend `logged`: each Sandbox is a process whose stdout and stderr are files.

A directory per Sandbox holds `record.json`, `stdout` and `stderr`, so that another orchestrator can adopt it.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from orchestrator.aio import shielded
from orchestrator.backends.engine_info import EngineInfo
from orchestrator.backends.line_splitter import LineSplitter
from orchestrator.backends.spec import BackendConnection, BackendSpec
from orchestrator.errors import BackendError, SandboxLostError
from orchestrator.sandbox.api import Backend, Exit, Reason, Sandbox, SandboxSpec
from orchestrator.sandbox.layout import RUNTIME_MODULE, runtime_arguments

_GRACE_SECONDS = 3.0
_PRUNE_SECONDS = 0.5
_KILL_SECONDS = 10.0
_LOOK_SECONDS = 0.02
_DETAIL_BYTES = 4096
_CHUNK = 64 * 1024
_SIGNALLED = 128


class LoggedSandbox:
    """A process with its directory; without `child`, another orchestrator started it."""

    def __init__(self, directory: Path, pid: int, line_bytes: int, child: "subprocess.Popen[bytes] | None") -> None:
        self._directory = directory
        self._pid = pid
        self._line_bytes = line_bytes
        self._child = child
        self._code: int | None = None
        self._removed = False
        self._detail = ""
        self._over = asyncio.Event()
        # Kept open, since the files are read to their end after the directory was removed.
        self._stdout = (directory / "stdout").open("rb", buffering=0)
        try:
            self._process = os.pidfd_open(pid)
        except OSError:
            self._stdout.close()
            raise
        asyncio.get_running_loop().add_reader(self._process, self._ended)

    @property
    def name(self) -> str:
        """The name it was launched under."""
        return self._directory.name

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """Yield the lines of stdout, up to the end of the process."""
        splitter, offset = LineSplitter(self._line_bytes), 0
        while True:
            is_over = self._over.is_set()
            chunk = b"" if self._stdout.closed else os.pread(self._stdout.fileno(), _CHUNK, offset)
            offset += len(chunk)
            for line in splitter.feed(chunk):
                yield line
            if not chunk and is_over:
                break
            if not chunk:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_SECONDS):
                        await self._over.wait()
        if (rest := splitter.rest()) is not None:
            yield rest

    async def started(self) -> None:
        """Return at once: a launched process runs."""

    async def wait(self) -> Exit:
        """Wait for the end of the process.

        Raises:
            SandboxLostError: another orchestrator started it, so its exit code is unknown.
        """
        await self._over.wait()
        if self._code == 0:
            return Exit(0, Reason.COMPLETED)
        if self._removed:
            return Exit(self._code, Reason.CANCELLED, self._detail)
        if self._code is None:
            message = f"the Sandbox {self.name} ended, and its exit code is unknown here"
            raise SandboxLostError(message)
        return Exit(self._code, Reason.ERROR, self._detail)

    async def remove(self, grace: float) -> None:
        """Stop the process and delete its directory.

        Raises:
            BackendError: it does not end.
        """
        try:
            if not self._over.is_set():
                self._removed = True
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._process, signal.SIGTERM)
                if not await self._ends_within(grace):
                    self._kill_all()
                    if not await self._ends_within(_KILL_SECONDS):
                        message = (
                            f"the process {self._pid} of the Sandbox {self.name} does not end; look at it with `ps`"
                        )
                        raise BackendError(message)
        finally:
            asyncio.get_running_loop().remove_reader(self._process)
            os.close(self._process)
            self._stdout.close()
            shutil.rmtree(self._directory, ignore_errors=True)

    async def _ends_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._over.wait()
        return self._over.is_set()

    def _ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self._process)
        # Before the process is reaped, while its number cannot be used again.
        self._kill_all()
        if self._child is not None:
            code = self._child.wait()
            self._code = code if code >= 0 else _SIGNALLED - code
        with suppress(OSError):
            self._detail = (self._directory / "stderr").read_bytes()[-_DETAIL_BYTES:].decode(errors="replace").strip()
        self._over.set()

    def _kill_all(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)


class LoggedBackend:
    """Runs Sandboxes whose directories are below `root`. `command` replaces the runtime in tests."""

    def __init__(self, root: Path, path: str, line_bytes: int, command: Sequence[str] | None = None) -> None:
        self._root = root
        self._path = path
        self._line_bytes = line_bytes
        self._command = command

    async def check(self) -> None:
        """Pass: processes run wherever the orchestrator does."""

    @asynccontextmanager
    async def launch(self, spec: SandboxSpec) -> AsyncIterator[Sandbox]:
        """Start a process.

        Raises:
            BackendError: the name is taken, or the process cannot be started.
        """
        directory = self._root / spec.name
        try:
            directory.mkdir(mode=0o700, parents=True)
        except FileExistsError as error:
            message = f"a Sandbox named {spec.name} exists already; wait until it has ended"
            raise BackendError(message) from error
        try:
            child = self._start(spec, directory)
        except OSError as error:
            shutil.rmtree(directory)
            message = f"the Sandbox {spec.name} cannot be started: {error.strerror}; check its user and interpreter"
            raise BackendError(message) from error
        sandbox = LoggedSandbox(directory, child.pid, self._line_bytes, child)
        try:
            record = {"pid": child.pid, "labels": dict(spec.labels)}
            (directory / "record.json").write_text(json.dumps(record), encoding="utf-8")
            yield sandbox
        finally:
            await shielded(sandbox.remove(_GRACE_SECONDS))

    @asynccontextmanager
    async def adopt(self, name: str) -> AsyncIterator[Sandbox]:
        """Take over a process that another orchestrator started.

        Raises:
            SandboxLostError: no such Sandbox exists.
        """
        sandbox = self._open(self._root / name)
        if sandbox is None:
            message = f"no Sandbox {name} exists in {self._root}"
            raise SandboxLostError(message)
        try:
            yield sandbox
        finally:
            await shielded(sandbox.remove(_GRACE_SECONDS))

    async def prune(
        self, labels: Mapping[str, str], keep: Callable[[Mapping[str, str]], bool] = lambda _: False
    ) -> tuple[str, ...]:
        """Remove every Sandbox that carries all `labels`, except those for which `keep` returns True."""
        removed = []
        for file in sorted(self._root.glob("*/record.json")):
            found = _read(file).get("labels", {})
            if labels.items() <= found.items() and not keep(found):
                removed.append(file.parent.name)
                sandbox = self._open(file.parent)
                if sandbox is None:
                    shutil.rmtree(file.parent, ignore_errors=True)
                else:
                    await shielded(sandbox.remove(_PRUNE_SECONDS))
        return tuple(removed)

    def _open(self, directory: Path) -> LoggedSandbox | None:
        pid = _read(directory / "record.json").get("pid")
        with suppress(OSError):
            return None if pid is None else LoggedSandbox(directory, pid, self._line_bytes, None)
        return None

    def _start(self, spec: SandboxSpec, directory: Path) -> "subprocess.Popen[bytes]":
        command = self._command or (sys.executable, *RUNTIME_MODULE, *runtime_arguments(spec, on_host=True))
        others = os.geteuid() == 0 and spec.user.uid != 0
        user: dict[str, Any] = {"user": spec.user.uid, "group": spec.user.gid, "extra_groups": []} if others else {}
        with (directory / "stdout").open("wb") as stdout, (directory / "stderr").open("wb") as stderr:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                cwd="/",
                env={"PATH": self._path, "LANG": "C.UTF-8"},
                start_new_session=True,
                **user,
            )


def _read(file: Path) -> dict[str, Any]:
    try:
        record = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


@asynccontextmanager
async def connect(connection: BackendConnection) -> AsyncIterator[Backend]:
    """Give the backend; its directories are below XDG_RUNTIME_DIR, or below HOME."""
    environ = connection.environ
    above = environ.get("XDG_RUNTIME_DIR") or f"{environ.get('HOME', '')}/.cache"
    yield LoggedBackend(Path(above) / "logged-sandboxes", environ.get("PATH", os.defpath), connection.line_bytes)


async def engine_info(_connection: BackendConnection) -> EngineInfo:
    """Describe the engine: processes without one."""
    return EngineInfo("processes with logs", isolates=False)


SPEC = BackendSpec(
    name="logged", connect=connect, engine_info=engine_info, isolates=False, unit="process", mounts_host=False
)
