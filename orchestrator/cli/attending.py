"""`perstack-orch watch` and `cancel`, and `prune` of what the cluster's own coordinators left."""

import asyncio
import sys
from collections.abc import Mapping

from orchestrator.backends.kubernetes_state import has_failed
from orchestrator.cli.again import only_where
from orchestrator.cli.options import ClusterOptions
from orchestrator.cli.place import opened_place
from orchestrator.cli.watching import Watching
from orchestrator.coordination.clearing import clear, gone
from orchestrator.coordination.submission import owner_of
from orchestrator.errors import ConfigError


def attend(  # noqa: PLR0913 - options of a command
    options: ClusterOptions, job_id: str, after: int, user: str | None, environ: Mapping[str, str], *, verbose: bool
) -> int:
    """Show a job from a position on; give its exit code.

    Raises:
        OrchestratorError: it cannot be shown.
    """

    async def work() -> int:
        watching = Watching(job_id, only_where(options, user), environ)
        async with opened_place(options, user, environ) as place:
            await place.check()
            found = await place.coordinators(job_id)
            with watching.reported(verbose=verbose) as report:
                owner = owner_of(found[-1]) if found else None
                return await watching.follow(place, owner, after, report, options.start_seconds)

    return asyncio.run(work())


def cancel(options: ClusterOptions, job_id: str, user: str | None, environ: Mapping[str, str]) -> int:
    """End a job in the cluster, and wait until nothing of it runs.

    Raises:
        ConfigError: nobody works on it.
        BackendError: the cluster does not let us.
    """

    async def work() -> None:
        async with opened_place(options, user, environ) as place:
            working = [owner_of(job) for job in await place.coordinators(job_id) if not has_failed(job)]
            if not working:
                message = f"nobody works on job {job_id!r} in the namespace {place.namespace}; check the id, and --user"
                raise ConfigError(message)
            for owner in working:
                await place.delete(owner)
            await gone(place, working, job_id)

    asyncio.run(work())
    return 0


def prune(options: ClusterOptions, user: str | None, environ: Mapping[str, str]) -> int:
    """Take away what ended jobs left, of all users if none is named; write the names of Jobs to stdout.

    Raises:
        BackendError: something could not be deleted.
    """

    async def work() -> tuple[str, ...]:
        async with opened_place(options, user, environ) as place:
            return await clear(place, everybody=user is None)

    for name in asyncio.run(work()):
        sys.stdout.write(f"{name}\n")
    sys.stdout.flush()
    return 0
