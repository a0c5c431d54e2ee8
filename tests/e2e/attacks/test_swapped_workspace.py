"""An attacker who may rename above a workspace replaces it by another directory, between the last check and the mount.

An engine finds what it mounts by its path, as root. Here the swap always wins that race.
"""

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator import Store, load_config, make_job, provider_of, run_job
from orchestrator.backends import open_backend
from orchestrator.errors import BackendError
from orchestrator.plan.job_options import JobOptions
from orchestrator.sandbox.api import Backend, Sandbox, SandboxSpec
from tests.support import engine
from tests.support.project import ONE, Project, say, use

REPLIES = {"one": [use(("writeTextFile", {"path": "written", "text": "x"})), say("done")]}
BACKENDS = [pytest.param("docker", marks=pytest.mark.docker), "process"]


@dataclass(frozen=True)
class Swapping:
    """A backend before whose launch an attacker puts `target` in the place of the workspace, if there is one."""

    backend: Backend
    target: Path | None

    async def check(self) -> None:
        """Pass on."""
        await self.backend.check()

    def adopt(self, name: str) -> AbstractAsyncContextManager[Sandbox]:
        """Pass on."""
        return self.backend.adopt(name)

    async def prune(
        self, labels: Mapping[str, str], keep: Callable[[Mapping[str, str]], bool] = lambda _: False
    ) -> tuple[str, ...]:
        """Pass on."""
        return await self.backend.prune(labels, keep)

    def launch(self, spec: SandboxSpec) -> AbstractAsyncContextManager[Sandbox]:
        """Launch it, after the swap."""
        return self._launched(spec)

    @asynccontextmanager
    async def _launched(self, spec: SandboxSpec) -> AsyncIterator[Sandbox]:
        aside = spec.workspace.with_name("aside")
        if self.target is not None and not aside.exists():
            spec.workspace.rename(aside)
            spec.workspace.symlink_to(self.target)
        async with self.backend.launch(spec) as sandbox:
            yield sandbox


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("swapped", [False, True])
async def test_it_is_given_nothing(tmp_path: Path, backend: str, *, swapped: bool) -> None:
    """The Sandbox reports which directory it has, and gets no Run; without the swap, the control, it writes."""
    target = tmp_path / "target"
    target.mkdir()
    (target / "secret").touch()
    made = Project.make(tmp_path / "project", backend, ONE, REPLIES)
    made.workspace.mkdir()
    if os.geteuid() == 0 and backend == "docker":
        for path in (target, made.workspace):
            os.chown(path, 65532, 65532)
    store = Store(made.store)
    job = make_job(
        "one",
        "go",
        config=load_config(made.directory / "perstack.toml"),
        env=os.environ,
        backend=backend,
        workspace=made.workspace,
        store=store.root,
        options=JobOptions(image=engine.runtime_image() if backend == "docker" else None, prewarm="off"),
    )
    types: list[str] = []
    failed: BackendError | None = None
    async with open_backend(backend, os.environ, image=job.image) as opened:
        swapping = Swapping(opened, target if swapped else None)
        try:
            async with run_job(job, backend=swapping, store=store, provider=provider_of(job)) as events:
                types += [recorded.event.type async for recorded in events]
        except BackendError as error:
            failed = error
    assert sorted(path.name for path in target.iterdir()) == ["secret"]
    if swapped:
        assert failed is not None
        assert "was not given its Run: its workspace is not the directory that was checked" in str(failed)
        assert types == []
    else:
        assert (failed, types[-1]) == (None, "completeRun")
        assert (made.workspace / "written").exists()
