"""Skills that are MCP servers started in the Sandbox and spoken to over their pipes (spec 6.2)."""

import asyncio
import os
import shlex
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise

from mcp import Client, MCPError
from mcp_types import CONNECTION_CLOSED, REQUEST_TIMEOUT, Tool

from orchestrator.runtime.confine import Child, enclose
from orchestrator.runtime.domain import skill_domain, skill_home
from orchestrator.runtime.environment import base_environment, proxy_environment, without_protected
from orchestrator.runtime.skills import SkillError
from orchestrator.runtime.skills.content import to_parts
from orchestrator.runtime.skills.lines import LINE_BYTES, transport
from orchestrator.runtime.skills.stderr import SkillLog
from orchestrator.runtime.surroundings import Surroundings
from orchestrator.wire.generation import ToolDefinition
from orchestrator.wire.message import ResultPart, TextPart, ToolCall, ToolResult
from orchestrator.wire.platform_event import SkillConnected, SkillDisconnected, SkillStarting
from orchestrator.wire.run import Grant
from orchestrator.wire.skill import StdioSkill

_PAGES = 100
_EXIT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How many seconds a skill has to start, which may install it, and to answer one call (spec 5.5)."""

    start: float = 120.0
    call: float = 60.0


def command_line(skill: StdioSkill) -> tuple[str, ...]:
    """The command of a skill and its arguments (spec 6.2, E1).

    Raises:
        SkillError: it has both a package name and arguments, or neither.
    """
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
) -> AsyncIterator["StdioSession"]:
    """Start a skill in a domain, directory and environment of its own, and learn its tools.

    Raises:
        SkillError: it does not start, or does not speak the protocol.
    """
    failure: Exception | None = None
    session: StdioSession | None = None
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


@dataclass(frozen=True, slots=True)
class _Server:
    """A skill's process, the connection to it, and what it logged."""

    skill: StdioSkill
    child: Child
    client: Client
    log: SkillLog
    patience: Patience


class StdioSession:
    """An open connection to a skill.

    Args:
        server: the running skill.
        tools: what it offers, after `pick` and `omit`.
        part_id: gives an id for each part of a result.
    """

    def __init__(self, server: _Server, tools: Iterable[ToolDefinition], part_id: Callable[[], str]) -> None:
        self._server = server
        self._tools = {tool.name: tool for tool in tools}
        self._part_id = part_id

    def tools(self) -> tuple[ToolDefinition, ...]:
        """The tools it offers, after `pick` and `omit`."""
        return tuple(self._tools.values())

    async def call(self, call: ToolCall) -> ToolResult:
        """Run one tool. Whatever goes wrong in it is a result that the model can read, never an exception."""
        server = self._server
        skill, tool = server.skill.name, call.tool_name
        if tool not in self._tools:
            return self._failed(call, f"skill {skill!r} has no tool {tool!r}; use one of: {', '.join(self._tools)}")
        try:
            async with asyncio.timeout(server.patience.call):
                answer = await server.client.call_tool(tool, call.args)
            parts = to_parts(answer.content, call.args, self._part_id)
        except (MCPError, TimeoutError) as error:
            return self._failed(call, await self._explain(f"tool {tool!r} of skill {skill!r}", error))
        except Exception as error:  # noqa: BLE001 - a server is not trusted to keep to the protocol
            sentence = f"tool {tool!r} of skill {skill!r} gave an answer that the protocol does not allow: {error}"
            return self._failed(call, sentence)
        return _result(call, parts, is_error=answer.is_error)

    def _failed(self, call: ToolCall, sentence: str) -> ToolResult:
        return _result(call, (TextPart(id=self._part_id(), text=f"Error: {sentence}"),), is_error=True)

    async def _explain(self, named: str, error: MCPError | TimeoutError) -> str:
        server = self._server
        if isinstance(error, TimeoutError) or error.code == REQUEST_TIMEOUT:
            return f"{named} gave no answer within {server.patience.call:g} s; ask for less, or go on without it"
        if error.code == CONNECTION_CLOSED:
            ended = await _how_it_ended(server.child)
            return (
                f"{named} did not answer: the skill's process {ended}; none of its tools can be called any more in "
                f"this run, so go on without them{server.log.tail()}"
            )
        return f"calling {named}: {error}"


