"""A job that runs in the test's own process, as in an embedding program."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from orchestrator import JobEvents, Store, load_config, make_job, open_backend, provider_of, run_job
from orchestrator.plan.job import WAIT_SECONDS
from orchestrator.plan.job_options import NO_OPTIONS, JobOptions
from orchestrator.sandbox.api import DEFAULT_LIMITS
from orchestrator.wire.grant_record import ResourceLimits
from tests.support import engine
from tests.support.project import Project

JOB = "embedded"
SECONDS = 60
ENVIRON = {name: os.environ[name] for name in ("PATH", "HOME", "XDG_STATE_HOME", "DOCKER_HOST") if name in os.environ}


@asynccontextmanager
async def running(
    project: Project,
    expert: str = "one",
    limits: ResourceLimits = DEFAULT_LIMITS,
    wait_seconds: float = WAIT_SECONDS,
    options: JobOptions = NO_OPTIONS,
) -> AsyncIterator[JobEvents]:
    """Run an Expert of the project in Sandboxes of these limits; `options` are the job's."""
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
        options=options.with_(image=engine.runtime_image()),
    )
    job = replace(job, limits=limits, wait_seconds=wait_seconds)
    async with (
        asyncio.timeout(SECONDS),
        open_backend(project.backend, ENVIRON, image=job.image) as backend,
        run_job(job, backend=backend, store=store, provider=provider_of(job)) as events,
    ):
        yield events
