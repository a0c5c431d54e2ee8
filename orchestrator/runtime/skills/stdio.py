"""Skills that are MCP servers started in the Sandbox and connected through pipes.

See docs/reference/perstack.md#stdio-skills.
"""

import asyncio
import os
import shlex
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial

from orchestrator.runtime import toolchain
from orchestrator.runtime.confinement import ConfinedProcess, confine_skill
from orchestrator.runtime.errors import SkillError
from orchestrator.runtime.mcp.protocol import MESSAGE_BYTES, McpError
from orchestrator.runtime.mcp.session import open_session
from orchestrator.runtime.skills.mcp_session import McpConnection, McpSession, SkillTimeouts, emit_connected
from orchestrator.runtime.skills.stderr import SkillLog
from orchestrator.runtime.skills.stdio_transport import stdio_transport
from orchestrator.runtime.tool_context import ToolContext
from orchestrator.wire.event import SkillDisconnected, SkillStarting
from orchestrator.wire.run import Grant
from orchestrator.wire.skill import BASE_SKILL, StdioSkill

_EXIT_SECONDS = 1.0
_REMEDY = "correct it in perstack.toml, or choose an image that contains it with --image"


def command_line(skill: StdioSkill) -> tuple[str, ...]:
    """The command of a skill and its arguments (docs/reference/perstack.md#stdio-skills).

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
    skill: StdioSkill, grant: Grant, context: ToolContext, timeouts: SkillTimeouts | None = None
) -> AsyncIterator[McpSession]:
    """Start a skill in its own domain, directory and environment, and list its tools.

    Raises:
        SkillError: it does not start, or does not implement the protocol.
    """
    session: McpSession | None = None
    try:
        async with AsyncExitStack() as stack:
            session = await _open(stack, skill, grant, context, timeouts or SkillTimeouts())
            yield session
    except Exception:
        if session is not None:
            context.emitter.emit(SkillDisconnected, skill_name=skill.name)
        raise
    context.emitter.emit(SkillDisconnected, skill_name=skill.name)


async def _open(
    stack: AsyncExitStack, skill: StdioSkill, grant: Grant, context: ToolContext, timeouts: SkillTimeouts
) -> McpSession:
    command = command_line(skill)
    log = SkillLog(skill.name, context.emitter)
    context.emitter.emit(SkillStarting, skill_name=skill.name, command=command[0], args=command[1:])
    times = [time.perf_counter()]
    child = await _start(stack, skill, _resolved_command(skill, command, grant, context), grant, context)
    times.append(time.perf_counter())
    try:
        async with asyncio.timeout(timeouts.start):
            transport = await stack.enter_async_context(stdio_transport(child, log))
            client = await stack.enter_async_context(open_session(transport))
            times.append(time.perf_counter())
            tools = await client.list_tools()
    except Exception as error:
        raise SkillError(await _start_failure(skill, child, log, timeouts, error)) from error
    times.append(time.perf_counter())
    emit_connected(skill, client, times, context)
    connection = McpConnection(skill, client, partial(_call_failure, child, log), timeouts.call)
    return McpSession(connection, tools, context.new_part_id)


def _resolved_command(
    skill: StdioSkill, command: tuple[str, ...], grant: Grant, context: ToolContext
) -> tuple[str, ...]:
    """The command that is really started, since npx and uvx would fetch a package that is already installed."""
    program = grant.program
    if program is None:
        return command
    entry = str(context.packages / program.slug / program.entry)
    try:
        runner = toolchain.node(context.path) if program.runs_on_node else ()
    except toolchain.ToolMissingError as error:
        message = f"skill {skill.name!r} does not start: {error}"
        raise SkillError(message) from error
    return (*runner, entry, *program.args)


async def _start(
    stack: AsyncExitStack, skill: StdioSkill, command: tuple[str, ...], grant: Grant, context: ToolContext
) -> ConfinedProcess:
    tool = await stack.enter_async_context(confine_skill(skill.name, context, grant))
    directory = tool.open_directory()
    try:
        return await tool.spawner.start(command, env=tool.env, cwd=directory, line_bytes=MESSAGE_BYTES)
    except FileNotFoundError as error:
        sentence = f"skill {skill.name!r} does not start: command {command[0]!r} was not found; {_REMEDY}"
        raise SkillError(sentence) from error
    except (OSError, ValueError) as error:
        sentence = f"skill {skill.name!r} does not start: command {command[0]!r} cannot be run: {error}"
        raise SkillError(sentence) from error
    finally:
        os.close(directory)


async def _start_failure(
    skill: StdioSkill, child: ConfinedProcess, log: SkillLog, timeouts: SkillTimeouts, error: Exception
) -> str:
    if isinstance(error, TimeoutError):
        reason = f"did not answer within {timeouts.start:g} s"
    elif isinstance(error, McpError) and error.is_closed:
        reason = await _exit_text(child)
    else:
        reason = f"does not implement the Model Context Protocol: {error}"
    command = shlex.join(command_line(skill))
    return f"skill {skill.name!r} does not start: {command!r} {reason}{log.tail()}"


async def _call_failure(child: ConfinedProcess, log: SkillLog, error: McpError) -> str | None:
    if not error.is_closed:
        return None
    return (
        f"the skill's process {await _exit_text(child)}; none of its tools can be called "
        f"any more in this run, so go on without them{log.tail()}"  # words: a result
    )


async def _exit_text(child: ConfinedProcess) -> str:
    with suppress(TimeoutError):
        async with asyncio.timeout(_EXIT_SECONDS):
            code = await child.wait()
            return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return "closed its connection"
