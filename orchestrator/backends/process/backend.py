"""Sandboxes as plain processes: the same contract without any isolation, for machines without an engine.

A Sandbox here can access the user's files and network. `image`, `limits`, `read_only` and `hidden` of a SandboxSpec
have no effect. It runs as the calling user, or as `spec.user` if the caller is root.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.aio import shielded
from orchestrator.backends.engine_info import PROCESSES, EngineInfo
from orchestrator.backends.process.process_records import ProcessRecord, ProcessRecords, started_at
from orchestrator.backends.process.sandbox import ProcessSandbox
from orchestrator.backends.spec import BackendConnection, BackendSpec
from orchestrator.errors import BackendError, SandboxLostError
from orchestrator.sandbox.api import Backend, Sandbox, SandboxSpec
from orchestrator.sandbox.layout import RUNTIME_MODULE, runtime_arguments
from orchestrator.wire.line import LINE_BYTES
from orchestrator.wire.run import EventDetail

_PRUNED_SECONDS = 0.5
"""Between SIGTERM and SIGKILL for pruned Sandboxes: short, because the user waits for it."""
_USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ProcessBackend:
    """Runs each Sandbox as a process.

    `environ` provides PATH and XDG_RUNTIME_DIR only. `command` replaces the runtime.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        line_bytes: int = LINE_BYTES[EventDetail.DEFAULT],
        command: Sequence[str] | None = None,
    ) -> None:
        self._env = {"PATH": environ.get("PATH") or _USUAL_PATH, "LANG": "C.UTF-8"}
        self._records = ProcessRecords(_records_directory(environ))
        self._line_bytes = line_bytes
        self._command = command

    async def check(self) -> None:
        """Do nothing: processes run wherever the orchestrator does."""

    @asynccontextmanager
    async def launch(self, spec: SandboxSpec) -> AsyncIterator[Sandbox]:
        """Start a process.

        Raises:
            BackendError: it could not be started, or one of that name already runs.
        """
        if self._records.find(spec.name) is not None:
            message = f"a Sandbox named {spec.name} runs already: another orchestrator runs this job; wait for it"
            raise BackendError(message)
        record = ProcessRecord(spec.name, 0, 0, spec.labels, str(spec.state))
        # Before the process exists: if we are killed in between, it is found by its arguments.
        self._records.keep(record)
        try:
            child = _spawn(self._arguments(spec), self._env, spec)
        except BackendError:
            self._records.forget(spec.name)
            raise
        sandbox = ProcessSandbox(spec.name, child.pid, self._line_bytes, child)
        async with self._remove_after(sandbox):
            self._records.keep(replace(record, pid=child.pid, started=started_at(child.pid) or 0))
            yield sandbox

    @asynccontextmanager
    async def adopt(self, name: str) -> AsyncIterator[Sandbox]:
        """Take over a process that another orchestrator started.

        Raises:
            SandboxLostError: no Sandbox of that name runs.
        """
        record = self._records.find(name)
        if record is None:
            message = f"no Sandbox {name} exists among this user's processes"
            raise SandboxLostError(message)
        async with self._remove_after(ProcessSandbox(name, record.pid, self._line_bytes)) as sandbox:
            yield sandbox

    async def prune(
        self, labels: Mapping[str, str], keep: Callable[[Mapping[str, str]], bool] = lambda _: False
    ) -> tuple[str, ...]:
        """End every Sandbox that carries all `labels`, except those for which `keep` returns True.

        Raises:
            BackendError: one does not end.
        """
        found = [
            record
            for record in self._records.all()
            if labels.items() <= record.labels.items() and not keep(record.labels)
        ]
        for record in found:
            if record.alive:
                with contextlib.suppress(SandboxLostError):  # it ended just now
                    await shielded(_stop_orphan(ProcessSandbox(record.name, record.pid, self._line_bytes)))
            self._records.forget(record.name)
        return tuple(sorted(record.name for record in found))

    @asynccontextmanager
    async def _remove_after(self, sandbox: ProcessSandbox) -> AsyncIterator[ProcessSandbox]:
        try:
            await shielded(sandbox.open())
            yield sandbox
        finally:
            await shielded(sandbox.remove())
            self._records.forget(sandbox.name)

    def _arguments(self, spec: SandboxSpec) -> list[str]:
        if self._command is not None:
            return list(self._command)
        return [sys.executable, *RUNTIME_MODULE, *runtime_arguments(spec, on_host=True)]


@asynccontextmanager
async def connect(
    environ: Mapping[str, str],
    *,
    line_bytes: int = LINE_BYTES[EventDetail.DEFAULT],
    command: Sequence[str] | None = None,
) -> AsyncIterator[ProcessBackend]:
    """Give the backend; no connection is needed."""
    yield ProcessBackend(environ, line_bytes=line_bytes, command=command)


def _connect(connection: BackendConnection) -> AbstractAsyncContextManager[Backend]:
    return connect(connection.environ, line_bytes=connection.line_bytes)


async def _engine_info(_connection: BackendConnection) -> EngineInfo:
    return PROCESSES


SPEC = BackendSpec(
    name="process", connect=_connect, engine_info=_engine_info, isolates=False, unit="process", mounts_host=False
)


async def _stop_orphan(sandbox: ProcessSandbox) -> None:
    await sandbox.open()
    # Not by SIGKILL at once: its tools have their own sessions, and only the runtime knows them.
    await sandbox.remove(_PRUNED_SECONDS)


def _records_directory(environ: Mapping[str, str]) -> Path:
    runtime = environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "perstack-orch" if runtime else Path(f"/tmp/perstack-orch-{os.geteuid()}")  # noqa: S108 # checked to be ours


def _spawn(arguments: Sequence[str], env: Mapping[str, str], spec: SandboxSpec) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(  # with `open`, its pipes and its end belong to the ProcessSandbox
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=dict(env),
            start_new_session=True,
            **_identity(spec),
        )
    except OSError as error:
        message = (
            f"the Sandbox {spec.name} could not be started as user {spec.user.uid}: {error.filename or arguments[0]}:"
            f" {error.strerror}; that user must be able to read and run it, or name another with --run-as UID"
        )
        raise BackendError(message) from error


def _identity(spec: SandboxSpec) -> dict[str, Any]:
    if os.geteuid() != 0 or spec.user.uid == 0:
        return {}
    return {"user": spec.user.uid, "group": spec.user.gid, "extra_groups": []}
