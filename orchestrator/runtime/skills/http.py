"""Skills that are remote MCP servers at an https endpoint (docs/reference/perstack.md#remote-skills)."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from urllib.parse import urlsplit

from orchestrator.runtime.errors import SkillError
from orchestrator.runtime.mcp.http_client import Connect, HttpClient, UnreachableError
from orchestrator.runtime.mcp.legacy_sse import legacy_sse
from orchestrator.runtime.mcp.protocol import McpError
from orchestrator.runtime.mcp.session import Session, open_session
from orchestrator.runtime.mcp.streamable_http import streamable_http
from orchestrator.runtime.mcp.tunnel import connect_through
from orchestrator.runtime.skills.mcp_session import McpConnection, McpSession, SkillTimeouts, emit_connected
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
    session: McpSession | None = None
    try:
        async with AsyncExitStack() as stack:
            session = await _open(stack, skill, grant, context, timeouts)
            yield session
    except Exception:
        if session is not None:
            context.emitter.emit(SkillDisconnected, skill_name=skill.name)
        raise
    context.emitter.emit(SkillDisconnected, skill_name=skill.name)


async def _open(
    stack: AsyncExitStack, skill: SseSkill, grant: Grant, context: ToolContext, timeouts: SkillTimeouts
) -> McpSession:
    times = [time.perf_counter()]
    if grant.proxy_credential is None:
        message = f"skill {skill.name!r} was given no proxy for its endpoint; this is a bug in perstack-orch"
        raise SkillError(message)
    port = await stack.enter_async_context(context.open_forwarder(grant.proxy_credential))
    client = HttpClient(skill.endpoint, _connector(skill, port, grant.proxy_credential))
    times.append(time.perf_counter())
    try:
        async with asyncio.timeout(timeouts.start):
            session = await _initialize(stack, client)
            times.append(time.perf_counter())
            tools = await session.list_tools()
    except Exception as error:
        raise SkillError(_start_failure(skill, timeouts, error)) from error
    times.append(time.perf_counter())
    emit_connected(skill, session, times, context)
    connection = McpConnection(skill, session, partial(_call_failure, skill), timeouts.call)
    return McpSession(connection, tools, context.new_part_id)


def _connector(skill: SseSkill, port: int, credential: str) -> Connect:
    # The system's CAs, or those in SSL_CERT_FILE, which OpenSSL reads itself.
    tls = ssl.create_default_context()
    tls.set_alpn_protocols(["http/1.1"])
    return partial(connect_through, port, credential, _host(skill), tls)


async def _initialize(stack: AsyncExitStack, client: HttpClient) -> Session:
    # Newer transport first: its servers may hold a GET open, while older servers reject a POST at once.
    try:
        async with AsyncExitStack() as opened:
            newer = await opened.enter_async_context(streamable_http(client))
            session = await opened.enter_async_context(open_session(newer))
            stack.push_async_exit(opened.pop_all())
            return session
    except McpError as error:
        if error.status not in _OLDER_TRANSPORT:
            raise
    # The older transport has no server/discover; some of its servers never answer that.
    older = await stack.enter_async_context(legacy_sse(client))
    return await stack.enter_async_context(open_session(older, discover=False))


def _start_failure(skill: SseSkill, timeouts: SkillTimeouts, error: Exception) -> str:
    problem = error.problem if isinstance(error, McpError) else None
    if problem is not None:
        reason = problem
    elif isinstance(error, UnreachableError):
        reason = str(error)
    elif isinstance(error, TimeoutError):
        reason = f"gave no answer within {timeouts.start:g} s"
    else:
        reason = f"does not implement the Model Context Protocol: {error}"
    return f"skill {skill.name!r} cannot be used: {_host(skill)} {reason}"


async def _call_failure(skill: SseSkill, error: McpError) -> str | None:
    reason = error.problem or ("ended the connection" if error.is_closed else None)
    if reason is None:
        return None
    return f"{_host(skill)} {reason}; call it again later, or go on without it"  # words: a result


def _host(skill: SseSkill) -> str:
    """The endpoint's host; the rest of the URL may contain a token."""
    return urlsplit(skill.endpoint).hostname or ""
