"""A shell in the very Sandbox that an Expert gets: to look for what it can read, reach or break from inside."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.broker.assignment import Attend
from orchestrator.broker.egress import Access
from orchestrator.checks import check_environment
from orchestrator.clock import now
from orchestrator.errand import drained, errand
from orchestrator.errors import BackendError, ConfigError
from orchestrator.keys import KEY_BYTES
from orchestrator.mounting import ensure, remember
from orchestrator.packages import with_packages
from orchestrator.plan import DEADLINE_SECONDS, Job, first, plan
from orchestrator.sandbox import Backend
from orchestrator.wire.expert import Expert
from orchestrator.wire.masking import hide
from orchestrator.wire.shell import Screen, Shell
from orchestrator.wire.skill import InteractiveSkill


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be started: see `wire.shell.Shell`. Without `skill_name` it is what `exec` would start."""

    skill_name: str | None = None
    command: tuple[str, ...] = ()
    screen: Screen | None = None


@dataclass(frozen=True, slots=True)
class Listener:
    """Who is told what: `attend` serves the terminal, `report` hears the proxy, `announce` what takes long."""

    attend: Attend
    report: Callable[[Access], None] = lambda _: None
    announce: Callable[[str], None] = lambda _: None


async def run_shell(job: Job, backend: Backend, store: Path, wish: Wish, listener: Listener) -> None:
    """Start a program in a Sandbox of the job's Expert, with what a Run of it is granted, and wait for its end.

    Raises:
        ConfigError: the Expert has no such skill, or a variable that it declares has no value.
        BackendError: the Sandbox could not be started, or ended before the program did.
    """
    _check_skill(job.expert, wish.skill_name)
    check_environment(job, (job.expert,))
    await backend.check()
    job = replace(job, workspace=ensure(job.workspace))
    remember(job.workspace, job.platform)
    job = await with_packages(job, backend, store, listener.announce, (job.expert,))
    planned = plan(job, first(job), secrets.token_bytes(KEY_BYTES), now())
    shell = Shell(run=planned.run, skill_name=wish.skill_name, command=wish.command, screen=wish.screen)
    authority = replace(planned.authority, max_generations=0, delegates=frozenset())
    async with errand(
        job,
        backend,
        seconds=DEADLINE_SECONDS,
        packages=job.shelf.directory,
        workspace=job.workspace,
        report=listener.report,
        announce=listener.announce,
    ) as (session, sandbox):
        await session.assign_shell(shell, authority, listener.attend)
        ended = await drained(sandbox)
    if ended.code != 0:
        said = hide(job.secrets)(ended.last_words or "it gave no reason")
        message = f"the Sandbox of the shell ended ({ended.reason}, exit code {ended.code}): {said}"
        raise BackendError(message)


def _check_skill(expert: Expert, name: str | None) -> None:
    usable = [skill.name for skill in expert.skills if not isinstance(skill, InteractiveSkill)]
    if name is not None and name not in usable:
        known = ", ".join(usable) or "none"
        message = f"Expert {expert.key!r} has no skill {name!r} that runs in a Sandbox; it has {known}"
        raise ConfigError(message)
