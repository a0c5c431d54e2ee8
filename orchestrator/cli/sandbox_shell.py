"""A shell in an Expert's Sandbox, connected to this terminal."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.backends import isolates, open_backend
from orchestrator.cli.broken_pipe import BROKEN_PIPE
from orchestrator.cli.build_job import (
    build_job,
    check_options,
    load_config,
    load_environment,
    without_model,
)
from orchestrator.cli.cluster_options import read_cluster_setting
from orchestrator.cli.job_report import isolation_warning
from orchestrator.cli.options import RunOptions
from orchestrator.cli.output.log_lines import show_log
from orchestrator.cli.output.render import plain
from orchestrator.cli.output.shell_terminal import ShellTerminal
from orchestrator.cli.signals import stop_on_signals
from orchestrator.cli.user_dirs import resolve_user_dirs
from orchestrator.egress.policy import EgressDecision
from orchestrator.errors import BackendError
from orchestrator.explain.shell_session import ShellHandlers, ShellRequest, run_shell
from orchestrator.plan.job import Job


def open_shell(options: RunOptions, skill: str | None, command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run `command`, by default a shell, as `skill`, by default as `exec`; return its exit code.

    Raises:
        OrchestratorError: the shell could not be started, or its Sandbox ended before it.
    """
    check_options(options)
    options = resolve_user_dirs(options)
    cwd = Path.cwd()
    config = load_config(options, cwd)
    env = load_environment(options, config, environ, cwd)
    job = build_job(without_model(options), config, env.values, cwd)
    terminal = ShellTerminal(environ)
    for note in (*config.notes, *env.notes):
        terminal.warn(note)
    if not isolates(options.backend):
        terminal.warn(isolation_warning(environ))
    return asyncio.run(
        _run(options, job, ShellRequest(skill, tuple(command), terminal.terminal_info), terminal, environ)
    )


async def _run(
    options: RunOptions, job: Job, request: ShellRequest, terminal: ShellTerminal, environ: Mapping[str, str]
) -> int:
    """Run the shell; return its exit code.

    Raises:
        OrchestratorError: the shell could not be started, or its Sandbox ended before it.
    """
    with show_log(terminal), stop_on_signals(terminal.info) as stop:
        try:
            cluster = read_cluster_setting(options, Path.cwd())
            async with open_backend(options.backend, environ, image=job.image, cluster=cluster) as backend:
                listener = ShellHandlers(terminal.serve, lambda access: terminal.info(_decision_text(access)))
                await run_shell(job, backend, Path.cwd() / options.storage, request, listener)
        except asyncio.CancelledError:
            if stop.signal_number is None:
                raise
            return stop.exit_code
    if terminal.code is None and not terminal.is_output_closed:
        message = "the Sandbox of the shell ended before the shell did"
        raise BackendError(message)
    return BROKEN_PIPE if terminal.code is None else terminal.code


def _decision_text(access: EgressDecision) -> str:
    connection = plain(f"{access.skill_name or 'an unknown skill'} to {access.host}:{access.port}")
    if access.allowed:
        return f"{connection} was allowed"
    return f"{connection} was blocked: {plain(access.reason or '')}"
