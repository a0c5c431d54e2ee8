"""A Sandbox that is given something other than a Run."""

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Never

from orchestrator.backends.naming import errand_labels
from orchestrator.backends.shielded import in_loop, left_apart
from orchestrator.broker.egress import Access
from orchestrator.broker.ledger import Ledger
from orchestrator.broker.server import Broker
from orchestrator.broker.session import Session
from orchestrator.disk.directory import make_below
from orchestrator.entering import opened_door
from orchestrator.errors import WireError
from orchestrator.keys import KEY_BYTES
from orchestrator.launching import exit_of, ready
from orchestrator.mounting import copy_read_only, require_same
from orchestrator.plan import Job, sandbox_spec
from orchestrator.providers import Provider
from orchestrator.sandbox import Backend, Exit, Sandbox, User
from orchestrator.state import job_directory, state_directory
from orchestrator.workspace import Workspace

_ORDINALS = range(10**8, 10**9)
"""Numbers of such Sandboxes in their job, where those of Runs begin at 1. Each is drawn anew: a cluster may tell of one
that ended long after it was removed, and the next of the same name would be taken for it."""


@asynccontextmanager
async def errand(  # noqa: PLR0913 - what a Sandbox needs beside a job
    job: Job,
    backend: Backend,
    *,
    seconds: int,
    packages: Path | None,
    installs: bool = False,
    workspace: Workspace | None = None,
    report: Callable[[Access], None] = lambda _: None,
    announce: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[tuple[Session, Sandbox]]:
    """Start a Sandbox and wait until it is there; leaving the block removes it.

    `packages` is mounted at /packages, to be written to if it `installs`. Without a `workspace` it gets an empty one.
    After `seconds` anybody of its instance may remove it. `report` hears every decision of the proxy, `announce` what
    of its files could not be removed.

    Raises:
        BackendError: it could not be started.
    """
    user, ordinal = job.workspace.user, secrets.choice(_ORDINALS)
    name = f"{job.id}/errand/{os.getpid()}"
    async with left_apart(job_directory(job.instance, name, root=job.state_root, note=in_loop(announce))) as above:
        found = workspace or _empty(above, user)
        copy_read_only(found, above)
        async with (
            left_apart(state_directory(above, ordinal, user, job.events)) as (state, _),
            opened_door(backend, secrets.token_bytes(KEY_BYTES), above, lambda _: None) as door,
            Broker(_no_model, _NO_LEDGER, report, door=door) as broker,
        ):
            now = int(time.time())
            spec = sandbox_spec(replace(job, workspace=found), ordinal, state, now, broker.address)
            labels = errand_labels(spec.labels, now + seconds)
            spec = replace(
                spec, packages=packages, installs=installs, labels=labels, deadline=now + seconds, urgent=False
            )
            require_same(found)
            async with (
                broker.listen(spec.name, state, user, found.inode) as session,
                backend.launch(spec) as sandbox,
            ):
                await ready(spec.name, session, sandbox)
                yield session, sandbox


async def run_errand(  # noqa: PLR0913 - the errand, and what it needs beside a job
    job: Job,
    backend: Backend,
    assign: Callable[[Session], Awaitable[None]],
    *,
    seconds: int,
    packages: Path | None,
    installs: bool = False,
    announce: Callable[[str], None] = lambda _: None,
) -> tuple[Exit, Session]:
    """Start a Sandbox, `assign` it its errand, wait for its end; give that and what its session holds.

    Raises:
        TimeoutError: it took longer than `seconds`.
        BackendError: it could not be started.
    """
    async with errand(job, backend, seconds=seconds, packages=packages, installs=installs, announce=announce) as (
        session,
        sandbox,
    ):
        await assign(session)
        async with asyncio.timeout(seconds):
            return await drained(sandbox), session


def _empty(above: Path, user: User) -> Workspace:
    made = make_below(above, "workspace", (user.uid, user.gid), 0o700)
    return Workspace(above / "workspace", user, inode=made)


async def drained(sandbox: Sandbox) -> Exit:
    """Wait for a Sandbox's end, whatever it writes."""
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
