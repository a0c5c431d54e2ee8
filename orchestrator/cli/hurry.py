"""The second Ctrl-C: what stops too slowly is killed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from orchestrator.backends.naming import instance_labels, job_labels
from orchestrator.cli.signals import Stop
from orchestrator.errors import BackendError
from orchestrator.plan import Job
from orchestrator.sandbox import Backend


@asynccontextmanager
async def hurrying(stop: Stop, backend: Backend, job: Job) -> AsyncIterator[None]:
    """Kill all Sandboxes of `job` when a second signal comes while the first still stops them one by one."""

    async def kill() -> None:
        await stop.again.wait()
        # Whoever stops them hears what went wrong, and says it.
        with suppress(BackendError):
            await backend.prune(instance_labels(job.instance) | job_labels(job.id))

    # A TaskGroup here would wrap whatever the block raises in a group of its own.
    killing = asyncio.create_task(kill())
    try:
        yield
    finally:
        killing.cancel()
        await asyncio.wait([killing])