def _result(call: ToolCall, parts: tuple[ResultPart, ...], *, is_error: bool | None) -> ToolResult:
    return ToolResult(
        id=call.id,
        skill_name=call.skill_name,
        tool_name=call.tool_name,
        result=parts,
        is_error=True if is_error else None,
    )


async def _open(
    stack: AsyncExitStack, skill: StdioSkill, grant: Grant, surroundings: Surroundings, patience: Patience
) -> StdioSession:
    command = command_line(skill)
    log = SkillLog(skill.name, surroundings.emitter)
    surroundings.emitter.emit(SkillStarting, skill_name=skill.name, command=command[0], args=command[1:])
    times = [time.perf_counter()]
    child = await _start(stack, skill, command, grant, surroundings)
    times.append(time.perf_counter())
    try:
        async with asyncio.timeout(patience.start):
            client = await stack.enter_async_context(Client(transport(child, log), cache=None))
            times.append(time.perf_counter())
            tools = [tool async for tool in _discover(client)]
    except Exception as error:
        raise SkillError(await _why_not(skill, child, log, patience, error)) from error
    times.append(time.perf_counter())
    _tell(skill, client, times, surroundings)
    offered = [
        ToolDefinition(name=tool.name, description=tool.description, input_schema=tool.input_schema)
        for tool in tools
        if tool.name not in skill.omit and (not skill.pick or tool.name in skill.pick)
    ]
    return StdioSession(_Server(skill, child, client, log, patience), offered, surroundings.part_id)


async def _start(
    stack: AsyncExitStack, skill: StdioSkill, command: tuple[str, ...], grant: Grant, surroundings: Surroundings
) -> Child:
    home = skill_home(surroundings, skill.name)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    env, port = base_environment(surroundings.path, home), None
    if grant.proxy_credential is not None:
        port = await stack.enter_async_context(surroundings.open_forwarder(grant.proxy_credential))
        env |= proxy_environment(port, grant.proxy_credential)
    env |= without_protected(grant.env)
    enclosure = await stack.enter_async_context(enclose(skill_domain(surroundings, home, port)))
    cwd = os.open(home, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return await enclosure.start(command, env=env, cwd=cwd, line_bytes=LINE_BYTES)
    except FileNotFoundError as error:
        sentence = f"skill {skill.name!r} does not start: command {command[0]!r} was not found in the runtime image"
        raise SkillError(sentence) from error
    except (OSError, ValueError) as error:
        sentence = f"skill {skill.name!r} does not start: command {command[0]!r} cannot be run: {error}"
        raise SkillError(sentence) from error
    finally:
        os.close(cwd)


async def _discover(client: Client) -> AsyncIterator[Tool]:
    cursor = None
    for _ in range(_PAGES):
        page = await client.list_tools(cursor=cursor)
        for tool in page.tools:
            yield tool
        cursor = page.next_cursor
        if cursor is None:
            return


def _tell(skill: StdioSkill, client: Client, times: Sequence[float], surroundings: Surroundings) -> None:
    spawn, handshake, discovery = ((after - before) * 1000 for before, after in pairwise(times))
    info = client.server_info
    surroundings.emitter.emit(
        SkillConnected,
        skill_name=skill.name,
        server_info=None if info is None else {"name": info.name, "version": info.version},
        spawn_duration_ms=spawn,
        handshake_duration_ms=handshake,
        tool_discovery_duration_ms=discovery,
        connect_duration_ms=spawn + handshake,
        total_duration_ms=spawn + handshake + discovery,
    )


async def _why_not(skill: StdioSkill, child: Child, log: SkillLog, patience: Patience, error: Exception) -> str:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, TimeoutError):
        reason = f"did not answer within {patience.start:g} s"
    elif isinstance(error, MCPError) and error.code == CONNECTION_CLOSED:
        reason = await _how_it_ended(child)
    else:
        reason = f"does not speak the Model Context Protocol: {error}"
    command = shlex.join(command_line(skill))
    return f"skill {skill.name!r} does not start: {command!r} {reason}{log.tail()}"


async def _how_it_ended(child: Child) -> str:
    with suppress(TimeoutError):
        async with asyncio.timeout(_EXIT_SECONDS):
            code = await child.wait()
            return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return "closed its connection"
