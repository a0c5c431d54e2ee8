"""Skills that are MCP servers elsewhere, reached at an https endpoint (spec 6.3)."""

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
from orchestrator.runtime.skills.http_way import Way
from orchestrator.runtime.skills.lines import LINE_BYTES
from orchestrator.runtime.skills.mcp_session import Connection, McpSession, Patience, discover, innermost, tell
from orchestrator.runtime.surroundings import Surroundings
from orchestrator.wire.platform_event import SkillDisconnected
from orchestrator.wire.run import Grant
from orchestrator.wire.skill import SseSkill

_PATIENCE = Patience(start=30.0, call=60.0)

_SPEAKS_THE_OLDER = (400, 404, 405)
"""What a server of the older transport answers to a message that is posted to its endpoint (MCP 2025-11-25)."""


@asynccontextmanager
async def connect(
    skill: SseSkill, grant: Grant, surroundings: Surroundings, patience: Patience = _PATIENCE
) -> AsyncIterator[McpSession]:
    """Connect to a skill's endpoint through the proxy of its own, and learn its tools.

    Raises:
        SkillError: it cannot be reached, or does not speak the protocol.
    """
    failure: Exception | None = None
    session: McpSession | None = None
    async with AsyncExitStack() as stack:
        # Kept from the stack, whose task groups would wrap it in groups of their own.
        try:
            session = await _open(stack, skill, grant, surroundings, patience)
            yield session
        except Exception as error:  # noqa: BLE001 - raised again below
            failure = error
    if session is not None:
        surroundings.emitter.emit(SkillDisconnected, skill_name=skill.name)
    if failure is not None:
        raise failure


async def _open(
    stack: AsyncExitStack, skill: SseSkill, grant: Grant, surroundings: Surroundings, patience: Patience
) -> McpSession:
    times = [time.perf_counter()]
    if grant.proxy_credential is None:
        message = f"skill {skill.name!r} was given no way to its endpoint; this is a fault of perstack-orch"
        raise SkillError(message)
    port = await stack.enter_async_context(surroundings.open_forwarder(grant.proxy_credential))
    way = Way(f"http://127.0.0.1:{port}", grant.proxy_credential)
    times.append(time.perf_counter())
    try:
        async with asyncio.timeout(patience.start):
            client = await _shake_hands(stack, skill, way)
            times.append(time.perf_counter())
            tools = [tool async for tool in discover(client)]
    except Exception as error:
        raise SkillError(_why_not(skill, way, patience, error)) from error
    times.append(time.perf_counter())
    tell(skill, client, times, surroundings)
    connection = Connection(skill, client, partial(_why_no_answer, skill, way), patience.call)
    return McpSession(connection, tools, surroundings.part_id)


async def _shake_hands(stack: AsyncExitStack, skill: SseSkill, way: Way) -> Client:
    # Newest first: a server of the newer transport may hold a GET open, while one of the older refuses a POST at once.
    http = await stack.enter_async_context(way.client())
    newer = streamable_http_client(skill.endpoint, http_client=http, max_sse_event_size=LINE_BYTES)
    try:
        return await stack.enter_async_context(Client(newer, cache=None))
    except Exception:
        if way.status not in _SPEAKS_THE_OLDER:
            raise

    def through(**_: Any) -> AbstractAsyncContextManager[httpx2.AsyncClient]:
        return way.client()

    # The older one has no server/discover, to which some of its servers give no answer at all.
    older = sse_client(skill.endpoint, httpx_client_factory=through)  # type: ignore[arg-type]  # entered, no more
    return await stack.enter_async_context(Client(older, cache=None, mode="legacy"))


def _why_not(skill: SseSkill, way: Way, patience: Patience, error: Exception) -> str:
    host = urlsplit(skill.endpoint).hostname  # The rest of an endpoint may hold a token.
    inner = innermost(error)
    if way.problem is not None:
        reason = way.problem
    elif isinstance(inner, TimeoutError):
        reason = f"gave no answer within {patience.start:g} s"
    else:
        reason = f"does not speak the Model Context Protocol: {inner}"
    return f"skill {skill.name!r} cannot be used: {host} {reason}"


async def _why_no_answer(skill: SseSkill, way: Way, error: MCPError) -> str | None:
    reason = way.problem or ("ended the connection" if error.code == CONNECTION_CLOSED else None)
    if reason is None:
        return None
    return f"{urlsplit(skill.endpoint).hostname} {reason}; call it again later, or go on without it"
