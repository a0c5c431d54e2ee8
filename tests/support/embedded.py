"""A job run in the test's own process, as a program of somebody else would."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from orchestrator import JobEvents, Store, load_config, make_job, open_backend, provider_of, run_job
from orchestrator.prewarm import WAIT_SECONDS
from orchestrator.sandbox import Limits
from tests.support import engine
from tests.support.project import Project

JOB = "embedded"
SECONDS = 60
ENVIRON = {name: os.environ[name] for name in ("PATH", "HOME", "XDG_STATE_HOME", "DOCKER_HOST") if name in os.environ}


@asynccontextmanager
async def running(
    project: Project,
    expert: str = "one",
    limits: Limits = Limits(),
    wait_seconds: float = WAIT_SECONDS,
    **options: Any,
) -> AsyncIterator[JobEvents]:
    """Run an Expert of the project in Sandboxes of these limits; `options` are those of `make_job`."""
    config, store = load_config(project.directory / "perstack.toml"), Store(project.store)
    project.workspace.mkdir()
    if os.geteuid() == 0:
        os.chown(project.workspace, 65532, 65532)
    job = make_job(
        expert,
        "go",
        config=config,
        env={},
        backend=project.backend,
        workspace=project.workspace,
        store=store.root,
        job_id=JOB,
        image=engine.runtime_image(),
        **options,
    )
    job = replace(job, limits=limits, wait_seconds=wait_seconds)
    async with (
        asyncio.timeout(SECONDS),
        open_backend(project.backend, ENVIRON, image=job.image) as backend,
        run_job(job, backend=backend, store=store, provider=provider_of(job)) as events,
    ):
        yield events
