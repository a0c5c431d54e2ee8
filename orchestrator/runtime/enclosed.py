"""What `exec` and skills start in: a domain, the environment that goes with it, and a directory."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.runtime.confine import Enclosure, enclose
from orchestrator.runtime.domain import Domain, exec_domain, exec_home, skill_domain, skill_home
from orchestrator.runtime.environment import base_environment, proxy_environment, without_protected
from orchestrator.runtime.surroundings import Surroundings
from orchestrator.wire.run import Grant
from orchestrator.wire.skill import BASE_SKILL


@dataclass(frozen=True, slots=True)
class Enclosed:
    """An open enclosure, the environment of what is started in it, and the directory that a program begins in."""

    enclosure: Enclosure
    env: Mapping[str, str]
    directory: Path

    def open_directory(self) -> int:
        """Open the directory, for `Enclosure.start`; the caller closes it."""
        return os.open(self.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


@asynccontextmanager
async def for_exec(surroundings: Surroundings, grant: Grant) -> AsyncIterator[Enclosed]:
    """Open what commands run in. Leaving the block ends them."""
    async with AsyncExitStack() as stack:
        home = exec_home(surroundings)
        env, _ = await _environment(stack, home, surroundings, grant)
        enclosure = await stack.enter_async_context(enclose(exec_domain(surroundings)))
        yield Enclosed(enclosure, env, surroundings.workspace)


@asynccontextmanager
async def for_skill(skill_name: str, surroundings: Surroundings, grant: Grant) -> AsyncIterator[Enclosed]:
    """Open what a skill runs in. Leaving the block ends it.

    Another base skill takes its working directory for the workspace; what it is granted, `exec` would have as well.
    """
    async with AsyncExitStack() as stack:
        home = skill_home(surroundings, skill_name)
        env, port = await _environment(stack, home, surroundings, grant)
        domain: Domain = skill_domain(surroundings, home, port)
        enclosure = await stack.enter_async_context(enclose(domain))
        yield Enclosed(enclosure, env, surroundings.workspace if skill_name == BASE_SKILL else home)


async def _environment(
    stack: AsyncExitStack, home: Path, surroundings: Surroundings, grant: Grant
) -> tuple[dict[str, str], int | None]:
    """Make the home; give the variables, and the port of the proxy where there is one."""
    _make(home)
    env, port = base_environment(surroundings.path, home), None
    if grant.proxy_credential is not None:
        port = await stack.enter_async_context(surroundings.open_forwarder(grant.proxy_credential))
        env |= proxy_environment(port, grant.proxy_credential)
    return env | without_protected(grant.env), port


def _make(home: Path) -> None:
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
