"""A Sandbox that is given something other than a Run, with an empty workspace, and awaited."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Never

from orchestrator.broker.ledger import Ledger
from orchestrator.broker.server import Broker
from orchestrator.broker.session import Session
from orchestrator.errors import WireError
from orchestrator.launching import exit_of, ready
from orchestrator.plan import Job, sandbox_spec
from orchestrator.providers import Provider
from orchestrator.sandbox import Backend, Exit, Sandbox
from orchestrator.state import job_directory, state_directory

_ORDINAL = 0
"""The number of such a Sandbox in its job; those of Runs begin at 1."""


async def run_errand(  # noqa: PLR0913 - the errand, and what it needs beside a job
    job: Job,
    backend: Backend,
    assign: Callable[[Session], Awaitable[None]],
    *,
    seconds: float,
    packages: Path | None,
    installs: bool = False,
) -> tuple[Exit, Session]:
    """Start a Sandbox, `assign` it its errand, wait for its end; give that and what its session holds.

    `packages` is mounted at /packages, to be written to if it `installs`.

    Raises:
        TimeoutError: it took longer than `seconds`.
        BackendError: it could not be started.
    """
    user = job.workspace.user
    with job_directory(job.instance, f"{job.id}/errand/{os.getpid()}") as above:
        workspace = above / "workspace"
        workspace.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(workspace, user.uid, user.gid)
        with state_directory(above, _ORDINAL, user, job.events) as (state, _):
            spec = replace(
                sandbox_spec(job, _ORDINAL, state, int(time.time())),
                workspace=workspace,
                read_only=(),
                hidden=(),
                packages=packages,
                installs=installs,
            )
            async with (
                Broker(_no_model, _NO_LEDGER, lambda _: None) as broker,
                broker.listen(state, user) as session,
                backend.launch(spec) as sandbox,
            ):
                await ready(spec.name, session, sandbox)
                await assign(session)
                async with asyncio.timeout(seconds):
                    return await _ended(sandbox), session


async def _ended(sandbox: Sandbox) -> Exit:
    # Somebody must read what it writes, or it waits for that for ever.
    async for _ in sandbox.lines():
        pass
    return await exit_of(sandbox)


@asynccontextmanager
async def _no_model() -> AsyncIterator[Provider]:
    message = "an errand calls no model"
    raise WireError(message)
    yield


async def _nothing_to_keep(*_: object) -> Never:
    message = "an errand keeps nothing"
    raise WireError(message)


_NO_LEDGER = Ledger(_nothing_to_keep, _nothing_to_keep, _nothing_to_keep, _nothing_to_keep)
