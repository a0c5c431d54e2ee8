"""Skills that are MCP servers started in the Sandbox and spoken to over their pipes (spec 6.2)."""

import asyncio
import os
import shlex
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial

from mcp import Client, MCPError
from mcp_types import CONNECTION_CLOSED

from orchestrator.runtime import toolchain
from orchestrator.runtime.confine import Child
from orchestrator.runtime.enclosed import for_skill
from orchestrator.runtime.errors import SkillError
from orchestrator.runtime.skills.lines import LINE_BYTES, transport
from orchestrator.runtime.skills.mcp_session import Connection, McpSession, Patience, discover, innermost, tell
from orchestrator.runtime.skills.stderr import SkillLog
from orchestrator.runtime.surroundings import Surroundings
from orchestrator.wire.platform_event import SkillDisconnected, SkillStarting
from orchestrator.wire.run import Grant
from orchestrator.wire.skill import BASE_SKILL, StdioSkill

_EXIT_SECONDS = 1.0
_REMEDY = "correct it in perstack.toml, or name an image that has it by --image"


def command_line(skill: StdioSkill) -> tuple[str, ...]:
    """The command of a skill and its arguments (spec 6.2, E1).

    Raises:
        SkillError: it has both a package name and arguments, or neither.
    """
    if skill.name == BASE_SKILL and skill.package_name is None:
        return skill.command, *skill.args  # perstackBaseSkillCommand may be one word.
    if bool(skill.package_name) == bool(skill.args):
        has = "both packageName and args" if skill.args else "neither packageName nor args"
        message = f"skill {skill.name!r} has {has}; give exactly one of them in perstack.toml"
        raise SkillError(message)
    args = skill.args or (skill.package_name or "",)
    if skill.command == "npx" and "-y" not in args:
        args = ("-y", *args)
    return skill.command, *args


@asynccontextmanager
async def connect(
    skill: StdioSkill, grant: Grant, surroundings: Surroundings, patience: Patience | None = None
) -> AsyncIterator[McpSession]:
    """Start a skill in a domain, directory and environment of its own, and learn its tools.

    Raises:
        SkillError: it does not start, or does not speak the protocol.
    """
    failure: Exception | None = None
    session: McpSession | None = None
    async with AsyncExitStack() as stack:
        # Kept from the stack, whose task groups would wrap it in groups of their own.
        try:
            session = await _open(stack, skill, grant, surroundings, patience or Patience())
            yield session
        except Exception as error:  # noqa: BLE001 - raised again below
            failure = error
    if session is not None:
        surroundings.emitter.emit(SkillDisconnected, skill_name=skill.name)
    if failure is not None:
        raise failure


async def _open(
    stack: AsyncExitStack, skill: StdioSkill, grant: Grant, surroundings: Surroundings, patience: Patience
) -> McpSession:
    command = command_line(skill)
    log = SkillLog(skill.name, surroundings.emitter)
    surroundings.emitter.emit(SkillStarting, skill_name=skill.name, command=command[0], args=command[1:])
    times = [time.perf_counter()]
    child = await _start(stack, skill, _actual(skill, command, grant, surroundings), grant, surroundings)
    times.append(time.perf_counter())
    try:
        async with asyncio.timeout(patience.start):
            client = await stack.enter_async_context(Client(transport(child, log), cache=None))
            times.append(time.perf_counter())
            tools = [tool async for tool in discover(client)]
    except Exception as error:
        raise SkillError(await _why_not(skill, child, log, patience, error)) from error
    times.append(time.perf_counter())
    tell(skill, client, times, surroundings)
    connection = Connection(skill, client, partial(_why_no_answer, child, log), patience.call)
    return McpSession(connection, tools, surroundings.part_id)


def _actual(skill: StdioSkill, command: tuple[str, ...], grant: Grant, surroundings: Surroundings) -> tuple[str, ...]:
    """What is really started: npx and uvx would fetch what is installed already."""
    program = grant.program
    if program is None:
        return command
    entry = str(surroundings.packages / program.slug / program.entry)
    try:
        runner = toolchain.node(surroundings.path) if program.runs_on_node else ()
    except toolchain.ToolMissingError as error:
        message = f"skill {skill.name!r} does not start: {error}"
        raise SkillError(message) from error
    return (*runner, entry, *program.args)


async def _start(
    stack: AsyncExitStack, skill: StdioSkill, command: tuple[str, ...], grant: Grant, surroundings: Surroundings
) -> Child:
    place = await stack.enter_async_context(for_skill(skill.name, surroundings, grant))
    directory = place.open_directory()
    try:
        return await place.enclosure.start(command, env=place.env, cwd=directory, line_bytes=LINE_BYTES)
    except FileNotFoundError as error:
        sentence = f"skill {skill.name!r} does not start: command {command[0]!r} was not found; {_REMEDY}"
        raise SkillError(sentence) from error
    except (OSError, ValueError) as error:
        sentence = f"skill {skill.name!r} does not start: command {command[0]!r} cannot be run: {error}"
        raise SkillError(sentence) from error
    finally:
        os.close(directory)


async def _why_not(skill: StdioSkill, child: Child, log: SkillLog, patience: Patience, error: Exception) -> str:
    error = innermost(error)
    if isinstance(error, TimeoutError):
        reason = f"did not answer within {patience.start:g} s"
    elif isinstance(error, MCPError) and error.code == CONNECTION_CLOSED:
        reason = await _how_it_ended(child)
    else:
        reason = f"does not speak the Model Context Protocol: {error}"
    command = shlex.join(command_line(skill))
    return f"skill {skill.name!r} does not start: {command!r} {reason}{log.tail()}"


async def _why_no_answer(child: Child, log: SkillLog, error: MCPError) -> str | None:
    if error.code != CONNECTION_CLOSED:
        return None
    return (
        f"the skill's process {await _how_it_ended(child)}; none of its tools can be called any more in this run, "
        f"so go on without them{log.tail()}"
    )


async def _how_it_ended(child: Child) -> str:
    with suppress(TimeoutError):
        async with asyncio.timeout(_EXIT_SECONDS):
            code = await child.wait()
            return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return "closed its connection"
