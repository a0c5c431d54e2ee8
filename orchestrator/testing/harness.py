"""A backend under test, and what its Sandboxes run in place of the runtime."""

import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.sandbox import naming
from orchestrator.sandbox.api import DEFAULT_LIMITS, Backend, Sandbox, SandboxSpec, User
from orchestrator.sandbox.socket_directory import make_socket_directory
from orchestrator.testing.scripted_sandbox import Guest, Script
from orchestrator.wire.grant_record import ResourceLimits

LINE_BYTES = 64 * 1024
FAR_FUTURE = 4_000_000_000
"""A deadline, in Unix seconds."""


@dataclass(frozen=True)
class SandboxProgram:
    """What a Sandbox runs: `source` is Python for a process, and `script` does the same in a fake Sandbox."""

    source: str
    script: Script

    @classmethod
    def of(cls, program: "SandboxProgram | str") -> "SandboxProgram":
        """Return a program as it is, and Python source as a program that no fake Sandbox runs."""
        return program if isinstance(program, SandboxProgram) else cls(program, _refuse)


async def _refuse(_: Guest) -> None:
    message = "this program is Python source only, and a fake Sandbox runs scripts"
    raise NotImplementedError(message)


async def _do_nothing(_: Guest) -> None:
    """End at once."""


NOTHING = SandboxProgram("pass", _do_nothing)


@dataclass(frozen=True, kw_only=True)
class Harness(ABC):
    """One backend, and what a test must know to use it. Every test has its own.

    Workspaces and state directories are made below `root` and belong to `user`. `image` and `limits` are those of its
    Sandboxes. `linger` is Python that a program runs last, on engines that lose the end of a log. `keeps_last_line` is
    whether a last line without a newline always arrives. `prune_seconds` bounds how long `prune` of one Sandbox takes
    that ignores SIGTERM.
    """

    root: Path
    user: User = field(default_factory=lambda: User(os.geteuid(), os.getegid()))
    image: str = "none"
    limits: ResourceLimits = DEFAULT_LIMITS
    instance: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    linger: str = ""
    keeps_last_line: bool = True
    prune_seconds: float = 2.5

    @abstractmethod
    def connect(
        self, program: SandboxProgram | str = NOTHING, *, line_bytes: int = LINE_BYTES
    ) -> AbstractAsyncContextManager[Backend]:
        """Open the backend. Its Sandboxes run `SandboxProgram.of(program)`: `python -I -c SOURCE`, or the script.

        All connections see the same Sandboxes.
        """

    @abstractmethod
    def left(self) -> list[str]:
        """Name what still exists of this test's Sandboxes."""

    def inside(self, spec: SandboxSpec) -> tuple[Path, Path]:
        """Return the paths of the workspace and the state directory as a Sandbox sees them."""
        return spec.workspace, spec.state

    def spec(self, ordinal: int = 1, *, limits: ResourceLimits | None = None, image: str | None = None) -> SandboxSpec:
        """Describe Sandbox number `ordinal`, with its own state directory and the test's workspace."""
        name = naming.sandbox_name(self.instance, ordinal, self.instance)
        workspace, state = self.root / "workspace", self.root / f"state-{ordinal}"
        for directory in (workspace, state):
            directory.mkdir(mode=0o700, exist_ok=True)
            os.chown(directory, self.user.uid, self.user.gid)
        make_socket_directory(state)
        return SandboxSpec(
            name=name,
            image=image or self.image,
            workspace=workspace,
            state=state,
            user=self.user,
            deadline=FAR_FUTURE,
            limits=limits or self.limits,
            labels=naming.labels(self.instance, sandbox=name, instance=self.instance, deadline=FAR_FUTURE),
        )

    @asynccontextmanager
    async def running(self, program: SandboxProgram | str, *, line_bytes: int = LINE_BYTES) -> AsyncIterator[Sandbox]:
        """Launch one Sandbox that runs `program`."""
        async with self.connect(program, line_bytes=line_bytes) as backend, backend.launch(self.spec()) as sandbox:
            yield sandbox
