"""The places where Sandboxes run, each ready to run a small Python program in place of the runtime."""

import os
import shutil
import sys
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.backends.cluster_settings import ClusterSetting
from orchestrator.backends.docker import backend as docker
from orchestrator.backends.kubernetes import backend as kubernetes
from orchestrator.backends.process import backend as process
from orchestrator.sandbox.api import DEFAULT_LIMITS, MIB, Backend, SandboxSpec, User
from orchestrator.testing.fake_backend import FakeBackend
from orchestrator.testing.harness import LINE_BYTES, NOTHING, Harness, SandboxProgram
from orchestrator.wire.layout import STATE, STDERR, WORKSPACE
from tests.support import cluster, engine, stand_ins
from tests.support.processes import command_lines

PYTHON = "/opt/perstack/bin/python"
_INSIDE = (Path(WORKSPACE), Path(STATE))
_OF_PODS = DEFAULT_LIMITS.with_(memory=128 * MIB, cpus=1.0)
_TO_FILE = f"import os; os.dup2(os.open('{STDERR}', os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)\n"
"""The runtime does this itself where a container's log does not separate stderr from stdout."""


_LINGER = "import sys, time; sys.stdout.flush(); time.sleep(1)"
"""The last code of a program, so that all its output is in the log.

Engines may lose a tail: containerd#7289, and Docker where what follows a log wakes to the container's end before it
has read what was written (moby#43860).
"""


@dataclass(frozen=True, kw_only=True)
class BackendKind(Harness):
    """One of our backends, and what else a test of it needs: its interpreter, environment and cluster."""

    kind: str
    python: str = PYTHON
    environ: Mapping[str, str] = field(default_factory=dict)
    setting: ClusterSetting | None = None
    fake: FakeBackend | None = None

    def inside(self, spec: SandboxSpec) -> tuple[Path, Path]:
        """Where a Sandbox sees its workspace and its state directory."""
        return super().inside(spec) if self.kind in {"fake", "process"} else _INSIDE

    def connect(
        self, program: SandboxProgram | str = NOTHING, *, line_bytes: int = LINE_BYTES, image: str | None = None
    ) -> AbstractAsyncContextManager[Backend]:
        """Give a backend whose Sandboxes run `program`."""
        program = SandboxProgram.of(program)
        if self.fake is not None:
            # Without a program, later Sandboxes keep the script of earlier ones.
            if program is not NOTHING:
                self.fake.script, self.fake.line_bytes = program.script, line_bytes
            return nullcontext(self.fake)
        command = (self.python, "-I", "-c", program.source)
        if self.kind == "docker":
            return docker.connect(self.environ, image or self.image, line_bytes=line_bytes, command=command)
        if self.setting is not None:
            command = (self.python, "-I", "-c", _TO_FILE + program.source)
            wanted = image or self.image
            return kubernetes.connect(self.environ, self.setting, wanted, line_bytes=line_bytes, command=command)
        return process.connect(self.environ, line_bytes=line_bytes, command=command)

    def left(self) -> list[str]:
        """List what is left of this test's Sandboxes."""
        if self.kind == "docker":
            return engine.containers(self.instance)
        if self.fake is not None:
            return self.fake.left
        if self.setting is not None:
            return cluster.sandboxes(self.setting.namespace, self.instance)
        state = f"{self.root}/".encode()
        return [str(process) for process, command in command_lines() if state in command]


async def has_control_groups(backend: Backend) -> bool:
    """Whether a Docker engine bounds memory and processes; a rootless one that cannot warns about it."""
    assert isinstance(backend, docker.DockerBackend)
    return not any("without cgroups" in warning for warning in (await backend.engine_info()).warnings)


@asynccontextmanager
async def docker_place(root: Path) -> AsyncIterator[BackendKind]:
    """Give the Docker engine of this machine; Sandboxes run as an unprivileged user when the tests run as root."""
    uid, gid = (os.geteuid(), os.getegid()) if os.geteuid() else (65532, 65532)
    names = (*stand_ins.VARIABLES, "DOCKER_CONTEXT", "DOCKER_CONFIG", "HOME", "PATH", "XDG_RUNTIME_DIR")
    environ = {name: os.environ[name] for name in names if name in os.environ}
    yield BackendKind(
        kind="docker",
        image=engine.runtime_image(),
        user=User(uid, gid),
        root=root,
        environ=environ,
        linger=_LINGER,
        keeps_last_line=False,
    )


@asynccontextmanager
async def kubernetes_place(_: Path) -> AsyncIterator[BackendKind]:
    """Give a cluster whose node is this machine: directories are below the volume of a claim."""
    claim = cluster.shared_claim()
    setting = ClusterSetting(cluster.shared_namespace(), claim, ())
    root = claim.root / uuid.uuid4().hex[:12]
    root.mkdir()
    environ = {"KUBECONFIG": str(cluster.kubeconfig())}
    yield BackendKind(
        kind="kubernetes",
        image=cluster.runtime_image(),
        user=User(65532, 65532),
        root=root,
        limits=_OF_PODS,
        environ=environ,
        setting=setting,
        linger=_LINGER,
        prune_seconds=15,
    )
    shutil.rmtree(root)


@asynccontextmanager
async def process_place(root: Path) -> AsyncIterator[BackendKind]:
    """Give this machine's processes, recorded in a directory of the test."""
    yield BackendKind(kind="process", python=sys.executable, root=root, environ={"XDG_RUNTIME_DIR": str(root)})


@asynccontextmanager
async def fake_place(root: Path) -> AsyncIterator[BackendKind]:
    """Give the fake; all its connections see the same Sandboxes, as with an engine."""
    async with FakeBackend(NOTHING.script) as backend:
        yield BackendKind(kind="fake", root=root, fake=backend)
