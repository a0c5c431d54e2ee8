"""The places where Sandboxes run, each ready to run a small Python program in place of the runtime."""

import os
import shutil
import sys
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.backends import docker, kubernetes, naming, process
from orchestrator.backends.kubernetes_manifest import STATE, STDERR
from orchestrator.backends.kubernetes_setting import ClusterSetting
from orchestrator.broker.gate import make_gate
from orchestrator.sandbox import MIB, Backend, Limits, Sandbox, SandboxSpec, User
from tests.support import cluster, engine
from tests.support.processes import command_lines

FAR_FUTURE = 4_000_000_000
PYTHON = "/opt/perstack/bin/python"
_INSIDE = (Path("/workspace"), Path(STATE))
_TO_FILE = f"import os; os.dup2(os.open('{STATE}/{STDERR}', os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)\n"
"""What the runtime does itself where the log of a container does not tell stderr from stdout."""


@dataclass(frozen=True)
class Place:
    """One backend, and what a test must know to use it. Every test has an instance of its own."""

    kind: str
    python: str
    image: str
    user: User
    root: Path
    environ: Mapping[str, str]
    instance: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    setting: ClusterSetting | None = None

    @property
    def linger(self) -> str:
        """What a program does last so that all it wrote is in the log.

        Engines may lose a tail: containerd#7289, and Docker where what follows a log wakes to the container's end
        before it has read what was written (moby#43860).
        """
        return "" if self.kind == "process" else "import sys, time; sys.stdout.flush(); time.sleep(1)"

    def inside(self, spec: SandboxSpec) -> tuple[Path, Path]:
        """Where a Sandbox sees its workspace and its state directory."""
        return (spec.workspace, spec.state) if self.kind == "process" else _INSIDE

    def connect(
        self, program: str = "pass", *, line_bytes: int = 64 * 1024, image: str | None = None
    ) -> AbstractAsyncContextManager[Backend]:
        """Hold a backend whose Sandboxes run `program`."""
        command = (self.python, "-I", "-c", program)
        if self.kind == "docker":
            return docker.connect(self.environ, image or self.image, line_bytes=line_bytes, command=command)
        if self.setting is not None:
            command = (self.python, "-I", "-c", _TO_FILE + program)
            wanted = image or self.image
            return kubernetes.connect(self.environ, self.setting, wanted, line_bytes=line_bytes, command=command)
        return process.connect(self.environ, line_bytes=line_bytes, command=command)

    def spec(self, ordinal: int = 1, *, limits: Limits | None = None, image: str | None = None) -> SandboxSpec:
        """Describe a Sandbox with a workspace and a state directory of its own."""
        name = naming.sandbox_name(self.instance, ordinal, self.instance)
        workspace, state = self.root / "workspace", self.root / f"state-{ordinal}"
        for directory in (workspace, state):
            directory.mkdir(mode=0o700, exist_ok=True)
            os.chown(directory, self.user.uid, self.user.gid)
        make_gate(state)
        return SandboxSpec(
            name=name,
            image=image or self.image,
            workspace=workspace,
            state=state,
            user=self.user,
            deadline=FAR_FUTURE,
            limits=limits or (Limits(memory=128 * MIB, cpus=1) if self.kind == "kubernetes" else Limits()),
            labels=naming.labels(self.instance, sandbox=name, instance=self.instance, deadline=FAR_FUTURE),
        )

    @asynccontextmanager
    async def running(self, program: str, *, line_bytes: int = 64 * 1024) -> AsyncIterator[Sandbox]:
        """Launch one Sandbox that runs `program`."""
        async with self.connect(program, line_bytes=line_bytes) as backend, backend.launch(self.spec()) as sandbox:
            yield sandbox

    def left(self) -> list[str]:
        """Name what is still there of this test's Sandboxes."""
        if self.kind == "docker":
            return engine.containers(self.instance)
        if self.setting is not None:
            return cluster.sandboxes(self.setting.namespace, self.instance)
        state = f"{self.root}/".encode()
        return [str(process) for process, command in command_lines() if state in command]


async def has_control_groups(backend: Backend) -> bool:
    """Whether a Docker engine bounds memory and processes; a rootless one that cannot says so."""
    assert isinstance(backend, docker.DockerBackend)
    return not any("without cgroups" in warning for warning in (await backend.ground()).warnings)


@asynccontextmanager
async def docker_place(root: Path) -> AsyncIterator[Place]:
    """Give the Docker engine of this machine; Sandboxes run as nobody's number when the tests run as root."""
    uid, gid = (os.geteuid(), os.getegid()) if os.geteuid() else (65532, 65532)
    names = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "HOME", "XDG_RUNTIME_DIR")
    environ = {name: os.environ[name] for name in names if name in os.environ}
    yield Place("docker", PYTHON, engine.runtime_image(), User(uid, gid), root, environ)


@asynccontextmanager
async def kubernetes_place(_: Path) -> AsyncIterator[Place]:
    """Give a cluster whose node is this machine: directories are below the volume of a claim."""
    claim = cluster.shared_claim()
    setting = ClusterSetting(cluster.shared_namespace(), claim, ())
    root = claim.root / uuid.uuid4().hex[:12]
    root.mkdir()
    environ = {"KUBECONFIG": str(cluster.kubeconfig())}
    yield Place("kubernetes", PYTHON, cluster.runtime_image(), User(65532, 65532), root, environ, setting=setting)
    shutil.rmtree(root)


@asynccontextmanager
async def process_place(root: Path) -> AsyncIterator[Place]:
    """Give this machine's processes, recorded in a directory of the test."""
    user = User(os.geteuid(), os.getegid())
    yield Place("process", sys.executable, "none", user, root, {"XDG_RUNTIME_DIR": str(root)})
