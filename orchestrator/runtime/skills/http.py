"""Skills that are remote MCP servers at an https endpoint (docs/reference/perstack.md#remote-skills)."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpx2
from mcp import Client, MCPError
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CONNECTION_CLOSED

from orchestrator.runtime.errors import SkillError
from orchestrator.runtime.skills.http_transport import HttpTransport
from orchestrator.runtime.skills.mcp_session import (
    McpConnection,
    McpSession,
    SkillTimeouts,
    discover,
    emit_connected,
    innermost,
)
from orchestrator.runtime.skills.stdio_transport import LINE_BYTES
from orchestrator.runtime.tool_context import ToolContext
from orchestrator.wire.event import SkillDisconnected
from orchestrator.wire.run import Grant
from orchestrator.wire.skill import SseSkill

_TIMEOUTS = SkillTimeouts(start=30.0, call=60.0)

_OLDER_TRANSPORT = (400, 404, 405)
"""Status codes with which servers of the older transport reject a POST to their endpoint (MCP 2025-11-25)."""


@asynccontextmanager
async def connect(
    skill: SseSkill, grant: Grant, context: ToolContext, timeouts: SkillTimeouts = _TIMEOUTS
) -> AsyncIterator[McpSession]:
    """Connect to a skill's endpoint through the skill's own proxy, and list its tools.

    Raises:
        SkillError: the endpoint cannot be reached, or does not implement the protocol.
    """
    failure: Exception | None = None
    session: McpSession | None = None
    async with AsyncExitStack() as stack:
        # The exit stack must not see the error: its task groups would wrap it in exception groups.
        try:
            session = await _open(stack, skill, grant, context, timeouts)
            yield session
        except Exception as error:  # noqa: BLE001 - raised again below
            failure = error
    if session is not None:
        context.emitter.emit(SkillDisconnected, skill_name=skill.name)
    if failure is not None:
        raise failure


async def _open(
    stack: AsyncExitStack, skill: SseSkill, grant: Grant, context: ToolContext, timeouts: SkillTimeouts
) -> McpSession:
    times = [time.perf_counter()]
    if grant.proxy_credential is None:
        message = f"skill {skill.name!r} was given no proxy for its endpoint; this is a bug in perstack-orch"
        raise SkillError(message)
    port = await stack.enter_async_context(context.open_forwarder(grant.proxy_credential))
    transport = HttpTransport(f"http://127.0.0.1:{port}", grant.proxy_credential)
    times.append(time.perf_counter())
    try:
        async with asyncio.timeout(timeouts.start):
            client = await _initialize(stack, skill, transport)
            times.append(time.perf_counter())
            tools = [tool async for tool in discover(client)]
    except Exception as error:
        raise SkillError(_start_failure(skill, transport, timeouts, error)) from error
    times.append(time.perf_counter())
    emit_connected(skill, client, times, context)
    connection = McpConnection(skill, client, partial(_call_failure, skill, transport), timeouts.call)
    return McpSession(connection, tools, context.new_part_id)


async def _initialize(stack: AsyncExitStack, skill: SseSkill, transport: HttpTransport) -> Client:
    # Newer transport first: its servers may hold a GET open, while older servers reject a POST at once.
    http = await stack.enter_async_context(transport.client())
    newer = streamable_http_client(skill.endpoint, http_client=http, max_sse_event_size=LINE_BYTES)
    try:
        return await stack.enter_async_context(Client(newer, cache=None))
    except Exception:
        if transport.status not in _OLDER_TRANSPORT:
            raise

    def through(**_: Any) -> AbstractAsyncContextManager[httpx2.AsyncClient]:
        return transport.client()

    # The older transport has no server/discover; some of its servers never answer that.
    older = sse_client(skill.endpoint, httpx_client_factory=through)  # type: ignore[arg-type]  # entered, no more
    return await stack.enter_async_context(Client(older, cache=None, mode="legacy"))


def _start_failure(skill: SseSkill, transport: HttpTransport, timeouts: SkillTimeouts, error: Exception) -> str:
    host = urlsplit(skill.endpoint).hostname  # The rest of an endpoint may contain a token.
    inner = innermost(error)
    if transport.problem is not None:
        reason = transport.problem
    elif isinstance(inner, TimeoutError):
        reason = f"gave no answer within {timeouts.start:g} s"
    else:
        reason = f"does not implement the Model Context Protocol: {inner}"
    return f"skill {skill.name!r} cannot be used: {host} {reason}"


async def _call_failure(skill: SseSkill, transport: HttpTransport, error: MCPError) -> str | None:
    reason = transport.problem or ("ended the connection" if error.code == CONNECTION_CLOSED else None)
    if reason is None:
        return None
    return f"{urlsplit(skill.endpoint).hostname} {reason}; call it again later, or go on without it"  # words: a result
