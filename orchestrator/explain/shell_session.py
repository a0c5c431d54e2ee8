"""A shell in a Sandbox like an Expert's: to check what it can read, reach or break from inside."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.broker.assignment import TerminalHandler
from orchestrator.egress.policy import EgressDecision
from orchestrator.errors import BackendError, ConfigError
from orchestrator.jobs.workspace_copy import discarded_copy
from orchestrator.packages.skill_packages import install_packages
from orchestrator.plan.job import Job
from orchestrator.plan.run_plan import DEADLINE_SECONDS, first, plan
from orchestrator.plan.validation import check_environment
from orchestrator.pool.one_off import drain, one_off
from orchestrator.sandbox.api import Backend
from orchestrator.sandbox.keys import KEY_BYTES
from orchestrator.units import now
from orchestrator.wire.expert import Expert
from orchestrator.wire.masking import hide
from orchestrator.wire.skill import InteractiveSkill
from orchestrator.wire.terminal import Shell, TerminalInfo
from orchestrator.workspace.mount import ensure, remember


@dataclass(frozen=True, slots=True)
class ShellRequest:
    """The program to start: see `wire.terminal.Shell`. Without `skill_name` it is what `exec` would start."""

    skill_name: str | None = None
    command: tuple[str, ...] = ()
    screen: TerminalInfo | None = None


@dataclass(frozen=True, slots=True)
class ShellHandlers:
    """Callbacks: `attend` serves the terminal, `report` gets egress decisions."""

    attend: TerminalHandler
    report: Callable[[EgressDecision], None] = lambda _: None


async def run_shell(job: Job, backend: Backend, store: Path, request: ShellRequest, listener: ShellHandlers) -> None:
    """Start a program in a Sandbox of the job's Expert, with what a Run of it is granted, and wait for its end.

    Raises:
        ConfigError: the Expert has no such skill, or a variable that it declares has no value.
        BackendError: the Sandbox could not be started, or ended before the program did.
    """
    _check_skill(job.expert, request.skill_name)
    check_environment(job, (job.expert,))
    await backend.check()
    job = replace(job, workspace=ensure(job.workspace))
    remember(job.workspace, job.platform)
    job = await install_packages(job, backend, store, (job.expert,))
    planned = plan(job, first(job), secrets.token_bytes(KEY_BYTES), now())
    shell = Shell(run=planned.run, skill_name=request.skill_name, command=request.command, screen=request.screen)
    authority = replace(planned.authority, max_generations=0, delegates=frozenset())
    async with (
        discarded_copy(job, backend) as job,
        one_off(
            job,
            backend,
            seconds=DEADLINE_SECONDS,
            workspace=job.workspace,
            report=listener.report,
        ) as (session, sandbox),
    ):
        await session.assign_shell(shell, authority, listener.attend)
        ended = await drain(sandbox)
    if ended.code != 0:
        reason = hide(job.secrets)(ended.last_line or "it gave no reason")
        message = f"the Sandbox of the shell ended ({ended.reason}, exit code {ended.code}): {reason}"
        raise BackendError(message)


def _check_skill(expert: Expert, name: str | None) -> None:
    usable = [skill.name for skill in expert.skills if not isinstance(skill, InteractiveSkill)]
    if name is not None and name not in usable:
        known = ", ".join(usable) or "none"
        message = f"Expert {expert.key!r} has no skill {name!r} that runs in a Sandbox; it has {known}"
        raise ConfigError(message)
