"""A person in a Sandbox: `perstack-orch shell`."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from orchestrator.backends import open_backend
from orchestrator.broker.egress import Access
from orchestrator.cli import request
from orchestrator.cli.cluster import cluster_of
from orchestrator.cli.console import Console
from orchestrator.cli.options import RunOptions
from orchestrator.cli.own import own
from orchestrator.cli.render import plain
from orchestrator.cli.run import IN_CONTAINER, NO_ISOLATION
from orchestrator.cli.signals import stoppable
from orchestrator.cli.unread import NOBODY_READS
from orchestrator.errors import BackendError
from orchestrator.plan import Job
from orchestrator.shell import Listener, Wish, run_shell


def shell(options: RunOptions, skill_name: str | None, command: tuple[str, ...], environ: Mapping[str, str]) -> int:
    """Start `command`, or a shell, where the skill or else `exec` would start it; give its exit code.

    Raises:
        OrchestratorError: it could not be started, or its Sandbox ended before it did.
    """
    request.check(options)
    options = own(options)
    cwd = Path.cwd()
    config = request.configure(options, cwd)
    env = request.environment(options, config, environ, cwd)
    job = request.job(options, request.without_model(config), env.values, cwd)
    console = Console(environ)
    for note in (*config.notes, *env.notes):
        console.warn(note)
    if options.backend == "process":
        console.warn(IN_CONTAINER if environ.get("PERSTACK_CONTAINER") else NO_ISOLATION)
    return asyncio.run(_work(options, job, Wish(skill_name, command, console.screen), console, environ))


async def _work(options: RunOptions, job: Job, wish: Wish, console: Console, environ: Mapping[str, str]) -> int:
    with stoppable(console.say) as stop:
        try:
            cluster = cluster_of(options.backend, options, Path.cwd())
            async with open_backend(options.backend, environ, image=job.image, cluster=cluster) as backend:
                listener = Listener(console.attend, lambda access: console.say(_told(access)), console.say)
                await run_shell(job, backend, Path.cwd() / options.storage, wish, listener)
        except asyncio.CancelledError:
            if stop.number is None:
                raise
            return stop.exit_code
    if console.code is None and not console.unread:
        message = "the Sandbox of the shell ended before the shell did"
        raise BackendError(message)
    return NOBODY_READS if console.code is None else console.code


def _told(access: Access) -> str:
    where = plain(f"{access.skill_name or 'nobody'} to {access.host}:{access.port}")
    return f"{where} was let through" if access.allowed else f"{where} was blocked: {plain(access.reason or '')}"
