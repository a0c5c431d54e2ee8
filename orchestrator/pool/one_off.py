"""A one-off Sandbox: it does other work than a Run."""

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Never

from orchestrator.aio import exit_in_thread
from orchestrator.broker.listener import open_listener
from orchestrator.broker.run_records import RunRecords
from orchestrator.broker.server import Broker
from orchestrator.broker.session import Session
from orchestrator.disk.directory import make_below
from orchestrator.egress.policy import EgressDecision
from orchestrator.errors import SandboxLostError, WireError
from orchestrator.log import hide_in_log
from orchestrator.plan.job import Job
from orchestrator.plan.run_plan import sandbox_spec
from orchestrator.pool.launch import exit_of, linked, ready, with_link
from orchestrator.pool.state_directories import job_directory, state_directory
from orchestrator.sandbox.api import Backend, Exit, LinkKind, Sandbox, SandboxSpec, Sharing, User, VolumeBackend
from orchestrator.sandbox.keys import KEY_BYTES
from orchestrator.sandbox.naming import one_off_labels
from orchestrator.workspace.mount import copy_read_only, require_same
from orchestrator.workspace.workspace import Workspace, WorkspaceVolume

_ORDINALS = range(10**8, 10**9)
"""Numbers of one-off Sandboxes in their job; those of Runs begin at 1. Each number is random: a cluster may report a
removed Sandbox long afterwards, and that must not be confused with a new one of the same name."""


@asynccontextmanager
async def one_off(  # noqa: PLR0913 - what a Sandbox needs in addition to a job
    job: Job,
    backend: Backend,
    *,
    seconds: int,
    installs: bool = False,
    workspace: Workspace | None = None,
    report: Callable[[EgressDecision], None] = lambda _: None,
) -> AsyncIterator[tuple[Session, Sandbox]]:
    """Start a Sandbox and wait until it has connected; leaving the block removes it.

    The job's installed packages are mounted, writable if it `installs`. Without a `workspace` it gets an empty one.
    After `seconds` any process of its instance may remove it. `report` is called with every egress decision.

    Raises:
        BackendError: it could not be started.
    """
    user, ordinal = job.workspace.user, secrets.choice(_ORDINALS)
    name = f"{job.id}/errand/{os.getpid()}"
    async with AsyncExitStack() as stack:
        stack.enter_context(hide_in_log(job.secrets))
        above = await stack.enter_async_context(exit_in_thread(job_directory(job.instance, name, root=job.state_root)))
        found = workspace or await _empty_workspace(backend, above, user)
        copy_read_only(found, above)
        async with (
            exit_in_thread(state_directory(above, ordinal, user, job.events)) as (state, _),
            open_listener(backend, secrets.token_bytes(KEY_BYTES), above) as listener,
            Broker(_refuse, _NO_RECORDS, report, listener=listener) as broker,
            AsyncExitStack() as sandboxes,
        ):
            now = int(time.time())
            spec = sandbox_spec(replace(job, workspace=found), ordinal, state, now, broker.address)
            labels = one_off_labels(spec.labels, now + seconds)
            spec = replace(spec, installs=installs, labels=labels, deadline=now + seconds, urgent=False)
            try:
                opened = await sandboxes.enter_async_context(_launch(spec, found, broker, backend))
            except SandboxLostError:
                # It was lost, or its backend links the next one in another way.
                opened = await sandboxes.enter_async_context(_launch(spec, found, broker, backend))
            yield opened


@asynccontextmanager
async def _launch(
    wanted: SandboxSpec, workspace: Workspace, broker: Broker, backend: Backend
) -> AsyncIterator[tuple[Session, Sandbox]]:
    spec = await with_link(wanted, backend)
    require_same(workspace)
    async with (
        broker.listen(spec.name, spec.state, spec.user, workspace.mounted_inode, spec.link) as session,
        backend.launch(spec) as sandbox,
        linked(sandbox, session, spec.state),
    ):
        await ready(spec, session, sandbox, backend, may_change=wanted.link is LinkKind.AUTO)
        yield session, sandbox


async def run_one_off(
    job: Job,
    backend: Backend,
    assign: Callable[[Session], Awaitable[None]],
    *,
    seconds: int,
    installs: bool = False,
) -> tuple[Exit, Session]:
    """Start a Sandbox, `assign` its work, wait for its end; return its exit and its session.

    Raises:
        TimeoutError: it took longer than `seconds`.
        BackendError: it could not be started.
    """
    async with one_off(job, backend, seconds=seconds, installs=installs) as (session, sandbox):
        await assign(session)
        async with asyncio.timeout(seconds):
            return await drain(sandbox), session


async def _empty_workspace(backend: Backend, above: Path, user: User) -> Workspace:
    if isinstance(backend, VolumeBackend) and (await backend.share(above)).sharing is Sharing.NONE:
        return Workspace(above, user, volume=WorkspaceVolume(""))
    made = make_below(above, "workspace", (user.uid, user.gid), 0o700)
    return Workspace(above / "workspace", user, inode=made)


async def drain(sandbox: Sandbox) -> Exit:
    """Wait for a Sandbox's end and discard its output."""
    # Its output must be read, otherwise the Sandbox blocks when it writes.
    async for _ in sandbox.lines():
        pass
    return await exit_of(sandbox)


def _refuse(*_: object) -> Never:
    """Refuse what only a Run may do. The broker refuses such calls first, since a one-off Sandbox has no Run."""
    message = "a one-off Sandbox calls no model and stores nothing"
    raise WireError(message)


_NO_RECORDS = RunRecords(_refuse, _refuse, _refuse, _refuse)
