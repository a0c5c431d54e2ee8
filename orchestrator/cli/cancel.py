"""`perstack-orch cancel`: cancel a job in a cluster."""

import os
from typing import Annotated

import typer

from orchestrator.cli.declare import with_options
from orchestrator.cli.options import RunOptions


@with_options(RunOptions)
def cancel(options: RunOptions, job: Annotated[str, typer.Argument(metavar="JOB", help="Id of the job.")]) -> int:
    """Cancel JOB in a cluster, and wait until all of its Pods have stopped; `resume` continues it."""
    import asyncio  # noqa: PLC0415 - help does not need it

    from orchestrator.cli.cluster_client import open_cluster_client  # noqa: PLC0415 - the same
    from orchestrator.cluster.cleanup import cancel_job  # noqa: PLC0415 - the same

    async def connect_and_cancel() -> None:
        async with open_cluster_client(options, os.environ) as client:
            await cancel_job(client, job)

    asyncio.run(connect_and_cancel())
    return 0
